"""What holds for the host's processors, memory and limits, from the kernel's files."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from sweeper.audit.catalogue import OPEN_FILES, SHARED_MEMORY_GIB
from sweeper.audit.findings import Reading
from sweeper.audit.reading import NodeReader, UnreadableError, judged, verdict_of

_CPUS = "sys/devices/system/cpu"
_IN_CONTAINER = "Run this on the host, outside of a container or virtual machine that hides it."
_DRIVERLESS = (
    "The kernel has no driver for the processors' clock here, as in most virtual machines: look on the host, "
    "with `cpupower frequency-info`."
)
_BYTES = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}


def _numa_balancing(node: NodeReader) -> Reading:
    told = node.text(
        "proc/sys/kernel/numa_balancing",
        remedy="A kernel without it has no such file: grep NUMA_BALANCING /boot/config-$(uname -r)",
    )
    return Reading(verdict=verdict_of(told == "0"), found=told)


def _governor(node: NodeReader) -> Reading:
    told = _per_cpu(node.texts(f"{_CPUS}/cpu[0-9]*/cpufreq/scaling_governor"))
    return judged(told, lambda governor: governor == "performance", remedy=_DRIVERLESS)


def _boost(node: NodeReader) -> Reading:
    """Read boost as the kernel's common driver has it, or Intel's, which has its opposite."""
    for path, good in ((f"{_CPUS}/cpufreq/boost", "1"), (f"{_CPUS}/intel_pstate/no_turbo", "0")):
        told = node.texts(path).get(path)
        if told is not None:
            return Reading(verdict=verdict_of(told == good), found=f"{path.rsplit('/')[-1]} is {told}")
    told_each = _per_cpu(node.texts(f"{_CPUS}/cpu[0-9]*/cpufreq/boost"))
    return judged(told_each, lambda boost: boost == "1", remedy=_DRIVERLESS)


def _idle_c2(node: NodeReader) -> Reading:
    """Read whether C2 is switched off, by name, since its number differs between drivers.

    Source:
        Linux, admin-guide/pm/cpuidle.rst: ``state<N>/name`` and ``state<N>/disable``.
    """
    names = node.texts(f"{_CPUS}/cpu[0-9]*/cpuidle/state[0-9]*/name")
    if not names:
        raise UnreadableError(
            "no idle states are told",
            remedy="The kernel has no driver for idle states here, as in most virtual machines: look on the "
            "host, with `cpupower idle-info`.",
        )
    deep = [path.removesuffix("name") for path, name in names.items() if name == "C2"]
    if not deep:
        return Reading(verdict=verdict_of(True), found="no processor has C2")
    switches = node.texts(f"{_CPUS}/cpu[0-9]*/cpuidle/state[0-9]*/disable")
    states = {
        _cpu(path): {"0": "used", "1": "switched off"}.get(switches.get(f"{path}disable", ""))
        for path in deep
    }
    return judged(states, lambda state: state == "switched off", remedy=_IN_CONTAINER)


def _hugepages(node: NodeReader) -> Reading:
    told = node.text(
        "sys/kernel/mm/transparent_hugepage/enabled",
        remedy="A kernel without them has no such file: grep TRANSPARENT_HUGEPAGE /boot/config-$(uname -r)",
    )
    chosen = re.search(r"\[(\w+)\]", told)
    found = told if chosen is None else chosen[1]
    return Reading(verdict=verdict_of(found == "always"), found=found)


def _iommu(node: NodeReader) -> Reading:
    given = _boot_parameters(node)
    wanted = ("iommu=pt", "intel_iommu=on") if _is_intel(node) else ("iommu=pt",)
    told = [each for each in given if "iommu" in each]
    return Reading(verdict=verdict_of(set(wanted) <= set(given)), found=" ".join(told) or "none of them")


def _pci_realloc(node: NodeReader) -> Reading:
    given = _boot_parameters(node)
    options = [option for each in given if each.startswith("pci=") for option in each[4:].split(",")]
    found = " ".join(f"pci={option}" for option in options) or "no pci="
    return Reading(verdict=verdict_of("realloc=off" in options), found=found)


def _numa_nodes(node: NodeReader) -> Reading:
    sockets = set(node.texts(f"{_CPUS}/cpu[0-9]*/topology/physical_package_id").values())
    # Nodes that have processors; an accelerator's memory may be a node without any.
    nodes = [cpus for cpus in node.texts("sys/devices/system/node/node[0-9]*/cpulist").values() if cpus]
    if not sockets or not nodes:
        raise UnreadableError("sockets or NUMA nodes are not told", remedy=_IN_CONTAINER)
    found = f"NUMA nodes: {len(nodes)}, sockets: {len(sockets)}"
    return Reading(verdict=verdict_of(len(nodes) == len(sockets)), found=found)


def _open_files(node: NodeReader) -> Reading:
    soft, hard = _limit(node, "Max open files")
    enough = hard is None or hard >= OPEN_FILES
    return Reading(verdict=verdict_of(enough), found=f"{_bound(soft)}, hard limit {_bound(hard)}")


def _locked_memory(node: NodeReader) -> Reading:
    soft, _ = _limit(node, "Max locked memory")
    found = "unlimited" if soft is None else f"{soft // 2**10} KiB"
    return Reading(verdict=verdict_of(soft is None), found=found)


def _shared_memory(node: NodeReader) -> Reading:
    """Read the size of /dev/shm from its mount; one without a size has half of the memory (tmpfs(5))."""
    mounts = node.text("proc/self/mounts", remedy=_IN_CONTAINER)
    lines = [line.split() for line in mounts.splitlines()]
    options = [line[3] for line in lines if len(line) > 3 and line[1] == "/dev/shm"]
    if not options:
        raise UnreadableError("nothing is mounted at /dev/shm", remedy="Mount a tmpfs there.")
    size = re.search(r"\bsize=(\d+)([kmg]?)\b", options[-1])
    held = _memory_bytes(node) / 2 if size is None else int(size[1]) * _BYTES[size[2]]
    gib = held / 2**30
    return Reading(verdict=verdict_of(gib >= SHARED_MEMORY_GIB), found=f"{gib:.1f} GiB")


HOST_READINGS: Mapping[str, Callable[[NodeReader], Reading]] = MappingProxyType(
    {
        "numa_balancing": _numa_balancing,
        "cpu_governor": _governor,
        "cpu_boost": _boost,
        "cpu_idle_c2": _idle_c2,
        "transparent_hugepages": _hugepages,
        "iommu": _iommu,
        "pci_realloc": _pci_realloc,
        "numa_nodes": _numa_nodes,
        "open_files": _open_files,
        "locked_memory": _locked_memory,
        "shared_memory": _shared_memory,
    }
)
"""How each check of the host is read, by its name; each may raise UnreadableError."""


def _per_cpu(texts: Mapping[str, str]) -> dict[str, str]:
    return {_cpu(path): text for path, text in texts.items()}


def _cpu(path: str) -> str:
    return path.removeprefix(f"{_CPUS}/").split("/", maxsplit=1)[0]


def _boot_parameters(node: NodeReader) -> list[str]:
    return node.text("proc/cmdline", remedy=_IN_CONTAINER).split()


def _is_intel(node: NodeReader) -> bool:
    return "GenuineIntel" in node.texts("proc/cpuinfo").get("proc/cpuinfo", "")


def _limit(node: NodeReader, name: str) -> tuple[int | None, int | None]:
    """Return the soft and the hard limit of this process; None is unlimited."""
    limits = node.text("proc/self/limits", remedy=_IN_CONTAINER)
    found = re.search(rf"^{name}\s+(\S+)\s+(\S+)", limits, flags=re.MULTILINE)
    if found is None:
        raise UnreadableError(f"'{name}' is not in /proc/self/limits", remedy=_IN_CONTAINER)
    soft, hard = (None if told == "unlimited" else int(told) for told in found.groups())
    return soft, hard


def _bound(limit: int | None) -> str:
    return "unlimited" if limit is None else str(limit)


def _memory_bytes(node: NodeReader) -> int:
    told = re.search(r"^MemTotal:\s+(\d+) kB", node.text("proc/meminfo", remedy=_IN_CONTAINER), re.MULTILINE)
    if told is None:
        raise UnreadableError("no MemTotal in /proc/meminfo", remedy=_IN_CONTAINER)
    return int(told[1]) * 2**10
