"""Processes that an earlier run left behind: found by what was written about them, and ended."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sweeper.processes import containers
from sweeper.processes.containers import Abandoned, Container
from sweeper.processes.process import (
    OUTPUTS_MARK,
    OWNER_MARK,
    PROC,
    START_FILE_SUFFIX,
    Process,
    boot_id,
    current,
    descendants,
    end,
    environment,
    is_alive,
    marked,
    session_members,
)


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What a start file says of one supervised program.

    Attributes:
        supervisor: The leader of the program's session.
        owner: The process that started it and is to end it.
        boot: Boot in which it was started.
        log_path: Where its output goes.
        container: What it runs in a container; None for a program that runs none.
    """

    supervisor: Process
    owner: Process
    boot: str
    log_path: str
    container: Container | None = None

    def members(self) -> list[Process]:
        """Living processes of the program and its supervisor, also when the supervisor is gone.

        A process belongs to it when it is a descendant of the supervisor, or is in its session and writes
        to its log. The second proof holds for orphans and for processes that overwrote their environment;
        the log keeps other processes out should the session's number have been reused. What runs in its
        container belongs to it, whoever is its parent.
        """
        if self.boot != boot_id():
            return []
        found = set()
        if is_alive(self.supervisor):
            found = {self.supervisor, *descendants(self.supervisor.pid)}
        writers = (p for p in session_members(self.supervisor.pid) if _writes_to(p.pid, self.log_path))
        inside = [] if self.container is None else containers.members(self.container)
        return sorted({*found, *writers, *inside})


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
            container=Container.read(content.get("container")),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def end_launched(folder: Path, *, grace_s: float = 2.0) -> list[Process]:
    """End all that was started under supervision for a trial, whatever process owns it.

    Args:
        folder: The trial's own, with its start files.
        grace_s: Seconds between asking and forcing.

    Returns:
        Those that still live all the same; empty as a rule.
    """
    left = end(launched(folder), grace_s=grace_s)
    for launch in map(read_start_file, folder.glob(f"**/*{START_FILE_SUFFIX}")):
        if launch is not None and launch.container is not None:
            launch.container.remove()
    return left


def launched(folder: Path, name: str = "") -> list[Process]:
    """Return the living processes of all that was started under supervision for a trial.

    Args:
        folder: The trial's own, with its start files.
        name: What the names of the start files begin with.
    """
    launches = map(read_start_file, folder.glob(f"**/{name}*{START_FILE_SUFFIX}"))
    return sorted({member for launch in launches if launch is not None for member in launch.members()})


def find_orphans(outputs: Path) -> list[Process]:
    """Find what earlier sweeps on this outputs folder left running: alive, ours, and without an owner.

    Args:
        outputs: Folder of all studies. Processes are found by the start files below it, and by the
            environment mark that names it.

    Returns:
        Processes whose owner has died. Those of a sweep that still runs are not among them.
    """
    folder = str(outputs.resolve())
    orphans: set[Process] = set()
    for path in (
        *Path(folder).glob(f"*/trials/*/**/*{START_FILE_SUFFIX}"),
        *Path(folder).glob(f"*/kept/*{START_FILE_SUFFIX}"),
    ):
        launch = read_start_file(path)
        if launch is not None and not is_alive(launch.owner):
            orphans.update(launch.members())
    for process in marked(OUTPUTS_MARK, folder):
        owner = _owner(process.pid)
        if owner is not None and not is_alive(owner):
            orphans.add(process)
    orphans.discard(current())
    return sorted(orphans)


def end_orphans(outputs: Path, *, grace_s: float = 10.0) -> list[Process]:
    """End what earlier sweeps on this outputs folder left running.

    Returns:
        The processes that were found and ended; empty when there were none.
    """
    ended: set[Process] = set()
    # A second look, because a process that is being ended may start another one on its way.
    for _ in range(3):
        orphans = find_orphans(outputs)
        if not orphans:
            break
        ended.update(orphans)
        end(orphans, grace_s=grace_s)
    return sorted(ended)


def end_abandoned_containers(outputs: Path) -> list[Abandoned]:
    """End the containers that earlier sweeps on this outputs folder left running.

    Runtimes are asked that a start file names which no end was written into; other containers than ours, and
    those of a sweep that still runs, are left alone.

    Returns:
        Those that were found and are gone now.
    """
    starts = map(read_start_file, Path(outputs).resolve().glob(f"*/trials/*/**/*{START_FILE_SUFFIX}"))
    runtimes = {
        start.container.runtime
        for start in starts
        if start is not None and start.container is not None and not is_alive(start.owner)
    }
    found = containers.find_abandoned(outputs, runtimes)
    return [abandoned for abandoned in found if abandoned.container.remove()]


def _owner(pid: int) -> Process | None:
    text = environment(pid).get(OWNER_MARK)
    if text is not None:
        with contextlib.suppress(ValueError):
            return Process.parse(text)
    return None


def _writes_to(pid: int, path: str) -> bool:
    for fd in ("1", "2"):
        with contextlib.suppress(OSError):
            if (PROC / str(pid) / "fd" / fd).readlink() == Path(path):
                return True
    return False
