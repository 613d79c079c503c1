"""A process that has imported what many programs begin with, and forks them (``keeper``), from our side.

It is started under supervision like everything else, so it and its workers end with their owner, however
that ends. A worker is what a process of its own would be: an environment, a folder for temporary files, a log
and a start file of the trial's, and an exit code.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sweeper.processes import process as processes
from sweeper.processes import supervisor
from sweeper.processes.process import START_FILE_SUFFIX, Process
from sweeper.processes.supervisor import Supervised

_KEEPER = Path(__file__).with_name("keeper.py")
_GRACE_S = 2.0
_LONGEST_MESSAGE = 4096
# How long a worker that has ended may take to be told of.
_TOLD_WITHIN_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a worker is to be.

    Attributes:
        env: Its whole environment.
        cwd: Its working directory.
        log_path: File that takes what it prints; begun anew.
        note: Further facts for its start file, which lies beside the log.
        argv: Its command line after the interpreter.
        pass_fds: File descriptors of its own.
        grace_s: Seconds between SIGTERM and SIGKILL when it is ended.
    """

    env: Mapping[str, str]
    cwd: Path
    log_path: Path
    note: Mapping[str, object]
    argv: Sequence[str] = ()
    pass_fds: Sequence[int] = ()
    grace_s: float = _GRACE_S


class Keeper:
    """One process that imports once, and forks one worker after another."""

    def __init__(
        self,
        worker: Path,
        *,
        interpreter: str,
        env: Mapping[str, str],
        log_path: Path,
        launch_s: float,
        grace_s: float = _GRACE_S,
        also_for: Process | None = None,
    ) -> None:
        """Start it; this returns while it still imports.

        Args:
            worker: File with what it imports and what a worker does.
            interpreter: Of the environment that it imports from.
            env: Its whole environment.
            log_path: File that takes what it prints while it imports; the start file is written beside it.
            launch_s: Seconds that its supervisor may take to be up.
            grace_s: Seconds between SIGTERM and SIGKILL when it is ended, its worker included.
            also_for: Another process without which it is to end, besides this one.

        Raises:
            EngineError: Its supervisor did not start.
        """
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.start_file = log_path.with_name(f"{log_path.stem}{START_FILE_SUFFIX}")
        self._numbers = 0
        try:
            self.process = Supervised.start(
                [interpreter, str(_KEEPER), str(theirs.fileno()), str(worker)],
                env=env,
                cwd=log_path.parent,
                log_path=log_path,
                start_file=self.start_file,
                grace_s=grace_s,
                launch_s=launch_s,
                pass_fds=(theirs.fileno(),),
                also_for=also_for,
            )
        except BaseException:
            self._control.close()
            raise
        finally:
            theirs.close()

    def lives(self) -> bool:
        """Return whether it lives and can be asked for a worker."""
        return self.process.poll() is None and self.hear() is not None

    def fork(self, wanted: Wanted) -> KeptWorker:
        """Ask for a worker; it is forked as soon as everything is imported."""
        self._numbers += 1
        return KeptWorker(self, wanted, number=self._numbers)

    def ask(self, number: int, fds: Sequence[int]) -> None:
        """Send a request for a worker and its file descriptors; one that is gone is found out by ``poll``."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._control, [json.dumps({"fork": number}).encode()], list(fds))

    def hear(self, seconds: float = 0.0) -> Mapping[str, int] | None:
        """Return the next thing that it says, nothing where it says none in time; None where it is gone."""
        ready, _, _ = select.select([self._control], [], [], seconds)
        if not ready:
            return {}
        try:
            message = self._control.recv(_LONGEST_MESSAGE)
        except ConnectionResetError:
            return None
        told: Mapping[str, int] | None = json.loads(message) if message else None
        return told

    def stop(self) -> None:
        """End it and all that it forked; safe to call twice."""
        self.process.stop()
        self._control.close()


class KeptWorker:
    """One worker of a keeper, from the request for it to its end.

    Attributes:
        leaves_keeper: Whether its keeper lives on, with nothing of this worker left below it; once stopped.
    """

    leaves_keeper = False

    def __init__(self, keeper: Keeper, wanted: Wanted, *, number: int) -> None:
        """Ask for it.

        Args:
            keeper: Forks it; it has no other worker meanwhile.
            wanted: What it is to be.
            number: Names it to its keeper.
        """
        self._keeper = keeper
        self._wanted = wanted
        self._number = number
        self._worker: int | None = None
        self._keeper_pid: int | None = None
        self._code: int | None = None
        self._is_open = True
        self._temporary = keeper.process.temporary / str(number)
        self._temporary.mkdir()
        log = wanted.log_path
        # By its log is found what it started, also when its supervisor is gone.
        self._launch = replace(keeper.process.launch, log_path=str(log.resolve()))
        self._start_file = log.with_name(f"{log.stem}{START_FILE_SUFFIX}")
        self._facts = {
            **_facts_of(keeper),
            **wanted.note,
            "log_path": str(log.resolve()),
            "started_at": time.time(),
        }
        supervisor.write_start_file(self._start_file, self._facts)
        self._ask()

    def poll(self) -> int | None:
        """Exit code of the worker, 128 + n when signal n ended it; None while it runs or is to be forked.

        Where its keeper has ended it ended with it, by the same code.
        """
        if self._is_open:
            self._hear()
        code = self._keeper.process.poll() if self._code is None else self._code
        if code is not None and self._worker is None:
            self._keep_import_log()
        return code

    def floods(self) -> bool:
        """Whether it has written more to its log than any sound program does."""
        return supervisor.floods(self._wanted.log_path)

    def pids(self) -> set[int]:
        """Ids of the worker's living processes, without those of its keeper."""
        return {process.pid for process in self.members()}

    def members(self) -> list[Process]:
        """The worker's living processes, without those of its keeper."""
        if not self._is_open:
            return []
        self._hear()
        return self._below() if self._worker else []

    def stop(self) -> float:
        """End the worker and everything it started; return the seconds it took. Safe to call twice."""
        began = time.monotonic()
        if not self._is_open:
            return 0.0
        self._hear()
        self.leaves_keeper = self._was_ended()
        if not self.leaves_keeper:
            self._keeper.stop()
            processes.end(self._below(), grace_s=min(self._wanted.grace_s, _GRACE_S))
        self._is_open = False
        shutil.rmtree(self._temporary, ignore_errors=True)
        supervisor.cut(self._wanted.log_path)
        code = self.poll()
        supervisor.write_start_file(
            self._start_file, {**self._facts, "ended_at": time.time(), "exit_code": code}
        )
        return time.monotonic() - began

    def _below(self) -> list[Process]:
        """Return the living processes of the worker: all below its supervisor but its keeper."""
        others = {self._keeper_pid} - {self._worker}
        members = self._launch.members()
        return [p for p in members if p != self._launch.supervisor and p.pid not in others]

    def _was_ended(self) -> bool:
        """End the worker alone; whether that left a keeper that can fork the next."""
        if (
            self._worker is None
            or self._worker == self._keeper_pid
            or self._keeper.process.poll() is not None
        ):
            return False
        # The root first and alone: it knows how to close its children in order.
        root = [process for process in self.members() if process.pid == self._worker]
        processes.end(root, grace_s=self._wanted.grace_s)
        if processes.end(self.members(), grace_s=min(self._wanted.grace_s, _GRACE_S)):
            return False
        deadline = time.monotonic() + _TOLD_WITHIN_S
        while self._code is None and self._keeper.process.poll() is None and time.monotonic() < deadline:
            self._hear(0.05)
        return self._code is not None

    def _ask(self) -> None:
        wanted = self._wanted
        env = {**wanted.env, "TMPDIR": str(self._temporary)}
        told = {"env": env, "cwd": str(wanted.cwd), "argv": list(wanted.argv)}
        setup = os.memfd_create("worker", os.MFD_CLOEXEC)
        log = os.open(wanted.log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
        try:
            with os.fdopen(os.dup(setup), "w", encoding="utf-8") as file:
                json.dump(told, file)
            os.lseek(setup, 0, os.SEEK_SET)
            self._keeper.ask(self._number, (setup, log, *wanted.pass_fds))
        finally:
            os.close(setup)
            os.close(log)

    def _hear(self, seconds: float = 0.0) -> None:
        """Take in what the keeper says of this worker; what it says of earlier ones is no news."""
        while told := self._keeper.hear(seconds):
            if told.get("forked") == self._number:
                self._worker, self._keeper_pid = told["pid"], told["by"]
                self._facts = {**_facts_of(self._keeper), **self._facts, "program_pid": self._worker}
                supervisor.write_start_file(self._start_file, self._facts)
            elif told.get("ended") == self._number:
                self._code = told["code"]
                return

    def _keep_import_log(self) -> None:
        """Keep in the trial's log what a keeper said that ended before it had imported."""
        with contextlib.suppress(OSError):
            shutil.copyfile(self._keeper.process.launch.log_path, self._wanted.log_path)


def _facts_of(keeper: Keeper) -> dict[str, object]:
    """Return what the keeper's own start file says, so that its worker is found by the trial's, too."""
    launch = keeper.process.launch
    known: dict[str, object] = {
        "pid": launch.supervisor.pid,
        "start_time": launch.supervisor.start_time,
        "boot_id": launch.boot,
        "owner": str(launch.owner),
    }
    with contextlib.suppress(OSError, ValueError):
        known |= json.loads(keeper.start_file.read_text(encoding="utf-8"))
    return known
