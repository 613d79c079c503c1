"""Jobs that wait: for devices, or for the end of a pause after which they are repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sweeper.plan.planner import Job
from sweeper.records import FailureClass, Placement, TrialResult, TrialState
from sweeper.schedule.durations import Predictor, SharedStarts
from sweeper.schedule.occupancy import Entry
from sweeper.schedule.scheduler import Scheduler
from sweeper.sweep.backoff import Backoff
from sweeper.sweep.terms import Retries

_MANY = 8
"""Predictions are medians, which one trial more among many moves little: what waits is predicted anew when an
eighth more is known, not with each trial."""


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A job that waits, since when by the queue's clock, and which try at it comes next."""

    job: Job
    since_s: float
    tries: int = 1


@dataclass(frozen=True, kw_only=True)
class Running:
    """A job on its devices.

    Attributes:
        queued_s: How long it waited for them.
        tries: Which try at it this is.
        ends_s: When it is expected to end, by the queue's clock.
    """

    job: Job
    placement: Placement
    queued_s: float
    tries: int
    ends_s: float

    def left_s(self, now_s: float) -> float:
        """Return how long it is expected to run on; 0 if it is late."""
        return max(self.ends_s - now_s, 0.0)


class Queue:
    """Keeps jobs until the scheduler has devices for them, and devices in trouble to itself for a while."""

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        predictor: Predictor,
        retries: Retries,
        clock: Callable[[], float],
    ) -> None:
        """Start with an empty queue."""
        self._scheduler = scheduler
        self._predictor = predictor
        self._max_attempts = retries.max_attempts
        self._backoff: Backoff[Waiting] = Backoff(first_s=retries.first_pause_s)
        self._clock = clock
        self._waiting: dict[str, Waiting] = {}
        self._starts = SharedStarts()
        self._learnt = 0
        self._next_anew = 1

    @property
    def waiting(self) -> int:
        """How many jobs wait for devices."""
        return len(self._waiting)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The jobs that wait for devices, as the scheduler sees them."""
        return self._scheduler.waiting

    @property
    def repeating(self) -> int:
        """How many jobs wait for the end of a pause."""
        return len(self._backoff.retries)

    @property
    def idle_starts(self) -> tuple[str, ...]:
        """Starts that wait for a trial which shares them, by key."""
        return self._scheduler.starts.idle

    @property
    def is_pausing(self) -> bool:
        """Whether a job or devices are in a pause."""
        return bool(self._backoff)

    @property
    def has_room(self) -> bool:
        """Whether a further job of one device could start."""
        return self._scheduler.has_room

    def can_hold(self, devices: int) -> bool:
        """Return whether a node that is left has so many devices at all."""
        return self._scheduler.can_hold(devices)

    def add(self, job: Job) -> None:
        """Queue a job, which a node that is left can hold, until devices are free."""
        self._enter(Waiting(job=job, since_s=self._clock()))

    def start(self) -> list[Running]:
        """Return the jobs that start now, each with its devices."""
        started = self._scheduler.start(now_s=self._clock())
        return [self._begin(self._waiting.pop(entry.key), placement) for entry, placement in started]

    def learn(self, result: TrialResult) -> None:
        """Learn what this trial took, and predict the waiting jobs anew where that may change much."""
        self._predictor.learn_result(result)
        if result.state is not TrialState.COMPLETE:
            return
        self._learnt += 1
        if self._learnt >= self._next_anew:
            self._next_anew = self._learnt + 1 + self._learnt // _MANY
            self._scheduler.predict_anew(
                {key: self.predicted_s(waiting.job) for key, waiting in self._waiting.items()}
            )

    def will_repeat(self, running: Running, result: TrialResult) -> bool:
        """Return whether a trial that ended like this is tried again in this run."""
        return (
            result.failure_class is not None
            and result.failure_class.is_transient
            and result.failure_class is not FailureClass.INTERRUPTED
            and running.tries < self._max_attempts
            and self.can_hold(result.spec.devices_wanted)
        )

    def release(self, running: Running, result: TrialResult, *, again: Job | None) -> None:
        """Take devices back and queue a repetition, both after a pause if something went wrong on them."""
        is_trouble = result.failure_class is FailureClass.INFRASTRUCTURE
        retry = None
        if again is not None:
            retry = Waiting(job=again, since_s=self._clock(), tries=running.tries + 1)
        if not is_trouble:
            self._scheduler.release(running.placement)
        if is_trouble or retry is not None:
            self._backoff.begin(
                now_s=self._clock(),
                tries=running.tries,
                placement=running.placement if is_trouble else None,
                retry=retry,
            )

    def wake(self) -> list[Job]:
        """End the pauses that are over; return the jobs that fit on no node that is left."""
        stranded = []
        for resting in self._backoff.ended(now_s=self._clock()):
            if resting.placement is not None:
                self._scheduler.release(resting.placement)
            if resting.retry is None:
                continue
            if self.can_hold(resting.retry.job.spec.devices_wanted):
                self._enter(resting.retry)
            else:
                stranded.append(resting.retry.job)
        return stranded

    def lose(self, nodes: Iterable[str]) -> list[Job]:
        """Place nothing more on nodes that are gone; return the jobs that fit on none that is left."""
        gone = frozenset(nodes) - self._scheduler.lost
        if not gone:
            return []
        for name in gone:
            self._scheduler.lose(name)
        stranded = self._scheduler.stranded
        for entry in stranded:
            self._scheduler.remove(entry.key)
        return [self._waiting.pop(entry.key).job for entry in stranded]

    def drop(self) -> list[Job]:
        """Empty the queue; return what was in it."""
        dropped = [waiting.job for waiting in (*self._waiting.values(), *self._backoff.retries)]
        for job in dropped:
            self._scheduler.remove(job.spec.key)
        self._waiting.clear()
        self._backoff.forget_retries()
        return dropped

    def predicted_s(self, job: Job) -> float:
        """Return how long a job is expected to hold its devices."""
        return self._starts.share(job.spec, self._predictor.predict(job.spec)).total_s

    def _enter(self, waiting: Waiting) -> None:
        spec = waiting.job.spec
        self._waiting[spec.key] = waiting
        self._scheduler.add(
            Entry(
                key=spec.key,
                devices=spec.devices_wanted,
                predicted_s=self.predicted_s(waiting.job),
                is_exclusive=spec.is_exclusive,
                is_next=spec.role is not None,
                start_key=spec.start_key,
            )
        )

    def _begin(self, waiting: Waiting, placement: Placement) -> Running:
        now_s = self._clock()
        return Running(
            job=waiting.job,
            placement=placement,
            queued_s=now_s - waiting.since_s,
            tries=waiting.tries,
            ends_s=now_s + self.predicted_s(waiting.job),
        )
