"""Two studies side by side: another release, platform or day, and what that changed.

Their numbers are never averaged or pooled: each keeps its name and its provenance. Only settings and load
points that both have are compared; what else differs between the two is listed first, because a difference
in numbers has to be read through it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis import (
    audits,
    curve_pages,
    figures,
    kernels,
    load_names,
    origins,
    pairs,
    predicted,
    style,
    tables,
)
from analysis.curve import curves
from analysis.facts import FACTS
from analysis.markdown import escaped
from analysis.page import Metric, Words
from analysis.ratios import NOISE, Basis, Factor, Ratio, ratio
from analysis.study import Study, distinct_names
from sweeper import knobs
from sweeper.records import Scalar
from sweeper.records.plurals import amount, percent
from sweeper.text.numbers import number_text
from sweeper.text.writing import write_answer

_VERDICTS = ("better", "worse", "inconclusive")


def environment_differences(first: Study, second: Study) -> pd.DataFrame:
    """List what the two were run on and with, where that differs: ``what``, ``first``, ``second``."""
    versions = {
        column: column
        for frame in (first.frame, second.frame)
        for column in frame.columns
        if column.startswith("version.")
    }
    rows = [
        {"what": words, "first": _seen(first.frame, column), "second": _seen(second.frame, column)}
        for words, column in (FACTS | versions).items()
    ]
    return pd.DataFrame(
        [row for row in rows if row["first"] != row["second"]], columns=["what", "first", "second"]
    )


def default_differences(first: Study, second: Study) -> pd.DataFrame:
    """List defaults of vLLM that moved between the two, and whether the studies pin them.

    Returns:
        Columns ``knob``, ``first``, ``second`` (what holds unsaid; ``unknown`` where it is) and ``pinned``
        (yes where every trial of both sets the knob, so that the moved default changes nothing).
    """
    sides = [_defaults(first), _defaults(second)]
    moved = sorted(name for name in {*sides[0], *sides[1]} if sides[0].get(name) != sides[1].get(name))
    rows = [
        {
            "knob": name,
            "first": _text(sides[0].get(name)),
            "second": _text(sides[1].get(name)),
            "pinned": "yes" if all(_pins(study, name) for study in (first, second)) else "no",
        }
        for name in moved
    ]
    return pd.DataFrame(rows, columns=["knob", "first", "second", "pinned"])


def effective_differences(first: Study, second: Study) -> pd.DataFrame:
    """List what the engines themselves reported differently for settings of the same name.

    Returns:
        Columns ``setting``, ``name``, ``first``, ``second``; what one side did not report is left out.
    """
    sides = [_by_setting(study) for study in (first, second)]
    rows = []
    for setting in sides[0].keys() & sides[1].keys():
        one, other = sides[0][setting], sides[1][setting]
        names = [name for name in one.index if str(name).startswith("effective.") and name in other.index]
        rows += [
            {
                "setting": one["setting"],
                "name": str(name).removeprefix("effective."),
                "first": _text(one[name]),
                "second": _text(other[name]),
            }
            for name in names
            if not pd.isna(one[name]) and not pd.isna(other[name]) and _text(one[name]) != _text(other[name])
        ]
    found = pd.DataFrame(rows, columns=["setting", "name", "first", "second"])
    return found.sort_values(["name", "setting"], ignore_index=True)


def paired(first: Study, second: Study, metric: Metric) -> pd.DataFrame:
    """Compare a metric at every setting and load point that both have.

    Returns:
        Columns ``setting``, ``load_point``, ``first``, ``first_low``, ``first_high``, ``first_n``,
        ``first_interval_80_low`` and ``_high`` (what the model expects; NaN where measured), the same of
        ``second``, ``ratio`` (second over first), ``low``, ``high`` (NaN where a measured side was
        started once), ``basis`` and ``verdict``: better, worse, or inconclusive; ``single start`` is said in
        ``basis``.
    """
    sides = [_numbers(study, metric) for study in (first, second)]
    rows = []
    for key, one in sides[0].items():
        other = sides[1].get(key)
        if other is None:
            continue
        found = ratio([_factor(other, power=1), _factor(one, power=-1)])
        rows.append(
            {
                "setting": one["setting"],
                "load_point": load_names.load_point_text(one),
                **_side("first", one),
                **_side("second", other),
                "ratio": found.value,
                "low": found.low,
                "high": found.high,
                "basis": str(found.basis),
                "verdict": verdict(found, is_higher_better=metric.is_higher_better),
            }
        )
    return pd.DataFrame(rows)


def all_paired(first: Study, second: Study) -> dict[str, list[tables.Row]]:
    """Return the rows of ``paired`` of every metric that either study shows, by its column."""
    found = {metric.column: paired(first, second, metric) for metric in _metrics(first, second)}
    return {name: [*table.to_dict("records")] for name, table in found.items() if not table.empty}


def unmatched(first: Study, second: Study, metric: Metric) -> pd.DataFrame:
    """List the settings and load points that only the first has a number of.

    Returns:
        Columns ``setting``, ``load_point``, ``first``, ``first_n`` and ``state``: why the second has none, or
        None where it has not run this.
    """
    theirs = _numbers(second, metric)
    tried = _rows(second, metric)
    rows = [
        {
            "setting": one["setting"],
            "load_point": load_names.load_point_text(one),
            "first": one["mean"],
            "first_n": one["n"],
            "state": tables.no_number_text(tried[key]) if key in tried else None,
        }
        for key, one in _numbers(first, metric).items()
        if key not in theirs
    ]
    return pd.DataFrame(rows, columns=["setting", "load_point", "first", "first_n", "state"])


def verdict(found: Ratio, *, is_higher_better: bool) -> str:
    """Describe in a word what a ratio of second over first means: better, worse or inconclusive."""
    if found.low > 1:
        return "better" if is_higher_better else "worse"
    if found.high < 1:
        return "worse" if is_higher_better else "better"
    return "inconclusive"


def text(first: Study, second: Study, *, drawn: Sequence[Path] = ()) -> str:
    """Write the comparison as Markdown; ``drawn`` are the charts to show, next to the text."""
    pictures = {path.stem: path.name for path in drawn if path.suffix == ".png"}
    parts = [
        f"# {second.name} against {first.name}",
        f"- First: `{first.name}`. {origins.provenance_sentence(first)}\n"
        f"- Second: `{second.name}`. {origins.provenance_sentence(second)}",
        "## In short\n\n" + "\n".join(f"- {escaped(line)}" for line in in_short(first, second)),
        _listed("What differs", environment_differences(first, second), "Nothing that was recorded."),
        _listed(
            "Defaults that moved",
            default_differences(first, second),
            "None that are known to have moved between the two releases.",
        ),
        _listed(
            "What the engines reported differently",
            effective_differences(first, second),
            "Nothing, for settings that both have.",
        ),
        audits.between(first, second),
        _kernels(first, second),
        _only(first, second),
        _curves([first, second], drawn=drawn),
    ]
    known = [(metric, paired(first, second, metric)) for metric in _metrics(first, second)]
    found = [(metric, table) for metric, table in known if not table.empty]
    parts += [_metric_text(metric, table, pictures.get(_stem(metric))) for metric, table in found]
    if found:
        parts.append(
            "The ratio is second over first. With several engine starts on both sides its interval is "
            "Welch's, 95 %, of the logarithm. Where a measured side was started once there is none, so "
            f"nothing can be concluded; modelled numbers get a margin of {percent(NOISE)} instead. "
            f"'{Basis.SINGLE_START}' says so of both."
        )
    return "\n\n".join(part for part in parts if part) + "\n"


def in_short(first: Study, second: Study) -> list[str]:
    """Return a line for each metric on how many points got better and worse, or that none is in both."""
    lines = []
    for metric in _metrics(first, second):
        table = paired(first, second, metric)
        if table.empty:
            continue
        counts = table["verdict"].value_counts()
        words = ", ".join(f"{counts[word]} {word}" for word in _VERDICTS if word in counts)
        lines.append(
            f"{metric.title}: of {amount(len(table), 'point')} {words}; the middle ratio of {second.name} to "
            f"{first.name} is {table['ratio'].median():.3f}"
        )
    return lines or [
        f"{second.name} and {first.name} have no setting and load point with numbers in common: nothing is "
        "compared"
    ]


def write_all(studies: Sequence[Study], *, out: Path) -> list[Path]:
    """Compare two studies, or more: each with the first, and the curves of all in one chart.

    Args:
        studies: Two or more.
        out: Folder of ``compare.md``; of more than two, each comparison with the first has a folder in it.

    Returns:
        The files written.
    """
    first, *others = studies
    if len(others) == 1:
        return write(first, others[0], out=out)
    names = distinct_names(studies)
    written = curve_pages.write(studies, folder=out, names=names)
    shared = _curves(studies, drawn=written)
    pages = []
    for study, name in zip(others, names[1:], strict=True):
        pages += write(first, study, out=out / name)
    listed = [
        f"- `{name}`: {origins.provenance_sentence(study)}"
        + ("" if study is first else f" [Against the first]({name}/compare.md)")
        for study, name in zip(studies, names, strict=True)
    ]
    parts = [f"# {', '.join(names[1:])} against {names[0]}", "\n".join(listed), shared]
    page = write_answer(out / "compare.md", "\n\n".join(part for part in parts if part) + "\n")
    return [*written, *pages, page]


def write(first: Study, second: Study, *, out: Path) -> list[Path]:
    """Write ``compare.md`` and its charts with their data into a folder; return the files.

    The charts are a paired one for each metric, and the curves that the two have in common.
    """
    written = curve_pages.write([first, second], folder=out, names=distinct_names([first, second]))
    for metric in _metrics(first, second):
        table = paired(first, second, metric)
        if table.empty:
            continue
        words = _words(first, second, metric, table)
        with style.chart_style():
            figure = pairs.draw_pairs(table, metric=metric, names=(first.name, second.name), words=words)
        written += figures.save(figure, table, out / _stem(metric))
    reading = write_answer(out / "compare.md", text(first, second, drawn=written))
    return [*written, reading]


def _curves(studies: Sequence[Study], *, drawn: Sequence[Path]) -> str:
    """Return the section on the curves that studies have in common; why there is none, where each has one."""
    folder = next((path.parent for path in drawn), Path())
    text = curve_pages.section(studies, drawn=drawn, beside=folder, names=distinct_names(studies))
    if text or not all(curves([study]) for study in studies):
        return text
    return "The studies have curves over the users at once, at different loads: those do not compare."


# ---- both sides ----


def _metrics(first: Study, second: Study) -> list[Metric]:
    known = {metric.column: metric for study in (first, second) for metric in figures.metrics_of(study)}
    return list(known.values())


def _numbers(study: Study, metric: Metric) -> dict[tuple[object, ...], tables.Row]:
    """Rows with numbers, by setting and by what the load point is rather than by how it is called."""
    return {key: row for key, row in _rows(study, metric).items() if row["n"] > 0 and row["mean"] > 0}


def _rows(study: Study, metric: Metric) -> dict[tuple[object, ...], tables.Row]:
    table = tables.summary(study.frame, metric=metric.column, series=study.series)
    rows = table.to_dict("records")
    # The run is named in the setting's name or in the load point's, so both belong to the key.
    return {
        (
            _same_setting(study, row),
            *(None if pd.isna(row[name]) else row[name] for name in load_names.LOAD_POINT),
            str(row["load_point"]).rpartition(", ")[2] if str(row["load_point"]).endswith(" run") else "",
        ): row
        for row in rows
    }


def _factor(row: tables.Row, *, power: int) -> Factor:
    return Factor(estimate=tables.estimate_of(row), power=power, is_measured=row["provenance"] == "measured")


def _side(name: str, row: tables.Row) -> dict[str, object]:
    return {
        name: row["mean"],
        f"{name}_low": row["low"],
        f"{name}_high": row["high"],
        f"{name}_n": row["n"],
        f"{name}_{predicted.LOW}": row[predicted.LOW],
        f"{name}_{predicted.HIGH}": row[predicted.HIGH],
    }


def _by_setting(study: Study) -> dict[str, pd.Series]:
    rows = tables.settings(study.frame, study.series)
    return {_same_setting(study, row.to_dict()): row for _, row in rows.drop_duplicates("setting").iterrows()}


def _same_setting(study: Study, row: tables.Row) -> str:
    """Name a setting by its series, whose label may have been reworded, and the knobs that split it."""
    setting, series = str(row["setting"]), row["series"]
    known = study.series.get(series)
    return setting if known is None else setting.replace(known.label, known.name, 1)


def _release(study: Study) -> str | None:
    """The one release of vLLM in a study; None where there is none, or several."""
    told = study.frame.dropna(subset=["version.vllm"]).drop_duplicates("version.vllm")
    found = {tables.release_of(row) for _, row in told.iterrows()}
    return found.pop() if len(found) == 1 else None


def _defaults(study: Study) -> dict[str, Scalar]:
    release = _release(study)
    if release is None:
        return {}
    first = study.frame.iloc[0]
    modelled = first.get("modelled_device")
    accelerator = knobs.accelerator_of(
        str(first["platform"]), modelled_device=modelled if isinstance(modelled, str) else None
    )
    return knobs.defaults(release, accelerator=accelerator, assignment=_common_assignment(study))


def _common_assignment(study: Study) -> dict[str, Scalar]:
    """Knobs that all trials of a study set alike: some defaults depend on them."""
    found = {}
    for column in study.frame.columns:
        values = study.frame[column]
        if column.startswith("knob.") and values.notna().all() and values.nunique() == 1:
            value = values.iloc[0]
            found[column.removeprefix("knob.")] = value.item() if hasattr(value, "item") else value
    return found


def _pins(study: Study, knob: str) -> bool:
    column = f"knob.{knob}"
    return column in study.frame.columns and bool(study.frame[column].notna().all())


# ---- words ----


def _seen(frame: pd.DataFrame, column: str) -> str:
    if column not in frame.columns:
        return "unknown"
    return ", ".join(sorted({str(value) for value in frame[column].dropna()})) or "unknown"


def _text(value: object) -> str:
    return "unknown" if value is None else str(value)


def _listed(title: str, table: pd.DataFrame, otherwise: str) -> str:
    body = otherwise if table.empty else tables.to_markdown(table, is_text=True)
    return f"## {title}\n\n{body}"


def _kernels(first: Study, second: Study) -> str:
    """Return the section on kernels; nothing where one of the two tells none."""
    ones, others = (
        {_same_setting(study, row.to_dict()): row for _, row in kernels.trials(study).iterrows()}
        for study in (first, second)
    )
    if not ones or not others:
        return ""
    same = "The same, as far as both logs tell, for settings that both have."
    return _listed("Kernels that ran", kernels.between(ones, others), same)


def _only(first: Study, second: Study) -> str:
    """Name the settings that one of the two does not have."""
    ones, others = _by_setting(first), _by_setting(second)
    lines = [
        f"- only in `{study.name}`: {escaped(mine[setting]['setting'])}"
        for study, mine, theirs in ((first, ones, others), (second, others, ones))
        for setting in mine
        if setting not in theirs
    ]
    return "## Settings only in one\n\n" + "\n".join(lines) if lines else ""


def _stem(metric: Metric) -> str:
    return f"compare_{metric.column}"


def _metric_text(metric: Metric, table: pd.DataFrame, picture: str | None) -> str:
    shown = pd.DataFrame(
        {
            "setting": table["setting"],
            "load point": table["load_point"],
            "first": [number_text(value) for value in table["first"]],
            "second": [number_text(value) for value in table["second"]],
            "ratio (interval)": [
                f"{row['ratio']:.3f} ({_interval_text(row)})" for row in table.to_dict("records")
            ],
            "verdict": [
                f"{row['verdict']} ({row['basis']})"
                if row["basis"] == Basis.SINGLE_START
                else str(row["verdict"])
                for row in table.to_dict("records")
            ],
        }
    )
    image = f"![{metric.title}, both studies]({picture})\n\n" if picture else ""
    return f"## {metric.title}\n\n{image}{tables.to_markdown(shown)}"


def _interval_text(row: tables.Row) -> str:
    return "no interval" if math.isnan(row["low"]) else f"{row['low']:.3f} to {row['high']:.3f}"


def _words(first: Study, second: Study, metric: Metric, table: pd.DataFrame) -> Words:
    simulated = [study.name for study in (first, second) if study.is_simulated]
    band = ""
    if len(simulated) == 2:
        band = figures.SIMULATED_BAND
    elif simulated:
        band = f"{simulated[0]} is SIMULATED - no GPU was measured for it"
    origins = "; ".join(
        f"{study.name}: {'simulated' if study.is_simulated else 'measured'}, "
        f"vLLM {_release(study) or 'of several releases or none'}, {_seen(study.frame, 'model')} on "
        f"{_seen(study.frame, 'platform')}"
        for study in (first, second)
    )
    starts = f"engine starts: {int(table['first_n'].max())} and {int(table['second_n'].max())} at most"
    return Words(
        title=metric.title,
        note="higher is better" if metric.is_higher_better else "lower is better",
        subtitle="Two studies side by side; the factor is second over first",
        caption=f"{origins}; {starts}; whiskers: 95 % t-interval over restarts where there are several. "
        f"{pairs.predicted_caption(table)}".rstrip(),
        band=band,
    )
