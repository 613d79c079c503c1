"""Facts about processes, read from /proc: who is alive, whose child, who listens, who carries our mark.

A process id alone proves nothing, because ids are reused. Everything here speaks of a `Process`, an id
together with its start time, and a signal is only sent while the two still belong together.

Linux only, like the engines that are measured. Nothing here starts anything (``engines.supervisor``).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from sweeper.errors import PlacementError

TRIAL_MARK = "SWEEPER_TRIAL"
"""Environment variable with the key of the trial that a process serves."""
OUTPUTS_MARK = "SWEEPER_OUTPUTS"
"""Environment variable with the resolved outputs folder of the sweep that started a process."""
OWNER_MARK = "SWEEPER_OWNER"
"""Environment variable with the process that is to end it, as ``pid:start_time``."""
START_FILE_SUFFIX = ".start.json"

_PROC = Path("/proc")
_LISTEN = "0A"
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
class _Status:
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


def is_same_process(pid: int, start_time: int) -> bool:
    """Whether the id still belongs to the process that started then, and it lives."""
    return find(pid) == Process(pid, start_time)


def is_alive(process: Process) -> bool:
    """Whether this very process lives; a zombie does not."""
    return find(process.pid) == process


def boot_id() -> str:
    """Text that changes with every boot; start times of different boots must not be compared."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def title(pid: int) -> str:
    """Command line of a process as it shows it, words joined by blanks; empty when it is gone."""
    return _read(_PROC / str(pid) / "cmdline").replace("\0", " ").strip()


def descendants(pid: int) -> list[Process]:
    """Children of a process, their children, and so on; the living ones, parents first."""
    children: dict[int, list[_Status]] = {}
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


def group_members(group: int) -> list[Process]:
    """Living processes of a process group."""
    return [status.process for status in _living() if status.group == group]


def session_members(session: int) -> list[Process]:
    """Living processes of a session."""
    return [status.process for status in _living() if status.session == session]


def marked(name: str, value: str) -> list[Process]:
    """Living processes that were started with this environment variable.

    A process that changes its title overwrites its environment in /proc (vLLM's engine core and workers
    do, by setproctitle), so this finds some members of a tree and not all of them.
    """
    entry = f"{name}={value}"
    return [status.process for status in _living() if entry in _environment(status.process.pid)]


def listeners(port: int) -> set[int]:
    """Ids of the processes that hold a TCP socket listening on this port.

    Empty when nobody listens, or when the holder belongs to a user whose files we may not read.
    """
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    if not sockets:
        return set()
    return {status.process.pid for status in _living() if sockets & set(_open_files(status.process.pid))}


def is_listened_on(port: int) -> bool:
    """Whether anybody listens on this TCP port, be it a user whose files we may not read."""
    return any(_listening_inodes(port))


class ReservedPort:
    """A free TCP port on loopback, kept from other takers until it is released.

    The kernel hands out a port that nobody has bound, and this socket stays bound to it without
    listening. A server that sets SO_REUSEADDR, as vLLM and asyncio do, may still bind and listen on it,
    while nobody else who asks the kernel for any free port is given this one. So there is no moment
    between choosing and using a port in which a neighbour can take it by chance.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self._socket.bind(("127.0.0.1", 0))
        except OSError as exc:
            self._socket.close()
            raise PlacementError(
                f"port: no free TCP port on 127.0.0.1 ({exc}); expected one. End programs that hold ports."
            ) from exc
        # Only after the choice: with it, the kernel may choose a port that others share.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.port: int = self._socket.getsockname()[1]

    def release(self) -> None:
        """Let go of the port; safe to call twice."""
        self._socket.close()

    def __enter__(self) -> ReservedPort:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


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


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What a start file tells of one supervised program.

    Attributes:
        supervisor: The leader of the program's session.
        owner: The process that started it and is to end it.
        boot: Boot in which it was started.
        log_path: Where its output goes.
    """

    supervisor: Process
    owner: Process
    boot: str
    log_path: str

    def members(self) -> list[Process]:
        """Living processes of the program and its supervisor, also when the supervisor is gone.

        A process belongs to it when it is a descendant of the supervisor, or is in its session and writes
        to its log. The second proof holds for orphans and for processes that overwrote their environment;
        the log keeps strangers out should the session's number have been reused.
        """
        if self.boot != boot_id():
            return []
        found = set()
        if is_alive(self.supervisor):
            found = {self.supervisor, *descendants(self.supervisor.pid)}
        writers = (p for p in session_members(self.supervisor.pid) if _writes_to(p.pid, self.log_path))
        return sorted(found | set(writers))


def read_start_file(path: Path) -> Launch | None:
    """Read a start file of a program that was not seen to end; None for ended ones and damaged files."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, Mapping) or "ended_at" in content:
            return None
        return Launch(
            supervisor=Process(int(content["pid"]), int(content["start_time"])),
            owner=Process.parse(str(content["owner"])),
            boot=str(content["boot_id"]),
            log_path=str(content["log_path"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def end_launched(folder: Path, *, grace_s: float = 2.0) -> list[Process]:
    """End all that was started under supervision for a trial, whoever its owner is.

    Args:
        folder: The trial's own, with its start files.
        grace_s: Seconds between asking and forcing.

    Returns:
        Those that still live all the same; empty as a rule.
    """
    launches = map(read_start_file, folder.glob(f"**/*{START_FILE_SUFFIX}"))
    members = {member for launch in launches if launch is not None for member in launch.members()}
    return end(sorted(members), grace_s=grace_s)


def find_strays(outputs: Path) -> list[Process]:
    """Find what earlier sweeps on this outputs folder left running: alive, ours, and without an owner.

    Args:
        outputs: Folder of all studies. Processes are found by the start files below it, and by the
            environment mark that names it.

    Returns:
        Processes whose owner has died. Those of a sweep that still runs are not among them.
    """
    folder = str(outputs.resolve())
    strays: set[Process] = set()
    for path in Path(folder).glob(f"*/trials/*/**/*{START_FILE_SUFFIX}"):
        launch = read_start_file(path)
        if launch is not None and not is_alive(launch.owner):
            strays.update(launch.members())
    for process in marked(OUTPUTS_MARK, folder):
        owner = _owner(process.pid)
        if owner is not None and not is_alive(owner):
            strays.add(process)
    strays.discard(current())
    return sorted(strays)


def end_strays(outputs: Path, *, grace_s: float = 10.0) -> list[Process]:
    """End what earlier sweeps on this outputs folder left running.

    Returns:
        The processes that were found and ended; empty when there were none.
    """
    ended: set[Process] = set()
    # A second look, because a process that is being ended may start another one on its way.
    for _ in range(3):
        strays = find_strays(outputs)
        if not strays:
            break
        ended.update(strays)
        end(strays, grace_s=grace_s)
    return sorted(ended)


def _owner(pid: int) -> Process | None:
    prefix = f"{OWNER_MARK}="
    for entry in _environment(pid):
        if entry.startswith(prefix):
            with contextlib.suppress(ValueError):
                return Process.parse(entry.removeprefix(prefix))
    return None


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


def _writes_to(pid: int, path: str) -> bool:
    for fd in ("1", "2"):
        with contextlib.suppress(OSError):
            if (_PROC / str(pid) / "fd" / fd).readlink() == Path(path):
                return True
    return False


def _status(pid: int) -> _Status | None:
    text = _read(_PROC / str(pid) / "stat")
    if not text:
        return None
    # The name stands in brackets and may itself hold blanks and brackets.
    state, parent, group, session, *rest = text[text.rindex(")") + 2 :].split()
    return _Status(
        process=Process(pid, int(rest[15])),
        state=state,
        parent=int(parent),
        group=int(group),
        session=int(session),
    )


def _statuses() -> Iterator[_Status]:
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (status := _status(int(entry.name))) is not None:
            yield status


def _living() -> Iterator[_Status]:
    return (status for status in _statuses() if status.state not in "ZX")


def environment(pid: int) -> dict[str, str]:
    """Give the environment that a process was started with; empty where it may not be seen."""
    entries = (entry.partition("=") for entry in _environment(pid))
    return {name: value for name, found, value in entries if found}


def _environment(pid: int) -> list[str]:
    return _read(_PROC / str(pid) / "environ").split("\0")


def _open_files(pid: int) -> Iterator[str]:
    folder = _PROC / str(pid) / "fd"
    with contextlib.suppress(OSError):
        for fd in folder.iterdir():
            with contextlib.suppress(OSError):
                yield str(fd.readlink())


def _listening_inodes(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        for line in _read(_PROC / "net" / table).splitlines()[1:]:
            fields = line.split()
            local, state, inode = fields[1], fields[3], fields[9]
            if state == _LISTEN and int(local.rpartition(":")[2], 16) == port:
                yield inode


def _read(path: Path) -> str:
    """Text of a file of /proc; empty when the process is gone or belongs to somebody else."""
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""
