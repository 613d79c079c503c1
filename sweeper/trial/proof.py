"""Proof that a trial's numbers are those of its own engine, alone on its devices and answering consistently.

A server that is proven once, at its start, may be another one later: it died and was replaced, or another one
took its port. So the proof brackets what is measured. One greedy question is asked before the first load of a
start and again after the last, and has to be answered alike; before and after every load the engine has to
live, its port has to be held by the process that was proven, and no other process may be on its devices,
where a long load is looked at in between, too. Each of its devices has to hold memory of the engine: one that
is idle was counted as used, in what is compared per GPU. Partitions are left out of that: how the tools share
out a GPU's memory among them is not known to us.

Before the load the question is asked twice. A cache of prefixes whose blocks are short enough keeps part of
it, and an answer that begins from the cache is computed in other steps than one that begins from nothing: its
numbers are rounded otherwise, and at a near tie another token wins. Both are right, and after the load either
may come; a third one is neither.

An engine that fails any leaves a failed trial, never a number. What the engine is to be compared with other
settings by, its answer, is stored; the comparison is made where all of them are known (``analysis.answers``).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sweeper.engines import Server
from sweeper.engines.endpoint import SANITY_PROMPT
from sweeper.errors import MeasurementError
from sweeper.records import FailureClass
from sweeper.topology.device_processes import DeviceProcesses, named
from sweeper.topology.node import ranges

WATCH_INTERVAL_S = 30.0
"""Between two looks at who is on the devices, while a load runs."""

# A question that hangs must not hold up the trial.
_PATIENCE_S = 10.0


class Proof:
    """What is proven of one start of an engine, from its first load to its last."""

    def __init__(self, server: Server, processes: DeviceProcesses, *, has_whole_devices: bool = True) -> None:
        """Take an engine that is ready.

        Args:
            server: The engine.
            processes: Which processes are on its devices.
            has_whole_devices: Whether its devices are whole GPUs, and no partitions.
        """
        self._server = server
        self._device_processes = processes
        self._has_whole_devices = has_whole_devices
        self._answers: list[str | None] = []

    def ask(self) -> str | None:
        """Ask the greedy question, first of a cold engine and then of one that has seen it.

        Returns:
            The answer of the cold engine, which is the one to compare with other engines'.

        Raises:
            MeasurementError: No answer, or an empty one.
        """
        self._answers = [self._server.sanity(), self._server.sanity()]
        return self._answers[0]

    def ask_again(self) -> None:
        """Ask once more, after the loads.

        Raises:
            MeasurementError: No answer, or another than both before.
        """
        answer = self._server.sanity()
        if answer not in self._answers:
            before = " and ".join(map(repr, dict.fromkeys(self._answers)))
            raise self._doubt(
                f"engine: it answered '{SANITY_PROMPT}' with {before} before the load and with "
                f"{answer!r} after it; expected the same, for the choice of tokens is greedy. Numbers of an "
                "engine whose answers change under load mean nothing; look for a faulty kernel or device.",
                FailureClass.WRONG_ANSWER,
            )

    def look(self) -> int | None:
        """Look, before or after a load, that the engine lives, is the proven one, and is alone.

        Returns:
            Other processes on its devices, 0; None where that is unknown.

        Raises:
            EngineError: It has died.
            MeasurementError: Another process answers in its place or computes on its devices, or it leaves
                one of them idle.
        """
        self._server.check_alive()
        use = self._device_processes.use(self._server.prove_ours())
        if use is None:
            return None
        self._refuse(map(named, sorted(use.foreign)))
        if use.unused and self._has_whole_devices:
            raise self._doubt(
                f"devices: the engine holds no memory on {ranges(use.unused)} of those that it was given; "
                "expected it on all of them. Compare the parallel sizes it was asked for with its log.",
                FailureClass.WRONG_ENGINE,
            )
        return 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch that no other process comes to the devices while the block, one load, runs.

        Who comes and goes between two looks is not seen, and short loads are not looked at: asking for eight
        GPUs takes amd-smi seconds of a processor.

        Raises:
            MeasurementError: The block ended well, and another process computed on the devices meanwhile.
        """
        if self._server.pids() is None:
            # Of an engine whose processes cannot be seen no look tells anything: who is foreign is unknown.
            yield
            return
        seen: dict[int, str] = {}
        is_over = threading.Event()

        def watch() -> None:
            while not is_over.wait(WATCH_INTERVAL_S):
                foreign = self._device_processes.foreign(self._server.pids()) or frozenset()
                # Not those that the engine has started while the tool was asked.
                for pid in foreign - (self._server.pids() or frozenset()):
                    # Named at once: it may be gone when the load has ended.
                    seen.setdefault(pid, named(pid))

        watcher = threading.Thread(target=watch, name="proof", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            is_over.set()
            watcher.join(_PATIENCE_S)
        self._refuse(list(seen.values()))

    def _refuse(self, foreign: Iterable[str]) -> None:
        named = "; ".join(foreign)
        if named:
            raise self._doubt(
                f"devices: besides the engine they are used by process {named}; expected the engine alone. "
                "End it, or leave its device out of the study.",
                FailureClass.INFRASTRUCTURE,
            )

    def _doubt(self, message: str, failure: FailureClass) -> MeasurementError:
        return MeasurementError(message, failure=failure, log_path=self._server.log_path)
