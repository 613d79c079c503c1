"""What a study has found so far, and whether it is worth continuing.

A study ends when its trials are spent, when its time or its node-hours are, or when it has stopped improving:
when none of the last N trials was better than what was known before it by more than a share. That last
rule looks at what was measured and at nothing else; it promises no bound on what a longer search would find.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.goals.objectives import (
    beats,
    front,
    is_feasible,
    is_worse,
    measured_rows,
    trial_values,
    violations,
)
from sweeper.goals.termination import Termination
from sweeper.plan.outstanding import SPENDING
from sweeper.records import Constraint, Objective, TrialResult, TrialState
from sweeper.records.plurals import amount
from sweeper.store.losses import Default
from sweeper.store.trials import StoredTrial, seconds_of


class Progress:
    """The best of a study's trials, and what they cost."""

    def __init__(
        self, *, objectives: Sequence[Objective], constraints: Sequence[Constraint], endings: Termination
    ) -> None:
        """Start without knowledge."""
        self._objectives = tuple(objectives)
        self._constraints = tuple(constraints)
        self._endings = endings
        self._default = Default()
        self._found: dict[str, tuple[float, ...]] = {}
        self._leader: str | None = None
        self._front: list[tuple[float, ...]] = []
        self._node_s = 0.0
        self._missed = 0

    @property
    def incumbents(self) -> tuple[tuple[float, ...], ...]:
        """Values of the trials that keep all bounds and that none beats (the Pareto front)."""
        return tuple(self._front)

    @property
    def leader(self) -> str | None:
        """Key of the best trial by the first objective that keeps all bounds; None before there is one."""
        return self._leader

    def value_of(self, key: str) -> float:
        """Return a trial's value of the first objective."""
        return self._found[key][0]

    def best(self, count: int) -> list[str]:
        """Return the keys of the best trials: by front, and within a front by the first objective."""
        left = dict(self._found)
        ranked: list[str] = []
        sign = self._objectives[0].sign
        while left and len(ranked) < count:
            first = front(left, objectives=self._objectives)
            ranked += sorted(first, key=lambda key: -sign * left[key][0])
            left = {key: value for key, value in left.items() if key not in first}
        return ranked[:count]

    def learn(self, result: TrialResult, *, node_devices: int) -> None:
        """Learn from a trial that ended now."""
        rows = measured_rows(result)
        devices = 0 if result.placement is None else len(result.placement.devices)
        self._node_s += seconds_of(result) * devices / node_devices
        if result.spec.role is None:
            self._count(result.spec.key, result.state, rows)

    def learn_stored(self, trial: StoredTrial, *, node_devices: int, is_last_word: bool = True) -> None:
        """Learn from a trial of an earlier run.

        Args:
            trial: As the store has it.
            node_devices: Devices of a node.
            is_last_word: False for one that is tried again: it costs what it cost, and says nothing.
        """
        self._node_s += trial.seconds * trial.devices / node_devices
        if trial.role is None and is_last_word:
            self._count(trial.key, trial.state, trial.rows)

    def reason_to_end(self, *, elapsed_s: float, is_settled: bool = True) -> str | None:
        """Return which limit is reached, if any.

        Args:
            elapsed_s: This run's time so far.
            is_settled: Whether all trials that began have had their last word; before that nobody knows
                whether the last ones were no better.
        """
        limits = self._endings
        if limits.max_hours is not None and elapsed_s >= limits.max_hours * 3600:
            are = "is" if limits.max_hours == 1 else "are"
            return f"search.max_hours: {amount(limits.max_hours, 'hour', 'g')} {are} over"
        if limits.max_node_hours is not None and self._node_s >= limits.max_node_hours * 3600:
            return f"search.max_node_hours: {self._node_s / 3600:.2f} of {limits.max_node_hours:g} are spent"
        has_missed = limits.min_improvement is not None and self._found and self._missed >= limits.patience
        if has_missed and is_settled:
            return (
                f"search.min_improvement: none of the last {amount(self._missed, 'trial')} was better "
                f"than what was known by more than {limits.min_improvement:.3g} of its value"
            )
        return None

    def _count(self, key: str, state: TrialState, rows: Sequence[Mapping[str, Any]]) -> None:
        if state not in SPENDING:
            return
        values = self._values(rows) if state is TrialState.COMPLETE else None
        if self._endings.min_improvement is not None:
            self._missed = 0 if values is not None and self._is_improvement(values) else self._missed + 1
        if values is not None:
            self._keep(key, values)

    def _keep(self, key: str, values: tuple[float, ...]) -> None:
        """Remember a trial's values, and what is best now; one that was measured anew may be worse."""
        is_anew = key in self._found
        self._found[key] = values
        if is_anew:
            everything = {value: value for value in self._found.values()}
            self._front = front(everything, objectives=self._objectives)
            sign = self._objectives[0].sign
            self._leader = max(self._found, key=lambda key: sign * self._found[key][0])
            return
        if values not in self._front and not any(
            beats(other, values, objectives=self._objectives) for other in self._front
        ):
            left = [other for other in self._front if not beats(values, other, objectives=self._objectives)]
            self._front = [*left, values]
        if self._leader is None or self._objectives[0].sign * (values[0] - self.value_of(self._leader)) > 0:
            self._leader = key

    def _values(self, rows: Sequence[Mapping[str, Any]]) -> tuple[float, ...] | None:
        """Return a trial's values; None where one is missing, or a bound is not kept or not known to be."""
        rows = self._default.judged(rows)
        is_kept = is_feasible(violations(self._constraints, rows))
        return trial_values(self._objectives, rows) if is_kept else None

    def _is_improvement(self, values: tuple[float, ...]) -> bool:
        """Return whether it beats each earlier trial in some objective by more than the share."""
        share = self._endings.min_improvement or 0.0
        return all(
            any(
                is_worse((known,), than=(value,), objectives=(objective,), margin=share)
                for value, known, objective in zip(values, other, self._objectives, strict=True)
            )
            for other in self._found.values()
        )
