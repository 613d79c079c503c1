"""How the tests of the knobs ask: a command as one text, and the one refusal that is expected."""

from __future__ import annotations

from sweeper import knobs
from sweeper.records import Assignment


def words(assignment: Assignment, release: str) -> str:
    return " ".join(knobs.command_line(assignment, release=release))


def only_refusal(assignment: Assignment, release: str, **more: object) -> knobs.Refusal:
    refusals = knobs.check(assignment, release=release, **more)  # type: ignore[arg-type]
    assert len(refusals) == 1, refusals
    return refusals[0]
