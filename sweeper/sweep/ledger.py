"""What is known of a study: what has to run, what has ended and how, what is spent, what was found.

The plan that people read and the loop that acts ask the same ledger, so that they cannot disagree. It knows
every assignment by the hash of its content: what the store holds is not measured again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sweeper.plan.finalists import stored_jobs
from sweeper.plan.outstanding import Outstanding
from sweeper.plan.planner import Job, Planner
from sweeper.records import FailureClass, StopRule, TrialResult, TrialSpec, TrialState
from sweeper.store.store import FinishedTrial, Store
from sweeper.store.trials import StoredTrials
from sweeper.sweep.progress import Progress
from sweeper.sweep.terms import Terms


class Ledger:
    """The store and what follows from it; results of this run are entered with ``keep``.

    Attributes:
        terms: What the study is to find, and when it ends.
        stored: The latest attempt at each trial of earlier runs, read from the store when first asked.
        progress: The best trials and what all of them cost.
        failures: Failed and infeasible trials of this run.
    """

    def __init__(self, store: Store, planner: Planner, terms: Terms) -> None:
        """Read how the trials of earlier runs ended; nothing is written.

        Args:
            store: Of the study.
            planner: Whose space and node it is.
            terms: What is better, and when trials stop early or run again.
        """
        self._store = store
        self._planner = planner
        self.terms = terms
        self._knobs = planner.space.knob_names()
        self._node_devices = len(planner.node.devices)
        self._outstanding = Outstanding(
            finished=dict(store.finished()),
            retry_failed=terms.retry_failed,
            stops_early=terms.endings.stop_margin is not None,
        )
        self.stored = StoredTrials(store)
        self.progress = Progress(
            objectives=terms.objectives, constraints=terms.constraints, endings=terms.endings
        )
        self.failures: list[TrialResult] = []
        self._tried_again: set[str] = set()

    def align(self) -> None:
        """Make room in the store for every knob of the space."""
        self._store.align(self._knobs)

    def learn_stored(self, *, again: Iterable[str] = ()) -> None:
        """Learn what the trials of earlier runs found and cost.

        Args:
            again: Keys of those that are tried again.
        """
        self._tried_again.update(again)
        for trial in self.stored:
            self.progress.learn_stored(
                trial, node_devices=self._node_devices, is_last_word=trial.key not in self._tried_again
            )

    def reason_to_end(self, *, elapsed_s: float) -> str | None:
        """Return which limit is reached, if any, in a run of so many seconds.

        What is tried again runs first, since it may be better than all that is known.
        """
        return self.progress.reason_to_end(elapsed_s=elapsed_s, is_settled=not self._tried_again)

    def find(self, key: str) -> FinishedTrial | None:
        """Return how the latest attempt at a trial ended; None if none has ended."""
        return self._outstanding.finished.get(key)

    def is_complete(self, key: str) -> bool:
        """Return whether the store holds a complete trial of a key."""
        known = self.find(key)
        return known is not None and known.state is TrialState.COMPLETE

    def includes(self, job: Job) -> bool:
        """Return whether a job is still to be run, or to be recorded as impossible."""
        return self._outstanding.includes(job)

    def runnable(self, jobs: Iterable[Job]) -> list[Job]:
        """Return the jobs that would start an engine."""
        return self._outstanding.runnable(jobs)

    def tried_again(self, jobs: Iterable[Job]) -> frozenset[str]:
        """Return the keys of those jobs that would start an engine though they have run before."""
        return frozenset(job.spec.key for job in self.runnable(jobs) if self.find(job.spec.key) is not None)

    def next_attempt(self, job: Job) -> Job:
        """Number an attempt after those of earlier runs, so that each is kept."""
        known = self.find(job.spec.key)
        return job if known is None else replace(job, spec=replace(job.spec, attempt=known.attempt + 1))

    @property
    def spent(self) -> int:
        """How many trials of the budget are spent."""
        return self._outstanding.spent()

    def spent_besides(self, keys: Container[str]) -> int:
        """Return how many trials of the budget are spent, without those of some keys."""
        return self._outstanding.spent(besides=keys)

    @property
    def ended_keys(self) -> set[str]:
        """Keys of the trials that have ended, without controls and finalists."""
        return {key for key, trial in self._outstanding.finished.items() if trial.role is None}

    @property
    def states(self) -> Mapping[TrialState, int]:
        """Trials of the study by final state, earlier runs included."""
        return Counter(trial.state for trial in self._outstanding.finished.values())

    def stored_jobs(self) -> list[Job]:
        """Return the complete trials of earlier runs as this planner would plan them now, if it still would.

        Repetitions of a control and finalists are left out.
        """
        return self._stored_jobs(TrialState.COMPLETE)

    def repeated_jobs(self) -> list[Job]:
        """Return the trials of earlier runs without a result that are worth another try, planned anew.

        These are failures that may go away by themselves, all others where that is asked for, and what was
        impossible then and is possible now.
        """
        return self.runnable(self._stored_jobs(TrialState.FAILED, TrialState.INFEASIBLE))

    def _stored_jobs(self, *states: TrialState) -> list[Job]:
        if not any(trial.state in states for trial in self._outstanding.finished.values()):
            return []
        names = {series.name for series in self._planner.space.series}
        rows = {
            trial.key: trial.rows[0]
            for trial in self.stored
            if trial.role is None
            and trial.state in states
            and (not names or trial.rows[0]["series"][0] in names)
        }
        return stored_jobs(self._planner, rows)

    def rows_now(self, key: str) -> Sequence[Mapping[str, Any]]:
        """Return the rows of a complete trial, of this run too; none of any other."""
        return StoredTrials(self._store).rows_of(key)

    def stop_rule(self, spec: TrialSpec) -> StopRule | None:
        """Return the rule that stops a trial early, as of now; repetitions are measured whole."""
        margin = self.terms.endings.stop_margin
        if margin is None or spec.role is not None:
            return None
        return StopRule(
            objectives=tuple(self.terms.objectives),
            constraints=tuple(self.terms.constraints),
            incumbents=self.progress.incumbents,
            margin=margin,
        )

    def keep(self, result: TrialResult, *, queued_s: float) -> TrialResult:
        """Store how a trial ended, and learn from it; return the trial as it is stored.

        What was cut off is not a finding: it is neither stored nor counted, and runs again.
        """
        if result.failure_class is FailureClass.INTERRUPTED:
            return result
        self._tried_again.discard(result.spec.key)
        result = self._store.keep(result, queued_s=queued_s, knobs=self._knobs)
        self._outstanding.finished[result.spec.key] = FinishedTrial(
            state=result.state,
            failure_class=result.failure_class,
            attempt=result.spec.attempt,
            role=result.spec.role,
        )
        self.progress.learn(result, node_devices=self._node_devices)
        if result.state in (TrialState.FAILED, TrialState.INFEASIBLE):
            self.failures.append(result)
        return result
