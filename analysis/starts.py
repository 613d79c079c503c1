"""One number per engine start, for all groups of a table at once.

Runs within a start are averaged first and count once. Asking each group by itself costs milliseconds a group,
which is a minute for a search of ten thousand settings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from sweeper.records import TrialState


def numbers_of(rows: pd.DataFrame, by: Sequence[str]) -> np.ndarray:
    """Return the number of each row's group, from 0 in the order in which groups appear; shape (rows,)."""
    return rows.groupby(list(by), sort=False, dropna=False).ngroup().to_numpy()


def means(rows: pd.DataFrame, groups: np.ndarray, metric: str) -> list[list[float]]:
    """Return for each group the mean of every engine start of its complete rows, in the order of starts.

    Args:
        rows: Rows of the store.
        groups: The number of each row's group, shape (rows,).
        metric: A metric column of the store; without it, no group has a number.

    Returns:
        A list per group, by its number; a start without a number gives none.
    """
    found: list[list[float]] = [[] for _ in range(int(groups.max(initial=-1)) + 1)]
    if metric not in rows.columns:
        return found
    is_complete = rows["state"].eq(str(TrialState.COMPLETE)).to_numpy(dtype=bool)
    complete = rows.loc[is_complete, ["restart", metric]].assign(_group=groups[is_complete])
    grouped = complete.groupby(["_group", "restart"], sort=True)[metric].mean()
    for group, value in zip(grouped.index.get_level_values(0), grouped.to_list(), strict=True):
        if not pd.isna(value) and math.isfinite(value):
            found[group].append(float(value))
    return found
