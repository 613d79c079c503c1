"""A machine without a GPU: the cores that this process may use, read from the kernel."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Collection
from pathlib import Path

from sweeper.errors import PlacementError
from sweeper.records import Platform
from sweeper.records.plurals import amount
from sweeper.topology.node import Device, Node, ranges
from sweeper.topology.probes import contents


def read_cpu(
    slots: int | None = None, *, root: Path = Path("/"), allowed: Collection[int] | None = None
) -> Node:
    """Read the cores that this process may use as devices, one device per core.

    Threads of one core count once, under the lowest number that is allowed. Each core's share of memory is
    the machine's, or the control group's limit where that is less, divided by all usable cores.

    Args:
        slots: Use only this many cores, the lowest numbered; None uses all.
        root: Where /proc and /sys lie.
        allowed: Logical CPUs that may be used; None asks the kernel.

    Raises:
        PlacementError: There are fewer cores than slots, or slots is below 1.
    """
    usable = sorted(os.sched_getaffinity(0) if allowed is None else allowed)
    cores = _one_thread_per_core(usable, root)
    if slots is not None and not 1 <= slots <= len(cores):
        raise PlacementError(
            f"cpu: got {amount(slots, 'device')}; expected 1 to {len(cores)}, the cores that this "
            f"process may use ({ranges(cores)}). Lower their number, or widen the affinity (taskset)."
        )
    return Node(
        host=socket.gethostname(),
        platform=Platform.CPU,
        devices=_cores_as_devices(cores, root)[:slots],
        source=f"the kernel: cores {ranges(cores)} are allowed",
    )


def _cores_as_devices(cores: list[int], root: Path) -> tuple[Device, ...]:
    numa = {core: _numa_node_of_core(core, root) for core in cores}
    ranks = {node: rank for rank, node in enumerate(sorted(set(numa.values()), key=lambda node: node or 0))}
    name = _cpu_name(root)
    memory_gib = _usable_memory_gib(root)
    filled = dict.fromkeys(ranks.values(), 0)
    devices = []
    for core in cores:
        parent = ranks[numa[core]]
        devices.append(
            Device(
                index=core,
                parent=parent,
                partition_id=filled[parent],
                name=name,
                memory_gib=None if memory_gib is None else memory_gib / len(cores),
                compute_units=1,
                numa_node=numa[core],
            )
        )
        filled[parent] += 1
    return tuple(devices)


def _one_thread_per_core(usable: list[int], root: Path) -> list[int]:
    cores: dict[str, int] = {}
    for cpu in usable:
        siblings = contents(root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.setdefault(siblings or str(cpu), cpu)
    return sorted(cores.values())


def _numa_node_of_core(core: int, root: Path) -> int | None:
    links = (root / f"sys/devices/system/cpu/cpu{core}").glob("node[0-9]*")
    return next((int(link.name.removeprefix("node")) for link in links), None)


def _cpu_name(root: Path) -> str:
    match = re.search(r"^model name\s*:\s*(.+)$", contents(root / "proc/cpuinfo") or "", re.MULTILINE)
    return match[1].strip() if match else "CPU core"


def _usable_memory_gib(root: Path) -> float | None:
    total = re.search(r"^MemTotal:\s*(\d+) kB$", contents(root / "proc/meminfo") or "", re.MULTILINE)
    limits = [] if total is None else [int(total[1]) / 2**20]
    group = contents(root / "sys/fs/cgroup/memory.max") or ""
    if group.isdigit():
        limits.append(int(group) / 2**30)
    return min(limits, default=None)
