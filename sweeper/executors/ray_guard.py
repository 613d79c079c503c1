"""Waits for the end of a driver and ends what its own Ray leaves behind, then removes Ray's folder.

Ray's processes die with the driver that started them, except two: an agent that finds its raylet gone reports
that to a Ray that is gone as well, and tries for 60 seconds (seen with Ray 2.60, ``process_watcher.py``).

It imports nothing beyond the standard library and starts within a tenth of a second.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

from sweeper.processes import process as processes
from sweeper.processes.process import Process

_BOOTSTRAP = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from sweeper.executors import ray_guard; ray_guard.main()"
)
_PACKAGE_PARENT = Path(__file__).resolve().parents[2]
# A driver is seen to die at once, unless a fork of it holds the pipe.
_LOOKS_EVERY_S = 1.0
# Workers end what their trials had started, and then themselves.
_WORKERS_END_WITHIN_S = 300.0
_AGENT_LOG = "*agent*.log"


class Guard:
    """The process that waits, seen from the driver."""

    def __init__(self, folder: Path) -> None:
        """Start it.

        Args:
            folder: Ray's own; removed when the driver is gone.
        """
        self._waiting = subprocess.Popen(
            [sys.executable, "-c", _BOOTSTRAP, _PACKAGE_PARENT, str(processes.current())],
            # Not in its command line, by which Ray's own processes are found.
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Interrupts of a terminal go to its whole group.
            start_new_session=True,
        )

    def close(self) -> None:
        """Let it end; safe to call twice."""
        # A pipe that is closed without a word is that of a killed driver.
        if self._waiting.poll() is None:
            self._waiting.communicate(b"done")


def main() -> None:
    """Guard the driver that the command line names and this folder."""
    driver, folder = Process.parse(sys.argv[1]), Path.cwd()
    is_done = False
    while processes.is_alive(driver):
        ready, _, _ = select.select([0], [], [], _LOOKS_EVERY_S)
        if ready:
            is_done = os.read(0, 1) != b""
            break
    clear(folder, within_s=0.0 if is_done else _WORKERS_END_WITHIN_S)


def clear(folder: Path, *, within_s: float) -> None:
    """End the agents of a Ray whose driver is gone, wait for its workers, and remove its folder.

    Args:
        folder: Ray's own.
        within_s: Seconds that workers have to end by themselves.
    """
    deadline = time.monotonic() + within_s
    while users := _users(folder):
        processes.end([process for process, is_agent in users.items() if is_agent], grace_s=0.0)
        if time.monotonic() >= deadline:
            break
        time.sleep(0.1)
    shutil.rmtree(folder, ignore_errors=True)


def _users(folder: Path) -> dict[Process, bool]:
    """Find the processes that have a file below the folder open, and whether each is an agent of Ray."""
    users = {}
    for status in processes.living():
        opened = [path for path in _opened(status.process.pid) if path.is_relative_to(folder)]
        if opened:
            users[status.process] = any(path.match(_AGENT_LOG) for path in opened)
    return users


def _opened(pid: int) -> list[Path]:
    opened = []
    # Gone meanwhile, or of another user.
    with contextlib.suppress(OSError):
        for link in (processes.PROC / str(pid) / "fd").iterdir():
            with contextlib.suppress(OSError):
                opened.append(link.readlink())
    return opened
