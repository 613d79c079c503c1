"""Engines, clients and executors that do what a test tells them; they keep the contracts of the real ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sweeper import topology
from sweeper.engines import Cancelled, Server
from sweeper.errors import EngineError, MeasurementError
from sweeper.executors import Executor, Ticket
from sweeper.plan.planner import Planner
from sweeper.records import (
    EngineSpec,
    FailureClass,
    LoadPoint,
    Measurement,
    Model,
    Objective,
    Placement,
    Platform,
    Provenance,
    Scalar,
    TrialResult,
    TrialSpec,
    TrialState,
)
from sweeper.schedule.scheduler import Scheduler
from sweeper.search import Search, storage_url
from sweeper.space.space import Series, Space
from sweeper.store.store import Store
from sweeper.sweep.ledger import Ledger
from sweeper.sweep.sweep import Observer, Outcome, Sweep
from sweeper.sweep.terms import Retries, Terms
from sweeper.trial import trial

LOAD = LoadPoint(dataset="random", num_prompts=8, input_len=32, output_len=8)
THREE_SERIES = Space(
    base={"tensor_parallel_size": 4, "max_model_len": 4096},
    series=(
        Series(name="small", label="Small", knobs={"max_num_seqs": 4}),
        Series(name="large", label="Large", knobs={"max_num_seqs": 64}),
        Series(name="same", label="The same again", knobs={"max_num_seqs": 64}),
    ),
)


THROUGHPUT = Objective(metric="request_throughput_per_s", direction="maximize")


@dataclass
class StandInServer:
    """A server in this process; what happened to it stands in ``diary``."""

    diary: list[str]
    dies_before: Callable[[int], bool] = lambda _: False
    base_url: str = "http://127.0.0.1:1"
    api_key: str = "secret"
    provenance: Provenance = Provenance.MEASURED
    start_s: float = 2.0
    command: tuple[str, ...] = ("serve", "model")
    effective: Mapping[str, Scalar] = field(default_factory=lambda: {"max_num_seqs": 64})
    versions: Mapping[str, str] = field(default_factory=lambda: {"vllm": "0.32.0"})
    log_path: str | None = "engine.log"
    looks: int = 0
    answers: Sequence[str] = (" Paris",)
    asked: int = 0
    engine_pids: frozenset[int] | None = None
    is_replaced_before: Callable[[int], bool] = lambda _: False

    def sanity(self) -> str:
        self.diary.append("sanity")
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]

    def prove_ours(self) -> frozenset[int] | None:
        if self.is_replaced_before(self.looks):
            raise MeasurementError("another process answers", failure=FailureClass.WRONG_ENGINE)
        return self.engine_pids

    def pids(self) -> Set[int] | None:
        return self.engine_pids

    def check_alive(self) -> None:
        self.looks += 1
        if self.dies_before(self.looks):
            raise EngineError("HIP out of memory", failure=FailureClass.OUT_OF_MEMORY, log_path=self.log_path)

    def counters(self) -> Mapping[str, float]:
        return {}

    def stop(self) -> float:
        self.diary.append("stop")
        return 0.5


@dataclass
class StandInEngine:
    """Starts stand-in servers, or fails as told."""

    diary: list[str] = field(default_factory=list)
    fails_with: BaseException | None = None
    dies_before: Callable[[int], bool] = lambda _: False
    is_replaced_before: Callable[[int], bool] = lambda _: False
    answers: Sequence[str] = (" Paris",)
    engine_pids: frozenset[int] | None = None

    def start(self, spec: TrialSpec, placement: Placement, *, restart: int, cancelled: Cancelled) -> Server:
        self.diary.append(f"start {restart}")
        if self.fails_with is not None:
            raise self.fails_with
        return StandInServer(
            diary=self.diary,
            dies_before=self.dies_before,
            is_replaced_before=self.is_replaced_before,
            answers=self.answers,
            engine_pids=self.engine_pids,
        )


@dataclass
class StandInClient:
    """Measures ten requests per second at every load point."""

    diary: list[str] = field(default_factory=list)
    fails_with: BaseException | None = None

    def measure(
        self, server: Server, point: LoadPoint, *, restart: int, repeat: int, cancelled: Cancelled
    ) -> Measurement:
        self.diary.append(f"measure {point.label}")
        if self.fails_with is not None:
            raise self.fails_with
        now = time.time()
        return Measurement(
            load_point=point,
            restart=restart,
            repeat=repeat,
            metrics={"request_throughput_per_s": 10.0, "completed": float(point.num_prompts)},
            telemetry={},
            measured_s=1.0,
            client_overhead_s=0.1,
            started_at=now,
            ended_at=now,
        )

    def warm_up(self, server: Server, point: LoadPoint, *, prompts: int, cancelled: Cancelled) -> float:
        self.diary.append(f"warm up with {prompts} at {point.label}")
        return 0.25

    def close(self) -> None:
        self.diary.append("close")


class ScriptedExecutor:
    """Gives every trial the result that a test wrote for it."""

    name = "scripted"

    def __init__(self, script: Callable[[TrialSpec, Placement], TrialResult]) -> None:
        self._script = script
        self._results: list[tuple[Ticket, TrialResult]] = []
        self.held: list[tuple[int, ...]] = []
        self.specs: list[TrialSpec] = []
        self.is_cancelled = False

    def submit(self, spec: TrialSpec, placement: Placement) -> Ticket:
        self.specs.append(spec)
        self.held.append(placement.devices)
        ticket = Ticket(len(self.specs))
        self._results.append((ticket, self._script(spec, placement)))
        return ticket

    def wait(self, timeout_s: float) -> list[tuple[Ticket, TrialResult]]:
        return [self._results.pop(0)] if self._results else []

    def cancel(self) -> None:
        self.is_cancelled = True

    def lost_nodes(self) -> frozenset[str]:
        return frozenset()

    def close(self) -> None:
        pass


def sweep_of(
    planner: Planner,
    folder: Path,
    executor: Executor,
    *,
    observer: Observer,
    method: str,
    trials: int | None,
    stop: Callable[[], bool] = lambda: False,
    scheduler: Scheduler | None = None,
    **more: Any,
) -> Outcome:
    """Sweep a space for most requests a second, with store and database in a folder.

    ``more`` is of Terms, Retries or Sweep; ``hints`` of Search.
    """
    retries = {name: more.pop(name) for name in ("max_attempts", "first_pause_s") if name in more}
    terms = {name: more.pop(name) for name in ("endings", "retry_failed") if name in more}
    search = Search(
        storage=storage_url(folder),
        name="test",
        space=planner.space,
        objectives=(THROUGHPUT,),
        method=method,
        seed=1,
        hints=more.pop("hints", None),
    )
    sweep = Sweep(
        planner=planner,
        search=search,
        ledger=Ledger(
            Store(folder / "test"),
            planner,
            Terms(objectives=(THROUGHPUT,), method=method, trials=trials, **terms),
        ),
        executor=executor,
        scheduler=Scheduler((planner.node,)) if scheduler is None else scheduler,
        observer=observer,
        retries=Retries(**retries),
        **more,
    )
    with closing(search):
        return sweep.run(stop=stop)


def complete(spec: TrialSpec, placement: Placement) -> TrialResult:
    now = time.time()
    measured = Measurement(
        load_point=LOAD,
        restart=0,
        repeat=0,
        metrics={"request_throughput_per_s": float(spec.assignment.get("max_num_seqs", 1))},
        telemetry={},
        measured_s=1.0,
        client_overhead_s=0.0,
        started_at=now,
        ended_at=now,
    )
    return TrialResult(
        spec=spec,
        placement=placement,
        state=TrialState.COMPLETE,
        provenance=spec.provenance,
        measurements=(measured,),
    )


def failed(failure: FailureClass) -> Callable[[TrialSpec, Placement], TrialResult]:
    def script(spec: TrialSpec, placement: Placement) -> TrialResult:
        return replace(
            trial.lost(spec, placement, RuntimeError("gone")),
            failure_class=failure,
            failure_message="its line",
        )

    return script


def planner_of_three_series(folder: Path, model: Model) -> Planner:
    """A planner on a modelled node of eight MI300X; two of its three series ask for the same."""
    return Planner(
        study="test",
        trials_folder=str(folder / "test" / "trials"),
        space=THREE_SERIES,
        engine=EngineSpec(kind="simulated", release="0.6.2"),
        model=model,
        platform=Platform.SIMULATED,
        node=topology.modelled_mi300x(),
        accelerator="rocm",
        load_points=(LOAD,),
    )
