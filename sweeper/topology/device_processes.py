"""Which processes use a device, as the vendor's tool reports them: only the engine may, while it is measured.

A tool may be silent, or speak of the process ids of another namespace (a container's host); then it cannot
be known, which does not mean that there are none. On CPU cores it cannot be known either: everything runs
there.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Mapping, Sequence

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
        told = None if ours is None else self.pids()
        if ours is None or told is None or not told & set(ours):
            return None
        return told - set(ours)

    def pids(self) -> frozenset[int] | None:
        """Ask for the ids of all processes that hold memory there; None where that is unknown."""
        try:
            if self._platform is Platform.MI300X:
                return self._of_amd()
            if self._platform is Platform.CUDA:
                return self._of_nvidia()
        except PlacementError:
            # The tool does not answer: as good as none. What is measured does not depend on it.
            return None
        return None

    def _of_amd(self) -> frozenset[int] | None:
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
        found: set[int] = set()
        for device in self._devices:
            number = self._numbers.get(device)
            answer = ask(self._run, ("amd-smi", "process", "--gpu", str(number), "--json"))
            rows = None if isinstance(answer, Absent) else json_rows(answer.stdout)
            if number is None or rows is None:
                return None
            for row in rows:
                found.update(_amd_pids(row))
        return frozenset(found)

    def _of_nvidia(self) -> frozenset[int] | None:
        """Ask nvidia-smi, which lists a process under the GPUs that it has a context on.

        Source:
            ``nvidia-smi --help-query-compute-apps``: gpu_uuid, pid.
        """
        gpus, apps = (_csv(self._run, command) for command in (_NVIDIA_GPUS, _NVIDIA_APPS))
        if gpus is None or apps is None:
            return None
        uuids = {uuid for index, uuid in gpus if index.isdigit() and int(index) in self._devices}
        return frozenset(int(pid) for uuid, pid in apps if uuid in uuids and pid.isdigit())


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
