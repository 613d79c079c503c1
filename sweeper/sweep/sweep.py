"""The loop: ask, check, place, submit, collect, store, report.

One driver owns the study. What is known is in the ``ledger``, which is asked first, so that a study that
was cut off goes on where it was; what comes next is asked of a ``source``; jobs that wait are kept in the
``queue``, and finalists come from ``finals``. Deciding (``plan``) is kept apart from acting (``Sweep``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from sweeper.executors import Executor, Ticket
from sweeper.plan.planner import Job, Planner, Refusal
from sweeper.records import (
    FailureClass,
    Placement,
    TrialResult,
    TrialSpec,
    TrialState,
)
from sweeper.records.plurals import amount
from sweeper.schedule.durations import Predictor
from sweeper.schedule.scheduler import Scheduler
from sweeper.search import Search
from sweeper.sweep.experience import Experience, Learner
from sweeper.sweep.finals import Finals
from sweeper.sweep.ledger import Ledger
from sweeper.sweep.outlook import Outlook, outlook_of
from sweeper.sweep.queue import Queue, Running
from sweeper.sweep.sources import source_of
from sweeper.sweep.telling import Teller
from sweeper.sweep.terms import Retries
from sweeper.topology import modelled_as

STOP_MARGIN_S = 30.0
"""What trials are given to end, besides the time that their engines may take."""

_POLL_S = 0.25


class Observer(Protocol):
    """Receives what happens, for a person to see."""

    def planned(self, *, total: int | None, done: int, refused: int) -> None:
        """Called once the work is known: trials in all, those already in the store, impossible ones."""

    def started(self, spec: TrialSpec, placement: Placement) -> None:
        """Called when a trial holds its devices and runs."""

    def finished(self, result: TrialResult, *, will_retry: bool) -> None:
        """Called when a trial has ended."""

    def tick(self) -> None:
        """Called regularly while the sweep waits."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a sweep ended.

    Attributes:
        states: Trials of this study by final state, earlier runs included.
        measured_now: Trials that this run started.
        failures: Failed and infeasible trials of this run.
        was_stopped: Whether it was stopped before its end.
        ended_by: What ended it, in words.
    """

    states: Mapping[TrialState, int]
    measured_now: int
    failures: tuple[TrialResult, ...]
    was_stopped: bool
    ended_by: str


class Sweep:
    """Runs a study to its end, or to where it is stopped."""

    def __init__(
        self,
        *,
        planner: Planner,
        search: Search,
        ledger: Ledger,
        executor: Executor,
        scheduler: Scheduler,
        observer: Observer,
        retries: Retries | None = None,
        illustrate: Callable[[TrialResult], Path | None] = lambda _: None,
        show_outlook: Callable[[Outlook], None] = lambda _: None,
        anchoring: Learner | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Join the parts; nothing starts before ``run``.

        Args:
            ledger: What is known of the study, and its terms.
            illustrate: Draws a trial for the dashboard.
            show_outlook: Called with how the sweep stands whenever a trial starts or ends.
            anchoring: Learns from each trial what others are to reach; None where nothing predicts that.
        """
        terms = ledger.terms
        predictor = Predictor(measured_device=modelled_as(planner.node))
        teller = Teller(
            search, objectives=terms.objectives, constraints=terms.constraints, illustrate=illustrate
        )
        self._planner = planner
        self._executor = executor
        self._observer = observer
        self._show_outlook = show_outlook
        self._clock = clock
        self._ledger = ledger
        self._source = source_of(
            terms, planner=planner, ledger=ledger, search=search, teller=teller, predictor=predictor
        )
        self._experience = Experience(predictor, anchoring)
        self._finals = Finals(planner, ledger, self._source)
        self._queue = Queue(scheduler, predictor=predictor, retries=retries or Retries(), clock=clock)
        self._running: dict[Ticket, Running] = {}
        self._measured_now = 0
        self._began_s = 0.0
        self._ended_by: str | None = None

    def run(self, *, stop: Callable[[], bool]) -> Outcome:
        """Work until nothing is left, or until ``stop`` says so.

        Raises:
            KnobError: The space names a knob that this release lacks; nothing was started.
            StoreError: Results can no longer be kept safe.
        """
        self._open()
        while not stop():
            self._record_stranded(self._queue.lose(self._executor.lost_nodes()))
            self._end_if_enough()
            self._record_stranded(self._queue.wake())
            self._fill()
            if not self._running and not self._must_wait and not self._queue_final_round():
                break
            self._collect()
            self._source.tick()
            self._observer.tick()
        is_left = bool(self._in_flight or self._source.controls.jobs)
        was_stopped = is_left or not self._source.is_exhausted()
        if self._running:
            self._stop_running()
        return Outcome(
            states=self._ledger.states,
            measured_now=self._measured_now,
            failures=tuple(self._ledger.failures),
            was_stopped=was_stopped and stop(),
            ended_by=self._ended_by or "a stop was asked for",
        )

    def _open(self) -> None:
        """Take stock: report what the store holds, which is not run again, and record what can never run."""
        self._ledger.align()
        self._began_s = self._clock()
        opening = self._source.open()
        self._ledger.learn_stored(again=opening.again)
        self._experience.learn_stored(self._source.finished())
        for job, refusal in self._source.controls.refused:
            self._record_refusal(job, refusal)
        if self._source.is_fixed:
            self._ask()
        self._observer.planned(total=opening.total, done=opening.done, refused=opening.refused)

    # ---- ask, check, place, submit ----

    def _fill(self) -> None:
        """Start all that has room now; a search proposes on until its devices or its budget are used up."""
        while True:
            self._ask()
            while (control := self._source.controls.take_due(is_idle=self._is_idle)) is not None:
                self._enqueue(control)
            started = self._queue.start()
            for running in started:
                self._submit(running)
            if not started or self._source.is_fixed:
                return

    def _ask(self) -> None:
        """Queue all known jobs; of a search, keep one ready for a free device."""
        while self._ended_by is None and self._wants_more:
            job = self._source.next_job(idle_starts=self._queue.idle_starts)
            if job is None:
                return
            if job.refusal is None:
                self._enqueue(self._ledger.next_attempt(job))
            else:
                self._record_refusal(job, job.refusal)

    def _enqueue(self, job: Job) -> None:
        """Queue a job until devices are free, where a node that is left has as many as it needs."""
        if self._queue.can_hold(job.spec.devices_wanted):
            self._queue.add(job)
        else:
            self._record_stranded([job])

    def _submit(self, running: Running) -> None:
        job = running.job
        spec = replace(job.spec, stop_rule=self._ledger.stop_rule(job.spec))
        self._source.started(job)
        self._running[self._executor.submit(spec, running.placement)] = running
        self._measured_now += 1
        self._observer.started(spec, running.placement)
        self._look_ahead()

    # ---- collect, store, tell ----

    def _collect(self) -> None:
        for ticket, result in self._executor.wait(_POLL_S):
            self._finish(self._running.pop(ticket), result)

    def _finish(self, running: Running, result: TrialResult) -> None:
        result = self._ledger.keep(result, queued_s=running.queued_s)
        self._queue.learn(result)
        self._experience.learn(result)
        again = None
        if self._queue.will_repeat(running, result):
            again = self._ledger.next_attempt(running.job)
        else:
            self._source.ended(running.job, result)
        self._queue.release(running, result, again=again)
        self._observer.finished(result, will_retry=again is not None)
        self._look_ahead()

    def _record_refusal(self, job: Job, refusal: Refusal) -> None:
        self._record(job, _unrun(job, TrialState.INFEASIBLE, refusal.failure, refusal.message))

    def _record_stranded(self, jobs: Iterable[Job]) -> None:
        """Record jobs that fit on no node that is left; they run another day."""
        for job in jobs:
            wanted = job.spec.devices_wanted
            message = f"needs {amount(wanted, 'device')} on one node; no node with so many is left"
            self._record(job, _unrun(job, TrialState.FAILED, FailureClass.INFRASTRUCTURE, message))

    def _record(self, job: Job, result: TrialResult) -> None:
        result = self._ledger.keep(result, queued_s=0.0)
        self._source.ended(job, result)
        self._observer.finished(result, will_retry=False)

    # ---- the end ----

    def _end_if_enough(self) -> None:
        """Begin nothing more once a limit is reached; what runs is measured to its end."""
        if self._ended_by is None:
            elapsed_s = self._clock() - self._began_s
            self._ended_by = self._ledger.reason_to_end(elapsed_s=elapsed_s)
            if self._ended_by is not None:
                self._source.controls.drop()
                for job in self._queue.drop():
                    self._source.dropped(job)

    def _queue_final_round(self) -> bool:
        """Queue the finalists' next engine starts, once all else is done; return whether there are any."""
        why_ended = self._source.why_ended() if self._queue.can_hold(1) else "no node is left"
        self._ended_by = self._ended_by or why_ended
        starts = self._finals.next_round()
        for job in starts:
            self._enqueue(job)
        return bool(starts)

    def _stop_running(self) -> None:
        self._executor.cancel()
        deadline = self._clock() + self._planner.engine.stop_timeout_s + STOP_MARGIN_S
        while self._running and self._clock() < deadline:
            self._collect()
            self._observer.tick()

    # ---- where it stands ----

    @property
    def _in_flight(self) -> int:
        return len(self._running) + self._queue.waiting + self._queue.repeating

    @property
    def _is_idle(self) -> bool:
        return not self._queue.waiting and not self._running

    @property
    def _wants_more(self) -> bool:
        return self._source.is_fixed or (not self._queue.waiting and self._queue.has_room)

    @property
    def _must_wait(self) -> bool:
        """Whether something is left that can go on only when a pause has ended."""
        may_ask = self._ended_by is None and not self._source.is_exhausted()
        is_left = self._queue.waiting or self._queue.repeating or self._source.controls.jobs or may_ask
        return self._queue.is_pausing and bool(is_left)

    def _look_ahead(self) -> None:
        self._show_outlook(
            outlook_of(
                ledger=self._ledger,
                source=self._source,
                queue=self._queue,
                running=self._running.values(),
                planner=self._planner,
                now_s=self._clock(),
            )
        )


def _unrun(job: Job, state: TrialState, failure: FailureClass, message: str) -> TrialResult:
    """Return the result of a job that never got a device."""
    return TrialResult(
        spec=job.spec,
        placement=None,
        state=state,
        provenance=job.spec.provenance,
        failure_class=failure,
        failure_message=message,
    )
