"""The report of a study: what was asked, what came out, how far to trust it, and the command to run."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis import (
    accuracy,
    answers,
    article_claims,
    audits,
    bests,
    claims_report,
    costs,
    curve_pages,
    drift,
    figures,
    kernels,
    serving,
    shared_starts,
    short_answers,
    standings,
    steadiness,
    tables,
    verdicts,
)
from analysis.facts import FACTS_OF_ONE
from analysis.markdown import code_block, escaped
from analysis.study import Study, is_control
from sweeper import published
from sweeper.records import MAX_RATE, MAX_USERS
from sweeper.text.writing import write_answer

_TOUCHES = {
    "tie": "another setting has exactly the same number",
    "clear": "the 95 % intervals of the two lie apart",
    "inconclusive": "the 95 % intervals of the two touch",
    "single start": "started once, so there is no interval: repeat it before relying on a small difference",
    "alone": "there is no other setting with all of its numbers",
}


@dataclass(frozen=True, kw_only=True)
class ReportFiles:
    """What ``write`` wrote: the report, and the files of its charts (PNG, SVG, CSV)."""

    report: Path
    figures: tuple[Path, ...]


def write(
    place: Path | str, *, price_per_gpu_hour: float | None = None, currency: str | None = None
) -> ReportFiles:
    """Draw the charts of a study and write its ``report.md``, from its folder or its results' URL alone.

    Args:
        place: As in ``Study.load``, and so are the others.
        price_per_gpu_hour: What a GPU costs by the hour; None takes what the study names.
        currency: Of that price.

    Raises:
        ConfigError: The folder is missing or holds no results.
        StoreError: ``study.json`` or a stored part cannot be read.
    """
    study = Study.load(place, price_per_gpu_hour=price_per_gpu_hour, currency=currency)
    drawn = draw(study)
    report = write_answer(study.folder / "report.md", text(study, drawn=drawn))
    return ReportFiles(report=report, figures=tuple(drawn))


def draw(study: Study) -> list[Path]:
    """Draw every chart of a study into its ``figures/`` folder; return the files (PNG, SVG, CSV)."""
    return [*curve_pages.write([study], folder=study.folder / "figures"), *figures.write(study)]


def text(study: Study, *, drawn: list[Path]) -> str:
    """Return the report as Markdown; ``drawn`` are the chart files to show."""
    parts = [
        f"# {escaped(study.question or study.name)}",
        provenance_sentence(study),
        _origin(study),
        _answers(study),
        curve_pages.section([study], drawn=drawn, beside=study.folder),
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
        _failures(study),
        _time(study.frame),
    ]
    parts.append(f"## Environment\n\n{environment(study.frame)}")
    return "\n\n".join(part for part in parts if part) + "\n"


def provenance_sentence(study: Study) -> str:
    """Describe in plain words where the numbers come from."""
    frame = study.frame
    if study.is_simulated:
        return (
            "**Simulated: no GPU was measured.** Every number is computed by a model of vLLM and its machine."
            + _calibration_sentences(frame)
        )
    nodes = ", ".join(sorted(set(frame["node"].dropna()))) or "an unknown node"
    weights = " Weights are random: only speed means anything." if bool(frame["model_is_dummy"].any()) else ""
    return f"**Measured** on {nodes} ({', '.join(sorted(set(frame['platform'])))}).{weights}"


def _calibration_sentences(frame: pd.DataFrame) -> str:
    """Name the calibration and its expected error; rows of before these were stored name neither."""
    told = frame[["calibration_name", "expected_error"]].dropna().drop_duplicates()
    words = "".join(
        f" Calibration `{row['calibration_name']}`; expected mean error: {row['expected_error']}."
        for row in told.to_dict("records")
    )
    near = [text for text in frame["calibration_nearness"].dropna().unique() if text != "the same stack"]
    words += "".join(f" It is of another stack: {text}." for text in near)
    return words + _interval_sentence(frame)


_WITH_INTERVALS = {
    "output_throughput_tok_per_s": "throughput",
    "mean_ttft_ms": "TTFT",
    "mean_tpot_ms": "TPOT",
    "mean_batch_latency_ms": "latency",
}
"""One metric of each kind whose errors are alike, and the kind."""


def _interval_sentence(frame: pd.DataFrame) -> str:
    """Say within what share of each other four of five unseen numbers and their predictions lay, at most."""
    widest: dict[str, float] = {}
    for text in frame["interval_80"].dropna().unique():
        for metric, (low, high) in json.loads(text).items():
            words = _WITH_INTERVALS.get(metric)
            if words is not None and low > 0:
                widest[words] = max(widest.get(words, 1.0), math.sqrt(high / low))
    if not widest:
        return ""
    told = ", ".join(f"{words} within {wide - 1:.0%}" for words, wide in widest.items())
    return f" Of published numbers of this kind that were not seen, four of five lay so near: {told}."


def _origin(study: Study) -> str:
    trials = study.frame.drop_duplicates("trial_key")
    states = trials["state"].value_counts()
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    lines = [f"- Study: `{study.name}`, {len(trials)} trials ({counts})"]
    shared = shared_starts.sentence(study.frame)
    if shared is not None:
        lines.append(f"- {escaped(shared)}")
    if study.experiment:
        lines.append(f"- Experiment: `{study.experiment}`")
    if study.counterpart_of:
        changes = "; ".join(f"{knob}: {became}" for knob, became in study.changes.items())
        lines.append(
            f"- Stands in for `{study.counterpart_of}`, some of whose knobs this vLLM lacks: "
            f"{escaped(changes)}"
        )
    if study.source:
        lines.append(f"- Source: {escaped(study.source)}")
    lines += _left_out(study)
    return "\n".join(lines)


def _left_out(study: Study) -> list[str]:
    """Say so when published figures stay out of the charts because they are of another model."""
    wanted = {series.published for series in study.series.values()} - {None}
    theirs = published.load(study.experiment)
    others = set(theirs.loc[theirs["series"].isin(wanted), "model"])
    ours = set(study.frame["model"])
    foreign = sorted(other for other in others if not any(published.is_same_model(other, m) for m in ours))
    return (
        [f"- Published figures are of {', '.join(foreign)} and left out: they do not compare"]
        if foreign
        else []
    )


def _answers(study: Study) -> str:
    answers = standings.best(study)
    if answers.empty:
        why = " ".join(f"{escaped(line[0].upper() + line[1:])}." for line in standings.no_best_lines(study))
        return "\n\n".join(["## Best setting", why, *bounds(study)])
    parts = ["## Best setting"]
    for answer in answers.to_dict("records"):
        runner_up = (
            ""
            if answer["runner_up"] is None
            else f"; next is {escaped(answer['runner_up'])} with "
            f"{tables.metric_text(answer['runner_up_value'], standings.metric_of(answer))}"
        )
        verdict = f"{answer['verdict']}: {_TOUCHES[answer['verdict']]}"
        ties = standings.ties_text(answer)
        parts.append(
            f"**{escaped(answer['setting'])}** has the {answer['objective']}: "
            f"{standings.value_text(study, answer)} (n={answer['n']}){runner_up}. Verdict: {verdict}."
            + (f" {escaped(ties[0].upper() + ties[1:])}." if ties else "")
        )
        parts.append(_command(study.frame, str(answer["trial_key"])))
    parts += [*_front(study), *bounds(study)]
    return "\n\n".join(part for part in parts if part)


def _front(study: Study) -> list[str]:
    """Show what can be had at once, where there are several objectives."""
    if len(study.objectives) < 2:
        return []
    found = standings.front(study)
    return [
        "### Pareto front",
        tables.to_markdown(found.drop(columns="trial_key")),
        "Settings that no other one is at least as good as in every objective and better in one, by their "
        "means" + (", among those that keep every bound." if study.constraints else "."),
    ]


def bounds(study: Study) -> list[str]:
    """Name which settings the bounds leave out, and why each."""
    if not study.constraints:
        return []
    kept = ", ".join(f"`{constraint.name}`" for constraint in study.constraints)
    broken = bests.broken_bounds(
        study.frame, constraints=study.constraints, series=study.series, finals=study.every_row
    )
    if broken.empty:
        return ["### Bounds", f"Every measured setting keeps {kept}."]
    return [
        "### Bounds",
        f"Only settings that keep {kept} can be the best. These do not:",
        tables.to_markdown(broken, is_text=True),
    ]


def _command(frame: pd.DataFrame, trial_key: str) -> str:
    line, why = serving.serve_line(frame, trial_key), serving.why_no_line(frame, trial_key)
    today = serving.today(frame, trial_key)
    ran = frame.loc[frame["trial_key"] == trial_key, "command"].dropna()
    parts = [f"To serve with it:\n\n{code_block(line)}"] if line else [escaped(why)] if why else []
    if today is not None:
        parts += [escaped(today.about), *([code_block(today.line)] if today.line else [])]
    if not ran.empty and ran.iloc[0] != line:
        parts.append(f"As it was run:\n\n{code_block(ran.iloc[0])}")
    return "\n\n".join(parts)


def _metric(study: Study, metric: figures.Metric, picture: Path) -> str:
    table = figures.chart_table(study, metric)
    layout = tables.to_markdown(table_of(table))
    note = "± is half of the 95 % t-interval over n engine starts." if (table["n"] > 1).any() else ""
    parts = [f"## {metric.title}", f"![{metric.title}]({picture.as_posix()})", layout, note]
    return "\n\n".join(part for part in [*parts, _against_published(table)] if part)


def costs_section(study: Study) -> str:
    """Return the sections on costs and energy, where price and power are known; else nothing."""
    stand = standings.standings(study)
    found = (costs.section(study, stand), costs.energy_section(study, stand))
    return "\n\n".join(text for text in found if text)


def table_of(table: pd.DataFrame) -> pd.DataFrame:
    """Lay a chart's table out for reading, with the bounds that a setting breaks where any breaks one."""
    layout = tables.by_load_point(table, cell=_cell_with_completed)
    broken = dict(zip(table["setting"], table["breaks"], strict=True))
    if any(broken.values()):
        layout["breaks"] = [broken[name] for name in layout["setting"]]
    return layout


def _cell_with_completed(row: tables.Row) -> str:
    completed = row["completed_per_s"]
    metric = MAX_USERS if row["load_point"] == tables.MOST_USERS else MAX_RATE
    more = "" if math.isnan(completed) else f", {standings.completed_text(metric, completed)}"
    return f"{tables.cell_text(row)}{more}"


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
    return f"{tables.number_text(row['published_value'])} ({difference:+.0f} %)"


def _failures(study: Study) -> str:
    failed = tables.failures(study.frame, study.series)
    if failed.empty:
        return ""
    shown = failed.drop(columns="trial_key").rename(
        columns={"failure_class": "class", "failure_message": "reason", "log_path": "log"}
    )
    return f"## Trials without numbers\n\n{tables.to_markdown(shown, is_text=True)}"


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
            "load point": [tables.load_point_text(row) for row in found.to_dict("records")],
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
            "share": [f"{value:.1%}" for value in spent["share"]],
        }
    )
    measured = float(spent.loc[spent["part"] == "measuring", "share"].iloc[0])
    return (
        f"## Where the time went\n\n{tables.to_markdown(shown)}\n\n"
        f"Sums over all trials, also those that ran side by side; {measured:.0%} of the time was measuring."
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
