"""How a sweep stands, written beside its configuration for those who watch it from another process.

The file lies in the folder of the invocation and is news, like the line of a trial's stage: nothing is read
from it to go on with a study, and a sweep does without it where it cannot be written.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sweeper.processes import process as processes
from sweeper.records import Placement, TrialResult, TrialSpec
from sweeper.sweep.outlook import Outlook
from sweeper.sweep.sweep import Observer
from sweeper.text.printable import legible
from sweeper.text.writing import write_aside

FILE = "now.json"

_EVERY_S = 0.25
"""Trials of a model take milliseconds: the file is written no more often than this, and at the end."""


class Progress:
    """Writes how a sweep stands whenever that changes; an observer in the sense of ``sweep``."""

    def __init__(self, folder: Path, *, devices: int, clock: Callable[[], float] = time.time) -> None:
        """Write into the folder of this invocation; ``clock`` is the time of day, in seconds."""
        self._folder = folder
        self._clock = clock
        self._running: dict[str, dict[str, Any]] = {}
        self._written_s = -math.inf
        self._is_news = False
        self._told: dict[str, Any] = {
            "process": asdict(processes.current()),
            "devices": devices,
            "total": None,
            "counts": {},
            "left_s": None,
            "leader": None,
            "value": None,
            "is_over": False,
        }

    def __enter__(self) -> Progress:
        """Write that the sweep begins."""
        self._write()
        return self

    def __exit__(self, *error: object) -> None:
        """Write that the sweep is over."""
        self._running.clear()
        self._told["is_over"] = True
        self._write()

    def planned(self, *, total: int | None, done: int, refused: int) -> None:
        """The work is known."""
        self._told["total"] = total
        self._told["counts"] = {"stored": done, "cannot run here": refused}
        self._write()

    def started(self, spec: TrialSpec, placement: Placement) -> None:
        """Called when a trial holds its devices and runs."""
        self._running[spec.key] = {
            "label": legible(spec.label),
            "node": placement.node,
            "devices": list(placement.devices),
            "folder": str(Path(spec.folder).absolute()),
            "since": self._clock(),
        }
        self._tell()

    def finished(self, result: TrialResult, *, will_retry: bool) -> None:
        """Called when a trial has ended."""
        self._running.pop(result.spec.key, None)
        if not will_retry:
            counts = self._told["counts"]
            counts[str(result.state)] = counts.get(str(result.state), 0) + 1
        self._tell()

    def tick(self) -> None:
        """Write what was held back."""
        if self._is_news:
            self._tell()

    def look_ahead(self, outlook: Outlook) -> None:
        """Store how the sweep stands."""
        leader = None if outlook.leader is None else legible(outlook.leader)
        self._told |= {"left_s": outlook.left_s, "leader": leader, "value": outlook.value}
        self._tell()

    def _tell(self) -> None:
        """Write what changed; just after another time it waits for the next news or tick."""
        self._is_news = True
        if not 0 <= self._clock() - self._written_s < _EVERY_S:
            self._write()

    def _write(self) -> None:
        self._written_s, self._is_news = self._clock(), False
        told = {**self._told, "running": list(self._running.values()), "written_at": self._clock()}
        with contextlib.suppress(OSError):
            write_aside(self._folder, FILE, json.dumps(told).encode())


class Together:
    """Hands what happens to several observers, in order."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        """Take the observers."""
        self._observers = observers

    def planned(self, *, total: int | None, done: int, refused: int) -> None:
        """The work is known."""
        for observer in self._observers:
            observer.planned(total=total, done=done, refused=refused)

    def started(self, spec: TrialSpec, placement: Placement) -> None:
        """Called when a trial holds its devices and runs."""
        for observer in self._observers:
            observer.started(spec, placement)

    def finished(self, result: TrialResult, *, will_retry: bool) -> None:
        """Called when a trial has ended."""
        for observer in self._observers:
            observer.finished(result, will_retry=will_retry)

    def tick(self) -> None:
        """Time has passed."""
        for observer in self._observers:
            observer.tick()
