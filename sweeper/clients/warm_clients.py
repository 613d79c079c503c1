"""The warm clients of one process: what has imported a benchmark is kept from one engine to the next.

Importing vLLM's benchmark keeps a processor busy for many seconds; done for each engine, it competes with
the engine's own start. So whoever runs trials keeps the processes that imported (``kept_worker``), and a
trial takes one that is free. It is for one interpreter, one environment and one set of processors; for
another a new one is started, and at most as many are kept as were in use at once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sweeper.clients.kept_worker import Keeper
from sweeper.processes import process
from sweeper.processes.process import Process
from sweeper.text import trial_files


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a keeper is for: no trial takes one of another kind.

    Attributes:
        worker: File with what it imports.
        interpreter: Of the environment that it imports from.
        env: Its whole environment, as pairs; the trial's own mark is not part of it.
        cpus: Processors that it and its workers may run on.
    """

    worker: Path
    interpreter: str
    env: frozenset[tuple[str, str]]
    cpus: frozenset[int]

    @classmethod
    def of(cls, worker: Path, *, interpreter: str, env: Mapping[str, str]) -> Kind:
        """Return the kind for a trial that the calling thread runs."""
        shared = {name: value for name, value in env.items() if name != process.TRIAL_MARK}
        cpus = frozenset(os.sched_getaffinity(0))
        return cls(worker=worker, interpreter=interpreter, env=frozenset(shared.items()), cpus=cpus)


class WarmClients:
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
        self._taken = 0
        self._most_taken = 0
        self._started = 0
        self._is_open = True

    def take(self, kind: Kind, *, folder: Path, launch_s: float) -> Keeper:
        """Return a keeper of this kind that has no worker, a new one where none is free.

        Args:
            kind: What it is to be for.
            folder: Takes log and start file of a new one.
            launch_s: Seconds that the supervisor of a new one may take to be up.

        Raises:
            EngineError: It could not be started.
        """
        with self._lock:
            found = self._find(kind)
            if found is None:
                self._make_room()
                found = self._start(kind, folder, launch_s=launch_s)
            self._taken += 1
            self._most_taken = max(self._most_taken, self._taken)
        return found

    def give_back(self, kind: Kind, keeper: Keeper, *, is_sound: bool) -> None:
        """Take back a keeper whose worker has ended; one that is not sound has been stopped."""
        with self._lock:
            self._taken -= 1
            if is_sound and self._is_open:
                self._free.append((kind, keeper))
                return
        keeper.stop()

    def close(self) -> None:
        """End those that are free; those that are taken end when they are given back. Safe to call twice."""
        with self._lock:
            self._is_open = False
            free, self._free = self._free, []
        for _, keeper in free:
            keeper.stop()

    def __enter__(self) -> WarmClients:
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

    def _make_room(self) -> None:
        """End the one that has been free for longest where another would be more than ever were in use."""
        if self._free and len(self._free) + self._taken >= max(self._most_taken, self._taken + 1):
            self._free.pop(0)[1].stop()

    def _start(self, kind: Kind, folder: Path, *, launch_s: float) -> Keeper:
        self._started += 1
        # Nodes of a cluster share the folder.
        name = f"client-{os.uname().nodename}-{os.getpid()}-{self._started}.log"
        return Keeper(
            kind.worker,
            interpreter=kind.interpreter,
            env=dict(kind.env),
            log_path=trial_files.make_folder(folder) / name,
            launch_s=launch_s,
            also_for=self._also_for,
        )
