"""What of a study is still to be done and what is spent, as its stored results say.

A plan that people read and the loop that acts on it ask the same object, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, MutableMapping
from dataclasses import dataclass

from sweeper.plan.planner import Job
from sweeper.records import TrialState
from sweeper.store.store import FinishedTrial

SPENDING = (TrialState.COMPLETE, TrialState.FAILED, TrialState.SKIPPED)
"""How a trial ends that was begun: it spends the budget."""


@dataclass(frozen=True, kw_only=True)
class Outstanding:
    """What is left of a study.

    Attributes:
        finished: How the latest attempt at each trial ended, by its key; grows as trials end.
        retry_failed: Whether failures that do not go away by themselves are tried again, too.
        stops_early: Whether a trial may end before all of its load points are measured.
    """

    finished: MutableMapping[str, FinishedTrial]
    retry_failed: bool = False
    stops_early: bool = False

    def includes(self, job: Job) -> bool:
        """Whether a job is still to be run, or to be recorded as impossible."""
        known = self.finished.get(job.spec.key)
        if known is None:
            return True
        if known.state is TrialState.SKIPPED:
            # It did not matter to a search; a chart has a place for each of its load points.
            return not self.stops_early
        if known.state is TrialState.FAILED:
            # A transient failure is worth another try in every run; any other only when asked for.
            is_transient = known.failure_class is not None and known.failure_class.is_transient
            return self.retry_failed or is_transient
        # What was impossible on another day's node, or under a rule that is gone, is possible now.
        return known.state is TrialState.INFEASIBLE and job.refusal is None

    def runnable(self, jobs: Iterable[Job]) -> list[Job]:
        """Return the jobs that would start an engine."""
        return [job for job in jobs if job.refusal is None and self.includes(job)]

    def spent(self, *, besides: Container[str] = ()) -> int:
        """Return how many trials of the budget are spent; repetitions of a control and finalists cost none.

        Args:
            besides: Keys of trials that are not counted, such as those that are tried once more.
        """
        return sum(
            trial.state in SPENDING and trial.role is None and key not in besides
            for key, trial in self.finished.items()
        )
