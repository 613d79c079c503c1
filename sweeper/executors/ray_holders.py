"""Ray workers that hold an engine between trials (``engine.live``): an actor for each block of devices.

Which one runs where is known to the driver alone. A trial that needs the devices of another's engine is told
its actor, and has it end the engine first; the driver waits for none of that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweeper.executors.ray_import import import_ray
from sweeper.processes import orphans, process
from sweeper.processes.process import Process
from sweeper.processes.warm import WarmProcesses
from sweeper.records import Placement, TrialResult, TrialSpec
from sweeper.trial.kept import KeptEngines, blocks_in_the_way

_CLOSE_S = 120.0
_WATCH_S = 1.0


class EngineHolder:
    """The actor: runs trials one after another, and holds the engine that they share."""

    def __init__(self, driver: Process | None) -> None:
        """Hold nothing yet.

        Args:
            driver: Who wants the results; without it everything ends, though no trial runs that would notice.
        """
        self._warm = WarmProcesses(also_for=driver)
        self._engines = KeptEngines(warm=self._warm)
        self._is_over = threading.Event()
        if driver is not None:
            threading.Thread(target=self._watch, args=(driver,), name="driver", daemon=True).start()

    def run(self, spec: TrialSpec, placement: Placement, in_the_way: Sequence[Any] = ()) -> TrialResult:
        """Run one trial to its end.

        Args:
            spec: What to run.
            placement: On which devices.
            in_the_way: Actors whose engines have to end first.
        """
        close_all(in_the_way)
        return self._engines.run(spec, placement, cancelled=self._is_over.is_set)

    def stop(self) -> None:
        """Ask the trial that runs to stop and clean up."""
        self._is_over.set()

    def close(self) -> None:
        """End the engine, and the client that is kept for it."""
        self._engines.close()
        self._warm.close()

    def _watch(self, driver: Process) -> None:
        while not self._is_over.wait(_WATCH_S):
            if not process.is_alive(driver):
                self._is_over.set()
                self.close()


def close_all(actors: Iterable[Any]) -> None:
    """Have actors end their engines, and wait for it; one that has died has none."""
    closing = [actor.close.remote() for actor in actors]
    for reference in closing:
        ray = import_ray(is_private=False)
        # The supervisor ends the engine of an actor that died.
        with suppress(ray.exceptions.RayError):
            ray.get(reference, timeout=_CLOSE_S)


@dataclass(kw_only=True)
class _Held:
    actor: Any
    start_key: str
    folders: list[Path] = field(default_factory=list)


class Holders:
    """The actors of one driver, by the block of devices that each has."""

    def __init__(self, make: Callable[[Placement], Any], *, is_alone: bool) -> None:
        """Begin without any.

        Args:
            make: Starts an actor on the node of a placement.
            is_alone: Whether no engine may wait while a trial runs beside it, on whatever devices.
        """
        self._make = make
        self._is_alone = is_alone
        self._held: dict[Placement, _Held] = {}

    def make_room(self, spec: TrialSpec, placement: Placement) -> list[Any]:
        """Give up the actors whose engines a trial cannot have beside it, and return them to be closed."""
        starts = {other: held.start_key for other, held in self._held.items()}
        found = blocks_in_the_way(starts, spec, placement, is_alone=self._is_alone)
        return [self._held.pop(other).actor for other in found]

    def of(self, spec: TrialSpec, placement: Placement) -> Any:
        """Return the actor that runs a trial which shares a start; it is started where there is none."""
        held = self._held.get(placement)
        if held is None:
            held = _Held(actor=self._make(placement), start_key=str(spec.start_key))
            self._held[placement] = held
        held.folders.append(Path(spec.folder))
        return held.actor

    def stop(self, placement: Placement) -> None:
        """Ask what runs on a block to stop."""
        if placement in self._held:
            self._held[placement].actor.stop.remote()

    def lose(self, placement: Placement) -> None:
        """Forget an actor that died, and end the engine that it held on this machine."""
        held = self._held.pop(placement, None)
        for folder in held.folders if held is not None else ():
            orphans.end_launched(folder)

    def lose_all(self) -> None:
        """Forget all actors; the Ray that they ran in is gone."""
        for placement in list(self._held):
            self.lose(placement)

    def close(self) -> None:
        """End all engines."""
        held, self._held = self._held, {}
        close_all(each.actor for each in held.values())


def actor_options(task_options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of an actor on the node that a trial is given.

    It holds nothing of what Ray counts: trials that follow on its devices ask for that. Two calls at a time,
    so that a trial can be stopped.
    """
    where = {name: value for name, value in task_options.items() if name != "resources"}
    return {**where, "max_concurrency": 2}
