"""What engine, devices and processors do while a load runs, looked at about once a second from the side.

A number says how fast; these say why: a cache that was full, requests that waited, a clock that fell, a
client that had no core. The look is taken in a thread of its own, and whatever is unknown (no tool, no
counter, an engine of others) is None and never zero.

The engine's own counts over a run (cache hits, preemptions) are differences, which the client takes.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from sweeper.engines import Server
from sweeper.processes import orphans
from sweeper.processes import process as processes
from sweeper.records import Measurement, Placement, Provenance, TrialSpec
from sweeper.topology.gauges import Gauge, Gauges

INTERVAL_S = 1.0
"""Between two looks. A look at 64 partitions takes amd-smi some seconds; the next one then comes later."""

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PEAKS = {
    "kv_cache_usage": "kv_cache_usage",
    "requests_running": "requests_running_max",
    "requests_waiting": "requests_waiting_max",
}
"""Gauges of the engine, and the column of the highest value seen."""

# A look that hangs must not hold up the trial; the thread ends with its question.
_PATIENCE_S = 10.0

Ticks = Mapping[int, int]
"""Processor time by process id, in ticks of the kernel's clock."""


@dataclass
class Recording:
    """What was seen during one load."""

    engine: list[Mapping[str, float]] = field(default_factory=list)
    devices: list[Gauges] = field(default_factory=list)
    host_busy_share: float | None = None
    engine_cpu_cores: float | None = None
    client_cpu_cores: float | None = None

    def numbers(self) -> dict[str, float | None]:
        """Return what was seen as columns of the store; what was never reported is None."""
        return {
            **_of_engine(self.engine),
            **_of_devices(self.devices),
            "host_cpu_share": self.host_busy_share,
            "engine_cpu_cores": self.engine_cpu_cores,
            "client_cpu_cores": self.client_cpu_cores,
            "telemetry_looks": float(len(self.engine)),
        }


def with_telemetry(measured: Measurement, recording: Recording) -> Measurement:
    """Add what was seen to a measurement; where the client saw more of the same, its number is kept."""
    seen = recording.numbers()
    told = {name: value for name, value in measured.telemetry.items() if value is not None}
    peaks = [value for value in (seen["kv_cache_usage"], told.get("kv_cache_usage")) if value is not None]
    return replace(
        measured,
        telemetry={**measured.telemetry, **seen, **told, "kv_cache_usage": max(peaks, default=None)},
    )


@contextmanager
def recorded(
    server: Server,
    spec: TrialSpec,
    placement: Placement,
    *,
    gauge: Gauge | None = None,
    proc: Path = Path("/proc"),
    interval_s: float = INTERVAL_S,
) -> Iterator[Recording]:
    """Record what goes on while the block runs.

    Args:
        server: The engine under load. Of a simulated one there is nothing to see.
        spec: The trial; its processes carry its key.
        placement: Its devices.
        gauge: Looks at the devices; None takes the one of the platform.
        proc: Where the kernel shows its processes.
        interval_s: Between two looks.

    Yields:
        The recording, complete when the block has ended.
    """
    recording = Recording()
    if server.provenance is Provenance.SIMULATED:
        yield recording
        return
    gauge = gauge or Gauge(spec.platform, placement.devices)
    is_over = threading.Event()
    processors = _Processors(server, spec.key, folder=Path(spec.folder), proc=proc)

    def look() -> None:
        while True:
            processors.look()
            recording.engine.append(server.counters())
            recording.devices.append(gauge.look())
            if is_over.wait(interval_s):
                return

    watcher = threading.Thread(target=look, name="telemetry", daemon=True)
    watcher.start()
    try:
        yield recording
    finally:
        is_over.set()
        watcher.join(_PATIENCE_S)
        processors.look()
        recording.host_busy_share = processors.host_busy_share()
        recording.engine_cpu_cores, recording.client_cpu_cores = processors.cores()


class _Processors:
    """Processor time of the host, of the engine's processes and of the client's, between two looks."""

    def __init__(self, server: Server, key: str, *, folder: Path, proc: Path) -> None:
        self._server = server
        self._key = key
        self._folder = folder
        self._proc = proc
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._ended = self._began
        self._host = read_host_ticks(proc)
        self._host_now = self._host
        self._first: dict[str, dict[int, int]] = {"engine": {}, "client": {}}
        self._last: dict[str, dict[int, int]] = {"engine": {}, "client": {}}

    def look(self) -> None:
        engine = set(self._server.pids() or ())
        # A client that was forked from a process of an earlier trial carries no mark of this one.
        client = {
            *processes.marked(processes.TRIAL_MARK, self._key),
            *orphans.launched(self._folder, "client-"),
        }
        groups = {"engine": engine, "client": {process.pid for process in client} - engine}
        with self._lock:
            is_first = self._ended == self._began
            self._ended = time.monotonic()
            self._host_now = read_host_ticks(self._proc)
            for name, pids in groups.items():
                for pid, ticks in read_ticks(pids, self._proc).items():
                    # Who came later has spent all of its time during the load.
                    self._first[name].setdefault(pid, ticks if is_first else 0)
                    self._last[name][pid] = ticks

    def host_busy_share(self) -> float | None:
        if self._host is None or self._host_now is None:
            return None
        busy, whole = (now - then for now, then in zip(self._host_now, self._host, strict=True))
        return busy / whole if whole > 0 else None

    def cores(self) -> tuple[float | None, float | None]:
        """Return the mean number of processors that engine and client kept busy; None if unknown."""
        seconds = self._ended - self._began
        return self._cores("engine", seconds), self._cores("client", seconds)

    def _cores(self, name: str, seconds: float) -> float | None:
        if not self._last[name] or seconds <= 0:
            return None
        ticks = sum(last - self._first[name][pid] for pid, last in self._last[name].items())
        return ticks / _TICKS_PER_S / seconds


def read_host_ticks(proc: Path) -> tuple[int, int] | None:
    """Return the host's busy and whole processor time since boot, in ticks over all processors.

    Source:
        proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal; guest time is within user.
    """
    try:
        words = (proc / "stat").read_text(encoding="ascii").splitlines()[0].split()
        ticks = [int(word) for word in words[1:9]]
    except (OSError, ValueError, IndexError):
        return None
    if len(ticks) < 5:
        return None
    whole = sum(ticks)
    return whole - ticks[3] - ticks[4], whole


def read_ticks(pids: set[int], proc: Path) -> Ticks:
    """Return the processor time of processes, user and system; those that are gone are left out.

    Source:
        proc_pid_stat(5), fields 14 and 15.
    """
    found = {}
    for pid in pids:
        try:
            # The second field, the name, may hold blanks and brackets.
            rest = (proc / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
            found[pid] = int(rest[11]) + int(rest[12])
        except (OSError, ValueError, IndexError):
            continue
    return found


def _of_engine(looks: list[Mapping[str, float]]) -> dict[str, float | None]:
    numbers: dict[str, float | None] = {}
    for name, peak in _PEAKS.items():
        values = [look[name] for look in looks if name in look]
        numbers[f"{name}_mean"] = _mean(values)
        numbers[peak] = max(values, default=None)
    return numbers


def _of_devices(looks: list[Gauges]) -> dict[str, float | None]:
    power = [look.power_w for look in looks if look.power_w is not None]
    memory = [look.memory_gib for look in looks if look.memory_gib is not None]
    clock = [look.clock_mhz for look in looks if look.clock_mhz is not None]
    memory_clock = [look.memory_clock_mhz for look in looks if look.memory_clock_mhz is not None]
    heat = [look.temperature_c for look in looks if look.temperature_c is not None]
    throttled = [float(look.is_throttled) for look in looks if look.is_throttled is not None]
    return {
        "gpu_power_w": _mean(power),
        "gpu_power_max_w": max(power, default=None),
        "gpu_memory_gib": max(memory, default=None),
        "gpu_clock_mhz": _mean(clock),
        "gpu_memory_clock_mhz": _mean(memory_clock),
        "gpu_temperature_c": max(heat, default=None),
        "gpu_throttled_share": _mean(throttled),
    }


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
