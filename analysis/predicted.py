"""How sure the model is of its numbers, in charts and tables: an interval that looks like no measured one.

A measured number's interval is the spread of repeated engine starts: a solid line with caps. A simulated
number has one of another meaning, which held 80 % of published numbers of its kind that were not seen
(``sweeper.simulation.intervals``): a dotted line without caps, beside the middle of its bar, so that
number and published value stay free. It may be wider than all differences in the chart: then it ends at the
chart's edge in an arrow. The settings of one study err together, so the order of two may be surer than
either number.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis import style
from sweeper.records import TrialState

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Transform

COLUMN = "interval_80"
"""Of the store: the intervals of a row's numbers."""

LOW, HIGH = "interval_80_low", "interval_80_high"
"""Of tables: the ends of one number's interval; NaN where it is measured or nothing is known."""

LABEL = "predicted interval: 80 % of unseen values"
"""Names the whisker in a legend."""

MOST = 1.6
"""How far such an interval may stretch the axis of values, in multiples of the highest number.

Enough for times to the first token of the stack that the model was fitted to."""


def _intervals(text: str) -> Mapping[str, tuple[float, float]]:
    return {metric: (float(low), float(high)) for metric, (low, high) in json.loads(text).items()}


def _interval(text: str, metric: str) -> tuple[float, float] | None:
    """Return one of a row's intervals: the others, three dozen of them, are not read."""
    if (name := json.dumps(metric)) not in text:
        return None
    written = re.search(re.escape(name) + r": \[([-+.\deE]+), ([-+.\deE]+)\]", text)
    return _intervals(text).get(metric) if written is None else (float(written[1]), float(written[2]))


def ends(rows: pd.DataFrame, groups: np.ndarray, metric: str) -> list[tuple[float, float]]:
    """Return for each group of rows the interval of what they predict together; NaN if there is none.

    Args:
        rows: Rows of the store.
        groups: The number of each row's group, from 0; shape (rows,).
        metric: A metric column of the store.

    Returns:
        Both ends, by the number of the group.
    """
    told: list[list[tuple[float, float]]] = [[] for _ in range(int(groups.max(initial=-1)) + 1)]
    if COLUMN in rows.columns:
        is_told = rows["state"].eq(str(TrialState.COMPLETE)) & rows[COLUMN].notna()
        for group, text in zip(groups[is_told.to_numpy(dtype=bool)], rows.loc[is_told, COLUMN], strict=True):
            found = _interval(text, metric)
            if found is not None:
                told[group].append(found)
    return [_mean_ends(known) for known in told]


def _mean_ends(known: Sequence[tuple[float, float]]) -> tuple[float, float]:
    if not known:
        return math.nan, math.nan
    lows, highs = zip(*known, strict=True)
    return math.fsum(lows) / len(known), math.fsum(highs) / len(known)


def has_any(table: pd.DataFrame) -> bool:
    """Return whether a table has a number with such an interval."""
    return HIGH in table.columns and bool(table[HIGH].notna().any())


def stretched(table: pd.DataFrame, *, highest: float) -> float:
    """Return how far an axis reaches with these intervals, from the highest number without them."""
    if not has_any(table):
        return highest
    return max(highest, min(float(table[HIGH].max()), MOST * highest))


def is_cut(table: pd.DataFrame, *, highest: float) -> bool:
    """Return whether such an interval goes on beyond the axis that ``stretched`` gives."""
    return has_any(table) and float(table[HIGH].max()) > MOST * highest


def caption(table: pd.DataFrame, *, with_arrows: bool) -> str:
    """Return what the dotted lines of a chart are; empty where it has none."""
    if not has_any(table):
        return ""
    arrow = "; an arrow goes on beyond the chart" if with_arrows else ""
    return (
        "Dotted: predicted interval, which held 80 % of published values that were not seen; no spread of "
        f"repeated runs{arrow}. All settings share much of that error, so their order may be surer"
    )


def draw(
    axes: Axes,
    row: Mapping[Any, Any],
    at: float,
    *,
    limit: float,
    vertical: bool,
    colour: str = style.INK,
    moved: Transform | None = None,
) -> None:
    """Draw one interval.

    Args:
        axes: The panel.
        row: Of a table with ``LOW`` and ``HIGH``.
        at: Its place on the other axis.
        limit: What ``stretched`` gave; a longer interval ends there in an arrow.
        vertical: The values stand upright.
        colour: Of the line.
        moved: From the panel's values to the page, for a line that stands aside of its place.
    """
    low, high = row.get(LOW, math.nan), row.get(HIGH, math.nan)
    if math.isnan(high):
        return
    values, places = [low, min(high, limit)], [at, at]
    place: dict[str, Any] = {"scalex": False, "scaley": False, "transform": moved or axes.transData}
    xs, ys = (places, values) if vertical else (values, places)
    if moved is None:  # on a bar, whose colour may be dark
        axes.plot(xs, ys, color="white", linewidth=2.6, solid_capstyle="butt", zorder=3.4, **place)
    axes.plot(xs, ys, zorder=3.5 if moved is None else 1.5, **look_of(colour), **place)
    if high > limit:
        axes.plot(
            xs[1:], ys[1:], marker="^" if vertical else ">", color=colour, markersize=3.5, clip_on=False,
            linestyle="none", zorder=3.6, **place,
        )  # fmt: skip


def look_of(colour: str = style.INK) -> dict[str, Any]:
    """Return how such an interval is drawn: dotted, without caps."""
    return {"color": colour, "linewidth": 1.1, "linestyle": (0, (1, 1.2)), "solid_capstyle": "butt"}
