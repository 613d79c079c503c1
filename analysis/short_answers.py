"""Where answers were shorter than asked: less work was done there, so the numbers flatter the setting."""

from __future__ import annotations

import pandas as pd

from analysis import load_names, tables
from analysis.study import Study
from sweeper.records import TrialState

_MOST_ROWS = 12
_BECAUSE = "short_answers_because"


def section(study: Study) -> str:
    """Return the report's section on answers that came short; nothing where none did."""
    frame = study.frame
    if _BECAUSE not in frame or frame[_BECAUSE].isna().all():
        return ""
    rows = tables.settings(frame, study.series)
    rows = rows[rows["state"].eq(str(TrialState.COMPLETE)) & rows[_BECAUSE].notna()]
    firsts = rows.drop_duplicates(["setting", "load_point"])
    if firsts.empty:
        return ""
    lines = [_line(first) for first in firsts.head(_MOST_ROWS).to_dict("records")]
    more = f"\n\n{len(firsts) - _MOST_ROWS} more are in the data." if len(firsts) > _MOST_ROWS else ""
    return (
        "## Short answers\n\nLess was generated here than asked for, so these numbers are of less work than "
        f"those beside them.\n\n{tables.to_markdown(pd.DataFrame(lines))}{more}"
    )


def _line(first: tables.Row) -> dict[str, str]:
    return {
        "setting": str(first["setting"]),
        "load point": load_names.load_point_text(first),
        "answers": str(first[_BECAUSE]),
    }
