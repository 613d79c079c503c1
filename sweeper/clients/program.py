"""One program that is run to its end while its engine, the clock and a request to stop are watched.

For load generators that are a process per run; what they are given and what they report is known elsewhere.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeper.engines import Cancelled, Server, vllm_reports
from sweeper.errors import EngineError, Stopped
from sweeper.processes import process, supervisor
from sweeper.processes.supervisor import Program, Supervised
from sweeper.records import FailureClass

_POLL_S = 0.25
_TELEMETRY_S = 1.0
# How long an engine that made requests fail may take to be seen dead.
_DEATH_S = 5.0
_GRACE_S = 2.0
# How much of a log's end is read.
_LOG_BYTES = 400_000


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a program ended.

    Attributes:
        exit_code: 128 + n when signal n ended it.
        peak_kv_cache_usage: Largest share of the engine's KV cache seen in use, 0 to 1; None where unknown.
    """

    exit_code: int
    peak_kv_cache_usage: float | None


class Watch:
    """Every reason to stop waiting for a program that loads an engine, looked at again and again.

    Attributes:
        peak_kv_cache_usage: Largest share of the engine's KV cache seen in use so far, 0 to 1; None where
            unknown.
    """

    def __init__(
        self, program: Program, server: Server, *, limit_s: float, log_path: Path, cancelled: Cancelled
    ) -> None:
        """Begin; the clock runs from here.

        Args:
            program: What loads the engine.
            server: The engine.
            limit_s: Seconds that the wait may take.
            log_path: The program's, for messages.
            cancelled: Polled; true ends the wait.
        """
        self._program = program
        self._server = server
        self._limit_s = limit_s
        self._log_path = str(log_path)
        self._cancelled = cancelled
        self._began = self._looked = time.monotonic()
        self.peak_kv_cache_usage: float | None = None

    def look(self) -> None:
        """Return quietly while no stop is requested, the engine lives, and the log is of usual size.

        Raises:
            EngineError: One of it is not so.
        """
        if self._cancelled():
            raise Stopped(log_path=self._log_path)
        self._server.check_alive()
        if self._program.floods():
            raise self._error(
                f"client: it wrote more than {supervisor.LARGEST_LOG / 2**30:g} GiB to its log, and was "
                "ended. See what it repeats.",
                FailureClass.CLIENT,
            )

    def look_at_load(self) -> None:
        """Return quietly while the load is within its time; read the engine's KV cache now and then.

        Raises:
            EngineError: The time is over.
        """
        if self.is_late():
            raise self._error(f"client: no result after {self._limit_s:g} s of load", FailureClass.HANG)
        if time.monotonic() - self._looked >= _TELEMETRY_S:
            self._looked = time.monotonic()
            seen = (self.peak_kv_cache_usage, self._server.counters().get("kv_cache_usage"))
            self.peak_kv_cache_usage = max((usage for usage in seen if usage is not None), default=None)

    def is_late(self) -> bool:
        """Return whether the time is over."""
        return time.monotonic() - self._began > self._limit_s

    def _error(self, message: str, failure: FailureClass) -> EngineError:
        return EngineError(message, failure=failure, log_path=self._log_path)


def run_to_end(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    log_path: Path,
    note: Mapping[str, object],
    limit_s: float,
    launch_s: float,
    server: Server,
    cancelled: Cancelled,
) -> Ended:
    """Run a program under supervision until it ends by itself.

    Args:
        command: Program and arguments, without secrets.
        env: Its whole environment.
        cwd: Its working directory.
        log_path: Takes its output; the start file is written next to it.
        note: Further facts for the start file.
        limit_s: Seconds that it may take.
        launch_s: Seconds that its supervisor may take to be up.
        server: What it loads; it has to live meanwhile.
        cancelled: Polled; true ends the program.

    Raises:
        EngineError: Cancelled, past the limit, or the engine died. Nothing of the program is left then.
    """
    start_file = log_path.with_name(f"{log_path.stem}{process.START_FILE_SUFFIX}")
    with Supervised.start(
        command,
        env=env,
        cwd=cwd,
        log_path=log_path,
        start_file=start_file,
        grace_s=_GRACE_S,
        launch_s=launch_s,
        note=note,
    ) as program:
        watch = Watch(program, server, limit_s=limit_s, log_path=log_path, cancelled=cancelled)
        while (code := program.poll()) is None:
            watch.look()
            watch.look_at_load()
            time.sleep(_POLL_S)
    return Ended(exit_code=code, peak_kv_cache_usage=watch.peak_kv_cache_usage)


def blame_engine(server: Server) -> None:
    """Wait for a dying engine to be seen dead, so that its failure is not blamed on the client.

    Raises:
        EngineError: It has died; class and message come from its own last lines.
    """
    deadline = time.monotonic() + _DEATH_S
    while time.monotonic() < deadline:
        server.check_alive()
        time.sleep(_POLL_S)


def last_line(log_path: Path) -> str:
    """Return the last line of a log that says anything, without colours and noise."""
    return vllm_reports.last_line(_end_of(log_path))


def last_words(log_path: Path) -> str:
    """Return the line of an ended program's log that says why it ended, else the last that says anything."""
    return vllm_reports.last_words(_end_of(log_path))


def _end_of(log_path: Path) -> str:
    try:
        with log_path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_BYTES))
            return log.read().decode(errors="replace")
    except OSError:
        return ""
