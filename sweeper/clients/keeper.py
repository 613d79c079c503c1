"""Imports a benchmark once, and is the worker of each engine in a fork of the process that imported.

This file is run by path with the interpreter of the engine's environment, so it imports nothing of the
sweeper. What is forked is a process without threads and without a device, so that a fork is whole; what a
worker leaks, changes or dies of ends with it. A process that cannot be forked so becomes the first worker
itself.

    python keeper.py CONTROL WORKER

WORKER is a file with two functions: ``load_benchmark()`` imports it, and ``serve_loads(benchmark, requests,
replies)`` runs what is asked for on two file descriptors until the requests end. Protocol of the control
socket, one JSON object a message:
  reads  {"fork": 1} with four file descriptors: a file that tells as JSON what the worker is to be (``env``,
         its whole environment, and ``cwd``), its log, its requests, its replies
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

_LONGEST_MESSAGE = 4096
_DESCRIPTORS = 4
# <linux/prctl.h>
_PR_SET_PDEATHSIG = 1

Loading = Callable[[], Any]
Serving = Callable[[Any, int, int], None]


def main() -> None:
    """Keep the worker that the command line names."""
    # Our own folder comes first on the path and holds modules with common names.
    sys.path.pop(0)
    worker = runpy.run_path(sys.argv[2], run_name="worker")
    keep(int(sys.argv[1]), loading=worker["load_benchmark"], serving=worker["serve_loads"])


def keep(control_fd: int, *, loading: Loading, serving: Serving) -> None:
    """Load once, and be a worker for each that is asked for, until the other end of the socket closes.

    Args:
        control_fd: Our end of the control socket.
        loading: Imports the benchmark and returns its module.
        serving: Is a worker, given the module, its requests and its replies.
    """
    # numpy's OpenBLAS starts threads when it is imported, unless it is to have one; a load needs none.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with socket.socket(fileno=control_fd) as control:
        try:
            benchmark = loading()
        except BaseException as exc:
            _refuse_first(control, exc)
            return
        if not _forks_safely():
            number, fds = next(_asked(control, woken_by=None), (0, None))
            if fds is not None:
                _tell(control, {"forked": number, "pid": os.getpid(), "by": os.getpid()})
                _serve(benchmark, fds, serving)
            return
        # What was imported stays as it is; a collection in a fork would write to, and so copy, all its pages.
        gc.collect()
        gc.freeze()
        _keep_forking(control, benchmark, serving)


def _keep_forking(control: socket.socket, benchmark: Any, serving: Serving) -> None:
    """Fork a worker for each that is asked for, and tell how each ended."""
    ended, wake = os.pipe()
    os.set_blocking(ended, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    keeper = os.getpid()
    for number, fds in _asked(control, woken_by=ended):
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _die_with(keeper)
            # Before it serves, so that whoever hears of it by its replies has heard of it here.
            _tell(control, {"forked": number, "pid": os.getpid(), "by": keeper})
            for fd in (ended, wake, control.detach()):
                os.close(fd)
            _serve(benchmark, fds, serving)
        _forks[pid] = number
        for fd in fds:
            os.close(fd)


_forks: dict[int, int] = {}
"""Living workers: process id to the number by which it was asked for."""


def _asked(control: socket.socket, *, woken_by: int | None) -> Iterator[tuple[int, list[int]]]:
    """Yield each worker that is asked for, and its file descriptors; meanwhile tell of those that ended."""
    waits = [control.fileno(), *([] if woken_by is None else [woken_by])]
    while True:
        ready, _, _ = select.select(waits, [], [])
        if woken_by in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(int(woken_by or 0), 512)
            _tell_ended(control)
        if control.fileno() not in ready:
            continue
        message, fds, _, _ = socket.recv_fds(control, _LONGEST_MESSAGE, _DESCRIPTORS)
        if not message:
            return
        yield int(json.loads(message)["fork"]), fds


def _tell_ended(control: socket.socket) -> None:
    while _forks:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        code = os.waitstatus_to_exitcode(status)
        if pid in _forks:
            _tell(control, {"ended": _forks.pop(pid), "code": code if code >= 0 else 128 - code})


def _tell(control: socket.socket, message: dict[str, int]) -> None:
    # Nobody listens any more: the next thing that is heard is the end.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        control.send(json.dumps(message).encode())


def _serve(benchmark: Any, fds: list[int], serving: Serving) -> NoReturn:
    """Become the worker that was asked for, and end with it."""
    code = 1
    try:
        _become(fds[0], log=fds[1])
        serving(benchmark, fds[2], fds[3])
        code = 0
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 1
    except BrokenPipeError:
        code = 0  # whoever asked is gone
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        # What the imports registered for the end of their process is not ours to run.
        os._exit(code)


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
    tempfile.tempdir = None


def _refuse_first(control: socket.socket, error: BaseException) -> None:
    """Tell the first worker that is asked for, in its own log and by its own replies, why there is none."""
    for number, fds in _asked(control, woken_by=None):
        _tell(control, {"forked": number, "pid": os.getpid(), "by": os.getpid()})
        _become(fds[0], log=fds[1])
        traceback.print_exception(type(error), error, error.__traceback__)
        reply = {"ready": False, "error": f"{type(error).__name__}: {error}"}
        os.write(fds[3], (json.dumps(reply) + "\n").encode())
        return


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
