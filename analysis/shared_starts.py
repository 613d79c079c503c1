"""What charts and report say of trials that shared an engine's start (``engine.live``).

They are no further starts of their settings and are never joined with fresh ones: a trial of either kind has
its own key.
"""

from __future__ import annotations

import pandas as pd

from sweeper.records.plurals import amount

_COLUMN = "live_trial"


def sentence(frame: pd.DataFrame) -> str | None:
    """Say which of the rows' settings were measured on a start that others share; None where none was.

    Args:
        frame: Rows of a study; those of earlier releases have no such column.
    """
    if _COLUMN not in frame or frame[_COLUMN].isna().all():
        return None
    trials = frame.drop_duplicates("trial_key")
    is_shared = trials[_COLUMN].notna()
    shared = trials[is_shared].sort_values(_COLUMN)
    started = " or ".join(sorted(set(shared["started_with"].dropna())))
    settings = amount(len(trials), "setting")
    who = "all settings" if is_shared.all() else f"{is_shared.sum()} of {settings}"
    named = "" if is_shared.all() else f" ({_names(shared)})"
    starts = int((shared[_COLUMN] == 0).sum()) or 1
    return (
        f"Limits changed in a running engine: {who}{named} on {amount(starts, 'shared start')} "
        f"with {started}; not a fresh start of each"
    )


def _names(trials: pd.DataFrame) -> str:
    names = [
        ", ".join(series) or limits
        for series, limits in zip(trials["series"], trials["set_live"], strict=True)
    ]
    return "; ".join(name or "the start's own limits" for name in names)
