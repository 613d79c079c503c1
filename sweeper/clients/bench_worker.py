"""The warm process that runs vLLM's serving benchmark, one load after another, seen from our side.

Starting the benchmark anew for each load would cost more than most loads take, so one process
(``vllm_bench_worker``, in the environment of a vLLM) runs all loads of an engine. It imports the benchmark
while the engine is still starting, or is forked from one that imported it for an earlier engine
(``processes.warm``). A line for each load is written into one pipe, and the reply to it read out of another;
meanwhile the process, the engine, the clock and a request to stop are watched.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from sweeper.clients.measuring import Load
from sweeper.clients.program import Watch, last_words
from sweeper.engines import Cancelled, Server
from sweeper.engines.environment import kept_folder
from sweeper.errors import EngineError
from sweeper.processes import process
from sweeper.processes.kept import Wanted
from sweeper.processes.supervisor import Program, Supervised
from sweeper.processes.warm import Borrowed, Kind, WarmProcesses
from sweeper.records import FailureClass, Placement, TrialSpec

WORKER = Path(__file__).with_name("vllm_bench_worker.py")
_POLL_S = 0.25
_STOP_GRACE_S = 2.0
_LONGEST_REPLY = 2**20


class BenchWorker:
    """One worker process, from its start to its end.

    Attributes:
        log_path: Takes what the benchmark prints.
    """

    def __init__(
        self,
        spec: TrialSpec,
        placement: Placement,
        *,
        interpreter: str,
        env: Mapping[str, str],
        warm: WarmProcesses | None = None,
    ) -> None:
        """Start it; this returns while it still imports.

        Args:
            spec: The trial, whose folder is there and takes the log.
            placement: Its devices, for the start file.
            interpreter: Of the environment whose vLLM has the benchmark.
            env: Its whole environment.
            warm: Who keeps what has imported the benchmark; None starts a process that ends with this worker.
        """
        self._spec = spec
        self._folder = Path(spec.folder).resolve()
        self.log_path = self._folder / f"client-{spec.attempt}.log"
        self._note = {"trial": spec.key, "devices": list(placement.devices)}
        self._start_timeout_s = spec.client.start_timeout_s
        self._next = 1
        self._is_ready = False
        self._unread = b""
        requests_read, self._requests = os.pipe()
        self._replies, replies_write = os.pipe()
        try:
            self._process: Program
            if warm is None:
                self._process = self._started(interpreter, env, requests_read, replies_write)
            else:
                self._process = self._forked(warm, interpreter, env, requests_read, replies_write)
        except BaseException:
            os.close(self._requests)
            os.close(self._replies)
            raise
        finally:
            os.close(requests_read)
            os.close(replies_write)
        self._is_open = True

    def wait_import(self, server: Server, cancelled: Cancelled) -> None:
        """Wait until it has imported the benchmark.

        Raises:
            EngineError: It cannot, or not in time; or the wait was cancelled, or the engine died meanwhile.
        """
        limit_s = self._start_timeout_s
        watch = self._watch(server, cancelled, limit_s=limit_s)
        while not self._is_ready:
            reply = self._receive(_POLL_S)
            if reply is None:
                self._look(watch)
                if watch.is_late():
                    late = f"client: not ready after {limit_s:g} s (client.start_timeout_s)"
                    raise self.error(f"{late}; see its log", FailureClass.CLIENT)
            elif reply.get("ready"):
                self._is_ready = True
                # A fork's process id is written down as soon as it is known.
                self._process.poll()
            else:
                raise self.error(f"client: cannot import: {reply.get('error')}", FailureClass.CLIENT)

    def run(self, arguments: Sequence[str], load: Load) -> tuple[Mapping[str, object], float | None]:
        """Run the benchmark once.

        Returns:
            What the worker replied, empty where it was the reply to another run; and the largest share of
            the engine's KV cache seen in use.

        Raises:
            EngineError: The worker or the engine died, the load hung or was cancelled.
        """
        number = self._ask(arguments, api_key=load.server.api_key)
        watch = self._watch(load.server, load.cancelled, limit_s=load.limit_s)
        while (reply := self._receive(_POLL_S)) is None:
            self._look(watch)
            watch.look_at_load()
        return (reply if reply.get("id") == number else {}), watch.peak_kv_cache_usage

    def close(self) -> None:
        """End it; safe to call twice."""
        if not self._is_open:
            return
        self._is_open = False
        self._process.stop()
        os.close(self._requests)
        os.close(self._replies)

    def error(self, message: str, failure: FailureClass) -> EngineError:
        """Return a failure that names its log."""
        return EngineError(message, failure=failure, log_path=str(self.log_path))

    def _started(self, interpreter: str, env: Mapping[str, str], requests: int, replies: int) -> Supervised:
        """Start a process of its own."""
        return Supervised.start(
            [interpreter, str(WORKER), str(requests), str(replies)],
            env=env,
            cwd=self._folder,
            log_path=self.log_path,
            start_file=self._folder / f"{self.log_path.stem}{process.START_FILE_SUFFIX}",
            grace_s=_STOP_GRACE_S,
            launch_s=self._spec.engine.launch_timeout_s,
            note=self._note,
            pass_fds=(requests, replies),
        )

    def _forked(
        self, warm: WarmProcesses, interpreter: str, env: Mapping[str, str], requests: int, replies: int
    ) -> Borrowed:
        """Have one forked from a process that has imported, or will have."""
        kind = Kind.of(WORKER, interpreter=interpreter, env=env)
        wanted = Wanted(
            env=env,
            cwd=self._folder,
            log_path=self.log_path,
            note=self._note,
            argv=(str(WORKER),),
            pass_fds=(requests, replies),
            grace_s=_STOP_GRACE_S,
        )
        launch_s = self._spec.engine.launch_timeout_s
        return warm.fork(kind, wanted, folder=kept_folder(self._spec), launch_s=launch_s)

    def _watch(self, server: Server, cancelled: Cancelled, *, limit_s: float) -> Watch:
        return Watch(self._process, server, limit_s=limit_s, log_path=self.log_path, cancelled=cancelled)

    def _look(self, watch: Watch) -> None:
        """Look for every reason to stop waiting but the clock; the worker itself has to live, too."""
        watch.look()
        code = self._process.poll()
        if code is not None:
            raise self.error(
                f"client: its process ended with exit code {code}; last line: {last_words(self.log_path)}",
                FailureClass.CLIENT,
            )

    def _ask(self, arguments: Sequence[str], *, api_key: str) -> int:
        number = self._next
        self._next += 1
        line = json.dumps({"id": number, "api_key": api_key, "args": list(arguments)}) + "\n"
        try:
            os.write(self._requests, line.encode())
        except OSError as exc:
            raise self.error(
                f"client: its process is gone ({exc}); see its log", FailureClass.CLIENT
            ) from exc
        return number

    def _receive(self, seconds: float) -> Mapping[str, object] | None:
        """Return the worker's next line; None when it does not come in time or the worker is gone."""
        if b"\n" not in self._unread:
            ready, _, _ = select.select([self._replies], [], [], seconds)
            if not ready:
                return None
            received = os.read(self._replies, 65536)
            if not received:
                # The other end is closed; the waiting process will see that the process has ended.
                time.sleep(min(seconds, 0.05))
            self._unread += received
            if len(self._unread) > _LONGEST_REPLY:
                raise self.error("client: its worker's reply has no end", FailureClass.CLIENT)
        line, newline, rest = self._unread.partition(b"\n")
        if not newline:
            return None
        self._unread = rest
        try:
            content = json.loads(line)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise self.error(f"client: its worker says {line[:80]!r}; expected JSON", FailureClass.CLIENT)
        return content
