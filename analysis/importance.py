"""Which knobs matter most to an objective, as Optuna's PED-ANOVA judges it from the settings of a search."""

from __future__ import annotations

import pandas as pd

from analysis import bests, tables
from analysis.study import Study
from sweeper.records import Objective

FEWEST = 10
"""Settings with a number below which importance is left out: of fewer it is chance."""


def importance(study: Study, objective: Objective) -> dict[str, float]:
    """Return the share of each varying knob, the largest first.

    Args:
        study: The study; its settings with a number count, whether they keep the bounds or not.
        objective: What the knobs matter to.

    Returns:
        Column of a knob to its share (0 to 1, their sum is 1); empty with fewer than ``FEWEST`` settings or
        with fewer than two knobs that vary among them.
    """
    rows = tables.settings(study.frame, study.series).drop_duplicates("setting").set_index("setting")
    scores = bests.score(study.frame, objective, study.series)
    rows = rows.loc[[name for name in rows.index if name in scores]]
    knobs = [name for name in map(str, rows.columns) if name.startswith("knob.")]
    varying = [name for name in knobs if rows[name].nunique(dropna=False) > 1]
    if len(rows) < FEWEST or len(varying) < 2:
        return {}
    settings = [
        {name: None if pd.isna(row[name]) else tables.plain(row[name]) for name in varying}
        for row in rows[varying].to_dict("records")
    ]
    # Optuna is loaded where it is asked: most commands do without it.
    from sweeper.search.importance import shares

    values = [scores[str(name)] for name in rows.index]
    return shares(settings, values, is_higher_better=objective.is_higher_better)
