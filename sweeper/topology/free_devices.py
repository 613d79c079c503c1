"""Waiting until devices are free: a driver gives memory back some time after its process has ended.

An engine that starts next to what another left behind runs out of memory, or sizes its KV cache by what is
left, and so measures something else than was asked. What is unknown counts as free: a tool may be absent,
or silent about partitions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

from sweeper.errors import EngineError, Stopped
from sweeper.records import FailureClass, Platform
from sweeper.topology.device_processes import DeviceProcesses, named
from sweeper.topology.gauges import Gauge
from sweeper.topology.probes import Runner, run_command

MOST_IDLE_GIB = 2.0
"""A whole GPU that nobody uses holds less: the driver's own share was 0.3 GiB on an MI300X with ROCm 6.x."""

_POLL_S = 1.0


class FreeDevices:
    """Whether the devices of one trial are free."""

    def __init__(
        self,
        platform: Platform,
        devices: Sequence[int],
        *,
        partition_mode: str | None = None,
        run: Runner = run_command,
    ) -> None:
        """Name the devices; nothing is asked yet.

        Args:
            platform: Whose tools are asked; only mi300x and cuda have any.
            devices: Node-absolute indices, as in a placement.
            partition_mode: Of their GPUs. Memory in use is looked at for whole GPUs only: partitions may
                share theirs with others.
            run: Runs the vendor's tools.
        """
        self._devices = devices
        self._device_processes = DeviceProcesses(platform=platform, devices=devices, run=run)
        owns_memory = partition_mode in (None, "SPX")
        self._gauge = Gauge(platform, devices, run=run) if owns_memory else None

    def in_the_way(self, *, ours: Collection[int] = ()) -> str | None:
        """Name who or what holds the devices; None where nothing is seen to.

        Args:
            ours: Ids of all processes of an engine that waits there for its next trial; the memory in use is
                its own then.
        """
        processes = self._device_processes
        pids = processes.foreign(ours) if ours else processes.pids()
        if pids:
            return "process " + "; ".join(map(named, sorted(pids)))
        if ours:
            return None
        held = None if self._gauge is None else self._gauge.look().memory_gib
        if held is not None and held > MOST_IDLE_GIB * len(self._devices):
            return f"{held:.1f} GiB of memory in use, by no process that can be seen"
        return None

    def wait(
        self,
        *,
        limit_s: float,
        cancelled: Callable[[], bool],
        ours: Collection[int] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> float:
        """Wait until the devices are free, and return the seconds it took.

        Args:
            limit_s: Longest wait.
            cancelled: Polled; true ends the wait.
            ours: As for ``in_the_way``.
            clock: Seconds.

        Raises:
            EngineError: They are not free in time, or the wait was cancelled.
        """
        began = clock()
        while (reason := self.in_the_way(ours=ours)) is not None:
            if cancelled():
                raise Stopped
            if clock() - began >= limit_s:
                numbers = ", ".join(map(str, self._devices))
                raise EngineError(
                    f"devices: {numbers} not free after {limit_s:g} s: {reason}; expected nobody there. End "
                    "it, leave the device out of the study, or raise engine.free_timeout_s.",
                    failure=FailureClass.INFRASTRUCTURE,
                )
            time.sleep(_POLL_S)
        return clock() - began
