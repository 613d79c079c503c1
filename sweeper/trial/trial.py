"""One trial from start to result: engine up, proven, sane, warmed, measured, stopped.

A trial owns its engine and its client for as long as it runs and nothing after. Whatever goes wrong on
the way becomes a failed result with a class and the engine's own line: this is the one border where
exceptions are caught broadly. How an engine is started or a load is sent lies below (``engines``,
``clients``); where the trial runs lies above (``executors``).
"""

from __future__ import annotations

import itertools
import json
import os
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from sweeper.clients import Client, plausibility, requirements
from sweeper.clients.program import last_line
from sweeper.clients.registry import OpenClient, client_of
from sweeper.engines import Cancelled, Engine, Server
from sweeper.engines.endpoint import fingerprint, joined
from sweeper.engines.environment import outputs_folder
from sweeper.engines.registry import engine_of
from sweeper.errors import EngineError, SweeperError
from sweeper.goals import pruner
from sweeper.kinds import CLIENTS, ENGINES
from sweeper.records import (
    FailureClass,
    LoadPoint,
    Measurement,
    Placement,
    Platform,
    Scalar,
    TrialResult,
    TrialSpec,
    TrialState,
    gpus_used,
)
from sweeper.text import confidential
from sweeper.topology import Runner, run_command
from sweeper.topology.device_processes import DeviceProcesses
from sweeper.topology.free_devices import FreeDevices
from sweeper.trial import host_settings, numa, stages, surroundings, telemetry
from sweeper.trial.proof import Proof
from sweeper.workload import rate_search

_LONGEST_TEXT = 20_000
"""Characters of a message or an answer that are kept."""


@dataclass
class _Diary:
    """What is known of a trial while it runs; whatever happens, its result is written from here."""

    folder: Path | None = None
    measurements: list[Measurement] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)
    server: Server | None = None
    answers: list[str | None] = field(default_factory=list)
    host: Mapping[str, Scalar] = field(default_factory=dict)
    numa_binding: str | None = None

    def begin(self, stage: str) -> None:
        """Describe what the trial does from here on; a modelled one is over at once."""
        if self.folder is not None:
            stages.announce(self.folder, stage)

    def spend(self, phase: str, seconds: float) -> None:
        self.phases[phase] = self.phases.get(phase, 0.0) + seconds


def run(
    spec: TrialSpec,
    placement: Placement,
    *,
    cancelled: Cancelled,
    engine: Engine | None = None,
    open_client: OpenClient | None = None,
    proc: Path = host_settings.PROC,
    sys: Path = numa.SYS,
    before_load: Callable[[], object] = lambda: None,
    probe: Runner = run_command,
) -> TrialResult:
    """Run one trial to its end.

    Args:
        spec: What to run.
        placement: The devices that are this trial's until it returns.
        cancelled: Polled throughout; true ends the trial as interrupted.
        engine: What serves, if not the one that the spec names.
        open_client: What loads it, likewise.
        proc: Where the kernel shows its settings, for trials that change the host.
        sys: Where it shows its devices, for the processors of a NUMA node.
        before_load: Called before each measured load.
        probe: Runs the vendor's tool that tells who is on the devices.

    Returns:
        The result, complete or failed; an engine's failure is never an exception.
    """
    diary = _Diary(folder=None if spec.is_modelled else Path(spec.folder))
    started_at = time.time()
    try:
        engine = engine or engine_of(spec)
        open_client = open_client or client_of(spec)
        with (
            _changed_host(spec, proc=proc) as diary.host,
            _bound(spec, placement, sys=sys) as diary.numa_binding,
        ):
            for restart in range(spec.repeats):
                reason = _reason_to_stop(spec, placement, diary) or _one_start(
                    spec, placement, restart, engine, open_client, cancelled, before_load, probe, diary
                )
                if reason is not None:
                    return _result(spec, placement, diary, started_at, TrialState.SKIPPED, message=reason)
    except EngineError as exc:
        message = _with_engines_word(exc, diary.server)
        return _failed(
            spec, placement, diary, started_at, failure=exc.failure, message=message, log=exc.log_path
        )
    except KeyboardInterrupt:
        return _failed(
            spec, placement, diary, started_at, failure=FailureClass.INTERRUPTED, message="stopped on request"
        )
    except Exception as exc:
        log = _write_traceback(spec, exc)
        failure = FailureClass.BAD_ARGUMENT if isinstance(exc, SweeperError) else FailureClass.INFRASTRUCTURE
        message = str(exc) if isinstance(exc, SweeperError) else f"{type(exc).__name__}: {exc}"
        return _failed(spec, placement, diary, started_at, failure=failure, message=message, log=log)
    return _result(spec, placement, diary, started_at, TrialState.COMPLETE)


def lost(
    spec: TrialSpec,
    placement: Placement,
    error: BaseException,
    *,
    failure: FailureClass = FailureClass.INFRASTRUCTURE,
) -> TrialResult:
    """Make the result of a trial whose worker died and so cannot speak for itself."""
    return TrialResult(
        spec=spec,
        placement=placement,
        state=TrialState.FAILED,
        provenance=spec.provenance,
        failure_class=failure,
        failure_message=_told(
            f"the worker of this trial was lost: {type(error).__name__}: {_first_line(error)}"
        ),
    )


def _machine_versions(spec: TrialSpec) -> dict[str, str]:
    """Versions of what drives the trial; a modelled one does not depend on this machine."""
    return {} if spec.is_modelled else surroundings.versions()


def _changed_host(spec: TrialSpec, *, proc: Path) -> AbstractContextManager[Mapping[str, Scalar]]:
    """Change the host as this trial asks, for as long as it runs; a modelled one is left alone."""
    if not spec.is_exclusive:
        return nullcontext({})
    return host_settings.changed(spec.assignment, outputs=outputs_folder(spec), proc=proc)


def _bound(spec: TrialSpec, placement: Placement, *, sys: Path) -> AbstractContextManager[str | None]:
    """Keep what this trial starts near its devices; a modelled node and a remote endpoint have no near."""
    if spec.platform is Platform.SIMULATED or not ENGINES[spec.engine.kind].has_devices:
        return nullcontext(None)
    return numa.bound(placement, platform=spec.platform, is_wanted=spec.engine.binds_numa, sys=sys)


def _one_start(
    spec: TrialSpec,
    placement: Placement,
    restart: int,
    engine: Engine,
    open_client: OpenClient,
    cancelled: Cancelled,
    before_load: Callable[[], object],
    probe: Runner,
    diary: _Diary,
) -> str | None:
    """Measure every load point on one start of the engine, or as many as can matter; say why not all."""
    diary.begin("waits for free devices")
    diary.spend("free_wait_s", _wait_until_free(spec, placement, cancelled, probe))
    diary.begin(f"starts the engine{_of(restart, spec.repeats)}")
    client = open_client(spec, placement)
    try:
        server = engine.start(spec, placement, restart=restart, cancelled=cancelled)
        diary.server = server
        diary.spend("engine_start_s", server.start_s)
        try:
            proof = Proof(
                server, DeviceProcesses(platform=spec.platform, devices=placement.devices, run=probe)
            )
            diary.begin("is asked a question")
            diary.answers.append(proof.ask())
            diary.begin("warms up")
            diary.spend("warmup_s", _warm_up(spec, client, server, cancelled))
            reason = None
            for repeat, point in itertools.product(range(spec.runs_per_start), _loads_in_order(spec)):
                reason = _reason_to_stop(spec, placement, diary)
                if reason is not None:
                    break
                diary.begin(f"load{_of(len(diary.measurements), _loads_in_all(spec))}: {point.label}")

                def measure(point: LoadPoint, repeat: int = repeat) -> Measurement:
                    _raise_if(cancelled)
                    proof.look()
                    before_load()
                    if CLIENTS[spec.client.kind].has_engine_inside:
                        # Each of its loads starts an engine of its own.
                        diary.spend("free_wait_s", _wait_until_free(spec, placement, cancelled, probe))
                    with proof.watched(), telemetry.recorded(server, spec, placement) as recording:
                        measured = client.measure(
                            server, point, restart=restart, repeat=repeat, cancelled=cancelled
                        )
                    plausibility.check(measured, log_path=server.log_path)
                    measured = _with_surroundings(spec, measured, proof.look())
                    return telemetry.with_telemetry(measured, recording)

                diary.measurements += rate_search.measurements(point, measure)
            proof.ask_again()
        finally:
            diary.begin("stops the engine")
            diary.spend("stop_s", server.stop())
    finally:
        client.close()
    return reason


def _of(done: int, total: int) -> str:
    """Return `` 2 of 6`` where one of six is done, and nothing where there is only one."""
    return f" {done + 1} of {total}" if total > 1 else ""


def _loads_in_all(spec: TrialSpec) -> int:
    return spec.repeats * spec.runs_per_start * len(spec.load_points)


def _wait_until_free(spec: TrialSpec, placement: Placement, cancelled: Cancelled, probe: Runner) -> float:
    """Start nothing where somebody else is; an endpoint that already runs is on its devices, of course."""
    if not ENGINES[spec.engine.kind].has_devices:
        return 0.0
    free = FreeDevices(spec.platform, placement.devices, partition_mode=placement.partition_mode, run=probe)
    return free.wait(limit_s=spec.engine.free_timeout_s, cancelled=cancelled)


def _loads_in_order(spec: TrialSpec) -> tuple[LoadPoint, ...]:
    """Return the load points as written; what decides most comes first where a rule may end the trial."""
    rule = spec.stop_rule
    if rule is None:
        return spec.load_points
    return pruner.decision_order(spec.load_points, rule.objectives, rule.constraints)


def _reason_to_stop(spec: TrialSpec, placement: Placement, diary: _Diary) -> str | None:
    if spec.stop_rule is None or not diary.measurements:
        return None
    gpus = gpus_used(
        len(placement.devices),
        partition_mode=placement.partition_mode,
        partitions_per_gpu=placement.partitions_per_gpu,
    )
    return pruner.reason_to_stop(spec.stop_rule, spec.load_points, diary.measurements, gpus=gpus)


def _with_surroundings(spec: TrialSpec, measured: Measurement, neighbours: int | None) -> Measurement:
    # A model draws lengths and no prompts.
    again = None if spec.is_modelled else requirements.repeated_prompts(measured.load_point)
    told = {"foreign_processes": neighbours, "repeated_prompts": again}
    return replace(measured, telemetry={**measured.telemetry, **told})


def _warm_up(spec: TrialSpec, client: Client, server: Server, cancelled: Cancelled) -> float:
    if not spec.warmup_prompts:
        return 0.0
    return client.warm_up(server, _gentlest(spec), prompts=spec.warmup_prompts, cancelled=cancelled)


def _gentlest(spec: TrialSpec) -> LoadPoint:
    rates = [point.request_rate_per_s or float("inf") for point in spec.load_points]
    return spec.load_points[rates.index(min(rates))]


def _raise_if(cancelled: Cancelled) -> None:
    if cancelled():
        raise EngineError("stopped on request", failure=FailureClass.INTERRUPTED)


def _failed(
    spec: TrialSpec,
    placement: Placement,
    diary: _Diary,
    started_at: float,
    *,
    failure: FailureClass,
    message: str,
    log: str | None = None,
) -> TrialResult:
    return _result(
        spec, placement, diary, started_at, TrialState.FAILED, failure=failure, message=message, log=log
    )


def _result(
    spec: TrialSpec,
    placement: Placement,
    diary: _Diary,
    started_at: float,
    state: TrialState,
    *,
    failure: FailureClass | None = None,
    message: str | None = None,
    log: str | None = None,
) -> TrialResult:
    server, answer = diary.server, joined(diary.answers)
    if diary.folder is not None:
        stages.forget(diary.folder)
    return TrialResult(
        spec=spec,
        placement=placement,
        state=state,
        provenance=server.provenance if server else spec.provenance,
        # A failed trial keeps no numbers: part of a measurement is not a measurement. What was left out
        # because it cannot matter is another thing: the load points before it were measured whole.
        measurements=() if state is TrialState.FAILED else tuple(diary.measurements),
        failure_class=failure,
        failure_message=None if message is None else _told(message, server),
        log_path=log or (server.log_path if server else None),
        effective={
            **_told_values(server.effective if server else {}, server),
            **diary.host,
            **({} if diary.numa_binding is None else {"numa_binding": diary.numa_binding}),
        },
        versions={**_machine_versions(spec), **(server.versions if server else {})},
        surroundings={} if spec.is_modelled else surroundings.surroundings(os.environ),
        phases=diary.phases,
        sanity_fingerprint=None if answer is None else fingerprint(answer),
        sanity_text=None if answer is None else _told(answer, server),
        command=server.command if server else (),
        started_at=started_at,
        ended_at=time.time(),
    )


def _told(text: str, server: Server | None = None) -> str:
    """Return what somebody else said as it may be kept: of some length, Unicode, and without secrets."""
    if len(text) > _LONGEST_TEXT:
        text = f"{text[: _LONGEST_TEXT // 2]} ... {text[-_LONGEST_TEXT // 2 :]}"
    known = [server.api_key] if server is not None else []
    text = text.encode("utf-8", "backslashreplace").decode()
    return confidential.redacted(text, os.environ, known=known)


def _told_values(values: Mapping[str, Scalar], server: Server | None) -> dict[str, Scalar]:
    return {name: _told(value, server) if isinstance(value, str) else value for name, value in values.items()}


def _write_traceback(spec: TrialSpec, exc: BaseException) -> str:
    path = Path(spec.folder) / "traceback.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    told = confidential.redacted("".join(traceback.format_exception(exc)), os.environ)
    path.write_text(told, encoding="utf-8")
    return str(path)


def _with_engines_word(error: EngineError, server: Server | None) -> str:
    """Add the engine's last line to what a client says of a load that never ended: it only saw silence."""
    if error.failure is not FailureClass.HANG or server is None or server.log_path is None:
        return str(error)
    return f"{error}; the engine's last line: {last_line(Path(server.log_path))}"


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else json.dumps(type(error).__name__)
