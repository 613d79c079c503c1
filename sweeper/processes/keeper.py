"""Imports what many programs begin with once, and is each of them in a fork of the process that imported.

This file is run by path with the interpreter of the engine's environment, so it imports nothing of the
sweeper. What is forked is a process without threads and without a device, so that a fork is whole; what a
worker leaks, changes or dies of ends with it. A process that cannot be forked so becomes the first worker
itself.

    python keeper.py CONTROL WORKER

WORKER is a file with two functions: ``load()`` imports and returns what it imported, and ``serve(loaded,
...)`` is a worker, given its own file descriptors. Protocol of the control socket, one JSON object a message:
  reads  {"fork": 1} with file descriptors: a file that tells as JSON what the worker is to be (``env``, its
         whole environment, ``cwd`` and ``argv``), its log, and its own
  writes {"forked": 1, "pid": 12, "by": 11}, and when that worker has ended {"ended": 1, "code": 0}, where a
         code of 128 + n is signal n
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

_LONGEST_MESSAGE = 4096
_DESCRIPTORS = 4
# <linux/prctl.h>
_PR_SET_PDEATHSIG = 1

Loading = Callable[[], Any]
Serving = Callable[..., None]


def main() -> None:
    """Keep the worker that the command line names."""
    # Our own folder comes first on the path and holds modules with common names.
    sys.path.pop(0)
    worker = runpy.run_path(sys.argv[2], run_name="worker")
    keep(int(sys.argv[1]), loading=worker["load"], serving=worker["serve"])


def keep(control_fd: int, *, loading: Loading, serving: Serving) -> None:
    """Load once, and be a worker for each that is asked for, until the other end of the socket closes.

    Args:
        control_fd: Our end of the control socket.
        loading: Imports, and returns what it imported.
        serving: Is a worker, given that and its own file descriptors.
    """
    # numpy's OpenBLAS starts threads when it is imported, unless it is to have one.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with socket.socket(fileno=control_fd) as control:
        try:
            loaded = loading()
        except BaseException as exc:
            _refuse_first(control, exc)
            return
        if _forks_safely():
            # What was imported stays as it is: a collection in a fork would write to all its pages.
            gc.collect()
            gc.freeze()
            _Forks(control).keep(loaded, serving)
        else:
            _be_first(control, loaded, serving)


class _Forks:
    """The workers of this process, each a fork of it."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._numbers: dict[int, int] = {}
        self._is_over = False
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(self._wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._end)

    def keep(self, loaded: Any, serving: Serving) -> None:
        """Fork a worker for each that is asked for, and tell how each ended."""
        keeper = os.getpid()
        control = self._control.fileno()
        waits = [control, self._woken]
        while self._numbers or not self._is_over:
            ready, _, _ = select.select(waits, [], [])
            if self._woken in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._woken, 512)
                self._tell_ended()
            if control not in ready:
                continue
            asked = _asked(self._control)
            if asked is None:
                waits.remove(control)
                self._end()
                continue
            number, fds = asked
            sys.stdout.flush()
            sys.stderr.flush()
            pid = os.fork()
            if pid == 0:
                self._leave(keeper, number)
                _serve(loaded, fds, serving)
            self._numbers[pid] = number
            for fd in fds:
                os.close(fd)

    def _leave(self, keeper: int, number: int) -> None:
        """Become a process of its own, in a fork."""
        signal.set_wakeup_fd(-1)
        for signalled in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(signalled, signal.SIG_DFL)
        _die_with(keeper)
        # Before it serves, so that whoever hears of it by what it does has heard of it here.
        _tell(self._control, {"forked": number, "pid": os.getpid(), "by": keeper})
        for fd in (self._woken, self._wake, self._control.detach()):
            os.close(fd)

    def _end(self, *_: object) -> None:
        """Ask all workers to end; this process ends when they have."""
        self._is_over = True
        for pid in self._numbers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def _tell_ended(self) -> None:
        while self._numbers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            if pid in self._numbers:
                told = {"ended": self._numbers.pop(pid), "code": code if code >= 0 else 128 - code}
                _tell(self._control, told)


def _asked(control: socket.socket) -> tuple[int, list[int]] | None:
    """Return the worker that is asked for next, and its file descriptors; None when nobody can ask."""
    message, fds, _, _ = socket.recv_fds(control, _LONGEST_MESSAGE, _DESCRIPTORS)
    return (int(json.loads(message)["fork"]), fds) if message else None


def _tell(control: socket.socket, message: dict[str, int]) -> None:
    # Nobody listens any more: the next thing that is heard is the end.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        control.send(json.dumps(message).encode())


def _be_first(control: socket.socket, loaded: Any, serving: Serving) -> None:
    """Be the first worker that is asked for, and no other."""
    asked = _asked(control)
    if asked is not None:
        number, fds = asked
        _tell(control, {"forked": number, "pid": os.getpid(), "by": os.getpid()})
        _serve(loaded, fds, serving)


def _refuse_first(control: socket.socket, error: BaseException) -> None:
    """Tell the first worker that is asked for, in its own log and by its own replies, why there is none."""
    asked = _asked(control)
    if asked is None:
        return
    number, fds = asked
    _tell(control, {"forked": number, "pid": os.getpid(), "by": os.getpid()})
    _become(fds[0], log=fds[1])
    traceback.print_exception(type(error), error, error.__traceback__)
    reply = {"ready": False, "error": f"{type(error).__name__}: {error}"}
    for fd in fds[3:]:
        os.write(fd, (json.dumps(reply) + "\n").encode())
    sys.exit(1)


def _serve(loaded: Any, fds: list[int], serving: Serving) -> NoReturn:
    """Become the worker that was asked for, and end with it as a process of its own ends."""
    _become(fds[0], log=fds[1])
    serving(loaded, *fds[2:])
    sys.exit(0)


def _become(told: int, *, log: int) -> None:
    """Take the environment, the folder and the log of a worker."""
    with os.fdopen(told, encoding="utf-8") as file:
        wanted = json.load(file)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.environ.clear()
    os.environ.update(wanted["env"])
    os.chdir(wanted["cwd"])
    sys.argv[:] = wanted["argv"]
    tempfile.tempdir = None


def _forks_safely() -> bool:
    """Return whether a fork of this process would be whole: no thread but this one, and no device open."""
    torch = sys.modules.get("torch")
    is_single = len(list(Path("/proc/self/task").iterdir())) == 1
    return is_single and not (torch is not None and torch.cuda.is_initialized())


def _die_with(keeper: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != keeper:
        os._exit(1)


if __name__ == "__main__":
    main()
