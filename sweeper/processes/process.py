"""Facts about processes, read from /proc: who is alive, whose child, who listens, who carries our mark.

A process id alone proves nothing, because ids are reused. Everything here speaks of a `Process`, an id
together with its start time, and a signal is only sent while the two still belong together.

Linux only, like the engines that are measured. Nothing here starts anything (``processes.supervisor``).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

TRIAL_MARK = "SWEEPER_TRIAL"
"""Environment variable with the key of the trial that a process serves."""
OUTPUTS_MARK = "SWEEPER_OUTPUTS"
"""Environment variable with the resolved outputs folder of the sweep that started a process."""
OWNER_MARK = "SWEEPER_OWNER"
"""Environment variable with the process that is to end it, as ``pid:start_time``."""
START_FILE_SUFFIX = ".start.json"

PROC = Path("/proc")
_POLL_S = 0.05


@dataclass(frozen=True, order=True)
class Process:
    """One process for good: its id and its start time (clock ticks since boot)."""

    pid: int
    start_time: int

    def __str__(self) -> str:
        return f"{self.pid}:{self.start_time}"

    @classmethod
    def parse(cls, text: str) -> Process:
        """Read what ``str`` wrote.

        Raises:
            ValueError: The text is not ``pid:start_time``.
        """
        pid, start = text.split(":")
        return cls(int(pid), int(start))


@dataclass(frozen=True, kw_only=True)
class Status:
    """What /proc says of a process: itself, its state's letter, and the ids of parent, group and session."""

    process: Process
    state: str
    parent: int
    group: int
    session: int


def current() -> Process:
    """The process that asks."""
    status = _status(os.getpid())
    assert status is not None, "/proc is not mounted"
    return status.process


def find(pid: int) -> Process | None:
    """The living process with this id; None when there is none, or only a zombie of it."""
    status = _status(pid)
    return status.process if status is not None and status.state not in "ZX" else None


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when it does not live.

    Source:
        proc(5), field 22 of ``/proc/<pid>/stat``.
    """
    process = find(pid)
    return None if process is None else process.start_time


def is_alive(process: Process) -> bool:
    """Whether this very process lives; a zombie does not."""
    return find(process.pid) == process


def boot_id() -> str:
    """Text that changes with every boot; start times of different boots must not be compared."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def title(pid: int) -> str:
    """Command line of a process as it shows it, words joined by blanks; empty when it is gone."""
    return read_proc(PROC / str(pid) / "cmdline").replace("\0", " ").strip()


def descendants(pid: int) -> list[Process]:
    """Children of a process, their children, and so on; the living ones, parents first."""
    children: dict[int, list[Status]] = {}
    for status in _statuses():
        children.setdefault(status.parent, []).append(status)
    found: list[Process] = []
    queue = [pid]
    while queue:
        for child in children.get(queue.pop(0), []):
            queue.append(child.process.pid)
            if child.state not in "ZX":
                found.append(child.process)
    return found


def session_members(session: int) -> list[Process]:
    """Living processes of a session."""
    return [status.process for status in living() if status.session == session]


def marked(name: str, value: str) -> list[Process]:
    """Living processes that were started with this environment variable.

    A process that changes its title overwrites its environment in /proc (vLLM's engine core and workers
    do, by setproctitle), so this finds some members of a tree and not all of them.
    """
    entry = f"{name}={value}"
    return [status.process for status in living() if entry in _environment(status.process.pid)]


def end(processes: Iterable[Process], *, grace_s: float) -> list[Process]:
    """End processes: ask by SIGTERM, then force by SIGKILL what still lives after the grace.

    Args:
        processes: Whom to end. An id that was reused by another process is left alone.
        grace_s: Seconds between asking and forcing.

    Returns:
        Those that still live all the same (asleep in the kernel, or of another user).
    """
    alive = _signal(processes, signal.SIGTERM)
    # A stopped process hears nothing but SIGKILL until it goes on.
    alive = _signal(alive, signal.SIGCONT)
    alive = _wait_gone(alive, seconds=grace_s)
    alive = _signal(alive, signal.SIGKILL)
    return _wait_gone(alive, seconds=5.0)


def _signal(processes: Iterable[Process], number: signal.Signals) -> list[Process]:
    reached = []
    for process in processes:
        if is_alive(process):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, number)
            reached.append(process)
    return reached


def _wait_gone(processes: list[Process], *, seconds: float) -> list[Process]:
    deadline = time.monotonic() + seconds
    alive = [process for process in processes if is_alive(process)]
    while alive and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        alive = [process for process in alive if is_alive(process)]
    return alive


def _status(pid: int) -> Status | None:
    text = read_proc(PROC / str(pid) / "stat")
    if not text:
        return None
    # The name stands in brackets and may itself hold blanks and brackets.
    state, parent, group, session, *rest = text[text.rindex(")") + 2 :].split()
    return Status(
        process=Process(pid, int(rest[15])),
        state=state,
        parent=int(parent),
        group=int(group),
        session=int(session),
    )


def _statuses() -> Iterator[Status]:
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (status := _status(int(entry.name))) is not None:
            yield status


def living() -> Iterator[Status]:
    """Yield every process that lives; zombies do not."""
    return (status for status in _statuses() if status.state not in "ZX")


def environment(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with; empty where it may not be seen."""
    entries = (entry.partition("=") for entry in _environment(pid))
    return {name: value for name, found, value in entries if found}


def _environment(pid: int) -> list[str]:
    return read_proc(PROC / str(pid) / "environ").split("\0")


def read_proc(path: Path) -> str:
    """Text of a file of /proc; empty when the process is gone or belongs to another user."""
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""
