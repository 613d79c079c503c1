"""How far the axis of values of a chart reaches: as far as its numbers do, and as bounds near to them do."""

from __future__ import annotations

import pandas as pd

from analysis import predicted

_NEAR = 1.5


def highest_value(table: pd.DataFrame) -> float:
    """Return the highest number of a chart, with the interval of its restarts; NaN where there is none."""
    return float(table[["mean", "high", "published_value"]].max().max())


def lowest_value(table: pd.DataFrame) -> float:
    """Return the lowest number of a chart where one is below zero, as answers won are; else 0."""
    return min([0.0, *map(float, table[["mean", "published_value"]].min().dropna())])


def highest_drawn(table: pd.DataFrame) -> float:
    """Return how far up an axis has to reach: to the highest number and to the bounds that are near to it."""
    return max([_stretched(table), *map(float, table.loc[_is_near(table), "bound"])])


def shows_bound(table: pd.DataFrame) -> bool:
    """Return whether a bound of a chart is near enough to its numbers to be drawn.

    One far above everything is kept with ease: room for it would press the numbers flat.
    """
    return bool(_is_near(table).any())


def _is_near(table: pd.DataFrame) -> pd.Series[bool]:
    scale = max(_stretched(table), -lowest_value(table))
    # Where all numbers are zero, a bound is all that gives the axis a scale.
    return table["bound"] <= _NEAR * scale if scale else table["bound"].notna()


def _stretched(table: pd.DataFrame) -> float:
    return predicted.stretched(table, highest=highest_value(table))
