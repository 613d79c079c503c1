"""One trial from start to result: engine up, proven, sane, warmed, measured, stopped.

A trial owns its engine and its client for as long as it runs and nothing after. Whatever goes wrong on
the way becomes a failed result with a class and the engine's own line: this is the one border where
exceptions are caught broadly. How an engine is started or a load is sent lies below (``engines``,
``clients``); where the trial runs lies above (``executors``).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from sweeper.clients import Client, plausibility, requirements
from sweeper.clients.registry import OpenClient, client_of
from sweeper.engines import Cancelled, Engine, Server
from sweeper.engines.environment import outputs_folder
from sweeper.engines.registry import engine_of
from sweeper.errors import Stopped
from sweeper.goals import pruner
from sweeper.kinds import CLIENTS, ENGINES
from sweeper.processes.warm import WarmProcesses
from sweeper.records import (
    LoadPoint,
    Measurement,
    Placement,
    Platform,
    Scalar,
    TrialResult,
    TrialSpec,
    gpus_used,
)
from sweeper.topology import Runner, run_command
from sweeper.topology.device_processes import DeviceProcesses
from sweeper.topology.free_devices import FreeDevices
from sweeper.trial import host_settings, kernels, numa, outcome, questions, telemetry
from sweeper.trial.outcome import lost
from sweeper.trial.proof import Proof
from sweeper.trial.record import TrialRecord
from sweeper.trial.surroundings import audit_of
from sweeper.workload import load_search

__all__ = ["Trial", "lost", "run"]


def run(
    spec: TrialSpec,
    placement: Placement,
    *,
    cancelled: Cancelled,
    engine: Engine | None = None,
    open_client: OpenClient | None = None,
    warm: WarmProcesses | None = None,
    proc: Path = host_settings.PROC,
    sys: Path = numa.SYS,
    before_load: Callable[[], object] = lambda: None,
    probe: Runner = run_command,
    own_pids: Callable[[], Collection[int]] = tuple,
) -> TrialResult:
    """Run one trial to its end.

    Args:
        spec: What to run.
        placement: The devices that are this trial's until it returns.
        cancelled: Polled throughout; true ends the trial as interrupted.
        engine: What serves, if not the one that the spec names.
        open_client: Opens the client that loads it.
        warm: Who keeps what engines and clients have imported for later trials; None keeps nothing.
        proc: Where the kernel shows its settings, for trials that change the host.
        sys: Where it shows its devices, for the processors of a NUMA node.
        before_load: Called before each measured load.
        probe: Runs the vendor's tool that lists the processes on the devices.
        own_pids: Returns the ids of the processes of an engine that is there already for this trial.

    Returns:
        The result, complete or failed; an engine's failure is never an exception.
    """
    return Trial(
        spec,
        placement,
        cancelled=cancelled,
        engine=engine,
        open_client=open_client,
        warm=warm,
        proc=proc,
        sys=sys,
        before_load=before_load,
        probe=probe,
        own_pids=own_pids,
    ).run()


@dataclass(frozen=True, kw_only=True)
class _Start:
    """One start of the engine within a trial, with its client and the proof that brackets its loads."""

    restart: int
    server: Server
    client: Client
    proof: Proof


class Trial:
    """One trial, to be run once; its stages follow in the order in which they happen."""

    def __init__(
        self,
        spec: TrialSpec,
        placement: Placement,
        *,
        cancelled: Cancelled,
        engine: Engine | None,
        open_client: OpenClient | None,
        warm: WarmProcesses | None,
        proc: Path,
        sys: Path,
        before_load: Callable[[], object],
        probe: Runner,
        own_pids: Callable[[], Collection[int]],
    ) -> None:
        """Take what ``run`` takes; nothing is started yet."""
        self._spec = spec
        self._placement = placement
        self._cancelled = cancelled
        self._engine = engine
        self._open_client = open_client
        self._warm = warm
        self._proc = proc
        self._sys = sys
        self._before_load = before_load
        self._probe = probe
        self._own_pids = own_pids
        self._record = TrialRecord(spec=spec, placement=placement)

    def run(self) -> TrialResult:
        """Run it to its end, and return its result whatever happens."""
        try:
            engine = self._engine or engine_of(self._spec, self._warm)
            open_client = self._open_client or client_of(self._spec, self._warm)
            with self._changed_host() as self._record.host, self._bound() as self._record.numa_binding:
                self._record.audit = audit_of(self._spec, self._probe, root=self._proc.parent)
                reason = self._starts(engine, open_client)
        except (Exception, KeyboardInterrupt) as exc:
            return outcome.failed(self._record, exc)
        if reason is not None:
            return outcome.skipped(self._record, reason=reason)
        return outcome.complete(self._record)

    def _changed_host(self) -> AbstractContextManager[Mapping[str, Scalar]]:
        """Change the host as this trial asks, for as long as it runs; a modelled one is left alone."""
        if not self._spec.is_exclusive:
            return nullcontext({})
        outputs = outputs_folder(self._spec)
        return host_settings.changed(self._spec.assignment, outputs=outputs, proc=self._proc)

    def _bound(self) -> AbstractContextManager[str | None]:
        """Bind what this trial starts to the processors near its devices, if it has any."""
        if self._spec.platform is Platform.SIMULATED or not self._has_devices():
            return nullcontext(None)
        is_wanted = self._spec.engine.binds_numa
        return numa.bound(self._placement, platform=self._spec.platform, is_wanted=is_wanted, sys=self._sys)

    def _starts(self, engine: Engine, open_client: OpenClient) -> str | None:
        """Start the engine as often as asked; return why it was fewer times, if a rule ended the trial."""
        for restart in range(self._spec.repeats):
            reason = self._reason_to_stop() or self._one_start(restart, engine, open_client)
            if reason is not None:
                return reason
        return None

    def _one_start(self, restart: int, engine: Engine, open_client: OpenClient) -> str | None:
        """Measure on one start of the engine; return why not all, if a rule ended the trial."""
        self._record.begin("waits for free devices")
        self._wait_until_free()
        self._record.begin(f"starts the engine{_of(restart, self._spec.repeats)}")
        with (
            closing(open_client(self._spec, self._placement)) as client,
            self._started(engine, restart) as server,
        ):
            start = _Start(restart=restart, server=server, client=client, proof=self._proof_of(server))
            self._ask(start)
            reason = questions.ask(self._record, server, restart=restart, cancelled=self._cancelled)
            if reason is None:
                self._warm_up(start)
                reason = self._loads(start)
            start.proof.ask_again()
        return reason

    def _wait_until_free(self) -> None:
        """Wait until no other process is on the devices; a running endpoint is on its own, of course."""
        if not self._has_devices():
            self._record.spend("free_wait_s", 0.0)
            return
        free = FreeDevices(
            self._spec.platform,
            self._placement.devices,
            partition_mode=self._placement.partition_mode,
            run=self._probe,
        )
        limit_s = self._spec.engine.free_timeout_s
        waited_s = free.wait(limit_s=limit_s, cancelled=self._cancelled, ours=self._own_pids())
        self._record.spend("free_wait_s", waited_s)

    @contextmanager
    def _started(self, engine: Engine, restart: int) -> Iterator[Server]:
        """Start the engine, and stop it whatever happens to its loads."""
        server = engine.start(self._spec, self._placement, restart=restart, cancelled=self._cancelled)
        self._record.server = server
        self._record.spend("engine_start_s", server.start_s)
        try:
            yield server
        finally:
            self._record.begin("stops the engine")
            self._record.spend("stop_s", server.stop())
            self._record.kernels.append(kernels.kernels_of(server, self._spec))

    def _proof_of(self, server: Server) -> Proof:
        processes = DeviceProcesses(
            platform=self._spec.platform, devices=self._placement.devices, run=self._probe
        )
        return Proof(server, processes, has_whole_devices=self._gpus() == len(self._placement.devices))

    def _gpus(self) -> float:
        """Count the GPUs of the placement, a partition as its share."""
        return gpus_used(
            len(self._placement.devices),
            partition_mode=self._placement.partition_mode,
            partitions_per_gpu=self._placement.partitions_per_gpu,
        )

    def _ask(self, start: _Start) -> None:
        """Ask the greedy question, before anything loads the engine."""
        self._record.begin("is asked a question")
        self._record.answers.append(start.proof.ask())

    def _warm_up(self, start: _Start) -> None:
        """Send the gentlest load point's kind of requests, whose numbers are thrown away."""
        self._record.begin("warms up")
        prompts, seconds = self._spec.warmup_prompts, 0.0
        if prompts:
            point = _gentlest(self._spec.load_points)
            seconds = start.client.warm_up(start.server, point, prompts=prompts, cancelled=self._cancelled)
        self._record.spend("warmup_s", seconds)

    def _warm_up_for(self, start: _Start, point: LoadPoint) -> None:
        """Send what a load point's users send before it; a second run has the first for that."""
        prompts = point.warmup_prompts
        if prompts is None or point.keeps_prefix_cache:
            return
        seconds = start.client.warm_up(start.server, point, prompts=prompts, cancelled=self._cancelled)
        self._record.spend("warmup_s", seconds)

    def _loads(self, start: _Start) -> str | None:
        """Measure every load point, or as many as can matter; return why not all."""
        in_all = self._spec.repeats * self._spec.runs_per_start * len(self._spec.load_points)
        for repeat, point in itertools.product(range(self._spec.runs_per_start), self._loads_in_order()):
            reason = self._reason_to_stop()
            if reason is not None:
                return reason
            self._record.begin(f"load{_of(len(self._record.measurements), in_all)}: {point.label}")
            measure = partial(self._measure, start, repeat)
            self._record.measurements += load_search.measurements(point, measure)
        return None

    def _loads_in_order(self) -> tuple[LoadPoint, ...]:
        """Return the load points as written; what decides most comes first where a rule may end the trial."""
        rule = self._spec.stop_rule
        if rule is None:
            return self._spec.load_points
        return pruner.decision_order(self._spec.load_points, rule.objectives, rule.constraints)

    def _measure(self, start: _Start, repeat: int, point: LoadPoint) -> Measurement:
        """Measure one load, seen before, while and after it ran to be that of this engine alone."""
        if self._cancelled():
            raise Stopped
        self._warm_up_for(start, point)
        start.proof.look()
        self._before_load()
        if self._starts_with_each_load():
            self._wait_until_free()
        recorded = telemetry.recorded(start.server, self._spec, self._placement)
        with start.proof.watched(), recorded as recording:
            measured = start.client.measure(
                start.server, point, restart=start.restart, repeat=repeat, cancelled=self._cancelled
            )
        plausibility.check(measured, log_path=start.server.log_path)
        measured = self._with_surroundings(measured, start.proof.look())
        return telemetry.with_telemetry(measured, recording)

    def _with_surroundings(self, measured: Measurement, foreign_processes: int | None) -> Measurement:
        # A model draws lengths and no prompts.
        again = None if self._spec.is_modelled else requirements.repeated_prompts(measured.load_point)
        seen = {"foreign_processes": foreign_processes, "repeated_prompts": again}
        return replace(measured, telemetry={**measured.telemetry, **seen})

    def _reason_to_stop(self) -> str | None:
        """Return why what is left to measure cannot matter; None where it can."""
        if self._spec.stop_rule is None or not self._record.measurements:
            return None
        measured = self._record.measurements
        return pruner.reason_to_stop(
            self._spec.stop_rule, self._spec.load_points, measured, gpus=self._gpus()
        )

    def _has_devices(self) -> bool:
        """Return whether this trial starts processes on devices of its own."""
        return ENGINES[self._spec.engine.kind].has_devices

    def _starts_with_each_load(self) -> bool:
        """Return whether each load starts an engine of its own, so that devices have to be free again."""
        return CLIENTS[self._spec.client.kind].has_engine_inside


def _of(done: int, total: int) -> str:
    """Return `` 2 of 6`` where one of six is done, and nothing where there is only one."""
    return f" {done + 1} of {total}" if total > 1 else ""


def _gentlest(points: tuple[LoadPoint, ...]) -> LoadPoint:
    """Return the load point of the lowest request rate, or of the fewest users where none has a rate."""
    most = float("inf")
    return min(points, key=lambda point: (point.request_rate_per_s or most, point.users or most))
