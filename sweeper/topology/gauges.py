"""What devices are doing at a moment: power, memory, clocks, temperature, throttling, as tools report it.

One question gives the gauges of all devices of a trial. What a tool does not know is None and never zero: a
partition of an MI300X has no power or temperature of its own, which its GPU reports with its first partition.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sweeper.errors import PlacementError
from sweeper.records import Platform
from sweeper.topology.amd_smi import device_numbers, json_rows
from sweeper.topology.probes import Absent, Answer, Runner, ask, run_command
from sweeper.topology.values import gib, quantity, section

_AMD = ("amd-smi", "metric", "--json")
_NVIDIA = (
    "nvidia-smi",
    "--query-gpu=index,power.draw,memory.used,clocks.sm,clocks.mem,temperature.gpu,"
    "clocks_throttle_reasons.active",
    "--format=csv,noheader,nounits",
)
# Bits that mean slower than asked; the others are idleness and clocks that were set.
# Source: nvml.h, nvmlClocksThrottleReasons: SwPowerCap 0x4, HwSlowdown 0x8, SwThermalSlowdown 0x20,
# HwThermalSlowdown 0x40, HwPowerBrakeSlowdown 0x80.
_NVIDIA_THROTTLES = 0x4 | 0x8 | 0x20 | 0x40 | 0x80


@dataclass(frozen=True, kw_only=True)
class Gauges:
    """One look at the devices of a trial; what their tool does not report is None.

    Attributes:
        power_w: Sum over devices.
        memory_gib: In use, sum over devices.
        clock_mhz: Mean graphics clock.
        memory_clock_mhz: Mean memory clock.
        temperature_c: Hottest spot of the hottest device.
        is_throttled: Whether any runs slower than asked, for power or heat.
    """

    power_w: float | None = None
    memory_gib: float | None = None
    clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    temperature_c: float | None = None
    is_throttled: bool | None = None


class Gauge:
    """Looks at the devices of one trial, again and again."""

    def __init__(self, platform: Platform, devices: Sequence[int], *, run: Runner = run_command) -> None:
        """Prepare to look.

        Args:
            platform: What kind of devices they are; only mi300x and cuda have gauges.
            devices: Node-absolute indices, as HIP or CUDA counts.
            run: Runs the vendor's tool.
        """
        self._platform = platform
        self._devices = frozenset(devices)
        self._run = run
        self._numbers: frozenset[int] | None = None

    def look(self) -> Gauges:
        """Look once; nothing is known where there is no tool, or it does not answer."""
        try:
            if self._platform is Platform.MI300X:
                return self._amd()
            if self._platform is Platform.CUDA:
                return read_nvidia_gauges(self._answer(_NVIDIA), self._devices)
        except PlacementError:
            # A tool that hangs or breaks costs its telemetry, not the trial.
            return Gauges()
        return Gauges()

    def _amd(self) -> Gauges:
        if self._numbers is None:
            self._numbers = self._amd_numbers()
        return read_amd_gauges(self._answer(_AMD), self._numbers)

    def _amd_numbers(self) -> frozenset[int]:
        """Return amd-smi's own numbers of the devices, which need not be HIP's."""
        numbers = device_numbers(self._run)
        if isinstance(numbers, Absent):
            return frozenset()
        return frozenset(gpu for gpu, hip_id in numbers.items() if hip_id in self._devices)

    def _answer(self, command: Sequence[str]) -> str:
        answer: Answer | Absent = ask(self._run, command)
        return "" if isinstance(answer, Absent) else answer.stdout


def read_amd_gauges(text: str, numbers: Iterable[int]) -> Gauges:
    """Read ``amd-smi metric --json``.

    Args:
        text: What it printed.
        numbers: amd-smi's own numbers of the devices that count.

    Source:
        ROCm/amdsmi, amdsmi_cli/amdsmi_commands.py, ``metric_gpu``: sections power, clock, temperature,
        mem_usage and throttle, each value bare, ``N/A``, or with its unit.
    """
    wanted = set(numbers)
    rows = [row for row in json_rows(text) or [] if row["gpu"] in wanted]
    power = [quantity(section(row, "power").get("socket_power")) for row in rows]
    memory = [gib(section(row, "mem_usage").get("used_vram")) for row in rows]
    return Gauges(
        power_w=_sum(power),
        memory_gib=_sum(memory),
        clock_mhz=_mean([clock for row in rows for clock in _clocks(row, "gfx")]),
        memory_clock_mhz=_mean([clock for row in rows for clock in _clocks(row, "mem")]),
        temperature_c=_max(
            [quantity(section(row, "temperature").get(spot)) for row in rows for spot in ("hotspot", "edge")]
        ),
        is_throttled=_any([_amd_throttled(row) for row in rows]),
    )


def read_nvidia_gauges(text: str, indices: Iterable[int]) -> Gauges:
    """Read the lines of ``nvidia-smi --query-gpu``; memory is in MiB there."""
    wanted = {str(index) for index in indices}
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines())]
    rows = [row for row in rows if len(row) == 7 and row[0] in wanted]
    return Gauges(
        power_w=_sum([quantity(row[1]) for row in rows]),
        memory_gib=_sum([gib(row[2]) for row in rows]),
        clock_mhz=_mean([quantity(row[3]) for row in rows]),
        memory_clock_mhz=_mean([quantity(row[4]) for row in rows]),
        temperature_c=_max([quantity(row[5]) for row in rows]),
        is_throttled=_any([_nvidia_throttled(row[6]) for row in rows]),
    )


def _clocks(row: Mapping[str, object], kind: str) -> list[float | None]:
    clocks = section(row, "clock")
    return [
        quantity(clock.get("clk") if isinstance(clock, Mapping) else None)
        for name, clock in clocks.items()
        if name.startswith(f"{kind}_")
    ]


def _amd_throttled(row: Mapping[str, object]) -> bool | None:
    told = section(row, "power").get("throttle_status")
    return {"THROTTLED": True, "UNTHROTTLED": False}.get(str(told).upper())


def _nvidia_throttled(text: str) -> bool | None:
    try:
        return bool(int(text, 16) & _NVIDIA_THROTTLES)
    except ValueError:
        return None


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _sum(values: Iterable[float | None]) -> float | None:
    known = _known(values)
    return sum(known) if known else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = _known(values)
    return sum(known) / len(known) if known else None


def _max(values: Iterable[float | None]) -> float | None:
    return max(_known(values), default=None)


def _any(values: Iterable[bool | None]) -> bool | None:
    known = [value for value in values if value is not None]
    return any(known) if known else None
