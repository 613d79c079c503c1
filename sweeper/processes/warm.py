"""What one process keeps warm: that which has imported is kept from one trial to the next.

Importing vLLM keeps a processor busy for many seconds: done for the client of each engine, it competes with
the engine's own start; done for each engine, it is a good part of that. So whoever runs trials keeps
processes that imported (``kept``), and a trial takes one that is free. It is for one interpreter, one
environment and one set of processors; for another a new one is started, and of what is imported alike at most
as many are kept as were in use at once.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sweeper.processes import process
from sweeper.processes.kept import Keeper, KeptWorker, Wanted
from sweeper.processes.process import Process


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a keeper is for: no trial takes one of another kind.

    Attributes:
        worker: File with what it imports.
        interpreter: Of the environment that it imports from.
        env: Its whole environment, as pairs, without what is of one trial alone.
        cpus: Processors that it and its workers may run on.
    """

    worker: Path
    interpreter: str
    env: frozenset[tuple[str, str]]
    cpus: frozenset[int]

    @classmethod
    def of(cls, worker: Path, *, interpreter: str, env: Mapping[str, str], own: Collection[str] = ()) -> Kind:
        """Return the kind for a trial that the calling thread runs.

        Args:
            worker: File with what it imports.
            interpreter: Of the environment that it imports from.
            env: Environment of the trial's worker.
            own: Variables that differ from trial to trial, and that nothing reads while it imports.
        """
        own = {process.TRIAL_MARK, *own}
        shared = {name: value for name, value in env.items() if name not in own}
        cpus = frozenset(os.sched_getaffinity(0))
        return cls(worker=worker, interpreter=interpreter, env=frozenset(shared.items()), cpus=cpus)


class WarmProcesses:
    """Keepers that are free, and those that trials of this process have taken.

    Use it as a context manager, or call `close`: both leave no process of it behind.
    """

    def __init__(self, *, also_for: Process | None = None) -> None:
        """Start nothing yet.

        Args:
            also_for: Another process without which the keepers are to end, besides this one.
        """
        self._also_for = also_for
        self._lock = threading.Lock()
        self._free: list[tuple[Kind, Keeper]] = []
        self._taken: Counter[Path] = Counter()
        self._most_taken: Counter[Path] = Counter()
        self._started = 0
        self._is_open = True

    def take(self, kind: Kind, *, folder: Path, launch_s: float, grace_s: float = 2.0) -> Keeper:
        """Return a keeper of this kind that has no worker, a new one where none is free.

        Args:
            kind: What it is to be for.
            folder: Takes log and start file of a new one.
            launch_s: Seconds that the supervisor of a new one may take to be up.
            grace_s: Seconds between SIGTERM and SIGKILL when a new one is ended, its worker included.

        Raises:
            EngineError: It could not be started.
        """
        with self._lock:
            found = self._find(kind)
            if found is None:
                self._make_room(kind.worker)
                found = self._start(kind, folder, launch_s=launch_s, grace_s=grace_s)
            self._taken[kind.worker] += 1
            self._most_taken |= self._taken
        return found

    def give_back(self, kind: Kind, keeper: Keeper, *, is_sound: bool) -> None:
        """Take back a keeper whose worker has ended; one that is not sound has been stopped."""
        with self._lock:
            self._taken[kind.worker] -= 1
            if is_sound and self._is_open:
                self._free.append((kind, keeper))
                return
        keeper.stop()

    def fork(self, kind: Kind, wanted: Wanted, *, folder: Path, launch_s: float) -> Borrowed:
        """Return a worker of a keeper of this kind, as ``take`` finds it.

        Raises:
            EngineError: A keeper could not be started.
        """
        keeper = self.take(kind, folder=folder, launch_s=launch_s, grace_s=wanted.grace_s)
        return Borrowed(self, kind, keeper, wanted)

    def close(self) -> None:
        """End those that are free; those that are taken end when they are given back. Safe to call twice."""
        with self._lock:
            self._is_open = False
            free, self._free = self._free, []
        for _, keeper in free:
            keeper.stop()

    def __enter__(self) -> WarmProcesses:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _find(self, kind: Kind) -> Keeper | None:
        for entry in [entry for entry in reversed(self._free) if entry[0] == kind]:
            self._free.remove(entry)
            if entry[1].lives():
                return entry[1]
            entry[1].stop()
        return None

    def _make_room(self, worker: Path) -> None:
        """End the one that has been free for longest where another would be more than ever were in use."""
        free = [entry for entry in self._free if entry[0].worker == worker]
        taken = self._taken[worker]
        if free and len(free) + taken >= max(self._most_taken[worker], taken + 1):
            self._free.remove(free[0])
            free[0][1].stop()

    def _start(self, kind: Kind, folder: Path, *, launch_s: float, grace_s: float) -> Keeper:
        self._started += 1
        # Nodes of a cluster share the folder.
        name = f"{kind.worker.stem}-{os.uname().nodename}-{os.getpid()}-{self._started}.log"
        return Keeper(
            kind.worker,
            interpreter=kind.interpreter,
            env=dict(kind.env),
            log_path=folder / name,
            launch_s=launch_s,
            grace_s=grace_s,
            also_for=self._also_for,
        )


class Borrowed:
    """A worker whose keeper is given back when it has ended."""

    command: tuple[str, ...] = ()
    container = None

    def __init__(self, warm: WarmProcesses, kind: Kind, keeper: Keeper, wanted: Wanted) -> None:
        """Fork it.

        Args:
            warm: Who takes the keeper back.
            kind: What the keeper is for.
            keeper: Forks it.
            wanted: What it is to be.
        """
        self._give_back = partial(warm.give_back, kind, keeper)
        self._is_open = True
        try:
            self._worker: KeptWorker = keeper.fork(wanted)
        except BaseException:
            self._give_back(is_sound=False)
            raise
        self.poll, self.floods = self._worker.poll, self._worker.floods
        self.pids, self.members = self._worker.pids, self._worker.members

    def stop(self) -> float:
        """End it and everything it started; return the seconds it took. Safe to call twice."""
        seconds = self._worker.stop()
        if self._is_open:
            self._is_open = False
            self._give_back(is_sound=self._worker.leaves_keeper)
        return seconds
