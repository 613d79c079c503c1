"""The loop: ask, check, place, submit, collect, store, tell.

One driver owns the study. It knows every assignment by the hash of its content, so that what the store
already holds is not measured again, equal assignments run once and serve every series that names them,
and a study that was cut off goes on where it was. Deciding (``Planner``) is kept apart from acting
(``Sweep``).
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from sweeper import fit, knobs
from sweeper.errors import KnobError, PlacementError
from sweeper.executors import Executor, Ticket
from sweeper.placement import Allocator
from sweeper.records import (
    EngineSpec,
    FailureClass,
    LoadPoint,
    Model,
    Objective,
    Placement,
    Platform,
    TrialResult,
    TrialSpec,
    TrialState,
)
from sweeper.search import Search
from sweeper.space import Point, Space
from sweeper.store import FinishedTrial, Store
from sweeper.topology import Node
from sweeper.trial import provenance_of

_POLL_S = 0.25
# A search that proposes nothing new so often in a row has nothing new left.
_GIVE_UP_AFTER = 100
# These refusals are mistakes in the configuration; the others depend on the point and become rows.
_MISTAKES = frozenset({"unknown", "not_yet", "removed", "no_effect", "bad_value"})


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
class Job:
    """Points of equal assignment, and what is to be done about them.

    Attributes:
        refusal: Why this can never run here, or None.
    """

    spec: TrialSpec
    points: tuple[Point, ...]
    refusal: str | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a sweep ended.

    Attributes:
        states: Trials of this study by final state, earlier runs included.
        measured_now: Trials that this run started.
        failures: Failed and infeasible trials of this run.
        was_stopped: Whether it was stopped before its end.
    """

    states: Mapping[TrialState, int]
    measured_now: int
    failures: tuple[TrialResult, ...]
    was_stopped: bool


@dataclass(frozen=True, kw_only=True)
class Planner:
    """Turns points of the space into jobs for one engine release on one node."""

    study: str
    trials_folder: str
    space: Space
    engine: EngineSpec
    model: Model
    platform: Platform
    node: Node
    accelerator: knobs.Accelerator
    load_points: tuple[LoadPoint, ...]
    warmup_prompts: int = 0
    repeats: int = 1
    runs_per_start: int = 1
    allow_unknown: bool = False
    calibration: Mapping[str, float] = field(default_factory=dict)

    def grid(self) -> list[Job]:
        """Plan every point of the space: equal assignments joined, large placements first.

        Raises:
            KnobError: A knob does not exist in this release; nothing was started.
        """
        by_key: dict[str, Job] = {}
        for point in self.space.grid():
            job = self.job(point)
            known = by_key.get(job.spec.key)
            by_key[job.spec.key] = job if known is None else _joined(known, job)
        # Large blocks first: they find the node whole, and small trials fill the gaps that remain.
        return sorted(by_key.values(), key=lambda job: -job.spec.devices_wanted)

    def job(self, point: Point) -> Job:
        """Plan one point.

        Raises:
            KnobError: A knob does not exist in this release, or has a value that it does not take.
        """
        spec = TrialSpec(
            study=self.study,
            folder="",
            series=() if point.series is None else (point.series,),
            assignment=dict(point.assignment),
            load_points=self.load_points,
            engine=self.engine,
            model=self.model,
            platform=self.platform,
            devices_wanted=devices_wanted(point.assignment),
            warmup_prompts=self.warmup_prompts,
            repeats=self.repeats,
            runs_per_start=self.runs_per_start,
            calibration=self.calibration,
            label=point_label(point),
        )
        spec = replace(spec, folder=f"{self.trials_folder}/{spec.key}")
        return Job(spec=spec, points=(point,), refusal=self._refusal(spec))

    def _refusal(self, spec: TrialSpec) -> str | None:
        broken = self.space.broken_rule(spec.assignment)
        if broken is not None:
            return f"breaks the rule of the space: {broken}"
        refusals = knobs.check(
            spec.assignment,
            release=self.engine.release,
            allow_unknown=self.allow_unknown,
            accelerator=self.accelerator,
        )
        mistakes = [refusal for refusal in refusals if refusal.kind in _MISTAKES]
        if mistakes:
            raise KnobError(
                f"vLLM {self.engine.release}: " + "\n  ".join(refusal.message for refusal in mistakes)
            )
        if refusals:
            return refusals[0].message
        if spec.devices_wanted > len(self.node.devices):
            return (
                f"needs {spec.devices_wanted} devices (tensor x pipeline x data parallel size), "
                f"the node has {len(self.node.devices)}"
            )
        return self._memory_refusal(spec)

    def _memory_refusal(self, spec: TrialSpec) -> str | None:
        if self.platform is Platform.CPU:
            # The CPU build sizes its cache by VLLM_CPU_KVCACHE_SPACE, not by a share of a device.
            return None
        memory = min(device.memory_gib or 0.0 for device in self.node.devices)
        if not memory:
            return None
        found = fit.fit(spec.model, spec.assignment, device_memory_gib=memory)
        return None if found.is_feasible else f"does not fit in memory: {found}"


class Sweep:
    """Runs a study to its end, or to where it is stopped."""

    def __init__(
        self,
        *,
        planner: Planner,
        search: Search,
        store: Store,
        executor: Executor,
        allocator: Allocator,
        observer: Observer,
        objectives: Sequence[Objective],
        method: str,
        trials: int | None,
        max_attempts: int = 2,
        max_parallel: int | None = None,
        retry_failed: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Join the parts; nothing starts before ``run``."""
        self._planner = planner
        self._search = search
        self._store = store
        self._executor = executor
        self._allocator = allocator
        self._observer = observer
        self._objectives = objectives
        self._method = method
        self._budget = trials
        self._max_attempts = max_attempts
        self._max_parallel = max_parallel
        self._retry_failed = retry_failed
        self._clock = clock
        self._knobs = planner.space.knob_names()
        self._pending: list[_Pending] = []
        self._running: dict[Ticket, _Running] = {}
        self._finished = dict(store.finished())
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
        if self._method == "grid":
            self._queue_grid()
        else:
            self._observer.planned(total=self._budget, done=self._spent(), refused=0)
        while not stop():
            self._fill()
            if not self._running:
                break
            self._collect(_POLL_S)
            self._observer.tick()
        was_stopped = bool(self._running or self._pending or (stop() and not self._is_spent()))
        if self._running:
            self._stop_running()
        return Outcome(
            states=Counter(trial.state for trial in self._finished.values()),
            measured_now=self._measured_now,
            failures=tuple(self._failures),
            was_stopped=was_stopped and stop(),
        )

    def _queue_grid(self) -> None:
        jobs = self._planner.grid()
        rows = _StoredRows(self._store)
        refused = done = 0
        for job in jobs:
            if self._must_run(job):
                if job.refusal is None:
                    self._pending.append(_Pending(job=self._next_attempt(job), since_s=self._clock()))
                    continue
                refused += 1
                self._record_refusal(job)
                continue
            done += 1
            self._tell_from_store(job, rows)
        self._observer.planned(total=len(jobs), done=done, refused=refused)

    def _must_run(self, job: Job) -> bool:
        known = self._finished.get(job.spec.key)
        if known is None:
            return True
        if known.state is TrialState.FAILED:
            # A transient failure is worth another try in every run; any other only when asked for.
            is_transient = known.failure_class is not None and known.failure_class.is_transient
            return self._retry_failed or is_transient
        # What was impossible on another day's node, or under a rule that is gone, is possible now.
        return known.state is TrialState.INFEASIBLE and job.refusal is None

    def _next_attempt(self, job: Job) -> Job:
        """Number an attempt after those of earlier runs, so that each is kept."""
        known = self._finished.get(job.spec.key)
        return job if known is None else replace(job, spec=replace(job.spec, attempt=known.attempt + 1))

    def _fill(self) -> None:
        """Start what fits, in order; a trial that finds no block now lets smaller ones pass."""
        if self._method != "grid":
            self._ask_for_more()
        waiting: list[_Pending] = []
        for pending in self._pending:
            placement = None if self._is_full() else self._allocator.acquire(pending.job.spec.devices_wanted)
            if placement is None:
                waiting.append(pending)
            else:
                self._start(pending, placement)
        self._pending = waiting

    def _is_full(self) -> bool:
        return self._max_parallel is not None and len(self._running) >= self._max_parallel

    def _start(self, pending: _Pending, placement: Placement) -> None:
        spec = pending.job.spec
        numbers = pending.numbers or self._begin(pending.job)
        running = _Running(
            job=pending.job,
            placement=placement,
            numbers=numbers,
            queued_s=self._clock() - pending.since_s,
            tries=pending.tries,
        )
        self._running[self._executor.submit(spec, placement)] = running
        self._measured_now += 1
        self._observer.started(spec, placement)

    def _begin(self, job: Job) -> tuple[int, ...]:
        return tuple(self._search.begin(point).number for point in job.points)

    def _ask_for_more(self) -> None:
        """Keep one proposal ready for every device that is free, within the budget."""
        while (
            not self._pending
            and not self._is_full()
            and self._allocator.free_devices
            and not self._is_spent(including_running=True)
        ):
            self._propose()

    def _propose(self) -> None:
        candidate = self._search.ask()
        job = self._planner.job(candidate.point)
        known = self._finished.get(job.spec.key)
        is_running = any(r.job.spec.key == job.spec.key for r in self._running.values())
        if job.refusal is None and known is None and not is_running:
            self._stale_asks = 0
            self._pending.append(_Pending(job=job, since_s=self._clock(), numbers=(candidate.number,)))
            return
        self._stale_asks += 1
        if job.refusal is not None and known is None:
            self._record_refusal(job, numbers=(candidate.number,))
        elif known is not None and known.state is TrialState.COMPLETE:
            rows = _StoredRows(self._store).of(job.spec.key)
            self._search.tell(candidate.number, self._values(rows), {"key": job.spec.key, "repeated": True})
        else:
            reason = "already running" if is_running else "known to fail"
            self._search.tell(candidate.number, None, {"key": job.spec.key, "fail_reason": reason})

    def _spent(self) -> int:
        counted = (TrialState.COMPLETE, TrialState.FAILED)
        return sum(trial.state in counted for trial in self._finished.values())

    def _is_spent(self, *, including_running: bool = False) -> bool:
        if self._method == "grid":
            return not self._pending and not self._running
        in_flight = len(self._running) + len(self._pending) if including_running else 0
        is_exhausted = self._stale_asks >= _GIVE_UP_AFTER
        return is_exhausted or (self._budget is not None and self._spent() + in_flight >= self._budget)

    def _collect(self, timeout_s: float) -> None:
        for ticket, result in self._executor.wait(timeout_s):
            self._finish(self._running.pop(ticket), result)

    def _finish(self, running: _Running, result: TrialResult) -> None:
        self._allocator.release(running.placement)
        will_retry = (
            result.failure_class is not None
            and result.failure_class.is_transient
            and result.failure_class is not FailureClass.INTERRUPTED
            and running.tries < self._max_attempts
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
            self._pending.insert(0, again)
        else:
            self._tell(running.numbers, result)
        self._observer.finished(result, will_retry=will_retry)

    def _keep(self, result: TrialResult, *, queued_s: float) -> None:
        self._store.append(result, queued_s=queued_s, knobs=self._knobs)
        self._finished[result.spec.key] = FinishedTrial(
            state=result.state, failure_class=result.failure_class, attempt=result.spec.attempt
        )
        if result.state is not TrialState.COMPLETE:
            self._failures.append(result)

    def _record_refusal(self, job: Job, *, numbers: tuple[int, ...] = ()) -> None:
        result = TrialResult(
            spec=job.spec,
            placement=None,
            state=TrialState.INFEASIBLE,
            provenance=provenance_of(job.spec),
            failure_message=job.refusal,
        )
        self._keep(result, queued_s=0.0)
        self._tell(numbers or self._begin(job), result)
        self._observer.finished(result, will_retry=False)

    def _tell_from_store(self, job: Job, rows: _StoredRows) -> None:
        known = self._finished[job.spec.key]
        for point in job.points:
            if self._search.has(point):
                continue
            candidate = self._search.begin(point)
            if known.state is TrialState.COMPLETE:
                stored = rows.of(job.spec.key)
                self._search.tell(candidate.number, self._values(stored), _attributes(job.spec, stored))
            else:
                self._search.tell(
                    candidate.number,
                    None,
                    {"key": job.spec.key, "fail_reason": str(known.failure_class or known.state)},
                )

    def _tell(self, numbers: Iterable[int], result: TrialResult) -> None:
        rows = [_row(measurement) for measurement in result.measurements]
        attributes = _attributes(result.spec, rows)
        attributes["provenance"] = str(result.provenance)
        if result.placement is not None:
            attributes["devices"] = ",".join(map(str, result.placement.devices))
        if result.state is not TrialState.COMPLETE:
            attributes["fail_reason"] = f"{result.failure_class or result.state}: {result.failure_message}"
            attributes["log_path"] = result.log_path
            attributes["interrupted"] = result.failure_class is FailureClass.INTERRUPTED or None
        attributes.update({name: round(seconds, 3) for name, seconds in result.phases.items()})
        values = self._values(rows) if result.state is TrialState.COMPLETE else None
        for number in numbers:
            self._search.tell(number, values, attributes)

    def _values(self, rows: Sequence[Mapping[str, Any]]) -> list[float] | None:
        values = [objective_value(objective, rows) for objective in self._objectives]
        return None if any(value is None for value in values) else [v for v in values if v is not None]

    def _stop_running(self) -> None:
        self._executor.cancel()
        deadline = self._clock() + self._planner.engine.stop_timeout_s + 30.0
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


class _StoredRows:
    """Measured rows of the store by trial, read once and only when somebody asks."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rows: dict[str, list[Mapping[str, Any]]] | None = None

    def of(self, key: str) -> list[Mapping[str, Any]]:
        if self._rows is None:
            self._rows = {}
            frame = self._store.read()
            for row in frame[frame["state"] == str(TrialState.COMPLETE)].to_dict("records"):
                self._rows.setdefault(row["trial_key"], []).append({str(k): v for k, v in row.items()})
        return self._rows.get(key, [])


def point_label(point: Point) -> str:
    """Name a point by what it chose: its series, and the knobs that vary."""
    knobs_chosen = [f"{name}={value}" for name, value in point.choices.items() if name != "series"]
    return " ".join([*([point.series] if point.series else []), *knobs_chosen]) or "the only setting"


def devices_wanted(assignment: Mapping[str, Any]) -> int:
    """Count the devices that an assignment needs.

    Raises:
        PlacementError: A parallel size is not a whole number of at least 1.
    """
    count = 1
    for knob in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"):
        size = assignment.get(knob, 1)
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise PlacementError(f"knobs.{knob}: is {size!r}; expected a whole number of at least 1.")
        count *= size
    return count


def objective_value(objective: Objective, rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Reduce a trial's rows to one value: the mean over its load point, restarts and repeats.

    Args:
        objective: Metric and load point; without a load point, all count.
        rows: Metric columns with ``request_rate_per_s``; missing values are None or NaN.

    Returns:
        The mean, or None where the metric was not measured.
    """
    wanted = objective.request_rate_per_s
    found = [
        row.get(objective.metric)
        for row in rows
        if wanted is None or _number(row.get("request_rate_per_s")) == wanted
    ]
    numbers = [number for value in found if (number := _number(value)) is not None]
    return statistics.fmean(numbers) if numbers else None


def _attributes(spec: TrialSpec, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the dashboard shows beside a trial: plain numbers, so that its table can be sorted by them."""
    found: dict[str, Any] = {"key": spec.key, "series": ", ".join(spec.series) or None}
    for metric in ("request_throughput_per_s", "output_throughput_tok_per_s", "mean_ttft_ms", "mean_tpot_ms"):
        for point in spec.load_points:
            rate = point.request_rate_per_s
            matching = [row for row in rows if _number(row.get("request_rate_per_s")) == rate]
            value = objective_value(Objective(metric=metric, direction="maximize"), matching)
            if value is not None:
                found[f"{metric} ({point.label})"] = round(value, 4)
    return found


def _row(measurement: Any) -> dict[str, Any]:
    return {**measurement.metrics, "request_rate_per_s": measurement.load_point.request_rate_per_s}


def _number(value: Any) -> float | None:
    # pandas gives NaN for a null cell
    return None if value is None or value != value else float(value)


def _joined(first: Job, second: Job) -> Job:
    series = tuple(dict.fromkeys((*first.spec.series, *second.spec.series)))
    label = f"{first.spec.label}, {second.spec.label}"
    return replace(
        first, spec=replace(first.spec, series=series, label=label), points=(*first.points, *second.points)
    )
