"""Two studies side by side: a pair of bars for each setting, a panel for each load point."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from analysis import predicted, style
from analysis.lettering import drawn, drawn_lines
from analysis.page import (
    ListLayout,
    Metric,
    Row,
    Words,
    draw_legend,
    finish_value_axis,
    lay_legend,
    make_page,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT = 0.36
_SIDES = ("first", "second")
_COLOURS: Mapping[str, str] = {"first": style.COLOURS[0], "second": style.COLOURS[1]}
_HATCHES: Mapping[str, str] = {"first": style.HATCHES[0], "second": style.HATCHES[1]}
_VERDICTS: Mapping[str, str] = {
    "better": style.COLOURS[4],
    "worse": style.FAILED,
    "inconclusive": style.FAINT_INK,
}


def draw_pairs(table: pd.DataFrame, *, metric: Metric, names: tuple[str, str], words: Words) -> Figure:
    """Draw pairs of bars.

    Args:
        table: A row per setting and load point: ``setting``, ``load_point``, and of ``first`` and
            ``second`` the mean, ``_low``, ``_high`` and the ends of the predicted interval; ``ratio`` and
            ``verdict``.
        metric: The metric drawn.
        names: Of the first and of the second study.
        words: Title, caption and other text around the data.
    """
    from matplotlib.patches import Patch

    settings = list(dict.fromkeys(table["setting"]))
    points = list(dict.fromkeys(table["load_point"]))
    labels = [drawn_lines(setting, width=44) for setting in settings]
    layout = ListLayout(
        names=labels, panels=len(points), row_in=max(0.44, 0.1 + 0.13 * max(map(len, labels)))
    )
    legend = lay_legend([f"first: {names[0]}", f"second: {names[1]}"], width_in=layout.width_in)
    page = make_page(
        words,
        width_in=layout.width_in,
        plot_in=layout.plot_in,
        legend_rows=legend.rows + 1,
        left_in=layout.left_in,
    )
    panels = layout.axes(page)
    for axes, point in zip(panels, points, strict=True):
        here = table[table["load_point"] == point]
        highest = _highest(here)
        limit = max(predicted.stretched(side, highest=highest) for side in _sides(here))
        for row in here.to_dict("records"):
            _draw_pair(axes, row, place=settings.index(row["setting"]), limit=limit)
        axes.set_title(drawn(point), fontsize=9, loc="left")
        finish_value_axis(axes, metric.title, highest=limit, vertical=False, room=1.24)
        axes.set_ylim(len(settings) - 0.45, -0.55)
        axes.tick_params(axis="y", length=0)
    layout.name_rows(panels)
    handles = [
        Patch(label=label, facecolor=_COLOURS[side], edgecolor="white", hatch=_HATCHES[side], linewidth=0.0)
        for side, label in zip(_SIDES, legend.labels, strict=True)
    ]
    draw_legend(page, handles, legend.columns)
    return page.figure


def predicted_caption(table: pd.DataFrame) -> str:
    """Return what the dotted lines of a chart of pairs are; empty where it has none."""
    panels = [panel for _, panel in table.groupby("load_point")]
    cut = any(predicted.is_cut(side, highest=_highest(here)) for here in panels for side in _sides(here))
    told = next(filter(None, (predicted.caption(side, with_arrows=cut) for side in _sides(table))), "")
    return f"{told}." if told else ""


def _highest(table: pd.DataFrame) -> float:
    return float(table[["first", "first_high", "second", "second_high"]].max().max())


def _sides(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the predicted intervals of each study, as tables of one study name them."""
    ends = (predicted.LOW, predicted.HIGH)
    return [
        table[[f"{side}_{end}" for end in ends]].rename(columns={f"{side}_{end}": end for end in ends})
        for side in _SIDES
    ]


def _draw_pair(axes: Axes, row: Row, *, place: int, limit: float) -> None:
    end = 0.0
    for side, offset in zip(_SIDES, (-0.5, 0.5), strict=True):
        y = place + offset * (_HEIGHT + 0.02)
        axes.barh(
            y, row[side], _HEIGHT, facecolor=_COLOURS[side], hatch=_HATCHES[side], edgecolor="white",
            linewidth=0.0, zorder=2,
        )  # fmt: skip
        low, high = row[f"{side}_low"], row[f"{side}_high"]
        if not math.isnan(low):
            spread = [[row[side] - low], [high - row[side]]]
            axes.errorbar([row[side]], [y], xerr=spread, fmt="none", ecolor=style.INK, capsize=2, zorder=3)
        ends = {name: row[f"{side}_{name}"] for name in (predicted.LOW, predicted.HIGH)}
        predicted.draw(axes, ends, y + offset * 0.5 * _HEIGHT, limit=limit, vertical=False)
        end = max(end, row[side], 0.0 if math.isnan(high) else high)
    axes.annotate(
        f"\N{MULTIPLICATION SIGN}{row['ratio']:.2f}", (end, place), xytext=(4, 0),
        textcoords="offset points", va="center", fontsize=8, color=_VERDICTS[row["verdict"]],
        weight="normal" if row["verdict"] == "inconclusive" else "bold",
    )  # fmt: skip
