"""Which processes use a device, as the vendor's tool reports them: only the engine may, while it is measured.

A tool may be silent, or speak of the process ids of another namespace (a container's host); then it cannot
be known, which does not mean that there are none. On CPU cores it cannot be known either: everything runs
there.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sweeper.errors import PlacementError
from sweeper.processes import process as processes
from sweeper.records import Platform
from sweeper.topology.amd_smi import device_numbers, json_rows
from sweeper.topology.probes import Absent, Runner, ask, run_command
from sweeper.topology.values import integer

MIN_MEMORY_BYTES = 256 * 2**20
"""A process that holds less on a device does not compute there: ROCm opens all devices of the node in every
process, and amd-smi lists it under each of them, with nothing in use."""

_NVIDIA_GPUS = ("nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader")
_NVIDIA_APPS = ("nvidia-smi", "--query-compute-apps=gpu_uuid,pid", "--format=csv,noheader")
_BYTES = {"B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30}


def named(pid: int) -> str:
    """Return a process id with the process's title, for a message."""
    return f"{pid} ({processes.title(pid) or 'unknown'})"


@dataclass(frozen=True, kw_only=True)
class Use:
    """Who uses the devices of an engine, as far as it can be told.

    Attributes:
        foreign: Ids of processes that are not the engine's.
        unused: Devices on which no process of the engine holds memory, as the node counts them.
    """

    foreign: frozenset[int]
    unused: tuple[int, ...]


class DeviceProcesses:
    """Who uses some devices of this node."""

    def __init__(self, *, platform: Platform, devices: Sequence[int], run: Runner = run_command) -> None:
        """Name the devices; nothing is asked yet.

        Args:
            platform: Whose tool is asked.
            devices: Node-absolute indices, as in a placement.
            run: Runs the vendor's tool.
        """
        self._platform = platform
        self._devices = devices
        self._run = run
        self._numbers: Mapping[int, int] | None = None

    def foreign(self, ours: Collection[int] | None) -> frozenset[int] | None:
        """Find the processes on the devices that are not ours.

        Args:
            ours: Ids of all processes of the engine, which is up and holds memory there; None where they
                are not known.

        Returns:
            Ids of the others; None where that is unknown, also when none of those reported is ours: then they
            are of another namespace.
        """
        found = self.use(ours)
        return None if found is None else found.foreign

    def use(self, ours: Collection[int] | None) -> Use | None:
        """Find which processes are not ours, and which devices have none of ours.

        Args:
            ours: As for ``foreign``.

        Returns:
            Both; None where that is unknown, as for ``foreign``.
        """
        told = None if ours is None else self._by_device()
        if ours is None or told is None:
            return None
        own = frozenset(ours)
        everyone = frozenset[int]().union(*told.values())
        if not everyone & own:
            return None
        unused = tuple(sorted(device for device, pids in told.items() if not pids & own))
        return Use(foreign=everyone - own, unused=unused)

    def pids(self) -> frozenset[int] | None:
        """Ask for the ids of all processes that hold memory there; None where that is unknown."""
        told = self._by_device()
        return None if told is None else frozenset[int]().union(*told.values())

    def _by_device(self) -> Mapping[int, frozenset[int]] | None:
        """Ask for the ids of the processes on each device; None where that is unknown."""
        try:
            if self._platform is Platform.MI300X:
                return self._of_amd()
            if self._platform is Platform.CUDA:
                return self._of_nvidia()
        except PlacementError:
            # The tool does not answer: as good as none. What is measured does not depend on it.
            return None
        return None

    def _of_amd(self) -> Mapping[int, frozenset[int]] | None:
        """Ask amd-smi, one device at a time.

        Source:
            ROCm/amdsmi, amdsmi_cli/amdsmi_commands.py, ``process``: a list of devices with
            ``process_list``, whose entries are under ``process_info``, a text where there are none. Asked for
            all devices at once, it gives memory on the first one only.
        """
        if self._numbers is None:
            numbers = device_numbers(self._run)
            if isinstance(numbers, Absent):
                return None
            self._numbers = {hip: gpu for gpu, hip in numbers.items()}
        found: dict[int, frozenset[int]] = {}
        for device in self._devices:
            number = self._numbers.get(device)
            answer = ask(self._run, ("amd-smi", "process", "--gpu", str(number), "--json"))
            rows = None if isinstance(answer, Absent) else json_rows(answer.stdout)
            if number is None or rows is None:
                return None
            found[device] = frozenset(pid for row in rows for pid in _amd_pids(row))
        return found

    def _of_nvidia(self) -> Mapping[int, frozenset[int]] | None:
        """Ask nvidia-smi, which lists a process under the GPUs that it has a context on.

        Source:
            ``nvidia-smi --help-query-compute-apps``: gpu_uuid, pid.
        """
        gpus, apps = (_csv(self._run, command) for command in (_NVIDIA_GPUS, _NVIDIA_APPS))
        if gpus is None or apps is None:
            return None
        uuids = {uuid: int(index) for index, uuid in gpus if index.isdigit()}
        found: dict[int, set[int]] = {device: set() for device in self._devices}
        for uuid, pid in apps:
            if uuids.get(uuid) in found and pid.isdigit():
                found[uuids[uuid]].add(int(pid))
        return {device: frozenset(pids) for device, pids in found.items()}


def _amd_pids(row: Mapping[str, object]) -> Iterator[int]:
    listed = row.get("process_list")
    for entry in listed if isinstance(listed, list) else []:
        process = entry.get("process_info", entry) if isinstance(entry, dict) else None
        pid = integer(process.get("pid")) if isinstance(process, dict) else None
        if isinstance(process, dict) and pid is not None and _amd_bytes(process) >= MIN_MEMORY_BYTES:
            yield pid


def _amd_bytes(process: Mapping[str, object]) -> float:
    """Device memory of a process, reported as ``mem_usage`` or as ``memory_usage.vram_mem``."""
    usage = process.get("memory_usage")
    parts = [process.get("mem_usage")] + ([usage.get("vram_mem")] if isinstance(usage, dict) else [])
    return max(map(_bytes, parts))


def _bytes(told: object) -> float:
    value, unit = (told.get("value"), told.get("unit")) if isinstance(told, dict) else (told, "B")
    number = integer(value)
    return 0.0 if number is None else float(number * _BYTES.get(str(unit or "B").upper(), 1))


def _csv(run: Runner, command: Sequence[str]) -> list[tuple[str, str]] | None:
    answer = ask(run, command)
    if isinstance(answer, Absent) or answer.exit_status != 0:
        return None
    rows = [[cell.strip() for cell in row] for row in csv.reader(answer.stdout.splitlines()) if row]
    return [(row[0], row[1]) for row in rows if len(row) == 2]
