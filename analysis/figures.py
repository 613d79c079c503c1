"""Charts of a study: per metric one picture and, beside it, the data that it shows.

Up to ten settings stand as grouped bars, one group per load point, as in the article whose questions the
experiments repeat; published values stand hollow beside ours. More settings than that stand as sorted
horizontal bars. A chart of simulated numbers says so inside the picture, wherever it is copied to.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis import published, style, tables
from analysis.study import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIMULATED_BAND = "SIMULATED - no GPU was measured"
"""Stands in every chart of simulated numbers."""

MOST_GROUPED = 10
"""Settings beyond which grouped bars cannot be told apart."""

MOST_LISTED = 30
"""Settings beyond which a sorted list only shows its best."""


_LONGEST_LABEL = 110
"""Characters of a legend's entry."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric as a chart names it.

    Attributes:
        column: Its column in the store.
        title: Title of its chart and axis, with the unit.
        is_higher_better: Which way is good.
    """

    column: str
    title: str
    is_higher_better: bool


METRICS = (
    Metric(column="request_throughput_per_s", title="Requests per second", is_higher_better=True),
    Metric(column="mean_ttft_ms", title="Mean TTFT (ms)", is_higher_better=False),
    Metric(column="mean_tpot_ms", title="Mean TPOT (ms)", is_higher_better=False),
)
"""The three charts of every case of the article. TTFT: time to first token; TPOT: time per output token."""

Row = Mapping[Hashable, Any]


def metrics_of(study: Study) -> tuple[Metric, ...]:
    """Give the metrics to draw: the article's three, and what else the study strives for."""
    drawn = {metric.column for metric in METRICS}
    wanted = {objective.metric: objective for objective in study.objectives if objective.metric not in drawn}
    return METRICS + tuple(
        Metric(column=name, title=_title(name), is_higher_better=objective.direction == "maximize")
        for name, objective in wanted.items()
    )


def chart_table(study: Study, metric: Metric, *, experiments: Path | None = None) -> pd.DataFrame:
    """Give what a chart shows: our numbers and the published ones beside them.

    Args:
        study: The study.
        metric: The metric drawn.
        experiments: Folder of experiments; None takes the one of this installation.

    Returns:
        A row per setting and load point: ``setting``, ``series``, ``load_point``, ``request_rate_per_s``,
        ``mean``, ``low``, ``high``, ``n``, ``state``, ``reason``, ``published_value``, ``published_low``,
        ``published_high``, ``published_method``, ``published_system``, ``published_source``,
        ``provenance``, ``trial_key``, ``load_axis``. Published values of another model are left out.
    """
    ours = tables.summary(study.frame, metric=metric.column, series=study.series)
    models = dict(zip(study.frame["trial_key"], study.frame["model"], strict=True))
    theirs = published.load(study.experiment, root=experiments)
    known = {
        (row["series"], row["request_rate_per_s"]): row
        for row in theirs[theirs["metric"] == metric.column].to_dict("records")
    }
    beside = []
    for row in ours.to_dict("records"):
        series = study.series.get(row["series"])
        match = known.get((series.published if series else None, row["request_rate_per_s"]))
        comparable = match is not None and published.is_same_model(match["model"], models[row["trial_key"]])
        beside.append(match if comparable else None)
    for name in ("value", "low", "high", "method", "system", "source"):
        values = [None if row is None else row[name] for row in beside]
        numeric = name in ("value", "low", "high")
        ours[f"published_{name}"] = pd.Series(values, dtype="float64" if numeric else "object")
    return ours[_CHART_COLUMNS]


_CHART_COLUMNS = [
    *("setting", "series", "load_point", "request_rate_per_s", "mean", "low", "high", "n", "state", "reason"),
    *(f"published_{name}" for name in ("value", "low", "high", "method", "system", "source")),
    *("provenance", "trial_key", "load_axis"),
]


def draw(table: pd.DataFrame, *, metric: Metric, subtitle: str, caption: str) -> Figure:
    """Draw one chart.

    Args:
        table: What ``chart_table`` gave, at least one row with a number.
        metric: The metric drawn.
        subtitle: The question, under the title.
        caption: Sample and origin, under the chart.

    Returns:
        The figure; with a band that says so when any of its numbers is simulated.
    """
    with style.chart_style():
        many = table["setting"].nunique() > MOST_GROUPED
        chart = _draw_list if many else _draw_groups
        return chart(table, metric=metric, subtitle=subtitle, caption=caption)


def write(study: Study, *, experiments: Path | None = None) -> list[Path]:
    """Draw all charts of a study into its ``figures/`` folder.

    Args:
        study: The study.
        experiments: Folder of experiments; None takes the one of this installation.

    Returns:
        The files written: PNG, SVG and CSV per metric that has any number.
    """
    folder = study.folder / "figures"
    written: list[Path] = []
    for metric in metrics_of(study):
        table = chart_table(study, metric, experiments=experiments)
        if table["mean"].isna().all():
            continue
        figure = draw(
            table, metric=metric, subtitle=study.question or study.name, caption=caption_of(study, table)
        )
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{metric.column}.{ending}" for ending in ("png", "svg", "csv")]
        with style.chart_style():
            figure.savefig(paths[0])
            figure.savefig(paths[1], metadata={"Date": None})
        table.drop(columns="load_axis").to_csv(paths[2], index=False)
        written += paths
    return written


def caption_of(study: Study, table: pd.DataFrame) -> str:
    """Say what a chart rests on: study, provenance, sample, version, model, whose figures stand beside."""
    frame = study.frame[study.frame["trial_key"].isin(set(table["trial_key"]))]
    starts = table.loc[table["n"] > 0, "n"]
    repeats = _span(starts)
    spread = (
        "whiskers: 95 % t-interval over restarts" if starts.max() > 1 else "a single start gives no interval"
    )
    release = _values(frame, "version.vllm").replace(" (modelled)", "")
    engine = f"{'Simulated ' if study.is_simulated else ''}vLLM {release}"
    origin = "simulated" if study.is_simulated else f"measured on {_values(frame, 'platform')}"
    sentences = [
        f"Study {study.name}, {origin}",
        f"{_values(frame, 'num_prompts')} {_values(frame, 'dataset')} prompts per load point; "
        f"engine starts: {repeats}; {spread}",
        f"{engine}, {_values(frame, 'model')} ({_values(frame, 'model_dtype')})"
        + ("; dummy weights: only speed means anything" if bool(frame["model_is_dummy"].any()) else ""),
    ]
    beside = table.dropna(subset=["published_value"])
    if not beside.empty:
        methods = " or ".join(sorted(set(beside["published_method"])))
        sentences.append(f"Published: {beside['published_source'].iloc[0]}; by {methods}")
    return ". ".join(sentences) + "."


# ---- grouped bars ----

_DIGIT_IN = 0.062
"""Width of a digit on a bar, inches, at the size used there."""


def _draw_groups(table: pd.DataFrame, *, metric: Metric, subtitle: str, caption: str) -> Figure:
    settings = list(dict.fromkeys(table["setting"]))
    points = list(dict.fromkeys(table["load_point"]))
    has_published = bool(table["published_value"].notna().any())
    slots = len(points) * (len(settings) + 0.9)
    width_in = min(max(7.5, 1.4 + slots * (0.68 if has_published else 0.6)), 15.0)
    columns = _legend_columns([*settings, *table["published_system"].dropna()], width_in=width_in)
    legend_rows = math.ceil((len(settings) + has_published) / columns)
    page = _page(table, metric, subtitle, caption, width_in=width_in, plot_in=3.9, legend_rows=legend_rows)
    axes = page.axes(1)[0]
    number_in = _longest_number(table) * _DIGIT_IN
    room_in = (width_in - 1.2) / slots * (0.48 if has_published else 0.95)
    look = _Slots(
        width=1.0 / (len(settings) + 0.9),
        is_split=has_published,
        rotation=90 if number_in > room_in else 0,
    )
    for row in table.to_dict("records"):
        place = settings.index(row["setting"])
        middle = points.index(row["load_point"]) + (place - (len(settings) - 1) / 2) * look.width
        _draw_slot(axes, row, middle=middle, place=place, look=look)
    axes.set_xticks(range(len(points)), points, fontsize=10)
    axes.set_xlim(-0.55, len(points) - 0.45)
    axes.tick_params(axis="x", length=0)
    axes.set_xlabel(str(table["load_axis"].iloc[0]))
    _finish_value_axis(axes, table, metric, vertical=True)
    _legend(page, settings, table, columns)
    return page.figure


@dataclass(frozen=True, kw_only=True)
class _Slots:
    """How the place of one setting in a group looks.

    Attributes:
        width: Its width; a group is 1 wide.
        is_split: Published bars stand beside ours.
        rotation: Of the numbers on the bars, degrees; the same for all, or a chart looks restless.
    """

    width: float
    is_split: bool
    rotation: int


def _longest_number(table: pd.DataFrame) -> int:
    numbers = [*table["mean"].dropna(), *table["published_value"].dropna()]
    return max(len(tables.number_text(number)) for number in numbers)


def _draw_slot(axes: Axes, row: Row, *, middle: float, place: int, look: _Slots) -> None:
    """Draw one setting at one load point: our bar, or why there is none, and the published one beside it."""
    ours = look.width * (0.54 if look.is_split else 0.86)
    centre = middle - (look.width * 0.19 if look.is_split else 0.0)
    if math.isnan(row["mean"]):
        _mark_without_number(axes, row, centre)
    else:
        axes.bar(centre, row["mean"], ours, **_bar_look(place))
        _whisker(axes, row, centre)
        top = row["mean"] if math.isnan(row["high"]) else row["high"]
        _value_text(axes, centre, top, row["mean"], style.INK, look)
    if not math.isnan(row["published_value"]):
        hollow = middle + look.width * 0.29
        axes.bar(hollow, row["published_value"], look.width * 0.34, **_hollow_look())
        _value_text(axes, hollow, row["published_value"], row["published_value"], style.FAINT_INK, look)


def _bar_look(place: int) -> dict[str, Any]:
    return {
        "facecolor": style.COLOURS[place],
        "edgecolor": "white",  # the hatch is drawn in this colour
        "hatch": style.HATCHES[place],
        "linewidth": 0.0,
        "zorder": 2,
    }


def _hollow_look() -> dict[str, Any]:
    return {
        "facecolor": "white",
        "edgecolor": style.PUBLISHED_EDGE,
        "linewidth": 0.9,
        "linestyle": (0, (3, 2)),
    }


def _whisker(axes: Axes, row: Row, centre: float) -> None:
    if not math.isnan(row["low"]):
        spread = [[row["mean"] - row["low"]], [row["high"] - row["mean"]]]
        axes.errorbar(
            [centre], [row["mean"]], yerr=spread, fmt="none", ecolor=style.INK, elinewidth=1.1, capsize=2.5
        )


def _value_text(axes: Axes, x: float, y: float, value: float, colour: str, look: _Slots) -> None:
    axes.annotate(
        tables.number_text(value), (x, y), xytext=(0, 2.5), textcoords="offset points", ha="center",
        va="bottom", fontsize=7, color=colour, rotation=look.rotation,
    )  # fmt: skip


def _mark_without_number(axes: Axes, row: Row, centre: float) -> None:
    axes.plot([centre], [0], marker="x", color=style.FAILED, markersize=6, clip_on=False, zorder=3)
    axes.annotate(
        _short_state(row), (centre, 0), xytext=(0, 8), textcoords="offset points", ha="center", va="bottom",
        fontsize=7.5, color=style.FAILED, rotation=90,
    )  # fmt: skip


def _short_state(row: Row) -> str:
    return "no value" if row["state"] == "complete" else str(row["state"])


def _legend_columns(labels: Sequence[str], *, width_in: float) -> int:
    longest = min(max(len(label) for label in labels), _LONGEST_LABEL)
    return max(1, min(3, int((width_in - 0.5) / (0.75 + 0.08 * longest))))


def _legend(page: _Page, settings: Sequence[str], table: pd.DataFrame, columns: int) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(label=textwrap.shorten(setting, _LONGEST_LABEL, placeholder="..."), **_bar_look(place))
        for place, setting in enumerate(settings)
    ]
    systems = list(dict.fromkeys(table["published_system"].dropna()))
    if systems:
        handles.append(Patch(label=f"published: {', '.join(systems)}", **_hollow_look()))
    page.figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=page.legend_corner, ncols=columns, fontsize=8.5,
        borderaxespad=0.0, handlelength=2.2, handleheight=1.1, columnspacing=1.8,
    )  # fmt: skip


# ---- sorted lists ----


def _draw_list(table: pd.DataFrame, *, metric: Metric, subtitle: str, caption: str) -> Figure:
    means = table.groupby("setting", sort=False)["mean"].mean()
    ranked = list(means.sort_values(ascending=not metric.is_higher_better, na_position="last").index)
    shown = ranked[:MOST_LISTED]
    points = list(dict.fromkeys(table["load_point"]))
    names = [textwrap.wrap(setting, 64, break_on_hyphens=False) for setting in shown]
    left_in = 0.35 + 0.072 * max(len(line) for name in names for line in name)
    row_in = 0.14 + 0.13 * max(len(name) for name in names)
    page = _page(
        table, metric, subtitle, f"{caption} {_list_notes(table, ranked)}",
        width_in=max(9.0, left_in + 0.3 + 2.8 * len(points)),
        plot_in=0.3 + row_in * len(shown), legend_rows=0, left_in=left_in,
    )  # fmt: skip
    panels = page.axes(len(points))
    for axes, point in zip(panels, points, strict=True):
        here = table[table["load_point"] == point]
        rows = {row["setting"]: row for row in here.to_dict("records")}
        _draw_panel(axes, [rows.get(setting) for setting in shown], metric)
        axes.set_title(tables.load_point_text(here.iloc[0].to_dict()), fontsize=9, loc="left")
        _finish_value_axis(axes, here, metric, vertical=False)
        axes.set_yticks(range(len(shown)), [""] * len(shown))
    panels[0].set_yticks(range(len(shown)), ["\n".join(name) for name in names], fontsize=8)
    return page.figure


def _list_notes(table: pd.DataFrame, ranked: Sequence[str]) -> str:
    notes = ["Sorted by the mean over load points; the best at each is highlighted."]
    if bool(table["published_value"].notna().any()):
        notes.append(f"Diamonds: published, {table['published_system'].dropna().iloc[0]}.")
    if len(ranked) > MOST_LISTED:
        notes.append(f"Shown: the best {MOST_LISTED} of {len(ranked)} settings; the data file has all.")
    return " ".join(notes)


def _draw_panel(axes: Axes, rows: Sequence[Row | None], metric: Metric) -> None:
    numbers = [row["mean"] for row in rows if row is not None and not math.isnan(row["mean"])]
    top = (max if metric.is_higher_better else min)(numbers, default=math.nan)
    for place, row in enumerate(rows):
        if row is None:
            continue
        if math.isnan(row["mean"]):
            _row_text(axes, 0, place, f"\N{MULTIPLICATION SIGN} {_short_state(row)}", style.FAILED)
            continue
        colour = style.COLOURS[1] if row["mean"] == top else style.COLOURS[4]
        axes.barh(place, row["mean"], 0.68, color=colour)
        end = row["mean"]
        if not math.isnan(row["low"]):
            spread = [[row["mean"] - row["low"]], [row["high"] - row["mean"]]]
            axes.errorbar([row["mean"]], [place], xerr=spread, fmt="none", ecolor=style.INK, capsize=2)
            end = row["high"]
        if not math.isnan(row["published_value"]):
            axes.plot([row["published_value"]], [place], "D", mfc="white", mec=style.PUBLISHED_EDGE, ms=5)
            end = max(end, row["published_value"])
        _row_text(axes, end, place, tables.number_text(row["mean"]), style.INK)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _row_text(axes: Axes, x: float, place: int, text: str, colour: str) -> None:
    axes.annotate(
        text, (x, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=7.5, color=colour
    )


# ---- what both kinds share ----


@dataclass(frozen=True, kw_only=True)
class _Page:
    """A figure whose parts have their places in inches, so that nothing ever covers the data."""

    figure: Figure
    left: float
    bottom: float
    right: float
    top: float
    legend_corner: tuple[float, float]

    def axes(self, count: int) -> list[Axes]:
        gap = 0.025
        width = (self.right - self.left - gap * (count - 1)) / count
        return [
            self.figure.add_axes((self.left + i * (width + gap), self.bottom, width, self.top - self.bottom))
            for i in range(count)
        ]


def _page(
    table: pd.DataFrame,
    metric: Metric,
    subtitle: str,
    caption: str,
    *,
    width_in: float,
    plot_in: float,
    legend_rows: int,
    left_in: float = 0.95,
) -> _Page:
    from matplotlib.figure import Figure

    lines = textwrap.wrap(caption, int((width_in - 0.5) * 15.5), break_on_hyphens=False)
    is_simulated = bool((table["provenance"] != "measured").any())
    below_in = 0.62 + 0.16 * len(lines)
    head_in = 0.68
    band_in = 0.34 if is_simulated else 0.0
    legend_in = 0.22 * legend_rows + (0.12 if legend_rows else 0.3)
    height_in = below_in + plot_in + legend_in + band_in + head_in
    figure = Figure(figsize=(width_in, height_in), facecolor="white")
    margin = 0.25 / width_in
    figure.text(margin, 1 - 0.16 / height_in, metric.title, fontsize=14, weight="bold", va="top")
    better = "higher is better" if metric.is_higher_better else "lower is better"
    figure.text(
        1 - margin, 1 - 0.21 / height_in, better, fontsize=9, va="top", ha="right", color=style.FAINT_INK
    )
    figure.text(margin, 1 - 0.43 / height_in, subtitle, fontsize=9.5, va="top", color=style.FAINT_INK)
    if is_simulated:
        _band(figure, bottom=1 - (head_in + 0.27) / height_in, height=0.27 / height_in, margin=margin)
    legend_top = 1 - (head_in + band_in + 0.04) / height_in
    figure.text(
        margin, 0.12 / height_in, "\n".join(lines), fontsize=7.5, va="bottom", color=style.FAINT_INK,
        linespacing=1.35,
    )  # fmt: skip
    return _Page(
        figure=figure,
        left=left_in / width_in,
        bottom=below_in / height_in,
        right=1 - margin,
        top=(below_in + plot_in) / height_in,
        legend_corner=(margin, legend_top),
    )


def _band(figure: Figure, *, bottom: float, height: float, margin: float) -> None:
    from matplotlib.patches import Rectangle

    figure.add_artist(
        Rectangle(
            (margin, bottom), 1 - 2 * margin, height, transform=figure.transFigure,
            facecolor=style.BAND_FACE, edgecolor=style.BAND_EDGE, linewidth=0.8,
        )
    )  # fmt: skip
    figure.text(
        0.5, bottom + height * 0.47, SIMULATED_BAND, ha="center", va="center", fontsize=9.5, weight="bold"
    )


def _finish_value_axis(axes: Axes, table: pd.DataFrame, metric: Metric, *, vertical: bool) -> None:
    """Start at zero, leave room for the values on the bars, and name the unit."""
    from matplotlib.ticker import FuncFormatter

    highest = float(table[["mean", "high", "published_value"]].max().max())
    limit = 1.0 if math.isnan(highest) or highest <= 0 else highest * (1.13 if vertical else 1.22)
    ticks = FuncFormatter(lambda value, _: f"{value:,.10g}")
    if vertical:
        axes.set_ylim(0, limit)
        axes.set_ylabel(metric.title)
        axes.yaxis.set_major_formatter(ticks)
        axes.grid(axis="y")
    else:
        axes.set_xlim(0, limit)
        axes.set_xlabel(metric.title)
        axes.xaxis.set_major_formatter(ticks)
        axes.xaxis.set_major_locator(_few_ticks())
        axes.grid(axis="x")


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=5)


def _title(column: str) -> str:
    """Turn ``p99_ttft_ms`` into ``p99 TTFT (ms)``; other names keep their words."""
    words = column.split("_")
    if words[-1] == "ms" and len(words) == 3:
        return f"{words[0]} {words[1].upper()} (ms)"
    return column


def _values(frame: pd.DataFrame, column: str) -> str:
    found = [str(value) for value in dict.fromkeys(frame[column].dropna())]
    return ", ".join(found) or "unknown"


def _span(counts: pd.Series[int]) -> str:
    least, most = int(counts.min()), int(counts.max())
    return str(least) if least == most else f"{least} to {most}"
