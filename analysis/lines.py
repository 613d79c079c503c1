"""Lines: a metric over users, batch or prompt length, where one of those is what the load points vary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis import extents, load_names, predicted, style, tables
from analysis.page import (
    Metric,
    Row,
    Words,
    draw_legend,
    finish_value_axis,
    lay_legend,
    left_of,
    make_page,
)
from sweeper.text.numbers import number_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXES: Mapping[str, str] = {
    "num_prompts": "Prompts sent (batch)",
    "input_len": "Prompt length (tokens)",
    "max_concurrency": load_names.USERS_AXIS,
}
"""Columns that a line can run over, and their words on the axis."""

_FEWEST_POINTS = 3
_DOUBLING = 1.5
_WIDE_RANGE = 50


def line_axis(frame: pd.DataFrame) -> str | None:
    """Say over which column a study's metrics run as lines.

    Args:
        frame: Rows of the store.

    Returns:
        A column of ``AXES`` when it alone distinguishes the load points, with at least three values; None
        where the load points differ in rate, in several ways, or hardly at all: bars suit those.
    """
    rows = frame[~load_names.is_probe(frame)]
    varying = load_names.varying_loads(rows)
    if len(varying) != 1 or varying[0] not in AXES or rows[varying[0]].nunique() < _FEWEST_POINTS:
        return None
    if varying[0] == "max_concurrency" and not load_names.are_of_users(rows):
        return None
    return varying[0]


def is_doubling(values: Sequence[float]) -> bool:
    """Whether values grow by factors, so that a logarithmic axis spaces them evenly."""
    ordered = sorted(set(values))
    return len(ordered) >= _FEWEST_POINTS and all(
        small > 0 and large / small >= _DOUBLING for small, large in pairwise(ordered)
    )


def draw_lines(table: pd.DataFrame, *, axis: str, metric: Metric, words: Words) -> Figure:
    """Draw one line per setting.

    Args:
        table: A row per setting and load point: ``setting``, ``mean``, ``low``, ``high``, ``state``,
            ``published_value``, ``published_system``, ``breaks``, ``bound`` and the column ``axis``.
        axis: A column of ``AXES``.
        metric: The metric drawn.
        words: Title, caption and other text around it.

    Returns:
        The figure; its axis is logarithmic to base 2 where the values double, and the metric's is
        logarithmic where it spans more than a factor of 50.
    """
    from matplotlib.lines import Line2D

    settings = list(dict.fromkeys(table["setting"]))
    width_in = 9.0
    systems = ", ".join(dict.fromkeys(table["published_system"].dropna()))
    labels = [_label(table[table["setting"] == setting], axis=axis) for setting in settings]
    is_predicted = predicted.has_any(table)
    named = [*labels, *([f"published: {systems}"] if systems else []), *([predicted.LABEL] * is_predicted)]
    legend = lay_legend(named, width_in=width_in)
    left_in = left_of(extents.highest_drawn(table))
    page = make_page(words, width_in=width_in, plot_in=4.2, legend_rows=legend.rows, left_in=left_in)
    axes = page.axes(1)[0]
    _finish_axes(axes, table, axis=axis, metric=metric)
    for place, setting in enumerate(settings):
        _draw_line(axes, table[table["setting"] == setting].sort_values(axis), axis=axis, place=place)
    _draw_bounds(axes, table, axis=axis)
    _draw_predicted(axes, table, axis=axis, settings=settings)
    _name_values(axes, table, axis=axis)
    _write_ends(axes, table, axis=axis, settings=settings)
    looks = [_line_look(place) for place in range(len(settings))]
    looks += [_published_look(style.INK)] * bool(systems) + [predicted.look_of()] * is_predicted
    handles = [Line2D([], [], label=label, **look) for label, look in zip(legend.labels, looks, strict=True)]
    draw_legend(page, handles, legend.columns)
    return page.figure


def _draw_line(axes: Axes, table: pd.DataFrame, *, axis: str, place: int) -> None:
    known = table[table["mean"].notna()]
    look = _line_look(place)
    axes.plot(known[axis], known["mean"], zorder=3, **look)
    spread = known[known["low"].notna()]
    if not spread.empty:
        below = spread["mean"] - spread["low"]
        if axes.get_yscale() == "log":
            # An interval may reach below zero, where such an axis has no place.
            below = below.clip(upper=spread["mean"] * 0.999)
        axes.errorbar(
            spread[axis], spread["mean"], yerr=[below, spread["high"] - spread["mean"]], fmt="none",
            ecolor=style.COLOURS[place], elinewidth=1.1, capsize=2.5,
        )  # fmt: skip
    theirs = table[table["published_value"].notna()]
    axes.plot(theirs[axis], theirs["published_value"], zorder=2, **_published_look(style.COLOURS[place]))
    # On the axis itself: tried, and no number; the legend says why.
    missing = table.loc[table["mean"].isna(), axis]
    axes.plot(
        missing, [0.012 * place] * len(missing), marker="x", color=style.COLOURS[place], markersize=7,
        markeredgewidth=1.8, linestyle="none", clip_on=False, transform=axes.get_xaxis_transform(), zorder=4,
    )  # fmt: skip


def _draw_bounds(axes: Axes, table: pd.DataFrame, *, axis: str) -> None:
    """Draw each bound as a stroke at the load points where it holds."""
    for row in table[table["bound"].notna()].drop_duplicates([axis, "bound"]).to_dict("records"):
        axes.plot(
            [row[axis]], [row["bound"]], marker="_", color=style.FAILED, markersize=26, markeredgewidth=1.6,
            linestyle="none", zorder=4,
        )  # fmt: skip


def _draw_predicted(axes: Axes, table: pd.DataFrame, *, axis: str, settings: Sequence[str]) -> None:
    """Draw the intervals that the model expects: at the first and last point of each line, side by side.

    At every point they would be a thicket that hides the lines, and neighbours hardly differ in how sure they
    are; the data file has all.
    """
    from matplotlib.transforms import ScaledTranslation

    limit = predicted.stretched(table, highest=extents.highest_value(table))
    for place, setting in enumerate(settings):
        known = table[(table["setting"] == setting) & table["mean"].notna()].sort_values(axis)
        aside = -(_FREE_PT + _ASIDE_PT * place) / 72  # to the left: numbers stand right of the ends
        moved = axes.transData + ScaledTranslation(aside, 0, axes.figure.dpi_scale_trans)
        for row in known.iloc[sorted({0, len(known) - 1} if len(known) else set())].to_dict("records"):
            predicted.draw(
                axes, row, row[axis], limit=limit, vertical=True, colour=style.COLOURS[place], moved=moved
            )


_FREE_PT = 7.0
"""From a point to the first dotted interval beside it, points of a page."""

_ASIDE_PT = 4.0
"""Between the dotted intervals of two settings at one point, points of a page."""


def _line_look(place: int) -> dict[str, Any]:
    return {
        "color": style.COLOURS[place],
        "marker": style.MARKERS[place],
        "markersize": 6,
        "markeredgecolor": "white",
        "markeredgewidth": 0.7,
        "linewidth": 1.9,
        "linestyle": style.DASHES[place],
    }


def _published_look(colour: str) -> dict[str, Any]:
    return {
        "color": colour,
        "marker": "o",
        "markersize": 6,
        "markerfacecolor": "white",
        "linewidth": 0.9,
        "linestyle": (0, (3, 2)),
    }


def _write_ends(axes: Axes, table: pd.DataFrame, *, axis: str, settings: Sequence[str]) -> None:
    """Write the last number of each line next to it: the ends are what is compared first.

    Numbers that would lie on each other are moved apart, each with a stroke to its line.
    """
    known = table[table["mean"].notna()].sort_values(axis, kind="stable")
    for _, ends in known.drop_duplicates("setting", keep="last").groupby(axis):
        rows = ends.sort_values("mean", kind="stable").to_dict("records")
        own = [_points_at(axes, row[axis], row["mean"])[1] for row in rows]
        floor = axes.bbox.ymin * 72 / axes.figure.dpi + _END_GAP_PT / 2
        for row, at, moved in zip(rows, own, apart(own, gap=_END_GAP_PT, lowest=floor), strict=True):
            _end_text(
                axes, row, axis=axis, up=moved - at, colour=style.COLOURS[settings.index(row["setting"])]
            )


def _end_text(axes: Axes, row: Row, *, axis: str, up: float, colour: str) -> None:
    is_moved = abs(up) > 0.2 * _END_GAP_PT
    stroke = {"arrowstyle": "-", "color": colour, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 3}
    axes.annotate(
        number_text(row["mean"]), (row[axis], row["mean"]), xytext=(16 if is_moved else 7, up),
        textcoords="offset points", va="center", fontsize=7.5, color=style.INK,
        arrowprops=stroke if is_moved else None,
    )  # fmt: skip


_END_GAP_PT = 9.0
"""Between the numbers at the ends of two lines, points of a page."""


def apart(places: Sequence[float], *, gap: float, lowest: float) -> list[float]:
    """Return places in order that are at least so far apart, about where they were; none below the lowest."""
    clusters: list[list[float]] = []
    for place in sorted(places):
        clusters.append([place])
        while len(clusters) > 1 and _middle(clusters[-1]) - _middle(clusters[-2]) < gap * (
            (len(clusters[-1]) + len(clusters[-2])) / 2
        ):
            clusters[-2:] = [clusters[-2] + clusters[-1]]
    found = [
        _middle(cluster) + (number - (len(cluster) - 1) / 2) * gap
        for cluster in clusters
        for number in range(len(cluster))
    ]
    return [max(place, lowest + number * gap) for number, place in enumerate(found)]


def _middle(cluster: Sequence[float]) -> float:
    return sum(cluster) / len(cluster)


def _points_at(axes: Axes, x: float, y: float) -> tuple[float, float]:
    """Return where a value lies on the page, in points."""
    pixels = axes.transData.transform((x, y))
    scale = 72 / axes.figure.dpi
    return float(pixels[0]) * scale, float(pixels[1]) * scale


_DIGIT_PT, _CLEAR_PT = 6.4, 5.0
"""Width of a digit of the axis over which lines run, and what is left free between two numbers of it."""


def _name_values(axes: Axes, table: pd.DataFrame, *, axis: str) -> None:
    """Write the values that lines run over below the axis, as many as have room; always the ends."""
    from matplotlib.ticker import FixedLocator

    values = sorted(set(table[axis].dropna().astype(float)))
    axes.get_xlim()  # now that all is drawn
    halves = {value: _DIGIT_PT * len(f"{value:,.10g}") / 2 for value in values}
    places = {value: _points_at(axes, value, 1)[0] for value in values}

    def are_clear(one: float, other: float) -> bool:
        return abs(places[one] - places[other]) >= halves[one] + halves[other] + _CLEAR_PT

    named = values[:1]
    for value in values[1:-1]:
        if are_clear(value, named[-1]) and are_clear(value, values[-1]):
            named.append(value)
    axes.xaxis.set_major_locator(FixedLocator([*named, *values[1:][-1:]]))


def _label(table: pd.DataFrame, *, axis: str) -> str:
    """Name a setting, and say where it has no number and why: a line that ends early is not an answer."""
    setting, breaks = str(table["setting"].iloc[0]), str(table["breaks"].iloc[0])
    setting += f" (\N{MULTIPLICATION SIGN} breaks {breaks})" if breaks else ""
    missing = table[table["mean"].isna()].sort_values(axis)
    if missing.empty:
        return setting
    states = ", ".join(dict.fromkeys(tables.short_state(row) for row in missing.to_dict("records")))
    where = ", ".join(f"{value:,.10g}" for value in missing[axis].astype(float))
    return f"{setting} ({states}{'' if len(missing) == len(table) else f' at {where}'})"


def _finish_axes(axes: Axes, table: pd.DataFrame, *, axis: str, metric: Metric) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

    highest, below = extents.highest_drawn(table), extents.lowest_value(table)
    finish_value_axis(axes, metric.title, highest=highest, vertical=True, room=1.1, lowest=below)
    lowest = float(table[["mean", "published_value"]].min().min())
    if lowest > 0 and highest / lowest > _WIDE_RANGE:
        axes.set_yscale("log")
        axes.set_ylim(lowest / 1.6, highest * 1.6)
        axes.set_ylabel(f"{metric.title}, log scale")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    values = sorted(set(table[axis].dropna().astype(float)))
    if is_doubling(values):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.margins(x=0.08)
    axes.set_xlabel(AXES[axis])
