"""What an assignment becomes on a later release that lacks some of its knobs.

Few knobs that went have one that means the same: those stand in ``data/vllm_translations.csv``, each with its
source. All others are left out, for the reason that the history of knobs tells. What comes out was never
measured: it is what is nearest, and says so wherever it is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from sweeper.knobs.history import endings, lost, run_at
from sweeper.knobs.tables import table
from sweeper.records import Assignment, Scalar

_SAME = "="


@dataclass(frozen=True, kw_only=True)
class Translation:
    """An assignment for another release.

    Attributes:
        assignment: Knob to value.
        changes: What became of each knob that is gone, a clause each.
    """

    assignment: Assignment
    changes: tuple[str, ...]


def translated(assignment: Assignment, *, release: str) -> Translation:
    """Translate an assignment for a release that lacks some of its knobs.

    Args:
        assignment: Knob to value, for an earlier release.
        release: The release that it is to be for.

    Returns:
        The assignment without knobs that are gone, with those that took their place; a knob that is given
        anyway keeps its value.
    """
    gone = lost(assignment, release=release)
    kept = {knob: value for knob, value in assignment.items() if knob not in gone}
    changes = []
    for knob in gone:
        new = _successor(knob, assignment[knob], release=release)
        if new is None:
            why = endings().get(knob, {}).get("why_gone")
            changes.append(f"{knob} is left out{f' ({why})' if why else ''}")
        else:
            kept.setdefault(*new)
            shown = str(kept[new[0]])
            changes.append(f"{knob}={assignment[knob]} becomes {new[0]}={shown}")
    return Translation(assignment=kept, changes=tuple(changes))


def _successor(knob: str, value: Scalar, *, release: str) -> tuple[str, Scalar] | None:
    """Return the knob and value that took a knob's place, through further renames; None where nothing did."""
    row = _table().get(knob)
    if row is None or str(value).lower() == row["unless"]:
        return None
    new = value if row["value"] == _SAME else True if row["value"] == "true" else row["value"]
    if run_at(row["becomes"], release) is not None:
        return row["becomes"], new
    return _successor(row["becomes"], new, release=release)


@cache
def _table() -> Mapping[str, Mapping[str, str]]:
    return {row["knob"]: row for row in table("vllm_translations.csv")}
