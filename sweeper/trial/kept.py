"""Engines that outlive a trial, for the next one that shares their start (``engine.live``).

One runner holds the engines of the machine it is on, at most one on each block of devices. A trial that
shares a start finds the engine of the trial before it, changed to its own setting; any other trial on these
devices finds them empty. A trial that fails takes its engine with it: the rest of the settings get a new
start.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping
from typing import cast

from sweeper.engines import Cancelled
from sweeper.engines.live import listed
from sweeper.engines.registry import engine_of
from sweeper.engines.shared import LiveServer, SharedServer
from sweeper.errors import EngineError, MeasurementError, Stopped
from sweeper.knobs.live import live_limits_of
from sweeper.processes.warm import WarmProcesses
from sweeper.records import Placement, TrialResult, TrialSpec, TrialState
from sweeper.trial import trial


class KeptEngine:
    """The engine on one block, which trials that share its start are given one after another."""

    def __init__(self, start_key: str) -> None:
        """Keep nothing yet.

        Args:
            start_key: Of the trials that share it (``TrialSpec.start_key``).
        """
        self.start_key = start_key
        self._server: LiveServer | None = None

    def start(
        self, spec: TrialSpec, placement: Placement, *, restart: int, cancelled: Cancelled
    ) -> SharedServer:
        """Hand out the engine, made the trial's setting; start it where it does not run.

        Raises:
            EngineError: It did not come up, has ended, or does not answer.
            MeasurementError: It runs as something else than was asked for.
        """
        if self._server is not None and not _is_alive(self._server):
            self.stop()
        if self._server is None:
            try:
                server = engine_of(spec).start(spec, placement, restart=restart, cancelled=cancelled)
            except EngineError as exc:
                raise _named(exc, spec) from exc
            # Only trials of such engines share a start (``plan.live``).
            self._server = cast(LiveServer, server)
            return SharedServer(self._server, start_s=self._server.start_s)
        began = time.monotonic()
        self._server.serve(spec, cancelled=cancelled)
        return SharedServer(self._server, start_s=time.monotonic() - began)

    def pids(self) -> Collection[int]:
        """Return the ids of its processes; none where it does not run."""
        return () if self._server is None else self._server.pids() or ()

    def stop(self) -> None:
        """End it; nothing happens where it does not run."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()


class KeptEngines:
    """Runs trials on this machine, and holds the engines that some of them share."""

    def __init__(self, *, is_alone: bool = False, warm: WarmProcesses | None = None) -> None:
        """Hold nothing yet.

        Args:
            is_alone: Whether no engine may wait while a trial runs beside it, on whatever devices.
            warm: Who keeps what the trials' clients have imported.
        """
        self._is_alone = is_alone
        self._warm = warm
        self._kept: dict[Placement, KeptEngine] = {}
        self._lock = threading.Lock()

    def run(self, spec: TrialSpec, placement: Placement, *, cancelled: Cancelled) -> TrialResult:
        """Run one trial to its end, on the engine of the trial before where they share a start.

        Args:
            spec: What to run.
            placement: The devices that are this trial's until it returns.
            cancelled: Polled throughout.
        """
        self._make_room(spec, placement)
        if spec.start_key is None:
            return trial.run(spec, placement, cancelled=cancelled, warm=self._warm)
        with self._lock:
            engine = self._kept.setdefault(placement, KeptEngine(spec.start_key))
        result = trial.run(
            spec, placement, cancelled=cancelled, engine=engine, warm=self._warm, own_pids=engine.pids
        )
        if result.state is TrialState.FAILED:
            self._end([placement])
        return result

    def close(self) -> None:
        """End all engines that are held."""
        self._end(list(self._kept))

    def _make_room(self, spec: TrialSpec, placement: Placement) -> None:
        """End the engines that a trial cannot have beside it: those on its devices, unless it shares one."""
        with self._lock:
            held = {other: engine.start_key for other, engine in self._kept.items()}
        self._end(blocks_in_the_way(held, spec, placement, is_alone=self._is_alone))

    def _end(self, placements: list[Placement]) -> None:
        for placement in placements:
            with self._lock:
                engine = self._kept.pop(placement, None)
            if engine is not None:
                engine.stop()


def blocks_in_the_way(
    held: Mapping[Placement, str], spec: TrialSpec, placement: Placement, *, is_alone: bool
) -> list[Placement]:
    """Return the blocks whose engines a trial cannot have beside it, unless it shares the one on its own.

    Args:
        held: Blocks to the start (``TrialSpec.start_key``) of the engine on each.
        spec: The trial.
        placement: Its devices.
        is_alone: Whether no engine may wait on its node while it runs, on whatever devices.
    """
    return [
        other
        for other, start_key in held.items()
        if other.node == placement.node
        and (is_alone or spec.is_exclusive or set(other.devices) & set(placement.devices))
        and (other != placement or start_key != spec.start_key)
    ]


def _named(error: EngineError, spec: TrialSpec) -> EngineError:
    """Say of a start that failed that it was not made with the limits of the trial alone."""
    if isinstance(error, Stopped | MeasurementError) or spec.live_start == spec.assignment:
        return error
    started = listed(live_limits_of(spec.live_start or {}))
    return EngineError(
        f"{error} (a start with {started}, which settings share; engine.live=false starts each with its own)",
        failure=error.failure,
        log_path=error.log_path,
    )


def _is_alive(server: LiveServer) -> bool:
    try:
        server.check_alive()
    except EngineError:
        return False
    return True
