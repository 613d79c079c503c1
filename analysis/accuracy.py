"""How right each setting answers, where questions were asked before the loads (docs/accuracy.md)."""

from __future__ import annotations

import pandas as pd

from analysis import tables
from analysis.standings import Standings
from analysis.study import Study
from sweeper.records import ACCURACY_COLUMNS
from sweeper.records.derived import LOSS, LOSS_HIGH
from sweeper.records.plurals import percent


def scores(study: Study) -> pd.DataFrame:
    """Return the score of each setting that was asked.

    Returns:
        Columns ``setting`` and ``ACCURACY_COLUMNS``, shares from 0 to 1, with ``LOSS`` and ``LOSS_HIGH``
        where answers were stored one by one; empty where nothing was asked. A setting of several trials
        has the score of the first.
    """
    if "accuracy" not in study.frame:
        return pd.DataFrame(columns=["setting", *ACCURACY_COLUMNS])
    rows = tables.settings(study.frame, study.series)
    asked = rows[rows["accuracy"].notna()].drop_duplicates("setting")
    known = [name for name in (*ACCURACY_COLUMNS, LOSS, LOSS_HIGH) if name in asked]
    return asked[["setting", *known]].reset_index(drop=True)


def section(study: Study, stand: Standings) -> str:
    """Return the report's section on accuracy, in the order of the standings; nothing without questions."""
    found = scores(study)
    if found.empty:
        return ""
    place = {setting: number for number, setting in enumerate(stand.order)}
    ordered = found.sort_values("setting", key=lambda names: names.map(place), kind="stable")
    shown = pd.DataFrame(
        {
            "setting": ordered["setting"],
            "right answers": [percent(share, ".1") for share in ordered["accuracy"]],
            "95 % interval": [
                f"{percent(low, '.1')} to {percent(high, '.1')}"
                for low, high in zip(ordered["accuracy_low"], ordered["accuracy_high"], strict=True)
            ],
            "questions": [f"{int(count)}" for count in ordered["accuracy_questions"]],
        }
    )
    lost = ""
    if LOSS in ordered and ordered[LOSS].notna().any():
        shown["lost against the default"] = [
            "" if pd.isna(loss) else f"{100 * loss:.1f} points, at most {100 * high:.1f}"
            for loss, high in zip(ordered[LOSS], ordered[LOSS_HIGH], strict=True)
        ]
        lost = (
            " What is lost is counted question by question against the setting that changes the fewest "
            "knobs; at most: the upper end of its 95 % interval (Newcombe's, for pairs)."
        )
    asked = "; ".join(dict.fromkeys(str(text) for text in ordered["accuracy_of"]))
    return (
        f"## Accuracy\n\n{tables.to_markdown(shown)}\n\nAsked before the loads: {asked}. Settings whose "
        f"intervals overlap may answer alike.{lost}"
    )
