"""The report of a study: what was asked, what came out, how far to trust it, and the command to run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis import (
    accuracy,
    answers,
    article_claims,
    audits,
    best_section,
    claims_report,
    costs,
    curve_pages,
    drift,
    figures,
    kernels,
    load_names,
    origins,
    predicted,
    search_charts,
    short_answers,
    standings,
    steadiness,
    tables,
    verdicts,
)
from analysis.browser import document
from analysis.facts import FACTS_OF_ONE
from analysis.markdown import escaped
from analysis.study import Study, is_control
from sweeper.errors import remedy_of
from sweeper.records.plurals import percent
from sweeper.text.numbers import number_text
from sweeper.text.writing import write_answer


@dataclass(frozen=True, kw_only=True)
class ReportFiles:
    """What ``write`` wrote: the report, its page, and the files of its charts (PNG, SVG, CSV)."""

    report: Path
    page: Path
    figures: tuple[Path, ...]


def write(
    place: Path | str, *, price_per_gpu_hour: float | None = None, currency: str | None = None
) -> ReportFiles:
    """Draw the charts of a study and write ``report.md`` and ``report.html``, from what it stored alone.

    Args:
        place: As in ``Study.load``, and so are the others.
        price_per_gpu_hour: What a GPU costs by the hour; None takes what the study names.
        currency: Of that price.

    Raises:
        ConfigError: The folder is missing or holds no results.
        StoreError: ``study.json`` or a stored part cannot be read.
    """
    return write_of(Study.load(place, price_per_gpu_hour=price_per_gpu_hour, currency=currency))


def write_of(study: Study) -> ReportFiles:
    """Do the same for a study that was read already."""
    drawn = draw(study)
    report = write_answer(study.folder / "report.md", text(study, drawn=drawn))
    page = document.write(study)
    return ReportFiles(report=report, page=page, figures=tuple(drawn))


def draw(study: Study) -> list[Path]:
    """Draw every chart of a study into its ``figures/`` folder; return the files (PNG, SVG, CSV)."""
    pages = curve_pages.write([study], folder=study.folder / "figures")
    return [*pages, *search_charts.write(study), *figures.write(study)]


def text(study: Study, *, drawn: list[Path]) -> str:
    """Return the report as Markdown; ``drawn`` are the chart files to show."""
    parts = [
        f"# {escaped(study.question or study.name)}",
        origins.provenance_sentence(study),
        origins.origin(study),
        best_section.section(study),
        curve_pages.section([study], drawn=drawn, beside=study.folder),
        search_charts.section(study, drawn=drawn),
    ]
    for metric in figures.metrics_of(study):
        picture = study.folder / "figures" / f"{metric.column}.png"
        if picture in drawn:
            parts.append(_metric(study, metric, picture.relative_to(study.folder)))
    parts += [
        costs_section(study),
        accuracy.section(study, standings.standings(study)),
        verdicts.section(study),
        repeatability(study),
        steadiness.section(study),
        short_answers.section(study),
        answers_section(study),
        kernels.section(study),
        audits.section(study),
        hit_rates(study),
        claims_section(study),
        best_section.all_settings(study),
        _failures(study),
        _time(study.frame),
    ]
    parts.append(f"## Environment\n\n{environment(study.frame)}")
    return "\n\n".join(part for part in parts if part) + "\n"


def _metric(study: Study, metric: figures.Metric, picture: Path) -> str:
    table = figures.chart_table(study, metric)
    layout = tables.to_markdown(best_section.table_of(study, table))
    note = "± is half of the 95 % t-interval over n engine starts." if (table["n"] > 1).any() else ""
    parts = [f"## {metric.title}", f"![{metric.title}]({picture.as_posix()})", layout, note]
    parts.append(predicted_note(table))
    return "\n\n".join(part for part in [*parts, _against_published(table)] if part)


def costs_section(study: Study) -> str:
    """Return the sections on costs and energy, where price and power are known; else nothing."""
    stand = standings.standings(study)
    found = (costs.section(study, stand), costs.energy_section(study, stand))
    return "\n\n".join(text for text in found if text)


def predicted_note(table: pd.DataFrame) -> str:
    """Return what brackets in the table of a chart mean; empty where it has none."""
    if not predicted.has_any(table):
        return ""
    return (
        "In brackets: the predicted interval, which held 80 % of published values of this kind that were not "
        "seen; it is no spread of repeated runs."
    )


def _against_published(table: pd.DataFrame) -> str:
    """Return our numbers' distance from the published ones, where both are there."""
    both = table.dropna(subset=["mean", "published_value"])
    if both.empty:
        return ""
    layout = tables.by_load_point(both, cell=_difference_text)
    off = ((both["mean"] / both["published_value"] - 1) * 100).abs().mean()
    system, source = both["published_system"].iloc[0], both["published_source"].iloc[0]
    return (
        f"Published ({system}; {source}), and how far ours are from it, "
        f"{off:.0f} % on average whatever the sign:\n\n"
        f"{tables.to_markdown(layout)}"
    )


def _difference_text(row: tables.Row) -> str:
    difference = (row["mean"] / row["published_value"] - 1) * 100
    return f"{number_text(row['published_value'])} ({difference:+.0f} %)"


def _failures(study: Study) -> str:
    failed = tables.failures(study.frame, study.series)
    if failed.empty:
        return ""
    folded = tables.folded(failed)
    shown = folded.drop(columns="trial_key").rename(
        columns={"failure_class": "class", "failure_message": "reason", "log_path": "log"}
    )
    more = "" if len(folded) == len(failed) else "\n\nreport.html names every setting."
    remedies = "".join(
        f"\n- `{failure}`: {escaped(remedy)}."
        for failure in dict.fromkeys(failed["failure_class"].dropna())
        if (remedy := remedy_of(str(failure)))
    )
    what_to_do = f"\n\nWhat to do:\n{remedies}" if remedies else ""
    return f"## Trials without numbers\n\n{tables.to_markdown(shown, is_text=True)}{more}{what_to_do}"


def repeatability(study: Study) -> str:
    """Return the section on spread and drift, where anything was measured more than once; else nothing."""
    metrics = figures.metrics_of(study)
    tellings = [drift.drift(study.every_row, metric.column) for metric in metrics]
    sentences = [f"- {telling.sentence}" for telling in tellings if telling is not None]
    spreads = [_spread_table(study, metric) for metric in metrics[:1]]
    parts = [part for part in (*spreads, _drift_text(sentences, study)) if part]
    return "\n\n".join(["## Repeatability", *parts]) if parts else ""


def _spread_table(study: Study, metric: figures.Metric) -> str:
    found = tables.spread(study.frame, metric=metric.column, series=study.series)
    if found.empty:
        return ""
    shown = pd.DataFrame(
        {
            "setting": found["setting"],
            "load point": [load_names.load_point_text(row) for row in found.to_dict("records")],
            "starts": found["starts"],
            "runs": found["runs"],
            "between starts": [_percent_text(value) for value in found["between_starts_pct"]],
            "within a start": [_percent_text(value) for value in found["within_start_pct"]],
        }
    )
    return (
        f"{tables.to_markdown(shown)}\n\n{metric.title}: standard deviations in percent of the mean, of the "
        "starts' means and of runs about the mean of their start."
    )


def _percent_text(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.2f} %"


def _drift_text(sentences: list[str], study: Study) -> str:
    if not sentences:
        return ""
    control = study.every_row[is_control(study.every_row)]
    trials = control["trial_key"].nunique()
    head = f"Drift, by a setting that was measured again {trials} times while the study ran:"
    return "\n".join([head, "", *sentences])


def hit_rates(study: Study) -> str:
    """Return the section on the prefix cache's hit rate, where an engine counted it; else nothing."""
    table = tables.summary(study.frame, metric="prefix_cache_hit_rate", series=study.series)
    if table["mean"].isna().all():
        return ""
    layout = tables.by_load_point(table, cell=_share_text)
    return f"## Prefix cache hit rate\n\n{tables.to_markdown(layout)}\n\nShare of prompt tokens found in it."


def answers_section(study: Study) -> str:
    """Return the section on the answers of measured settings, against the baseline's; else nothing."""
    judged = answers.verdicts(tables.settings(study.frame, study.series))
    if study.is_simulated or judged.empty:
        return ""
    shown = pd.DataFrame(
        {
            "setting": judged["setting"],
            "answer": judged["sanity_verdict"],
            "text": [repr(text) for text in judged["sanity_text"]],
            "may come from": judged["why"],
        }
    )
    met = dict.fromkeys(judged["sanity_verdict"])
    meanings = "; ".join(f"{verdict}: {answers.MEANING[verdict]}" for verdict in met)
    return (
        f"## Answers to a greedy question\n\n{tables.to_markdown(shown, is_text=True)}\n\n{meanings}. "
        "One short answer is no evaluation: run one before serving with a setting that is not the same."
    )


def _share_text(row: tables.Row) -> str:
    return "not counted" if row["n"] == 0 else f"{row['mean'] * 100:.1f} % (n={row['n']})"


def claims_section(study: Study) -> str:
    """Return the section on the source's claims, judged on its figures and on this study; else nothing."""
    found = article_claims.answers([study])
    if not found:
        return ""
    body = "\n\n".join((claims_report.markdown(found), claims_report.METHOD))
    return f"## Claims of the source\n\n{body}\n\n{claims_report.wheres(found)}"


def _time(frame: pd.DataFrame) -> str:
    """Describe how much of the trials' time measured anything; simulated seconds are those of the model."""
    spent = tables.spent_time(frame)
    whole = spent["seconds"].sum()
    if not whole > 0:
        return ""
    shown = pd.DataFrame(
        {
            "part": spent["part"],
            "seconds": [f"{value:,.1f}" for value in spent["seconds"]],
            "share": [percent(value, ".1") for value in spent["share"]],
        }
    )
    measured = float(spent.loc[spent["part"] == "measuring", "share"].iloc[0])
    return (
        f"## Where the time went\n\n{tables.to_markdown(shown)}\n\n"
        f"Sums over all trials, also those that ran side by side; {percent(measured)} of the time was "
        "measuring."
    )


def environment(frame: pd.DataFrame) -> str:
    """Return the table of what the numbers were made on and with, as Markdown."""
    versions = {c.removeprefix("version."): c for c in frame.columns if c.startswith("version.")}
    lines = [
        {"what": name, "value": ", ".join(str(value) for value in dict.fromkeys(frame[column].dropna()))}
        for name, column in (FACTS_OF_ONE | versions).items()
    ]
    starts, ends = frame["started_at"].min(), frame["ended_at"].max()
    if not pd.isna(starts) and not pd.isna(ends):
        lines.append({"what": "Time", "value": f"{starts:%Y-%m-%d %H:%M} to {ends:%Y-%m-%d %H:%M} UTC"})
    known = pd.DataFrame([line for line in lines if line["value"]])
    return tables.to_markdown(known, is_text=True)
