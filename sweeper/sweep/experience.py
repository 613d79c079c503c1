"""What the finished trials of a study teach about the others: how long they take, and what they are to reach.

Everything is worked out from trials as they are stored, so a study that was killed and goes on predicts as if
it had never ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from sweeper.goals.objectives import measured_row
from sweeper.records import TrialResult, TrialSpec, TrialState
from sweeper.schedule.durations import Predictor

Finished = tuple[TrialSpec, Sequence[Mapping[str, Any]]]
"""A complete trial as it is planned now, and its stored rows."""


class Learner(Protocol):
    """Learns from complete trials."""

    def learn(self, spec: TrialSpec, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take in a complete trial, by its rows."""


class Experience:
    """Teaches what a study has found to what predicts its trials."""

    def __init__(self, predictor: Predictor, anchoring: Learner | None = None) -> None:
        """Begin without experience.

        Args:
            predictor: Predicts how long trials take.
            anchoring: Predicts what they reach; None where nothing does.
        """
        self._predictor = predictor
        self._anchoring = anchoring

    def learn_stored(self, finished: Iterable[Finished]) -> None:
        """Learn from the complete trials of earlier runs."""
        for spec, rows in finished:
            self._predictor.learn(spec, rows)
            if self._anchoring is not None:
                self._anchoring.learn(spec, rows)

    def learn(self, result: TrialResult) -> None:
        """Learn what a trial that ended now has reached; the queue learns how long it took."""
        if self._anchoring is not None and result.state is TrialState.COMPLETE:
            rows = [measured_row(one, result.placement) for one in result.measurements]
            self._anchoring.learn(result.spec, rows)
