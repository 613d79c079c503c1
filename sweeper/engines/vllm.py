"""Starts the real vLLM as a process in its own environment, and proves that it is what was asked for.

vLLM is never imported: ``engine.python`` names the interpreter of its environment, so the sweeper runs
next to any release. An engine counts as started only when it is ready *and* proven:

* the socket that answers belongs to the process tree that was just started (a server left over from a
  killed sweep once answered for the next setting, and its speed was recorded under the wrong name);
* version and model name are the expected ones;
* the configuration that the engine itself reports agrees with every knob that was asked for.

Whatever fails names the engine's own line as its reason (``vllm_reports``).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sweeper import knobs
from sweeper.engines import Cancelled, live, vllm_reports
from sweeper.engines.checks import Found
from sweeper.engines.environment import check_release, find_interpreter, kept_folder
from sweeper.engines.launched import LaunchedServer, Warm, bring_up, launch, log_head, why_another
from sweeper.engines.live import LiveLimits
from sweeper.engines.shared import LogParts
from sweeper.engines.vllm_environment import (
    EngineEnvironment,
    probe,
    server_environment,
    vllm_python,
    write_metadata_stub,
)
from sweeper.knobs.live import live_limits_of
from sweeper.processes import process as processes
from sweeper.processes.ports import ReservedPort
from sweeper.processes.warm import WarmProcesses
from sweeper.records import EngineSpec, FailureClass, Placement, Platform, Scalar, TrialSpec

_SERVER_WORKER = Path(__file__).with_name("vllm_server_worker.py")
# Python, -m and the module.
_BEFORE_ARGUMENTS = 3
# Compared with starts that import for themselves on this one; what a GPU's platform keeps of its imports
# was not.
_KEPT_ON = {Platform.CPU}

_LIVE_FOLDER = "live"


def server_command(spec: TrialSpec, *, python: str, port: int) -> tuple[str, ...]:
    """The command line of the server, without secrets.

    The module is used and not the ``vllm`` script, which releases before 0.5.2 lack and the CPU build's
    does not work.
    """
    model = spec.model
    is_on_hub = not Path(model.path).is_dir()
    revision = ("--revision", model.revision) if model.revision and is_on_hub else ()
    dummy = ("--load-format", "dummy") if model.is_dummy else ()
    return (
        *(python, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", model.path, "--served-model-name", model.name),
        *("--host", "127.0.0.1", "--port", str(port)),
        *revision,
        *dummy,
        *knobs.command_line(spec.assignment, release=spec.engine.release),
    )


class VllmEngine:
    """Starts servers in the environment that the trial's spec names."""

    def __init__(self, *, warm: WarmProcesses | None = None) -> None:
        """Start nothing yet.

        Args:
            warm: Who keeps what servers import from one start to the next; None keeps nothing.
        """
        self._warm = warm

    def start(
        self, spec: TrialSpec, placement: Placement, *, restart: int, cancelled: Cancelled
    ) -> VllmServer:
        """Start a server on the placement's devices and wait until it is ready and proven ours.

        One that shares its start is started with what all its settings can be made of, and then made the
        trial's own.

        Raises:
            EngineError: It did not come up; nothing of it is left running.
            MeasurementError: It came up as something else than was asked for; it is ended as well.
            ConfigError: The interpreter is missing or has no vLLM.
        """
        environment = probe(vllm_python(spec.engine))
        check_release(spec.engine, environment.release, title="vLLM")
        live_limits = None if spec.live_start is None else LiveLimits(Path(spec.folder) / _LIVE_FOLDER)
        start = spec if spec.live_start is None else replace(spec, assignment=spec.live_start)
        server = bring_up(
            lambda reserved: _launch(
                start,
                placement,
                environment,
                reserved,
                restart=restart,
                live_limits=live_limits,
                warm=_kept(self._warm, spec, live_limits),
            ),
            cancelled=cancelled,
        )
        if live_limits is not None:
            try:
                server.serve(spec, cancelled=cancelled)
            except BaseException:
                server.stop()
                raise
        return server


class VllmServer(LaunchedServer):
    """One running vLLM, from launch to end; `VllmEngine.start` hands out proven ones only.

    Attributes:
        live_limits: Its limits, where they can be changed while it runs.
        served: How many trials it was given, where several share its start.
    """

    # vLLM names its processes so from 0.10 on; earlier ones cannot be distinguished from passing helpers.
    core_title = "VLLM::"
    live_limits: LiveLimits | None = None
    served = 0
    _log_of_start = 0

    def prove(self) -> None:
        """Check that what answers is ours and runs as asked, and keep what it reports.

        Raises:
            EngineError: The port is held by a process that is not ours.
            MeasurementError: Version, model name or a knob differs from what was asked.
        """
        self._prove_socket()
        self._prove_identity()
        reported = vllm_reports.read_effective(
            server_info=self._server_info(),
            metrics=self._endpoint.get("/metrics").text,
            log=log_head(Path(str(self.log_path))),
            asked=self._spec.assignment,
        )
        self.effective = {**reported, **self.surroundings()}
        self._refuse_differences()
        if self.live_limits is not None:
            self._keep(self.live_limits.started())

    def serve(self, spec: TrialSpec, *, cancelled: Cancelled) -> None:
        """Become the setting of a trial that shares this start, and prove that it is.

        Args:
            spec: The trial; what it is beside limits of the scheduler was started.
            cancelled: Polled from here on by whatever waits.

        Raises:
            EngineError: It has ended, does not answer, or a stop was asked for.
            MeasurementError: It was not started for this, refuses, confirms something else, or reports
                another configuration than the trial asks for.
        """
        self._spec = spec
        self._endpoint = replace(self._endpoint, cancelled=cancelled)
        self.log_from = Path(str(self.log_path)).stat().st_size
        self._log_of_start = self._log_of_start or self.log_from
        self.check_alive()
        self.change_limits(live_limits_of(spec.assignment))
        self.effective = {**self.effective, "live_trial": self.served}
        self.served += 1
        self._refuse_differences()

    @property
    def log_parts(self) -> LogParts:
        """Where in its log its start is, and the trial that it serves now."""
        return (0, self._log_of_start), (self.log_from, None)

    def change_limits(self, limits: Mapping[str, int]) -> None:
        """Change limits of the scheduler, the engine idle and its prefix cache emptied, and keep what holds.

        Args:
            limits: Knob to limit (``knobs.live``), each within what the engine was started with.

        Raises:
            EngineError: It does not answer, or a stop was asked for.
            MeasurementError: It was not started for this, refuses, or confirms something else.
        """
        if self.live_limits is None:
            raise self._doubt(
                "engine: it was started with fixed limits; expected a live scheduler. Start it afresh.",
                FailureClass.WRONG_ENGINE,
            )
        self._keep(self.live_limits.change(self._endpoint, limits))

    def _keep(self, confirmed: live.Confirmed) -> None:
        """Keep what the scheduler confirms, over what the API server reports of the start."""
        told: dict[str, Scalar] = {"set_live": live.listed(confirmed.changed)}
        told |= {"started_with": live.listed(confirmed.started)}
        self.effective = {**self.effective, **confirmed.limits, **told}

    def counters(self) -> Mapping[str, float]:
        """Return what the engine has counted so far (`vllm_reports.read_metrics`); empty if it is silent."""
        return vllm_reports.read_metrics(self._endpoint.metrics())

    def _prove_identity(self) -> None:
        # Releases before 0.4.1 have no such route; the environment's metadata speaks for them.
        answer = self._endpoint.get("/version")
        version = answer.content.get("version") if answer.is_ok else None
        problem = why_another(self._spec, self._endpoint, version=version, title="vLLM")
        if problem is not None:
            raise self._doubt(problem, FailureClass.WRONG_ENGINE)

    def _server_info(self) -> object:
        # The first answer takes seconds: it collects facts of the system, too.
        answer = self._endpoint.get("/server_info?config_format=json", timeout_s=60.0)
        return answer.content if answer.is_ok else None


def _kept(warm: WarmProcesses | None, spec: TrialSpec, live_limits: LiveLimits | None) -> Warm | None:
    """Return who keeps what this trial's server imports; None where that was not tried.

    One whose limits can be changed imports from a folder of its own, and serves many settings by one start.
    """
    # Who keeps imports hands over open files, which no container runtime passes on.
    is_contained = spec.engine.container is not None
    if warm is None or live_limits is not None or is_contained or spec.platform not in _KEPT_ON:
        return None
    return Warm(processes=warm, worker=_SERVER_WORKER, skips=_BEFORE_ARGUMENTS, own=("VLLM_API_KEY",))


def _launch(
    spec: TrialSpec,
    placement: Placement,
    environment: EngineEnvironment,
    reserved: ReservedPort,
    *,
    restart: int,
    live_limits: LiveLimits | None,
    warm: Warm | None,
) -> VllmServer:
    python = find_interpreter(vllm_python(spec.engine))
    api_key = secrets.token_urlsafe(24)
    command = server_command(spec, python=python, port=reserved.port)
    env = server_environment(
        spec,
        placement,
        surroundings=os.environ,
        python=python,
        api_key=api_key,
        owner=processes.current(),
        stub=write_metadata_stub(
            Path(spec.folder).resolve() if warm is None else kept_folder(spec), environment
        ),
    )
    if live_limits is not None:
        command = (*command, *live.ARGUMENTS)
        env |= live_limits.environment(env)
    process, log_path = launch(
        spec, placement, command=command, env=env, port=reserved.port, restart=restart, warm=warm
    )
    server = VllmServer(
        spec,
        process=process,
        reserved=reserved,
        api_key=api_key,
        command=command,
        log_path=log_path,
        versions=environment.versions,
    )
    server.live_limits = live_limits
    return server


def find(engine: EngineSpec) -> Found:
    """Return the release in the environment of ``engine.python``.

    Raises:
        ConfigError: There is no vLLM.
    """
    python = vllm_python(engine)
    return Found(release=probe(python).versions["vllm"], where=python)
