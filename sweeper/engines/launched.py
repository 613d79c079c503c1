"""A server that we started: watched, proven ours, asked, and ended with all of its processes.

What vLLM, SGLang and TGI have in common is here; what is particular to each is in its own module.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

from sweeper.engines import Cancelled, contained, vllm_reports
from sweeper.engines.endpoint import Endpoint
from sweeper.engines.environment import kept_folder, without_secrets
from sweeper.errors import EngineError, MeasurementError, Stopped
from sweeper.processes import ports, supervisor
from sweeper.processes import process as processes
from sweeper.processes.kept import Wanted
from sweeper.processes.ports import ReservedPort
from sweeper.processes.process import Process
from sweeper.processes.supervisor import Program, Supervised
from sweeper.processes.warm import Kind, WarmProcesses
from sweeper.records import FailureClass, Placement, Provenance, Scalar, TrialSpec
from sweeper.text import confidential, trial_files
from sweeper.topology.node import ranges

LOG_BYTES = 400_000
"""How much of a log's beginning or end is read."""

_POLL_S = 0.25
# How long the API server is given for its last words after a process below it has died.
_UNREADY_GRACE_S = 5.0
_LAST_WORDS_S = 5.0
# Of a last line, what is quoted in a message.
_LONGEST_LINE = 2000


class LaunchedServer:
    """One running engine, from launch to end.

    Attributes:
        core_title: How the processes below the API server that must live are called; None where they
            cannot be distinguished from passing helpers.
        log_from: Byte of its log from which on it speaks of the trial that it serves.
    """

    provenance = Provenance.MEASURED
    core_title: str | None = None
    log_from = 0

    def __init__(
        self,
        spec: TrialSpec,
        *,
        process: Program,
        reserved: ReservedPort,
        api_key: str,
        command: tuple[str, ...],
        log_path: Path,
        versions: Mapping[str, str],
    ) -> None:
        self._spec = spec
        self._process = process
        self._reserved = reserved
        self._launched = time.monotonic()
        self._core: list[Process] = []
        self._proven: set[Process] = set()
        self._is_ready = False
        self.base_url = f"http://127.0.0.1:{reserved.port}"
        self.api_key = api_key
        self._endpoint = Endpoint(base_url=self.base_url, api_key=api_key)
        # In a container it is another one than the engine's own.
        self.command = (process.command if isinstance(process, Supervised) else ()) or command
        self.log_path: str | None = str(log_path)
        self.versions = versions
        self.effective: Mapping[str, Scalar] = {}
        self.start_s = 0.0

    def wait_ready(self, cancelled: Cancelled) -> None:
        """Wait until the server listens, and then until it answers that it is healthy.

        Raises:
            EngineError: It ended, took too long for either, or the wait was cancelled.
        """
        self._endpoint = replace(self._endpoint, cancelled=cancelled)
        listens_since: float | None = None
        while True:
            # The process before the port: an answer means nothing while it is not known who gives it.
            self._raise_if_ended()
            if cancelled():
                raise Stopped(log_path=self.log_path)
            if self._endpoint.get("/health", timeout_s=5.0).is_ok:
                break
            if listens_since is None and ports.is_listened_on(self._reserved.port):
                listens_since = time.monotonic()
            self._raise_if_late(listens_since)
            time.sleep(_POLL_S)
        self.start_s = time.monotonic() - self._launched
        self._is_ready = True
        if self.core_title is not None:
            named = self.core_title
            self._core = [p for p in self._process.members() if processes.title(p.pid).startswith(named)]

    def sanity(self) -> str:
        """Ask a greedy question and return the text of the answer.

        Raises:
            MeasurementError: No answer, an empty one, or not within the sanity time limit.
        """
        answer = self._endpoint.ask_greedily(
            self._spec.model.name, timeout_s=self._spec.engine.sanity_timeout_s
        )
        problem = answer.why_no_text(who="it", look="See its log.")
        if problem is not None:
            self.check_alive()
            raise self._doubt(problem, FailureClass.WRONG_ANSWER)
        return answer.first_text

    def check_alive(self) -> None:
        """Return quietly while the engine lives, the processes below the API server included.

        Raises:
            EngineError: It has ended; class and message come from its own last lines.
        """
        self._raise_if_ended()
        if all(map(processes.is_alive, self._core)):
            return
        deadline = time.monotonic() + _LAST_WORDS_S
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        raise self._death(self._process.poll())

    def prove_ours(self) -> frozenset[int]:
        """Check that the process that was proven at the start, and no other, still answers.

        Returns:
            Ids of all processes of the engine.

        Raises:
            EngineError: Nobody listens any more.
            MeasurementError: Another process listens on the port.
        """
        ours = self._process.pids()
        holders = self._listeners()
        if not holders and not self._proven and contained.is_unseen(self._process, self._reserved.port):
            self._raise_if_ended()
            self._prove_key()
            return frozenset(ours)
        if not holders:
            self._raise_if_ended()
            raise self._error(
                f"engine: nobody listens on port {self._reserved.port} any more; last line: "
                f"{self._last_line()}",
                FailureClass.CRASH,
            )
        # A server with several front ends may lose and replace one; all of them stay ours.
        foreign = sorted(process.pid for process in holders if process.pid not in ours)
        if foreign or not holders & self._proven:
            raise self._doubt(
                f"engine: port {self._reserved.port} was held by process "
                f"{', '.join(map(str, sorted(self._proven)))} and is now by {sorted(map(str, holders))}; "
                "expected the same engine from start to end. Let nothing else listen there.",
                FailureClass.WRONG_ENGINE,
            )
        return frozenset(ours)

    def surroundings(self) -> dict[str, Scalar]:
        """Return what the engine's program found around it when it was executed, as the kernel showed it.

        Returns:
            ``device_mask``, its variables that hide devices; ``cpus``, the processors that it may run on.
        """
        return seen(Path(str(self.log_path)))

    def pids(self) -> set[int]:
        """Ids of all processes of the engine."""
        return self._process.pids()

    def stop(self) -> float:
        """End the engine and all of its processes; return the seconds it took. Safe to call twice.

        One that serves nobody yet has nothing to finish, and may not hear while it loads and compiles.
        """
        if not self._is_ready:
            grace_s = min(_UNREADY_GRACE_S, self._spec.engine.stop_timeout_s)
            processes.end(self._process.members(), grace_s=grace_s)
        seconds = self._process.stop()
        self._reserved.release()
        return seconds

    def _prove_socket(self) -> None:
        holders = ports.listeners(self._reserved.port)
        ours = self._process.pids()
        if not holders and contained.is_unseen(self._process, self._reserved.port):
            self._prove_key()
            return
        if not holders or not holders <= ours:
            raise self._error(
                f"engine: port {self._reserved.port} is held by processes {sorted(holders)}; expected one of "
                f"ours, {sorted(ours)}. End the other program.",
                FailureClass.PORT,
            )
        self._proven = self._listeners()

    def _prove_key(self) -> None:
        contained.prove_key(self._endpoint, self._reserved.port, log_path=self.log_path)

    def _listeners(self) -> set[Process]:
        found = map(processes.find, ports.listeners(self._reserved.port))
        return {process for process in found if process is not None}

    def _refuse_differences(self) -> None:
        asked = self._spec.assignment
        different = vllm_reports.differences(asked, self.effective)
        self.effective = {**self.effective, **vllm_reports.not_compared(asked, self.effective)}
        if different:
            listed = vllm_reports.told(different)
            raise self._doubt(
                f"engine: it reports another configuration than was asked ({listed}); expected the same. "
                "Ask for what this release and platform can do.",
                FailureClass.WRONG_ENGINE,
            )

    def _raise_if_late(self, listens_since: float | None) -> None:
        limits, now = self._spec.engine, time.monotonic()
        if listens_since is None and now - self._launched > limits.start_timeout_s:
            late = f"does not listen after {limits.start_timeout_s:g} s (engine.start_timeout_s)"
        elif listens_since is not None and now - listens_since > limits.ready_timeout_s:
            late = f"listens, and is not healthy after {limits.ready_timeout_s:g} s (engine.ready_timeout_s)"
        else:
            return
        # One of its processes may have logged why the others wait.
        cause = vllm_reports.known_cause(self._log_tail())
        if cause is not None:
            raise self._error(f"engine: {late}; it told why: {cause.message}", cause.failure)
        message = f"engine: {late}; last line: {self._last_line()}"
        raise self._error(message, FailureClass.START_TIMEOUT)

    def _raise_if_ended(self) -> None:
        code = self._process.poll()
        if code is not None:
            raise self._death(code)
        if self._process.floods():
            raise self._error(
                f"engine: it wrote more than {supervisor.LARGEST_LOG / 2**30:g} GiB to its log, and was "
                f"ended; last line: {self._last_line()}",
                FailureClass.CRASH,
            )

    def _death(self, exit_code: int | None) -> EngineError:
        death = vllm_reports.why_it_ended(self._log_tail(), exit_code=exit_code, was_ready=self._is_ready)
        return self._error(death.message, death.failure)

    def _error(self, message: str, failure: FailureClass) -> EngineError:
        return EngineError(self._without_key(message), failure=failure, log_path=self.log_path)

    def _doubt(self, message: str, failure: FailureClass) -> MeasurementError:
        return MeasurementError(self._without_key(message), failure=failure, log_path=self.log_path)

    def _without_key(self, message: str) -> str:
        # Nobody else knows the key of a server that never came up.
        return confidential.redacted(message, {}, known=[self.api_key])

    def _log_tail(self) -> str:
        with Path(str(self.log_path)).open("rb") as log:
            log.seek(max(self.log_from, log.seek(0, os.SEEK_END) - LOG_BYTES))
            return log.read().decode(errors="replace")

    def _last_line(self) -> str:
        return vllm_reports.last_line(self._log_tail())


def log_head(path: Path) -> str:
    """Read the beginning of an engine's log."""
    with path.open(encoding="utf-8", errors="replace") as log:
        return log.read(LOG_BYTES)


def seen(log_path: Path) -> dict[str, Scalar]:
    """Read what a supervised program found around it from the start file next to its log."""
    start_file = log_path.with_name(f"{log_path.stem}{processes.START_FILE_SUFFIX}")
    try:
        found = json.loads(start_file.read_text(encoding="utf-8"))["seen"]
    except (OSError, ValueError, KeyError):
        return {}
    return {"device_mask": str(found["device_mask"]), "cpus": ranges(found["cpus"])}


class _Provable(Protocol):
    def wait_ready(self, cancelled: Cancelled) -> None: ...

    def prove(self) -> None: ...

    def stop(self) -> float: ...


_Server = TypeVar("_Server", bound=_Provable)


def why_another(spec: TrialSpec, endpoint: Endpoint, *, version: object, title: str) -> str | None:
    """Return why what answers is not the engine that a trial asked for; None where nothing shows it.

    Args:
        spec: The trial.
        endpoint: Where it answers; it is asked for the models that it serves.
        version: Which one it says it is; anything but text says nothing.
        title: What it is called.
    """
    if isinstance(version, str) and version.partition("+")[0] != spec.engine.version:
        return (
            f"engine: it says it is {title} {version}; expected {spec.engine.version}. "
            "Look which installation engine.python really uses."
        )
    names = endpoint.served_models()
    if spec.model.name not in names:
        return f"engine: it serves {names}; expected '{spec.model.name}' among them. See its log."
    return None


def bring_up(launch_on: Callable[[ReservedPort], _Server], *, cancelled: Cancelled) -> _Server:
    """Launch a server on a port of its own and wait until it is ready and proven ours.

    Args:
        launch_on: Launches it; the port is given back when this fails.
        cancelled: Polled while it starts.

    Raises:
        EngineError: It did not come up; nothing of it is left running.
        MeasurementError: It came up as something else than was asked for; it is ended as well.
    """
    reserved = ReservedPort()
    try:
        server = launch_on(reserved)
    except BaseException:
        reserved.release()
        raise
    try:
        server.wait_ready(cancelled)
        server.prove()
    except BaseException:
        server.stop()
        raise
    return server


@dataclass(frozen=True, kw_only=True)
class Warm:
    """Who keeps what the main process of an engine imports.

    Attributes:
        processes: Keeps it.
        worker: File with what is imported, and what the process is then.
        skips: Words of the command line before its arguments: the interpreter, and what is run.
        own: Variables of one start alone, which nothing reads while it imports.
    """

    processes: WarmProcesses
    worker: Path
    skips: int
    own: tuple[str, ...]

    def fork(
        self,
        spec: TrialSpec,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        log_path: Path,
        note: Mapping[str, object],
    ) -> Program:
        """Start the process as ``launch`` does, from one that has imported."""
        folder = log_path.parent
        wanted = Wanted(
            env=env,
            cwd=folder,
            log_path=log_path,
            note={**note, "command": list(command)},
            argv=(str(self.worker), *command[self.skips :]),
            grace_s=spec.engine.stop_timeout_s,
        )
        kind = Kind.of(self.worker, interpreter=command[0], env=env, own=self.own)
        launch_s = spec.engine.launch_timeout_s
        return self.processes.fork(kind, wanted, folder=kept_folder(spec), launch_s=launch_s)


def launch(
    spec: TrialSpec,
    placement: Placement,
    *,
    command: Sequence[str],
    env: Mapping[str, str],
    port: int,
    restart: int,
    warm: Warm | None = None,
) -> tuple[Program, Path]:
    """Start an engine's program under supervision, with a note of what was started next to its log.

    Args:
        spec: The trial, whose folder takes log, command and start file.
        placement: Its devices, for the start file.
        command: Program and arguments, without secrets; in a container, where the spec has one.
        env: Its whole environment; what may be stored of it is.
        port: Where it will listen, for the start file.
        restart: Start within the trial, for the names of the files.
        warm: Who keeps what it imports, and what that is; None starts a process of its own.

    Returns:
        The supervised program, and the path of its log.
    """
    folder = Path(spec.folder).resolve()
    name = f"engine-{spec.attempt}-{restart}"
    trial_files.make_folder(folder)
    if spec.engine.container is not None:
        command, env = contained.inside(spec, placement, command, env, folder=folder)
    stored = {"argv": list(command), "environment": without_secrets(env)}
    trial_files.write(folder / f"{name}.command.json", json.dumps(stored, indent=1))
    log_path = folder / f"{name}.log"
    note = {"trial": spec.key, "port": port, "devices": list(placement.devices)}
    if warm is not None:
        return warm.fork(spec, command, env=env, log_path=log_path, note=note), log_path
    process = Supervised.start(
        command,
        env=env,
        cwd=folder,
        log_path=log_path,
        start_file=folder / f"{name}{processes.START_FILE_SUFFIX}",
        grace_s=spec.engine.stop_timeout_s,
        launch_s=spec.engine.launch_timeout_s,
        note=note,
    )
    return process, log_path
