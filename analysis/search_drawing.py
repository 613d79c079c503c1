"""How the charts of a search look: a mark per setting, whose shape and colour say how it stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis import style
from analysis.lettering import drawn
from analysis.page import Words, make_page
from analysis.point_labels import PointLabels
from analysis.standings import BEST, BREAKS, FRONT
from sweeper.records.plurals import percent
from sweeper.text.numbers import number_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ORANGE, _BLUE, _LIGHT_BLUE, _GREY = "#D55E00", "#0072B2", "#56B4E9", "#7C8792"
_LOG_FROM = 30.0
"""Highest over lowest value from which an axis is logarithmic."""

_MOST_VALUES = 9
_MOST_BARS = 15
_ACROSS = 4
_CHARACTERS_OF_PANEL = 34

Quantity = tuple[str, str]
"""A column of the table, and the title of its axis."""


def tradeoff(
    table: pd.DataFrame,
    *,
    x: Quantity,
    y: Quantity,
    bound: float | None,
    is_front: bool,
    is_right_better: bool,
    words: Words,
) -> Figure:
    """Draw one quantity against another, with the rows of the best settings at their points."""
    page = make_page(words, width_in=8.6, plot_in=4.2, legend_rows=0)
    (axes,) = page.axes(1)
    _marks(axes, table[x[0]], table[y[0]], table["standing"])
    if bound is not None:
        axes.axvline(bound, color=style.FAILED, linewidth=1.3, linestyle=(0, (5, 3)))
    values = [*table[x[0]], *([] if bound is None else [bound])]
    if min(values) > 0 and max(values) / min(values) > _LOG_FROM:
        _logarithmic(axes)
    front = table[table["standing"] == FRONT].sort_values(x[0])
    if is_front and len(front):
        # Between two points of the front no setting is known: the step goes through the worse of both.
        where = "pre" if is_right_better else "post"
        axes.step(front[x[0]], front[y[0]], where=where, color=_ORANGE, linewidth=1.1, linestyle=(0, (4, 3)))  # type: ignore[arg-type]
    axes.set_xlabel(drawn(x[1]))
    _value_axis(axes, y[1])
    axes.grid(axis="x")
    axes.margins(0.06)
    labels = PointLabels(axes, list(zip(table[x[0]], table[y[0]], strict=True)))
    for row in table[table["standing"].isin([BEST, FRONT])].to_dict("records"):
        labels.write(f"#{row['row']}", (row[x[0]], row[y[0]]))
    return page.figure


def history(table: pd.DataFrame, *, y: str, is_higher_better: bool, title: str, words: Words) -> Figure:
    """Draw what each trial reached, in the order in which they ended, and the best so far in the bounds."""
    page = make_page(words, width_in=8.6, plot_in=3.4, legend_rows=0)
    (axes,) = page.axes(1)
    kept = table[table["standing"] != BREAKS].sort_values("trial")
    if len(kept):
        best = kept[y].cummax() if is_higher_better else kept[y].cummin()
        ends = [*kept["trial"], max(table["trial"])]
        axes.step(ends, [*best, best.iloc[-1]], where="post", color=_ORANGE, linewidth=1.4)
    _marks(axes, table["trial"], table[y], table["standing"])
    axes.set_xlabel("Trial, in the order in which they ended (those without a number are left out)")
    _value_axis(axes, title)
    return page.figure


def importances(data: pd.DataFrame, *, words: Words) -> Figure:
    """Draw the share of each knob as bars, the largest first."""
    shown = data.head(_MOST_BARS)
    left_in = 0.4 + 0.075 * max(len(name) for name in shown["knob"])
    page = make_page(words, width_in=8.6, plot_in=0.3 + 0.28 * len(shown), legend_rows=0, left_in=left_in)
    (axes,) = page.axes(1)
    places = range(len(shown))
    axes.barh(places, shown["share"], height=0.66, color=_BLUE)
    for place, share in zip(places, shown["share"], strict=True):
        axes.text(
            share + 0.008, place, percent(share) if share >= 0.005 else "< 1 %", va="center", fontsize=8
        )
    axes.set_yticks(places, [drawn(name) for name in shown["knob"]])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.06)
    axes.set_xlabel("Share")
    return page.figure


def slices(table: pd.DataFrame, *, knobs: Sequence[str], y: str, title: str, words: Words) -> Figure:
    """Draw the objective over each knob, a panel per knob; points of one value are spread a little."""
    across = min(_ACROSS, len(knobs))
    down = -(-len(knobs) // across)
    page = make_page(words, width_in=max(6.0, 2.9 * across + 0.6), plot_in=2.55 * down, legend_rows=0)
    panels = page.axes(len(knobs), across=across, gap_in=0.72)
    for place, (axes, knob) in enumerate(zip(panels, knobs, strict=True)):
        at, names = _places(table[knob])
        aside = np.array([((turn * 7) % 11 - 5) * 0.035 for turn in range(len(table))]) if names else 0.0
        _marks(axes, at + aside, table[y], table["standing"], size=20)
        if names:
            told = [drawn(name, most=10) for name in names]
            is_full = sum(map(len, told)) + 2 * len(told) > _CHARACTERS_OF_PANEL
            axes.set_xticks(range(len(names)), told, fontsize=7)
            if is_full:
                axes.tick_params(axis="x", labelrotation=90)
            axes.set_xlim(-0.6, len(names) - 0.4)
        axes.set_title(drawn(knob, most=34), fontsize=8.5, loc="left")
        _value_axis(axes, title if place % across == 0 else "")
        if place % across:
            axes.set_yticklabels([])
    return page.figure


def parallel(table: pd.DataFrame, *, knobs: Sequence[str], y: str, title: str, words: Words) -> Figure:
    """Draw a line per setting over all knobs and the objective; every axis fills the height."""
    page = make_page(
        words, width_in=max(7.0, 1.45 * len(knobs) + 2.0), plot_in=3.6, legend_rows=3, left_in=0.8
    )
    (axes,) = page.axes(1)
    columns = [*knobs, y]
    heights, ticks = zip(*(_heights(table[name], is_value=name == y) for name in columns), strict=True)
    ranks = table["row"].rank()
    order = list(range(len(table)))[::-1]
    for line in order:
        look = _line_look(str(table["standing"].iloc[line]), ranks.iloc[line] <= len(table) / 2)
        axes.plot(range(len(columns)), [height[line] for height in heights], **look)
    for place, marks in enumerate(ticks):
        axes.axvline(place, color=style.FAINT_INK, linewidth=0.8, zorder=1)
        for height, text in marks:
            axes.annotate(
                drawn(text, most=12), (place, height), xytext=(-4, 0), textcoords="offset points",
                ha="right", va="center", fontsize=7.5, zorder=6,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6},
            )  # fmt: skip
    for place, name in enumerate([*knobs, title]):
        is_last = place == len(knobs)
        axes.text(
            place + (0.38 if is_last else 0), 1.05 + 0.07 * (place % 2), drawn(name, most=32), fontsize=8,
            weight="bold", ha="right" if is_last else "center", transform=axes.get_xaxis_transform(),
        )  # fmt: skip
    axes.set_xlim(-0.45, len(columns) - 0.6)
    axes.set_ylim(-0.04, 1.04)
    axes.set_axis_off()
    return page.figure


def heat(table: pd.DataFrame, *, knobs: Sequence[str], y: str, words: Words) -> Figure:
    """Draw the objective over two knobs: darker is more, a frame marks the best, a cross what breaks."""
    from matplotlib.patches import Rectangle

    (across, columns), (up, rows) = (_places(table[knob], is_named=True) for knob in knobs)
    width_in = max(6.0, 0.75 * len(columns) + 2.2)
    left_in = 0.5 + 0.075 * max(len(drawn(name)) for name in rows)
    page = make_page(
        words, width_in=width_in, plot_in=max(1.6, 0.36 * len(rows)), legend_rows=0, left_in=left_in
    )
    (axes,) = page.axes(1)
    low, high = table[y].min(), table[y].max()
    for place, row in enumerate(table.to_dict("records")):
        share = (row[y] - low) / (high - low) if high > low else 1.0
        x, at = across[place], up[place]
        face = tuple(np.array([1, 1, 1]) * (1 - share) * 0.92 + np.array([0.0, 0.25, 0.5]) * share + 0.0)
        marked = row["standing"] in (BEST, FRONT)
        axes.add_patch(
            Rectangle(
                (x - 0.47, at - 0.47),
                0.94,
                0.94,
                facecolor=face,
                edgecolor=_ORANGE if marked else "none",
                linewidth=2.4,
            )
        )
        text = f"{number_text(row[y])}{' ×' if row['standing'] == BREAKS else ''}"
        axes.text(
            x, at, text, ha="center", va="center", fontsize=8, color="white" if share > 0.45 else style.INK
        )
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(-0.5, len(rows) - 0.5)
    axes.set_xticks(range(len(columns)), [drawn(name, most=12) for name in columns])
    axes.set_yticks(range(len(rows)), [drawn(name, most=24) for name in rows])
    axes.set_xlabel(drawn(knobs[0]))
    axes.set_ylabel(drawn(knobs[1]))
    return page.figure


def _marks(axes: Axes, x: Any, y: Any, standing: pd.Series[Any], *, size: float = 34) -> None:
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    is_best, is_broken = standing.isin([BEST, FRONT]).to_numpy(), (standing == BREAKS).to_numpy()
    others = ~is_best & ~is_broken
    axes.scatter(x[is_broken], y[is_broken], marker="x", s=size, color=_GREY, linewidth=1.3, zorder=3)
    axes.scatter(
        x[others], y[others], marker="o", s=size, color=_BLUE, edgecolor="white", linewidth=0.6, zorder=4
    )
    axes.scatter(
        x[is_best],
        y[is_best],
        marker="D",
        s=size * 1.25,
        color=_ORANGE,
        edgecolor="white",
        linewidth=0.6,
        zorder=5,
    )


def _value_axis(axes: Axes, title: str) -> None:
    from matplotlib.ticker import FuncFormatter

    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.set_ylabel(drawn(title))
    axes.grid(axis="y")


def _logarithmic(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _places(values: pd.Series[Any], *, is_named: bool = False) -> tuple[Any, list[str]]:
    """Return where values stand on an axis, and its names; no names where it is one of numbers.

    Numbers of few values stand at equal distances: 256, 512 and 1024 are read one by one.
    """
    texts = sorted({value for value in values if isinstance(value, str)})
    numbers = sorted({value for value in values if not isinstance(value, str)})
    if not texts and len(numbers) > _MOST_VALUES and not is_named:
        return values.to_numpy(dtype=float), []
    known = {value: place for place, value in enumerate([*texts, *numbers])}
    return np.array([known[value] for value in values], dtype=float), [f"{value}" for value in known]


def _heights(values: pd.Series[Any], *, is_value: bool) -> tuple[Any, list[tuple[float, str]]]:
    """Return where values stand on an upright axis from 0 to 1, and its marks."""
    at, names = (values.to_numpy(dtype=float), []) if is_value else _places(values)
    low, high = float(np.min(at)), float(np.max(at))
    span = high - low or 1.0
    if names:
        return (at - low) / span, [((place - low) / span, name) for place, name in enumerate(names)]
    shown = [low, (low + high) / 2, high]
    # Values of a knob stand as they are given, not with a measurement's decimals.
    text: Callable[[float], str] = number_text if is_value else "{:,.10g}".format
    return (at - low) / span, [((value - low) / span, text(value)) for value in shown]


def _line_look(standing: str, is_better_half: bool) -> dict[str, Any]:
    if standing == BREAKS:
        return {"color": style.PALE, "linewidth": 0.9, "linestyle": (0, (3, 3)), "zorder": 2}
    if standing in (BEST, FRONT):
        return {"color": _ORANGE, "linewidth": 2.4, "zorder": 5}
    return {"color": _BLUE if is_better_half else _LIGHT_BLUE, "linewidth": 1.0, "alpha": 0.8, "zorder": 3}
