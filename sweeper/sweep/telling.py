"""What a search learns about its trials: values, how far bounds are kept, what the dashboard shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeper.goals.objectives import (
    bound_attributes,
    measured_rows,
    objective_value,
    trial_attributes,
    trial_values,
    violations,
)
from sweeper.plan.planner import Job
from sweeper.records import Constraint, FailureClass, Objective, TrialResult, TrialSpec, TrialState
from sweeper.search import CUT_OFF, Search
from sweeper.store.losses import Default
from sweeper.store.store import FinishedTrial
from sweeper.store.trials import StoredTrials


class Teller:
    """Reports results to one search, and remembers under which of its numbers it awaits each trial."""

    def __init__(
        self,
        search: Search,
        *,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        illustrate: Callable[[TrialResult], Path | None],
    ) -> None:
        """Describe what counts; ``illustrate`` draws a trial for the dashboard."""
        self._search = search
        self._objectives = objectives
        self._constraints = constraints
        self._illustrate = illustrate
        self._default = Default()
        self._numbers: dict[str, tuple[int, ...]] = {}

    def awaits(self, key: str) -> bool:
        """Return whether the search waits for the outcome of a trial."""
        return key in self._numbers

    @property
    def in_flight(self) -> frozenset[str]:
        """Keys of the search's trials that wait or run; repetitions of a control are none of them."""
        return frozenset(key for key, numbers in self._numbers.items() if numbers)

    def proposed(self, key: str, number: int) -> None:
        """Remember the number under which the search proposed a trial."""
        self._numbers[key] = (number,)

    def begin(self, job: Job) -> None:
        """Register a trial that the search did not propose; nothing happens if the search awaits it."""
        if not self.awaits(job.spec.key):
            numbers = tuple(self._search.begin(point).number for point in job.points)
            self._numbers[job.spec.key] = numbers

    def dropped(self, key: str) -> None:
        """Report a trial that a limit kept from running, if the search awaits it; its point is free again."""
        told = {"key": key, "fail_reason": "not begun: the study ended", CUT_OFF: True}
        for number in self._numbers.pop(key, ()):
            self._search.tell(number, None, told)

    def ended(self, result: TrialResult) -> None:
        """Report a trial that ended now, under each of its numbers in the search."""
        rows = measured_rows(result)
        attributes = trial_attributes(result.spec, rows)
        attributes["provenance"] = str(result.provenance)
        if result.placement is not None:
            attributes["devices"] = ",".join(map(str, result.placement.devices))
        if result.state is not TrialState.COMPLETE:
            kind = result.failure_class or result.state
            attributes["fail_reason"] = f"{kind}: {result.failure_message}"
            attributes["log_path"] = result.log_path
            attributes[CUT_OFF] = result.failure_class is FailureClass.INTERRUPTED or None
        attributes.update({name: round(seconds, 3) for name, seconds in result.phases.items()})
        picture = self._illustrate(result)
        for number in self._numbers.pop(result.spec.key, ()):
            if picture is not None:
                self._search.attach(number, picture)
            if result.state is TrialState.SKIPPED:
                self._skipped(number, rows, attributes)
            else:
                self._measured(number, rows if result.state is TrialState.COMPLETE else (), attributes)

    def stored(self, number: int, spec: TrialSpec, known: FinishedTrial, rows: StoredTrials) -> None:
        """Report a trial that an earlier run stored."""
        if known.state is TrialState.COMPLETE:
            found = rows.rows_of(spec.key)
            self._measured(number, found, trial_attributes(spec, found))
        elif known.state is TrialState.SKIPPED:
            self._search.prune(number, None, {"key": spec.key})
        else:
            reason = str(known.failure_class or known.state)
            self._search.tell(number, None, {"key": spec.key, "fail_reason": reason})

    def passed(self, job: Job, known: FinishedTrial, rows: StoredTrials) -> None:
        """Report a job that an earlier run stored, for each of its points that the search does not have."""
        for point in job.points:
            if not self._search.has(point):
                self.stored(self._search.begin(point).number, job.spec, known, rows)

    def repeated(self, number: int, key: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Report a complete trial again that was proposed a second time and not run."""
        self._measured(number, rows, {"key": key, "repeated": True})

    def _skipped(self, number: int, rows: Sequence[Mapping[str, Any]], attributes: Mapping[str, Any]) -> None:
        """Return what is known of a trial that was stopped early: the objective over what was measured."""
        is_one = len(self._objectives) == 1
        so_far = objective_value(self._objectives[0], rows, is_partial=True) if is_one else None
        self._search.prune(number, so_far, attributes)

    def _measured(
        self, number: int, rows: Sequence[Mapping[str, Any]], attributes: Mapping[str, Any]
    ) -> None:
        """Report measured values and bounds; with one of them missing the trial could not be ranked."""
        rows = self._default.judged(rows)
        violated = violations(self._constraints, rows)
        values = None if violated is None else self._values(rows)
        self._search.tell(
            number,
            values,
            {**attributes, **bound_attributes(violated)},
            violated=None if values is None else violated,
        )

    def _values(self, rows: Sequence[Mapping[str, Any]]) -> list[float] | None:
        values = trial_values(self._objectives, rows)
        return None if values is None else list(values)
