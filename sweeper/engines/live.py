"""Changing the limits of a running vLLM, and believing only what its scheduler confirms.

vLLM takes a scheduler by ``--scheduler-cls``. Ours (``live_scheduler``, a file that runs in the engine's
environment) takes new limits when the prefix cache is reset and no request is left, and writes what holds
then; a load counts for the new limits only after that was read. What a fresh start would have made of smaller
limits besides, KV blocks and captured graph sizes, stays as the start made it. Which releases and settings
allow this is known to ``knobs.live``.

A limit changed so shows nowhere else: ``/server_info`` is answered by another process of the engine, which
goes on to report what it was started with.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sweeper.engines.endpoint import Endpoint
from sweeper.errors import EngineError, MeasurementError
from sweeper.records import FailureClass
from sweeper.text import trial_files

ARGUMENTS = ("--scheduler-cls", "live_scheduler.LiveScheduler")
"""What the engine's command line needs beside its knobs."""

_FOLDER = "SWEEPER_LIVE_FOLDER"
_LIMITS = "limits.json"
_CONFIRMED = "confirmed.json"
_SOURCE = Path(__file__).with_name("live_scheduler.py")
_POLL_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """What the scheduler of a running engine says of itself.

    Attributes:
        change: Number of the last change that it was asked for; None before the first.
        limits: The limits that it has now, by knob: requests, tokens a step, tokens of a prompt.
        started: The limits that it was made with.
        refused: Why it took nothing of a change, by knob, or under ``change``.
        scheduler: Name of its class.
        pid: Id of the engine's process that it schedules in.
    """

    change: int | None
    limits: Mapping[str, int]
    started: Mapping[str, int]
    refused: Mapping[str, str]
    scheduler: str
    pid: int

    @property
    def changed(self) -> Mapping[str, int]:
        """The limits that are others than those of the start."""
        return {name: value for name, value in self.limits.items() if value != self.started.get(name)}


class LiveLimits:
    """The limits of one engine, from before its start to its end.

    Attributes:
        folder: Where the scheduler's file and the two files of its protocol lie; this engine's alone.
    """

    def __init__(self, folder: Path) -> None:
        """Put the scheduler where the engine finds it, and remove what an earlier engine confirmed there.

        Args:
            folder: Made where missing.

        Raises:
            EngineError: It cannot be written to.
        """
        self.folder = folder.resolve()
        self._changes = 0
        self._pid: int | None = None
        trial_files.write(self._path / _SOURCE.name, _SOURCE.read_text(encoding="utf-8"))
        for name in (_LIMITS, _CONFIRMED):
            (self.folder / name).unlink(missing_ok=True)

    @property
    def _path(self) -> Path:
        # Nothing else lies there: a folder on PYTHONPATH lends every module in it.
        return self.folder / "python-path"

    def environment(self, surroundings: Mapping[str, str]) -> dict[str, str]:
        """Return the variables that the engine needs.

        Args:
            surroundings: Its environment without them; a PYTHONPATH there stays, after ours.
        """
        paths = (str(self._path), surroundings.get("PYTHONPATH", ""))
        return {"PYTHONPATH": os.pathsep.join(filter(None, paths)), _FOLDER: str(self.folder)}

    def started(self) -> Confirmed:
        """Return what the scheduler said when it was made.

        Raises:
            MeasurementError: It said nothing: the engine runs another scheduler.
        """
        confirmed = self._read()
        if confirmed is None:
            raise MeasurementError(
                f"engine: its scheduler left no {_CONFIRMED} in {self.folder}; expected one from its start. "
                "The engine ignored --scheduler-cls: start it with fixed limits (its log says which "
                "scheduler it uses).",
                failure=FailureClass.WRONG_ENGINE,
            )
        self._pid = confirmed.pid
        return confirmed

    def change(self, endpoint: Endpoint, limits: Mapping[str, int], *, timeout_s: float = 30.0) -> Confirmed:
        """Ask a running engine that is idle for other limits, its prefix cache emptied.

        Args:
            endpoint: Where it answers.
            limits: Knob to limit, each within what it was started with; what is left out stays.
            timeout_s: How long it may have requests or held blocks left of the load before.

        Returns:
            What the scheduler confirmed, the limits asked for among it.

        Raises:
            EngineError: The engine does not answer, or a stop was asked for.
            MeasurementError: It refuses, or confirms nothing or something else; the message says which.
        """
        try:
            confirmed = self._tried(endpoint, limits, timeout_s)
        finally:
            # Clients reset the cache, too: a change that was given up must not come true later.
            (self.folder / _LIMITS).unlink(missing_ok=True)
        return self._checked(limits, confirmed)

    def _tried(self, endpoint: Endpoint, limits: Mapping[str, int], timeout_s: float) -> Confirmed | None:
        """Ask until the engine is idle or time is up, and return the last that its scheduler confirms."""
        deadline = time.monotonic() + timeout_s
        while True:
            self._changes += 1
            self._ask(limits)
            answer = endpoint.post("/reset_prefix_cache", {}, timeout_s=timeout_s)
            if not answer.is_ok:
                raise EngineError(
                    f"engine: it answers /reset_prefix_cache with {answer.how}; expected 200. It needs "
                    "VLLM_SERVER_DEV_MODE=1, and see its log.",
                    failure=FailureClass.WRONG_ENGINE if answer.status else FailureClass.HANG,
                )
            confirmed = self._read()
            if confirmed is None or "change" not in confirmed.refused or time.monotonic() > deadline:
                return confirmed
            time.sleep(_POLL_S)

    def _ask(self, limits: Mapping[str, int]) -> None:
        asked = {"change": self._changes, "limits": dict(limits)}
        partial = trial_files.write(self.folder / f"{_LIMITS}.partial", json.dumps(asked))
        with trial_files.failing_at(self.folder / _LIMITS):
            partial.replace(self.folder / _LIMITS)

    def _checked(self, limits: Mapping[str, int], confirmed: Confirmed | None) -> Confirmed:
        asked = listed(limits)
        if confirmed is None:
            raise _doubt(f"asked for {asked} it confirms nothing; expected a whole {_CONFIRMED}")
        if confirmed.refused:
            reasons = "; ".join(f"{name}: {why}" for name, why in sorted(confirmed.refused.items()))
            raise _doubt(f"asked for {asked} it refuses ({reasons}); expected limits of its start or below")
        if confirmed.change != self._changes:
            raise _doubt(f"asked for {asked} it took no notice; expected its confirmation")
        if self._pid is not None and confirmed.pid != self._pid:
            raise _doubt(f"process {confirmed.pid} confirms {asked}; expected {self._pid}, as at its start")
        held = {name: confirmed.limits.get(name) for name in limits}
        if held != dict(limits):
            raise _doubt(f"asked for {asked} it has {listed(held)}; expected what was asked for")
        return confirmed

    def _read(self) -> Confirmed | None:
        """Return what is confirmed; None where there is no such file, or it is not whole."""
        try:
            told = json.loads((self.folder / _CONFIRMED).read_text(encoding="utf-8"))
            return Confirmed(
                change=told["change"],
                limits=dict(told["limits"]),
                started=dict(told["started"]),
                refused=dict(told["refused"]),
                scheduler=str(told["scheduler"]),
                pid=int(told["pid"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _doubt(problem: str) -> MeasurementError:
    return MeasurementError(
        f"engine: its scheduler is not as asked: {problem}. Start the engine afresh for this setting.",
        failure=FailureClass.WRONG_ENGINE,
    )


def listed(limits: Mapping[str, int | None] | Mapping[str, int]) -> str:
    """Write limits on one line, in the order of their names; empty where there are none."""
    return ", ".join(f"{name} {value}" for name, value in sorted(limits.items()))
