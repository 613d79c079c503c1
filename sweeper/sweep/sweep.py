"""The loop: ask, check, place, submit, collect, store, tell.

One driver owns the study. It knows every assignment by the hash of its content, so that what the store
already holds is not measured again, equal assignments run once and serve every series that names them,
and a study that was cut off goes on where it was. Deciding (``plan``) is kept apart from acting
(``Sweep``).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from sweeper.executors import Executor, Ticket
from sweeper.goals.termination import Termination
from sweeper.plan import finalists
from sweeper.plan.outstanding import Outstanding
from sweeper.plan.planner import Job, Planner, Refusal
from sweeper.records import (
    Constraint,
    FailureClass,
    Objective,
    Placement,
    Platform,
    StopRule,
    TrialResult,
    TrialSpec,
    TrialState,
)
from sweeper.schedule.durations import Predictor
from sweeper.schedule.scheduler import Entry, Scheduler
from sweeper.search import Search
from sweeper.store.store import FinishedTrial, Store, storable
from sweeper.store.trials import StoredTrials
from sweeper.sweep.backoff import Backoff
from sweeper.sweep.outlook import Outlook, Work, left_s
from sweeper.sweep.progress import Progress
from sweeper.sweep.telling import Teller
from sweeper.topology import modelled_as

STOP_MARGIN_S = 30.0
"""What trials are given to end, besides the time that their engines may take."""

_POLL_S = 0.25
# A search that proposes nothing new so often in a row has nothing new left.
_GIVE_UP_AFTER = 100


class Observer(Protocol):
    """Is told what happens, for a person to see."""

    def planned(self, *, total: int | None, done: int, refused: int) -> None:
        """The work is known: trials in all, already in the store, impossible ones."""

    def started(self, spec: TrialSpec, placement: Placement) -> None:
        """A trial holds its devices and runs."""

    def finished(self, result: TrialResult, *, will_retry: bool) -> None:
        """A trial ended."""

    def tick(self) -> None:
        """Some time passed."""


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
        store: Store,
        executor: Executor,
        scheduler: Scheduler,
        observer: Observer,
        objectives: Sequence[Objective],
        method: str,
        trials: int | None,
        constraints: Sequence[Constraint] = (),
        max_attempts: int = 2,
        retry_pause_s: float = 0.0,
        retry_failed: bool = False,
        endings: Termination | None = None,
        seed: int = 0,
        illustrate: Callable[[TrialResult], Path | None] = lambda _: None,
        show_outlook: Callable[[Outlook], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Join the parts; nothing starts before ``run``.

        Args:
            retry_pause_s: Before a transient failure is repeated, and before the devices on which a trial met
                trouble are given out again; doubles with each time.
            endings: When trials and the study end besides the budget of trials; None has no such limit.
            seed: Of the order in which finalists are measured again.
            illustrate: Draws a trial for the dashboard.
            show_outlook: Is told how the sweep stands whenever a trial starts or ends.
        """
        self._planner = planner
        self._search = search
        self._store = store
        self._executor = executor
        self._scheduler = scheduler
        self._predictor = Predictor(measured_device=modelled_as(planner.node))
        self._observer = observer
        self._objectives = objectives
        self._constraints = constraints
        self._method = method
        self._budget = trials
        self._max_attempts = max_attempts
        self._backoff: Backoff[_Pending] = Backoff(first_s=retry_pause_s)
        self._endings = endings or Termination()
        self._seed = seed
        self._progress = Progress(objectives=objectives, constraints=constraints, endings=self._endings)
        self._final_rounds: list[list[Job]] | None = None
        self._jobs: dict[str, Job] = {}
        self._ended_by: str | None = None
        self._began_s = 0.0
        self._teller = Teller(search, objectives=objectives, constraints=constraints, illustrate=illustrate)
        self._show_outlook = show_outlook
        self._clock = clock
        self._knobs = planner.space.knob_names()
        self._pending: dict[str, _Pending] = {}
        self._running: dict[Ticket, _Running] = {}
        self._outstanding = Outstanding(
            finished=dict(store.finished()),
            retry_failed=retry_failed,
            stops_early=self._endings.stop_margin is not None,
        )
        self._controls: list[tuple[int, Job]] = []
        self._begun: set[str] = set()
        self._failures: list[TrialResult] = []
        self._measured_now = 0
        self._stale_asks = 0

    def run(self, *, stop: Callable[[], bool]) -> Outcome:
        """Work until nothing is left, or until ``stop`` says so.

        Raises:
            KnobError: The space names a knob that this release lacks; nothing was started.
            StoreError: Results can no longer be kept safe.
        """
        self._store.align(self._knobs)
        self._began_s = self._clock()
        stored = StoredTrials(self._store)
        for trial in stored:
            self._progress.learn_stored(trial, node_devices=self._node_devices)
        if self._method == "grid":
            self._queue_grid(stored)
        else:
            self._catch_up(stored)
            self._queue_controls(self._budget or 0)
            self._observer.planned(total=self._budget, done=self._outstanding.spent, refused=0)
        while not stop():
            self._forget_lost_nodes()
            self._end_if_enough()
            self._wake()
            self._fill()
            if not self._running and not self._must_wait and not self._queue_final_round():
                break
            self._collect(_POLL_S)
            self._observer.tick()
        is_left = bool(self._running or self._pending or self._controls or self._backoff.retries)
        was_stopped = is_left or (stop() and not self._is_spent())
        if self._running:
            self._stop_running()
        return Outcome(
            states=Counter(trial.state for trial in self._finished.values()),
            measured_now=self._measured_now,
            failures=tuple(self._failures),
            was_stopped=was_stopped and stop(),
            ended_by=self._ended_by or "a stop was asked for",
        )

    @property
    def _node_devices(self) -> int:
        return len(self._planner.node.devices)

    def _end_if_enough(self) -> None:
        """Begin nothing more once a limit is reached; what runs is measured to its end."""
        if self._ended_by is None:
            self._ended_by = self._progress.reason_to_end(elapsed_s=self._clock() - self._began_s)
            if self._ended_by is not None:
                self._drop_waiting()

    def _drop_waiting(self) -> None:
        for pending in (*self._pending.values(), *self._backoff.retries):
            key = pending.job.spec.key
            self._scheduler.remove(key)
            for number in pending.numbers:
                self._search.tell(number, None, {"key": key, "fail_reason": "not begun: the study ended"})
        self._pending.clear()
        self._controls.clear()
        self._backoff.forget_retries()

    def _queue_final_round(self) -> bool:
        """Let the finalists' next engine starts wait, once all else is done; tell whether there are any."""
        self._ended_by = self._ended_by or self._why_nothing_is_left()
        if self._final_rounds is None:
            self._final_rounds = self._plan_finals()
        while self._final_rounds:
            for job in self._final_rounds.pop(0):
                if self._outstanding.includes(job):
                    self._let_wait(_Pending(job=self._next_attempt(job), since_s=self._clock()))
            if self._pending:
                return True
        return False

    def _why_nothing_is_left(self) -> str:
        if self._method == "grid":
            return "every point of the grid has its result"
        if self._budget is not None and self._outstanding.spent >= self._budget:
            return f"search.trials: {self._outstanding.spent} trials are spent"
        return "the search proposes nothing that is not known"

    def _plan_finals(self) -> list[list[Job]]:
        keys = self._progress.best(self._endings.finalists)
        if not keys:
            return []
        points = {} if self._method == "grid" else self._search.points()
        jobs = {**{key: self._planner.job(point) for key, point in points.items()}, **self._jobs}
        best = [jobs[key] for key in keys if key in jobs]
        default = self._planner.default()
        return finalists.rounds(best, default, repeats=self._endings.final_repeats, seed=self._seed)

    def _queue_grid(self, rows: StoredTrials) -> None:
        jobs = self._planner.grid()
        controls = self._queue_controls(sum(job.refusal is None for job in jobs))
        for job in jobs:
            self._jobs[job.spec.key] = job
            self._predictor.learn(job.spec, rows.rows_of(job.spec.key))
        refused = done = 0
        for job in jobs:
            if self._outstanding.includes(job):
                if job.refusal is None:
                    self._let_wait(_Pending(job=self._next_attempt(job), since_s=self._clock()))
                    continue
                refused += 1
                self._record_refusal(job, job.refusal)
                continue
            done += 1
            self._begun.add(job.spec.key)
            self._tell_from_store(job, rows)
        done += controls - len(self._controls)
        self._observer.planned(total=len(jobs) + controls, done=done, refused=refused)

    def _queue_controls(self, trials: int) -> int:
        """Keep ready what is left to measure of the control setting, in time's order; count all of it."""
        planned = self._planner.controls(trials)
        if self._method != "grid":
            self._begun = {key for key, trial in self._finished.items() if trial.role is None}
        for position, job in planned:
            if self._outstanding.includes(job):
                if job.refusal is None:
                    self._controls.append((position, self._next_attempt(job)))
                else:
                    self._record_refusal(job, job.refusal)
        return len(planned)

    def _release_controls(self) -> None:
        """Let those repetitions of the control setting wait for devices whose time has come."""
        while self._controls:
            position, job = self._controls[0]
            is_idle = not self._pending and not self._running
            if position > len(self._begun) and not is_idle:
                return
            self._let_wait(_Pending(job=job, since_s=self._clock()))
            del self._controls[0]

    def _next_attempt(self, job: Job) -> Job:
        """Number an attempt after those of earlier runs, so that each is kept."""
        known = self._finished.get(job.spec.key)
        return job if known is None else replace(job, spec=replace(job.spec, attempt=known.attempt + 1))

    def _fill(self) -> None:
        """Start all that has room now; a search proposes on until its devices or its budget are used up."""
        while True:
            if self._method != "grid":
                self._ask_for_more()
            self._release_controls()
            started = self._scheduler.start(now_s=self._clock())
            for entry, placement in started:
                self._start(self._pending.pop(entry.key), placement)
            if not started or self._method == "grid":
                return

    def _let_wait(self, pending: _Pending) -> None:
        spec = pending.job.spec
        self._pending[spec.key] = pending
        self._scheduler.add(
            Entry(
                key=spec.key,
                devices=spec.devices_wanted,
                predicted_s=self._predictor.predict(spec).total_s,
                is_exclusive=spec.is_exclusive,
                is_next=spec.role is not None,
            )
        )

    def _learn(self, result: TrialResult) -> None:
        """Predict those that wait anew, from what this trial took."""
        self._predictor.learn_result(result)
        if result.state is TrialState.COMPLETE:
            for key, pending in self._pending.items():
                predicted_s = self._predictor.predict(pending.job.spec).total_s
                self._scheduler.predict_anew(key, predicted_s=predicted_s)

    def _forget_lost_nodes(self) -> None:
        """Place nothing more on nodes that are gone; what fits on none that is left ends here."""
        for name in self._executor.lost_nodes() - self._scheduler.lost:
            self._scheduler.lose(name)
        for entry in self._scheduler.stranded:
            self._scheduler.remove(entry.key)
            self._strand(self._pending.pop(entry.key))

    def _strand(self, pending: _Pending) -> None:
        wanted = pending.job.spec.devices_wanted
        message = f"needs {wanted} devices on one node; no node with so many is left"
        self._record_unrun(
            pending.job, TrialState.FAILED, FailureClass.INFRASTRUCTURE, message, numbers=pending.numbers
        )

    def _start(self, pending: _Pending, placement: Placement) -> None:
        spec = replace(pending.job.spec, stop_rule=self._stop_rule(pending.job.spec))
        numbers = pending.numbers or self._begin(pending.job)
        running = _Running(
            job=pending.job,
            placement=placement,
            numbers=numbers,
            queued_s=self._clock() - pending.since_s,
            tries=pending.tries,
            ends_s=self._clock() + self._predictor.predict(spec).total_s,
        )
        self._running[self._executor.submit(spec, placement)] = running
        self._measured_now += 1
        if spec.role is None:
            self._begun.add(spec.key)
            self._jobs[spec.key] = pending.job
        self._observer.started(spec, placement)
        self._show_outlook(self._outlook())

    def _stop_rule(self, spec: TrialSpec) -> StopRule | None:
        """Return what a trial is held against from what is known now; repetitions are measured whole."""
        if self._endings.stop_margin is None or spec.role is not None:
            return None
        return StopRule(
            objectives=tuple(self._objectives),
            constraints=tuple(self._constraints),
            incumbents=self._progress.incumbents,
            margin=self._endings.stop_margin,
        )

    def _begin(self, job: Job) -> tuple[int, ...]:
        return tuple(self._search.begin(point).number for point in job.points)

    def _ask_for_more(self) -> None:
        """Keep one proposal ready for every device that is free, within the budget."""
        while (
            self._ended_by is None
            and not self._pending
            and self._scheduler.has_room
            and not self._is_spent(including_running=True)
        ):
            self._propose()

    def _propose(self) -> None:
        candidate = self._search.ask()
        if candidate is None:
            self._stale_asks = _GIVE_UP_AFTER
            return
        job = self._planner.job(candidate.point)
        known = self._finished.get(job.spec.key)
        begun = [each.job for each in self._running.values()] + [each.job for each in self._backoff.retries]
        is_running = any(each.spec.key == job.spec.key for each in begun)
        if job.refusal is None and known is None and not is_running:
            self._stale_asks = 0
            self._let_wait(_Pending(job=job, since_s=self._clock(), numbers=(candidate.number,)))
            return
        self._stale_asks += 1
        if job.refusal is not None and job.refusal.is_rule:
            # No point of the space: the search is asked again, and told so that it looks elsewhere.
            self._search.tell(
                candidate.number, None, {"fail_reason": job.refusal.message}, violated={"space.rules": 1.0}
            )
        elif job.refusal is not None and known is None:
            self._record_refusal(job, job.refusal, numbers=(candidate.number,))
        elif known is not None and known.state is TrialState.COMPLETE:
            rows = StoredTrials(self._store).rows_of(job.spec.key)
            self._teller.repeated(candidate.number, job.spec.key, rows)
        elif known is not None and known.state is TrialState.SKIPPED:
            self._search.prune(candidate.number, None, {"key": job.spec.key, "repeated": True})
        else:
            reason = "already running" if is_running else "known to fail"
            self._search.tell(candidate.number, None, {"key": job.spec.key, "fail_reason": reason})

    @property
    def _finished(self) -> MutableMapping[str, FinishedTrial]:
        return self._outstanding.finished

    def _is_spent(self, *, including_running: bool = False) -> bool:
        if self._method == "grid":
            return not self._pending and not self._running and not self._backoff.retries
        in_flight = 0
        if including_running:
            in_flight = len(self._running) + len(self._pending) + len(self._backoff.retries)
        is_exhausted = self._stale_asks >= _GIVE_UP_AFTER
        return is_exhausted or (
            self._budget is not None and self._outstanding.spent + in_flight >= self._budget
        )

    def _collect(self, timeout_s: float) -> None:
        for ticket, result in self._executor.wait(timeout_s):
            self._finish(self._running.pop(ticket), result)

    def _finish(self, running: _Running, result: TrialResult) -> None:
        result = storable(result)
        self._learn(result)
        will_retry = (
            result.failure_class is not None
            and result.failure_class.is_transient
            and result.failure_class is not FailureClass.INTERRUPTED
            and running.tries < self._max_attempts
            and self._scheduler.can_hold(result.spec.devices_wanted)
        )
        if result.failure_class is not FailureClass.INTERRUPTED:
            # What was cut off is not a finding: it is neither stored nor counted, and runs again.
            self._keep(result, queued_s=running.queued_s)
        if will_retry:
            again = _Pending(
                job=self._next_attempt(running.job),
                since_s=self._clock(),
                numbers=running.numbers,
                tries=running.tries + 1,
            )
        else:
            again = None
            self._teller.ended(running.numbers, result)
        self._rest(running, result, again)
        self._observer.finished(result, will_retry=will_retry)
        self._show_outlook(self._outlook())

    def _outlook(self) -> Outlook:
        key = self._progress.leader
        job = None if key is None else self._jobs.get(key)
        return Outlook(
            left_s=None if self._planner.platform is Platform.SIMULATED else self._left_s(),
            leader=key if job is None else job.spec.label,
            value=None if key is None else self._progress.value_of(key),
        )

    def _left_s(self) -> float:
        now_s = self._clock()
        running = [
            Work(seconds=max(each.ends_s - now_s, 0.0), devices=len(each.placement.devices))
            for each in self._running.values()
        ]
        waiting = [
            Work(seconds=entry.predicted_s, devices=entry.devices) for entry in self._scheduler.waiting
        ]
        waiting += [self._work_of(job) for _, job in self._controls]
        unasked = 0
        if self._method != "grid" and self._budget is not None:
            unasked = max(self._budget - self._outstanding.spent - len(running) - len(waiting), 0)
        usual = waiting or [self._work_of(each.job) for each in self._running.values()]
        return left_s(
            running=running, waiting=waiting, unasked=unasked, usual=usual, devices=self._node_devices
        )

    def _work_of(self, job: Job) -> Work:
        return Work(seconds=self._predictor.predict(job.spec).total_s, devices=job.spec.devices_wanted)

    def _rest(self, running: _Running, result: TrialResult, again: _Pending | None) -> None:
        """Take devices back and let a repetition wait, both after a pause where there was trouble on them."""
        is_trouble = result.failure_class is FailureClass.INFRASTRUCTURE
        if not is_trouble:
            self._scheduler.release(running.placement)
        if is_trouble or again is not None:
            self._backoff.begin(
                now_s=self._clock(),
                tries=running.tries,
                placement=running.placement if is_trouble else None,
                retry=again,
            )

    def _wake(self) -> None:
        """Give out again what has rested long enough."""
        for resting in self._backoff.ended(now_s=self._clock()):
            if resting.placement is not None:
                self._scheduler.release(resting.placement)
            if resting.retry is None:
                continue
            if self._scheduler.can_hold(resting.retry.job.spec.devices_wanted):
                self._let_wait(resting.retry)
            else:
                self._strand(resting.retry)

    @property
    def _must_wait(self) -> bool:
        """Whether something is left that can go on only when a pause has ended."""
        may_ask = self._method != "grid" and self._ended_by is None and not self._is_spent()
        return bool(self._backoff) and bool(
            self._pending or self._backoff.retries or self._controls or may_ask
        )

    def _keep(self, result: TrialResult, *, queued_s: float) -> None:
        self._store.append(result, queued_s=queued_s, knobs=self._knobs)
        self._finished[result.spec.key] = FinishedTrial(
            state=result.state,
            failure_class=result.failure_class,
            attempt=result.spec.attempt,
            role=result.spec.role,
        )
        self._progress.learn(result, node_devices=self._node_devices)
        if result.state in (TrialState.FAILED, TrialState.INFEASIBLE):
            self._failures.append(result)

    def _record_refusal(self, job: Job, refusal: Refusal, *, numbers: tuple[int, ...] = ()) -> None:
        self._record_unrun(job, TrialState.INFEASIBLE, refusal.failure, refusal.message, numbers=numbers)

    def _record_unrun(
        self, job: Job, state: TrialState, failure: FailureClass, message: str, *, numbers: tuple[int, ...]
    ) -> None:
        result = TrialResult(
            spec=job.spec,
            placement=None,
            state=state,
            provenance=job.spec.provenance,
            failure_class=failure,
            failure_message=message,
        )
        self._keep(result, queued_s=0.0)
        self._teller.ended(numbers or self._begin(job), result)
        self._observer.finished(result, will_retry=False)

    def _tell_from_store(self, job: Job, rows: StoredTrials) -> None:
        for point in job.points:
            if not self._search.has(point):
                self._teller.stored(
                    self._search.begin(point).number, job.spec, self._finished[job.spec.key], rows
                )

    def _catch_up(self, rows: StoredTrials) -> None:
        """Tell a search of what was stored when its driver ended before it could be told."""
        finished = self._finished
        for candidate in self._search.begin_those(lambda p: self._planner.job(p).spec.key in finished):
            spec = self._planner.job(candidate.point).spec
            self._teller.stored(candidate.number, spec, finished[spec.key], rows)

    def _stop_running(self) -> None:
        self._executor.cancel()
        deadline = self._clock() + self._planner.engine.stop_timeout_s + STOP_MARGIN_S
        while self._running and self._clock() < deadline:
            self._collect(_POLL_S)
            self._observer.tick()


@dataclass(frozen=True, kw_only=True)
class _Pending:
    job: Job
    since_s: float
    numbers: tuple[int, ...] = ()
    tries: int = 1


@dataclass(frozen=True, kw_only=True)
class _Running:
    job: Job
    placement: Placement
    numbers: tuple[int, ...]
    queued_s: float
    tries: int
    ends_s: float
