"""Charts of a study: per metric one picture and, next to it, the data that it shows.

Up to ten settings are drawn as grouped bars, one group per load point, as in the article whose questions the
experiments repeat; published values are drawn hollow next to ours. More settings than that are drawn as
sorted horizontal bars. Where the batch or the prompt's length is what varies, metrics run over it as lines,
with the device memory as bars. A chart of simulated numbers says so inside the picture, wherever it is copied
to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from analysis import extents, load_names, predicted, shared_starts, standings, style, tables
from analysis.bars import MOST_GROUPED, MOST_LISTED, draw_groups, draw_list, listed
from analysis.lines import draw_lines, line_axis
from analysis.page import SIMULATED_BAND, Metric, Row, words_of
from analysis.records import records
from analysis.study import Study
from sweeper import published
from sweeper.kinds import ENGINES
from sweeper.records import SEARCH_SLOS
from sweeper.records.derived import title_of
from sweeper.records.metrics import Chart, charted
from sweeper.text.writing import write_answer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "METRICS",
    "MOST_GROUPED",
    "MOST_LISTED",
    "SIMULATED_BAND",
    "Metric",
    "caption_of",
    "chart_table",
    "draw",
    "marks_text",
    "metric_title",
    "metrics_of",
    "save",
    "write",
]


def _shown(chart: Chart) -> tuple[Metric, ...]:
    return tuple(
        Metric(column=one.name, title=one.title, is_higher_better=bool(one.is_higher_better))
        for one in charted(chart)
    )


METRICS = _shown(Chart.BARS)
"""The three charts of every case of the article. TTFT: time to first token; TPOT: time per output token."""

_LINE_METRICS = _shown(Chart.LINES)
_SIZES = ("num_prompts", "input_len")
"""Axes of lines over what is sent, in place of how heavy the load is."""
_MEMORY = Metric(column="gpu_memory_gib", title="Device memory in use (GiB)", is_higher_better=False)
_HIT_RATE = "prefix_cache_hit_rate"


def metrics_of(study: Study) -> tuple[Metric, ...]:
    """Return the metrics to draw: those of the article, what else the study strives for, and what it bounds.

    Studies over batch or length have total throughput and TTFT, as such comparisons show them; device
    memory is drawn for those, and where different engines are drawn side by side, if it was counted.
    """
    is_line = line_axis(study.frame) in _SIZES
    usual: tuple[Metric, ...] = _LINE_METRICS if is_line else METRICS
    if load_names.is_probe(study.frame).all():
        usual = ()  # every row is a probe at some load; what they found is the objective
    drawn = {metric.column for metric in usual}
    wanted = {objective.metric: objective for objective in study.objectives if objective.metric not in drawn}
    further = tuple(
        Metric(column=name, title=metric_title(name), is_higher_better=objective.is_higher_better)
        for name, objective in wanted.items()
    )
    # A bound is seen to be kept only where its metric is shown.
    bounded = {constraint.metric: constraint for constraint in study.constraints}
    further += tuple(
        Metric(column=name, title=metric_title(name), is_higher_better=not constraint.is_upper)
        for name, constraint in bounded.items()
        if name not in drawn and name not in wanted
    )
    has_memory = bool(study.frame[_MEMORY.column].notna().any())
    wants_memory = is_line or study.frame["engine"].nunique() > 1
    return usual + further + ((_MEMORY,) if has_memory and wants_memory else ())


def chart_table(study: Study, metric: Metric, *, experiments: Path | None = None) -> pd.DataFrame:
    """Return what a chart shows: our numbers and the published ones next to them.

    Args:
        study: The study.
        metric: The metric drawn.
        experiments: Folder of experiments; None takes the one of this installation.

    Returns:
        A row per setting and load point: ``setting``, ``series``, ``load_point``, ``request_rate_per_s``,
        ``max_concurrency``, ``num_prompts``, ``input_len``, ``mean``, ``low``, ``high``, ``n``, ``state``,
        ``reason``, ``prefix_cache_hit_rate`` (mean, where it was counted), ``published_value``,
        ``published_low``, ``published_high``, ``published_method``, ``published_system``,
        ``published_source``, ``provenance``, ``trial_key``, ``load_axis``, ``standing`` (``best``, ``front``,
        ``breaks a bound`` or empty), ``breaks`` (which bounds, and by how much), ``bound`` (limit of the
        metric at the load point), ``completed_per_s`` (at the heaviest load within bounds: what was
        completed). Published values of another model are left out.
        Device memory has a row per setting: its highest over the load points.
    """
    return _chart_table(study, metric, experiments).copy()


@lru_cache(maxsize=32)
def _chart_table(study: Study, metric: Metric, experiments: Path | None) -> pd.DataFrame:
    """Work a chart's table out once: charts, report and page ask for it."""
    ours = tables.summary(study.frame, metric=metric.column, series=study.series)
    is_heaviest = metric.column in SEARCH_SLOS
    hit_rates = tables.summary(study.frame, metric=_HIT_RATE, series=study.series)["mean"]
    ours[_HIT_RATE] = math.nan if is_heaviest else hit_rates
    models = dict(zip(study.frame["trial_key"], study.frame["model"], strict=True))
    theirs = published.load(study.experiment, root=experiments)
    loads = [name for name in published.LOAD_COLUMNS if name in theirs.columns]
    known = {
        (row["series"], _load_key(row, loads)): row
        for row in theirs[theirs["metric"] == metric.column].to_dict("records")
    }
    beside = []
    for row in records(ours):
        series = study.series.get(row["series"])
        match = known.get((series.published if series else None, _load_key(row, loads)))
        comparable = match is not None and published.is_same_model(match["model"], models[row["trial_key"]])
        beside.append(match if comparable else None)
    for name in ("value", "low", "high", "method", "system", "source"):
        values = [None if row is None else row[name] for row in beside]
        numeric = name in ("value", "low", "high")
        ours[f"published_{name}"] = pd.Series(values, dtype="float64" if numeric else "object")
    stand = standings.standings(study)
    ours["standing"] = [stand.of(name) for name in ours["setting"]]
    ours["breaks"] = [stand.breaks(name) for name in ours["setting"]]
    ours["bound"] = _bounds(study, ours, metric)
    completed = standings.completed_at_heaviest(study, metric.column) if is_heaviest else {}
    ours["completed_per_s"] = [completed.get(name, math.nan) for name in ours["setting"]]
    table = ours[_CHART_COLUMNS]
    return _highest_of_each(table) if metric is _MEMORY else table


_CHART_COLUMNS = [
    *("setting", "series", "load_point", "request_rate_per_s", "max_concurrency"),
    *("num_prompts", "input_len"),
    *("mean", "low", "high", "n", "state", "reason", _HIT_RATE),
    *(f"published_{name}" for name in ("value", "low", "high", "method", "system", "source")),
    *("provenance", "trial_key", "load_axis", "standing", "breaks", "bound", "completed_per_s"),
    *(predicted.LOW, predicted.HIGH),
]


def _bounds(study: Study, table: pd.DataFrame, metric: Metric) -> pd.Series[float]:
    is_only = table["load_point"].nunique() == 1
    loads = ("request_rate_per_s", "max_concurrency")
    limits = [
        standings.bound_at(
            study.constraints,
            metric=metric.column,
            is_only_load=is_only,
            **{name: None if pd.isna(row[name]) else float(row[name]) for name in loads},
        )
        for row in records(table[[*loads]])
    ]
    return pd.Series(limits, dtype="float64")


def _load_key(row: Row, columns: Sequence[str]) -> tuple[float | None, ...]:
    return tuple(None if pd.isna(row[name]) else float(row[name]) for name in columns)


def _highest_of_each(table: pd.DataFrame) -> pd.DataFrame:
    ordered = table.sort_values("mean", ascending=False, na_position="last", kind="stable")
    highest = ordered.drop_duplicates("setting").sort_index().reset_index(drop=True)
    return highest.assign(load_point="highest of all load points", load_axis="")


def draw(
    table: pd.DataFrame, *, metric: Metric, subtitle: str, caption: str, axis: str | None = None
) -> Figure:
    """Draw one chart.

    Args:
        table: What ``chart_table`` gave, at least one row with a number.
        metric: The metric drawn.
        subtitle: The question, under the title.
        caption: Sample and origin, under the chart.
        axis: Column that lines run over (``lines.line_axis``); None draws bars.

    Returns:
        The figure; with a band that says so when any of its numbers is simulated.
    """
    words = words_of(
        metric,
        subtitle=subtitle,
        caption=caption,
        is_simulated=bool((table["provenance"] != "measured").any()),
    )
    with style.chart_style():
        if table["setting"].nunique() > MOST_GROUPED:
            return draw_list(table, metric=metric, words=words)
        if axis is not None:
            return draw_lines(table, axis=axis, metric=metric, words=words)
        return draw_groups(table, metric=metric, words=words)


def write(study: Study, *, experiments: Path | None = None) -> list[Path]:
    """Draw all charts of a study into its ``figures/`` folder.

    Args:
        study: The study.
        experiments: Folder of experiments; None takes the one of this installation.

    Returns:
        The files written: PNG, SVG and CSV per metric that has any number.
    """
    folder = study.folder / "figures"
    axis = line_axis(study.frame)
    written: list[Path] = []
    for metric in metrics_of(study):
        table = chart_table(study, metric, experiments=experiments)
        if table["mean"].isna().all():
            continue
        over = None if metric is _MEMORY or metric.column in SEARCH_SLOS else axis
        figure = draw(
            table,
            metric=metric,
            subtitle=study.question or study.name,
            caption=" ".join(
                [caption_of(study, table), marks_text(study, table, metric=metric, axis=over)]
            ).rstrip(),
            axis=over,
        )
        written += save(figure, table.drop(columns="load_axis"), folder / metric.column)
    return written


def save(figure: Figure, table: pd.DataFrame, stem: Path) -> list[Path]:
    """Write a chart as PNG and SVG, and its data as CSV next to it; return the three files."""
    picture, drawing, data = (stem.with_name(f"{stem.name}.{ending}") for ending in ("png", "svg", "csv"))
    write_answer(picture, style.rendered(figure, "png"))
    write_answer(drawing, style.rendered(figure, "svg"))
    write_answer(data, table.to_csv(index=False))
    return [picture, drawing, data]


def marks_text(study: Study, table: pd.DataFrame, *, metric: Metric, axis: str | None = None) -> str:
    """Describe what the marks of a chart mean; empty where it has none.

    Args:
        study: The study.
        table: What ``chart_table`` gave.
        metric: The metric drawn.
        axis: As for ``draw``; only in a list is pale what breaks a bound: elsewhere the legend says so.
    """
    parts = []
    is_list = table["setting"].nunique() > MOST_GROUPED
    is_line = axis is not None and not is_list
    shown, panels = table, [table]
    if is_list:
        shown = table[table["setting"].isin(listed(table, metric))]
        panels = [panel for _, panel in shown.groupby("load_point")]
    if bool((shown["standing"] == standings.BREAKS).any()):
        look = "Pale with a cross" if is_list else "With a cross in the legend"
        parts.append(f"{look}: breaks a bound of the study, so it cannot be the best")
    elif bool((table["standing"] == "").all()) and study.constraints:
        parts.append("No setting is marked: none keeps every bound and has all numbers")
    if any(map(extents.shows_bound, panels)):
        parts.append(f"Red {'stroke: the bound at that load' if is_line else 'line: the bound'}")
    is_cut = any(predicted.is_cut(panel, highest=extents.highest_value(panel)) for panel in panels)
    dotted = predicted.caption(table, with_arrows=is_cut)
    parts += [dotted] if dotted else []
    return "".join(f"{part}. " for part in parts).rstrip()


def caption_of(study: Study, table: pd.DataFrame) -> str:
    """Describe what a chart rests on: study, provenance, sample, version, model, published figures."""
    frame = _rows_shown(study, table)
    starts = table.loc[table["n"] > 0, "n"]
    repeats = _span(starts)
    spread = (
        "whiskers: 95 % t-interval over restarts" if starts.max() > 1 else "a single start gives no interval"
    )
    engine = f"{'Simulated ' if study.is_simulated else ''}{_engines(frame)}"
    origin = "simulated" if study.is_simulated else f"measured on {_values(frame, 'platform')}"
    sentences = [
        f"Study {study.name}, {origin}",
        f"{_few_values(frame, 'num_prompts')} {_values(frame, 'dataset')} prompts per load point; "
        f"engine starts: {repeats}; {spread}",
        f"{engine}, {_values(frame, 'model')} ({_values(frame, 'model_dtype')})"
        + ("; dummy weights: only speed means anything" if bool(frame["model_is_dummy"].any()) else ""),
    ]
    kept = [text for slo in SEARCH_SLOS.values() for text in frame[slo].dropna().unique()]
    if kept:
        sentences.append(f"Bounds: {'; '.join(kept)}")
    shared = shared_starts.sentence(frame)
    if shared is not None:
        sentences.append(shared)
    beside = table.dropna(subset=["published_value"])
    if not beside.empty:
        methods = " or ".join(sorted(set(beside["published_method"])))
        sentences.append(f"Published: {beside['published_source'].iloc[0]}; by {methods}")
    return ". ".join(sentences) + "."


def _rows_shown(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows behind a chart: the probes of a search where it shows their answer, else the others."""
    rows = study.frame[study.frame["trial_key"].isin(set(table["trial_key"]))]
    points = set(table["load_point"])
    for metric, point in load_names.ANSWERS.items():
        if point in points:
            return rows[rows[SEARCH_SLOS[metric]].notna()]
    chosen = rows[~load_names.is_probe(rows)]
    return rows if chosen.empty else chosen


def _engines(frame: pd.DataFrame) -> str:
    """Name the engines with their releases: vLLM first, then others and whether they were run at all."""
    others, run_at_all = "", list[str]()
    for name, rows in frame[frame["engine"].notna()].groupby("engine", sort=False):
        title = tables.other_engine(rows.iloc[0])
        if not title:
            continue
        ran = rows[rows["state"] == "complete"]
        if ran.empty:
            others += f" ({ENGINES[str(name)].title} was not run)"
        else:
            run_at_all += [tables.other_engine(row) for _, row in ran.iterrows()]
    named = ", ".join(dict.fromkeys(run_at_all))
    release = _values(frame, "version.vllm").replace(" (modelled)", "")
    is_vllm = not named or bool(frame["version.vllm"].notna().any())
    return ", ".join(filter(None, (f"vLLM {release}" if is_vllm else "", named))) + others


def metric_title(column: str) -> str:
    """Name a metric in words: ``p99 TTFT (ms)`` for ``p99_ttft_ms``; unknown names keep their own."""
    return _MEMORY.title if column == _MEMORY.column else title_of(column)


def _values(frame: pd.DataFrame, column: str) -> str:
    found = [str(value) for value in dict.fromkeys(frame[column].dropna())]
    return ", ".join(found) or "unknown"


def _span(counts: pd.Series[int]) -> str:
    least, most = int(counts.min()), int(counts.max())
    return str(least) if least == most else f"{least} to {most}"


def _few_values(frame: pd.DataFrame, column: str) -> str:
    """Write a few numbers out and a row of many as its ends."""
    found = sorted({int(value) for value in frame[column].dropna()})
    return f"{found[0]} to {found[-1]}" if len(found) > 3 else _values(frame, column)
