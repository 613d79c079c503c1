"""How many right answers a setting lost, against the one that changes the fewest knobs.

Both were asked the same questions, so they are compared question by question: what both get wrong says
nothing about the setting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.intervals import paired_loss
from sweeper.records.derived import LOSS, LOSS_HIGH
from sweeper.store.overrides import overridden


class Default:
    """Answers that others are held against: of the trial that changes the fewest knobs, the first such."""

    def __init__(self) -> None:
        """Know none yet."""
        self._changes: int | None = None
        self._asked: object = None
        self._right = ""
        self._of = ""

    def learn(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take the answers of a trial, if it changes fewer knobs than any before it.

        Args:
            rows: Of one trial, with the columns of ``overridden`` and of its answers; none tells nothing.
        """
        right = _right(rows)
        if not right:
            return
        changes = len(overridden(rows[0]))
        if self._changes is None or changes < self._changes:
            self._changes, self._right = changes, right
            self._asked, self._of = rows[0].get("accuracy_of"), str(rows[0].get("trial_key"))

    def judged(self, rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """Learn of a trial, and return its rows with what it lost against the least changed that is known."""
        self.learn(rows)
        return self.held_against(rows)

    def held_against(self, rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """Return the rows of one trial with what it lost; as they are where that is not known."""
        right = _right(rows)
        if not right or self._asked != rows[0].get("accuracy_of") or len(right) != len(self._right):
            return rows
        if self._of == str(rows[0].get("trial_key")):
            found = {LOSS: 0.0, LOSS_HIGH: 0.0}
        else:
            loss = paired_loss([each == "1" for each in self._right], [each == "1" for each in right])
            assert loss.high is not None
            found = {LOSS: loss.mean, LOSS_HIGH: loss.high}
        return [{**row, **found} for row in rows]


def _right(rows: Sequence[Mapping[str, Any]]) -> str:
    right = rows[0].get("accuracy_right") if rows else None
    return right if isinstance(right, str) else ""
