"""Bars: grouped by load point for a few settings, a sorted list for many.

Published values are drawn hollow next to ours in groups, as diamonds in a list.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis import extents, load_names, predicted, style, tables
from analysis.lettering import drawn, drawn_lines
from analysis.page import (
    ListLayout,
    Metric,
    Row,
    Words,
    draw_legend,
    finish_value_axis,
    lay_legend,
    left_of,
    make_page,
)
from analysis.records import records
from analysis.standings import BEST, BREAKS, FRONT
from sweeper.records.plurals import amount
from sweeper.text.numbers import number_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_GROUPED = 10
"""Settings beyond which grouped bars cannot be told apart."""

MOST_LISTED = 15
"""Settings beyond which a sorted list only shows its best."""

# ---- grouped bars ----

_NUMBER_SIZE = 6.5
"""Size of the numbers on bars, points."""

_DIGIT_IN = 0.636 * _NUMBER_SIZE / 72
"""Width of a digit in DejaVu Sans at that size, inches; a point or comma is half as wide."""

_TICK_SIZE = 10
_TICK_CHARACTER_IN, _TICK_LINE_IN = 0.083, 0.165
"""Width of a character of a load point's name at that size, and height of a line of it, inches."""

_WIDEST_IN = 15.0
"""Width beyond which a chart cannot be read in a page's column."""


def draw_groups(table: pd.DataFrame, *, metric: Metric, words: Words) -> Figure:
    """Draw one group per load point, one colour per setting, the value on each bar.

    Args:
        table: A row per setting and load point: ``setting``, ``load_point``, ``load_axis``, ``mean``,
            ``low``, ``high``, ``state``, ``published_value``, ``published_system``.
        metric: The metric drawn.
        words: Title, caption and other text around it.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    settings = list(dict.fromkeys(table["setting"]))
    points = list(dict.fromkeys(table["load_point"]))
    broken = dict(zip(table["setting"], table["breaks"], strict=True))
    labels = [
        f"{name} (\N{MULTIPLICATION SIGN} breaks {text})" if (text := broken[name]) else name
        for name in settings
    ]
    has_published = bool(table["published_value"].notna().any())
    slots = len(points) * (len(settings) + 0.9)
    width_in = min(max(7.5, 1.4 + slots * (0.78 if has_published else 0.6)), _WIDEST_IN)
    systems = ", ".join(dict.fromkeys(table["published_system"].dropna()))
    is_predicted = predicted.has_any(table)
    named = [*labels, *([f"published: {systems}"] * has_published), *([predicted.LABEL] * is_predicted)]
    legend = lay_legend(named, width_in=width_in)
    highest = extents.highest_drawn(table)
    left_in = left_of(highest)
    group_in = (width_in - left_in - 0.25) / (len(points) + 0.1)
    ticks = _tick_names(points, room_in=group_in)
    page = make_page(
        words,
        width_in=width_in,
        plot_in=3.9,
        legend_rows=legend.rows,
        left_in=left_in,
        ticks_in=_TICK_LINE_IN * max(name.count("\n") for name in ticks),
    )
    axes = page.axes(1)[0]
    slot_in = group_in / (len(settings) + 0.9)
    limit = predicted.stretched(table, highest=extents.highest_value(table))
    slot = _Slots(
        width=1.0 / (len(settings) + 0.9),
        is_split=has_published,
        rotation=90 if _widest_number_in(table) > slot_in * (_SPLIT_ROOM if has_published else 0.95) else 0,
    )
    room = 1.2 if slot.rotation else 1.13
    lowest = extents.lowest_value(table)
    finish_value_axis(axes, metric.title, highest=highest, vertical=True, room=room, lowest=lowest)
    for row in table.to_dict("records"):
        place = settings.index(row["setting"])
        middle = points.index(row["load_point"]) + (place - (len(settings) - 1) / 2) * slot.width
        _draw_slot(axes, row, middle=middle, place=place, look=slot)
        if is_predicted:
            # Beside the middle of our bar, where its number stands.
            ours = middle + (-0.37 if has_published else -0.29) * slot.width
            predicted.draw(axes, row, ours, limit=limit, vertical=True)
    _draw_group_bounds(axes, table, points)
    axes.set_xticks(range(len(points)), ticks, fontsize=_TICK_SIZE)
    axes.set_xlim(-0.55, len(points) - 0.45)
    axes.tick_params(axis="x", length=0, pad=6)  # clear of the crosses on the axis
    axes.set_xlabel(drawn(table["load_axis"].iloc[0]))
    looks = [_bar_look(place) for place in range(len(settings))] + [_hollow_look()] * has_published
    handles: list[Any] = [
        Patch(label=label, **look) for label, look in zip(legend.labels, looks, strict=False)
    ]
    handles += [Line2D([], [], label=legend.labels[-1], **predicted.look_of())] * is_predicted
    draw_legend(page, handles, legend.columns)
    return page.figure


def _tick_names(points: Sequence[str], *, room_in: float) -> list[str]:
    """Name the load points below their groups; names that would lie on each other are broken into lines."""
    names = [drawn(point) for point in points]
    characters = max(int(room_in / _TICK_CHARACTER_IN) - 1, 3)
    if max(map(len, names)) <= characters:
        return names
    return ["\n".join(drawn_lines(name, width=characters)) for name in names]


_SPLIT_ROOM = 0.38
"""Free width about the middle of a hollow bar, up to the filled bars on both sides, as part of a slot."""


@dataclass(frozen=True, kw_only=True)
class _Slots:
    """How the place of one setting in a group looks.

    Attributes:
        width: Its width; a group is 1 wide.
        is_split: Published bars are next to ours.
        rotation: Of the numbers on the bars, degrees; the same for all, or a chart looks restless.
    """

    width: float
    is_split: bool
    rotation: int


def _draw_group_bounds(axes: Axes, table: pd.DataFrame, points: Sequence[str]) -> None:
    """Draw each bound across the bars of its load point."""
    for row in table[table["bound"].notna()].drop_duplicates("load_point").to_dict("records"):
        middle = points.index(row["load_point"])
        axes.plot([middle - 0.5, middle + 0.5], [row["bound"]] * 2, **_bound_look())


def _bound_look() -> dict[str, Any]:
    return {"color": style.FAILED, "linewidth": 1.2, "linestyle": (0, (4, 2)), "zorder": 4}


def _widest_number_in(table: pd.DataFrame) -> float:
    numbers = [*table["mean"].dropna(), *table["published_value"].dropna()]
    texts = [number_text(number) for number in numbers]
    return max((sum(0.5 if sign in ".," else 1.0 for sign in text) for text in texts), default=0) * _DIGIT_IN


def _draw_slot(axes: Axes, row: Row, *, middle: float, place: int, look: _Slots) -> None:
    """Draw one setting at one load point: our bar, or why there is none, and the published one next to it."""
    ours = look.width * (0.54 if look.is_split else 0.86)
    centre = middle - (look.width * 0.19 if look.is_split else 0.0)
    if math.isnan(row["mean"]):
        _mark_without_number(axes, row, centre)
    else:
        axes.bar(centre, row["mean"], ours, **_bar_look(place))
        _whisker(axes, row, centre)
        outer = row["high"] if row["mean"] >= 0 else row["low"]
        _value_text(
            axes, centre, row["mean"] if math.isnan(outer) else outer, tables.mean_text(row), style.INK, look
        )
    if not math.isnan(row["published_value"]):
        hollow = middle + look.width * 0.29
        axes.bar(hollow, row["published_value"], look.width * 0.34, **_hollow_look())
        published = number_text(row["published_value"])
        _value_text(axes, hollow, row["published_value"], published, style.FAINT_INK, look)


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


def _value_text(axes: Axes, x: float, y: float, text: str, colour: str, look: _Slots) -> None:
    beyond, side = (-2.5, "top") if y < 0 else (2.5, "bottom")
    axes.annotate(
        text, (x, y), xytext=(0, beyond), textcoords="offset points", ha="center",
        va=side, fontsize=_NUMBER_SIZE, color=colour, rotation=look.rotation,
    )  # fmt: skip


def _mark_without_number(axes: Axes, row: Row, centre: float) -> None:
    axes.plot([centre], [0], marker="x", color=style.FAILED, markersize=6, clip_on=False, zorder=3)
    axes.annotate(
        tables.short_state(row), (centre, 0), xytext=(0, 8), textcoords="offset points",
        ha="center", va="bottom", fontsize=7.5, color=style.FAILED, rotation=90,
    )  # fmt: skip


# ---- sorted lists ----


def draw_list(table: pd.DataFrame, *, metric: Metric, words: Words) -> Figure:
    """Draw settings below each other, the best first, with a panel per load point.

    Those that break a bound come below those that keep them all, pale and crossed, with what they break.

    Args:
        table: As for ``draw_groups``, and ``request_rate_per_s``, ``standing``, ``breaks`` and ``bound``.
        metric: The metric drawn.
        words: Title, caption and other text around it.
    """
    ranked = _ranked(table, metric)
    shown = _shown(ranked, table)
    points = list(dict.fromkeys(table["load_point"]))
    broken = dict(zip(table["setting"], table["breaks"], strict=True))
    names = [_list_name(setting, broken[setting]) for setting in shown]
    layout = ListLayout(
        names=names, panels=len(points), row_in=0.14 + 0.13 * max(len(name) for name in names)
    )
    page = make_page(
        replace(words, caption=f"{words.caption} {_list_notes(table, ranked, shown)}"),
        width_in=layout.width_in,
        plot_in=layout.plot_in,
        legend_rows=0,
        left_in=layout.left_in,
    )
    panels = layout.axes(page)
    for axes, point in zip(panels, points, strict=True):
        # By what is shown: the worst of many others would press the best flat.
        here = table[(table["load_point"] == point) & table["setting"].isin(shown)]
        rows = {row["setting"]: row for row in records(here)}
        finish_value_axis(
            axes,
            metric.title,
            highest=extents.highest_drawn(here),
            vertical=False,
            room=1.22,
            lowest=extents.lowest_value(here),
        )
        limit = predicted.stretched(here, highest=extents.highest_value(here))
        _draw_panel(axes, [rows.get(setting) for setting in shown], limit=limit)
        axes.set_title(drawn(load_names.load_point_text(here.iloc[0].to_dict())), fontsize=9, loc="left")
    layout.name_rows(panels)
    return page.figure


def listed(table: pd.DataFrame, metric: Metric) -> list[str]:
    """Return the settings that a list shows, in its order.

    Args:
        table: As for ``draw_list``.
        metric: The metric drawn.
    """
    return _shown(_ranked(table, metric), table)


def _ranked(table: pd.DataFrame, metric: Metric) -> list[str]:
    """Put those that keep every bound first, and among them the best by this metric.

    One that lacks a number at a load point comes after those that lack none: where the heaviest load failed,
    the mean of the others looks the best.
    """
    sign = -1 if metric.is_higher_better else 1
    points = table["load_point"].nunique()
    numbers = table.groupby("setting", sort=False)["mean"].count()
    means = {
        str(name): float(mean) for name, mean in table.groupby("setting", sort=False)["mean"].mean().items()
    }
    broken = set(table.loc[table["standing"] == BREAKS, "setting"])
    return sorted(
        means,
        key=lambda name: (
            math.isnan(means[name]),
            name in broken,
            numbers[name] < points,
            0 if math.isnan(means[name]) else sign * means[name],
        ),
    )


def _shown(ranked: Sequence[str], table: pd.DataFrame) -> list[str]:
    """Keep as many as a page holds, the marked ones among them."""
    marked = set(table.loc[table["standing"].isin([BEST, FRONT]), "setting"])
    others = [name for name in ranked if name not in marked]
    kept = marked | set(others[: max(MOST_LISTED - len(marked), 0)])
    return [name for name in ranked if name in kept][:MOST_LISTED]


def _list_name(setting: str, breaks: str) -> list[str]:
    said = drawn_lines(f"\N{MULTIPLICATION SIGN} breaks {breaks}", width=64) if breaks else []
    return [*drawn_lines(setting, width=64), *said]


def _list_notes(table: pd.DataFrame, ranked: Sequence[str], shown: Sequence[str]) -> str:
    notes = [_order_text(table)]
    standing = set(table["standing"])
    if FRONT in standing:
        notes.append("Highlighted: the Pareto front of the study's objectives.")
    if BEST in standing:
        notes.append("Highlighted: the best by the study's objective.")
    if bool(table["published_value"].notna().any()):
        notes.append(f"Diamonds: published, {table['published_system'].dropna().iloc[0]}.")
    if len(ranked) > MOST_LISTED:
        what = (
            "the best"
            if list(shown) == list(ranked[:MOST_LISTED])
            else "highlighted ones and the best others,"
        )
        notes.append(
            f"Shown: {what} {MOST_LISTED} of {amount(len(ranked), 'setting')}; the data file has all."
        )
    return " ".join(notes)


def _order_text(table: pd.DataFrame) -> str:
    """Say by what a list is sorted, and where those stand that have some numbers and lack others."""
    has_number = table["mean"].notna().groupby(table["setting"])
    is_partial = has_number.any() & (has_number.sum() < table["load_point"].nunique())
    return "Sorted by the mean over load points" + (
        ", those that lack one after the others." if is_partial.any() else "."
    )


def _draw_panel(axes: Axes, rows: Sequence[Row | None], *, limit: float) -> None:
    for place, row in enumerate(rows):
        if row is None:
            continue
        if math.isnan(row["mean"]):
            _row_text(axes, 0, place, f"\N{MULTIPLICATION SIGN} {tables.short_state(row)}", style.FAILED)
            continue
        axes.barh(place, row["mean"], 0.68, **_list_look(row["standing"]))
        end = row["mean"]
        if not math.isnan(row["low"]):
            spread = [[row["mean"] - row["low"]], [row["high"] - row["mean"]]]
            axes.errorbar([row["mean"]], [place], xerr=spread, fmt="none", ecolor=style.INK, capsize=2)
            end = row["high"]
        if not math.isnan(row["published_value"]):
            axes.plot([row["published_value"]], [place], "D", mfc="white", mec=style.PUBLISHED_EDGE, ms=5)
            end = max(end, row["published_value"])
        cross = "\N{MULTIPLICATION SIGN} " if row["standing"] == BREAKS else ""
        colour = style.FAILED if cross else style.INK
        _row_text(axes, max(end, 0), place, f"{cross}{tables.mean_text(row)}", colour)
        predicted.draw(axes, row, place + 0.27, limit=limit, vertical=False)
    limits = {row["bound"] for row in rows if row is not None and not math.isnan(row["bound"])}
    for limit in limits:
        axes.axvline(limit, **_bound_look())
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _list_look(standing: str) -> dict[str, Any]:
    if standing == BREAKS:
        return {"facecolor": style.PALE, "edgecolor": "white", "hatch": "///", "linewidth": 0.0}
    return {"color": style.COLOURS[1] if standing in (BEST, FRONT) else style.COLOURS[4]}


def _row_text(axes: Axes, x: float, place: int, text: str, colour: str) -> None:
    axes.annotate(
        text, (x, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=7.5, color=colour,
        zorder=5, bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "linewidth": 0, "alpha": 0.8},
    )  # fmt: skip
