"""Where the jobs of a study come from: the points of a grid, or the proposals of a search.

The loop asks one source for the next job and reports to it how each one ended; which of the two it is, is
decided by ``source_of`` alone. The repetitions of a control setting, which have their place among the jobs of
either, are ``Controls``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from sweeper.kinds import SEARCH_METHODS
from sweeper.plan.live import on_largest_start, shared_starts
from sweeper.plan.planner import Job, Planner
from sweeper.records import TrialResult, TrialState
from sweeper.records.plurals import amount
from sweeper.schedule.durations import Predictor
from sweeper.search import Candidate, Search
from sweeper.space.space import Point
from sweeper.sweep.experience import Finished
from sweeper.sweep.ledger import Ledger
from sweeper.sweep.neighbours import Neighbours
from sweeper.sweep.telling import Teller
from sweeper.sweep.terms import Terms

# A search that proposes nothing new so often in a row has nothing new left.
_GIVE_UP_AFTER = 100


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What a source has before the first job.

    Attributes:
        total: Trials in all; None where a search has no budget.
        done: Those that are in the store already.
        refused: Jobs that the source will hand out and that can never run.
        again: Keys of those that have run before and are tried again.
    """

    total: int | None
    done: int
    refused: int
    again: frozenset[str]


class Controls:
    """The repetitions of the control setting that are left, each due after so many other trials.

    Attributes:
        total: All that the study has, those in the store included.
        refused: Those that can never run here and are not recorded yet, and why.
    """

    def __init__(self, planned: Iterable[tuple[int, Job]], ledger: Ledger) -> None:
        """Keep those of ``Planner.controls`` that are outstanding, in order of time."""
        planned = list(planned)
        left = [(position, job) for position, job in planned if ledger.includes(job)]
        self.total = len(planned)
        self.refused = tuple((job, job.refusal) for _, job in left if job.refusal is not None)
        self._left = deque(
            (position, ledger.next_attempt(job)) for position, job in left if job.refusal is None
        )
        self._begun: set[str] = set()

    @property
    def jobs(self) -> list[Job]:
        """The repetitions that are not queued yet."""
        return [job for _, job in self._left]

    def count(self, keys: Iterable[str]) -> None:
        """Count other trials as begun, each once."""
        self._begun.update(keys)

    def take_due(self, *, is_idle: bool) -> Job | None:
        """Return the next repetition if its time has come, or if nothing else is going on; None otherwise."""
        if self._left and (is_idle or self._left[0][0] <= len(self._begun)):
            return self._left.popleft()[1]
        return None

    def drop(self) -> None:
        """Drop the remaining repetitions."""
        self._left.clear()


class Source(ABC):
    """Jobs of a study one by one, and what becomes of them.

    Attributes:
        is_fixed: Whether all jobs are known before the first one runs, so that all may wait at once.
        controls: The control's repetitions among them; known once the source is opened.
    """

    is_fixed: bool

    def __init__(self, planner: Planner, ledger: Ledger, search: Search, teller: Teller) -> None:
        self._planner = planner
        self._ledger = ledger
        self._search = search
        self._teller = teller
        self._jobs: dict[str, Job] = {}
        self.controls = Controls((), ledger)

    @abstractmethod
    def open(self) -> Opening:
        """Begin: report to the search what the store holds, and plan the controls.

        Raises:
            KnobError: The space names a knob that this release lacks.
        """

    @abstractmethod
    def next_job(self, *, idle_starts: Collection[str] = ()) -> Job | None:
        """Return the next job, one that can never run included; None if there is none now.

        Args:
            idle_starts: Starts that wait for a trial which shares them, by key.
        """

    @abstractmethod
    def is_exhausted(self) -> bool:
        """Return whether no job will ever come again."""

    @abstractmethod
    def unasked(self) -> int:
        """Return how many jobs are expected to come besides those that wait or run."""

    @abstractmethod
    def why_ended(self) -> str:
        """Return in words why no job is left."""

    @abstractmethod
    def jobs(self) -> Mapping[str, Job]:
        """Return the jobs of the study by key, those that earlier runs measured included."""

    def finished(self) -> Iterator[Finished]:
        """Return the complete trials of earlier runs in the order in which they ended, as planned now."""
        jobs = self.jobs()
        for trial in self._ledger.stored:
            job, rows = jobs.get(trial.key), self._ledger.stored.rows_of(trial.key)
            if job is not None and rows:
                yield job.spec, rows

    def job_of(self, key: str) -> Job | None:
        """Return a job by its key, as far as this run has planned it."""
        return self._jobs.get(key)

    def started(self, job: Job) -> None:
        """Note that a job runs."""
        self._teller.begin(job)
        if job.spec.role is None:
            self.controls.count([job.spec.key])
            self._jobs[job.spec.key] = job

    def ended(self, job: Job, result: TrialResult) -> None:
        """Report to the search how a job ended, also one that never ran."""
        self._teller.begin(job)
        self._teller.ended(result)

    def tick(self) -> None:
        """Let the search write down what it has held back for a moment."""
        self._search.tick()

    def dropped(self, job: Job) -> None:
        """Report to the search that a job it waits for will not run."""
        self._teller.dropped(job.spec.key)


class GridSource(Source):
    """Every point of the space, equal assignments once."""

    is_fixed = True

    def __init__(self, planner: Planner, ledger: Ledger, search: Search, teller: Teller) -> None:
        """Plan nothing yet."""
        super().__init__(planner, ledger, search, teller)
        self._left: deque[Job] = deque()

    def open(self) -> Opening:
        """Plan the grid and its controls; points in the store are reported as they are passed."""
        jobs = list(
            shared_starts(self._planner, self._planner.grid(), is_measured=self._ledger.is_complete).jobs
        )
        runnable = sum(job.refusal is None for job in jobs)
        self.controls = Controls(self._planner.controls(runnable), self._ledger)
        for job in jobs:
            self._jobs[job.spec.key] = job
        self._left.extend(jobs)
        outstanding = [job for job in jobs if self._ledger.includes(job)]
        return Opening(
            total=len(jobs) + self.controls.total,
            done=len(jobs) - len(outstanding) + self.controls.total - len(self.controls.jobs),
            refused=sum(job.refusal is not None for job in outstanding),
            again=self._ledger.tried_again(outstanding),
        )

    def next_job(self, *, idle_starts: Collection[str] = ()) -> Job | None:
        """Return the next point that the store does not hold."""
        while self._left:
            job = self._left.popleft()
            known = self._ledger.find(job.spec.key)
            if known is None or self._ledger.includes(job):
                return job
            self.controls.count([job.spec.key])
            self._teller.passed(job, known, self._ledger.stored)
        return None

    def is_exhausted(self) -> bool:
        """Return whether every point was handed out."""
        return not self._left

    def unasked(self) -> int:
        """Return how many points are left."""
        return len(self._left)

    def why_ended(self) -> str:
        """Return that nothing is left."""
        return "every point of the grid has its result"

    def jobs(self) -> Mapping[str, Job]:
        """Return every job of the grid."""
        return self._jobs


class SearchSource(Source):
    """What a search proposes, as long as it is new and within the budget."""

    is_fixed = False

    def __init__(
        self,
        planner: Planner,
        ledger: Ledger,
        search: Search,
        teller: Teller,
        *,
        predictor: Predictor,
        budget: int | None,
    ) -> None:
        """Start without asking; a ``budget`` of None ends with the space."""
        super().__init__(planner, ledger, search, teller)
        self._neighbours = Neighbours(predictor)
        self._budget = budget
        self._stale_asks = 0
        self._repeated: deque[Job] = deque()

    def open(self) -> Opening:
        """Report to the search what was stored after its driver had ended; plan repetitions and controls."""
        for candidate in self._search.begin_those(self._is_stored):
            spec = self._job(candidate.point).spec
            known = self._ledger.find(spec.key)
            if known is not None:
                self._teller.stored(candidate.number, spec, known, self._ledger.stored)
        self._repeated.extend(self._job(job.points[0]) for job in self._ledger.repeated_jobs())
        self.controls = Controls(self._planner.controls(self._budget or 0), self._ledger)
        self.controls.count(self._ledger.ended_keys)
        again = self._ledger.tried_again(self._repeated)
        return Opening(total=self._budget, done=self._ledger.spent_besides(again), refused=0, again=again)

    def next_job(self, *, idle_starts: Collection[str] = ()) -> Job | None:
        """Return what is to be tried again, then ask the search for what is not known, while it has any."""
        job = self._again() or self._new(idle_starts)
        if job is not None:
            self._neighbours.note(job)
        return job

    def _again(self) -> Job | None:
        """Return the next of the trials that are tried again, which the search remembers as a trial more."""
        if not self._repeated:
            return None
        job = self._repeated.popleft()
        self._teller.begin(job)
        return job

    def _new(self, idle_starts: Collection[str]) -> Job | None:
        """Ask the search until it proposes what is not known, or has nothing left."""
        while not self._is_spent():
            held = self._neighbours.held(idle_starts)
            candidate = self._search.ask(held=held)
            if candidate is None and held is not None:
                self._neighbours.exhaust(held)
            elif candidate is None:
                self._stale_asks = _GIVE_UP_AFTER
            elif (job := self._checked(candidate)) is not None:
                return job
        return None

    def is_exhausted(self) -> bool:
        """Return whether the budget is spent, or the search proposes nothing new, and none is tried again."""
        return not self._repeated and (self._is_stale or self._left(self._ledger.spent) == 0)

    def unasked(self) -> int:
        """Return what of the budget is neither spent nor in flight, and what is to be tried again."""
        return len(self._repeated) + (self._left(self._taken) or 0)

    def why_ended(self) -> str:
        """Return whether it was the budget or the space."""
        if self._budget is not None and self._ledger.spent >= self._budget:
            are = "is" if self._ledger.spent == 1 else "are"
            return f"search.trials: {amount(self._ledger.spent, 'trial')} {are} spent"
        return "the search proposes nothing that is not known"

    def jobs(self) -> Mapping[str, Job]:
        """Return the jobs of all points that the search remembers as complete, and of those begun now."""
        points = self._search.points()
        return {**{key: self._job(point) for key, point in points.items()}, **self._jobs}

    def _job(self, point: Point) -> Job:
        """Plan a point, on a start that others share unless the store holds it from one of its own."""
        job = self._planner.job(point)
        return job if self._ledger.is_complete(job.spec.key) else on_largest_start(self._planner, job)

    def _is_stored(self, point: Point) -> bool:
        return self._ledger.find(self._job(point).spec.key) is not None

    @property
    def _is_stale(self) -> bool:
        return self._stale_asks >= _GIVE_UP_AFTER

    @property
    def _taken(self) -> int:
        """How many trials of the budget are spent or in flight; one that is tried again counts once."""
        in_flight = self._teller.in_flight
        return self._ledger.spent_besides(in_flight) + len(in_flight)

    def _left(self, taken: int) -> int | None:
        """Return how many trials of the budget are left; None where there is no budget."""
        return None if self._budget is None else max(self._budget - taken, 0)

    def _is_spent(self) -> bool:
        return self._is_stale or self._left(self._taken) == 0

    def _checked(self, candidate: Candidate) -> Job | None:
        """Return the job of a proposal; None, and report why to the search, where it is not to be run."""
        job = self._job(candidate.point)
        key = job.spec.key
        known = self._ledger.find(key)
        is_running = self._teller.awaits(key)
        if job.refusal is None and known is None and not is_running:
            self._stale_asks = 0
            self._teller.proposed(key, candidate.number)
            return job
        self._stale_asks += 1
        if job.refusal is not None and job.refusal.is_rule:
            # No point of the space: the search is asked again, and this is reported to it so that it looks
            # elsewhere.
            told = {"fail_reason": job.refusal.message}
            self._search.tell(candidate.number, None, told, violated={"space.rules": 1.0})
        elif job.refusal is not None and known is None:
            self._teller.proposed(key, candidate.number)
            return job
        elif known is not None and known.state is TrialState.COMPLETE:
            self._teller.repeated(candidate.number, key, self._ledger.rows_now(key))
        elif known is not None and known.state is TrialState.SKIPPED:
            self._search.prune(candidate.number, None, {"key": key, "repeated": True})
        else:
            reason = "already running" if is_running else "known to fail"
            self._search.tell(candidate.number, None, {"key": key, "fail_reason": reason})
        return None


def source_of(
    terms: Terms, *, planner: Planner, ledger: Ledger, search: Search, teller: Teller, predictor: Predictor
) -> Source:
    """Choose the source that a study's method asks for."""
    if SEARCH_METHODS[terms.method].is_exhaustive:
        return GridSource(planner, ledger, search, teller)
    return SearchSource(planner, ledger, search, teller, predictor=predictor, budget=terms.trials)
