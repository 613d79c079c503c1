"""What holds for the MI300X of a node, from the PCI bus and from amd-smi.

amd-smi answers N/A for all but the first partition of a GPU, so a value is any partition's that has one, and
a GPU without one is not told. A virtual function of a GPU is told less; that is unreadable, not good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from types import MappingProxyType

from sweeper.audit.catalogue import CLOCKS_MHZ, MODES, PCIE_SPEED, PCIE_WIDTH, POWER_W
from sweeper.audit.drivers import driver_reading
from sweeper.audit.findings import Reading
from sweeper.audit.reading import (
    INSTALL_AMD_SMI,
    NodeReader,
    UnreadableError,
    judged,
    verdict_of,
)
from sweeper.errors import PlacementError
from sweeper.records import Platform
from sweeper.topology.amd_smi import AMD_ADVICE, device_numbers, driver_advice
from sweeper.topology.device_processes import DeviceProcesses, named
from sweeper.topology.modes import MI300X_GPUS
from sweeper.topology.probes import Absent
from sweeper.topology.values import quantity, section

_PCI = "sys/bus/pci/devices"
_MI300X = ("0x74a1", "0x74b5")
"""Device numbers on the PCI bus: the GPU, and its virtual function. Source: the MI300X page of AMD's system
acceptance (1002:74a1); Linux, amdgpu_drv.c, and the PCI ID repository (74b5)."""

_ON_BARE_METAL = "Run this as root on the host of the GPUs; a virtual machine is not told. " + AMD_ADVICE
_THERMAL = ("prochot", "socket_thermal", "vr_thermal", "hbm_thermal")

Row = Mapping[str, object]


def _gpu_count(node: NodeReader) -> Reading:
    found = len(_addresses(node))
    return Reading(verdict=verdict_of(found == MI300X_GPUS), found=str(found))


def _pcie_link(node: NodeReader) -> Reading:
    told = {
        address: _link(node, address)
        for address in _addresses(node) or _none("no MI300X on the PCI bus", node)
    }
    good = f"{PCIE_SPEED} x{PCIE_WIDTH}"
    return judged(told, lambda link: link == good, remedy=_ON_BARE_METAL)


def _link(node: NodeReader, address: str) -> str | None:
    folder = f"{_PCI}/{address}"
    told = node.texts(f"{folder}/current_link_*")
    speed, width = told.get(f"{folder}/current_link_speed"), told.get(f"{folder}/current_link_width")
    # The kernel writes "Unknown" where the link does not tell, as in a virtual machine.
    if speed is None or width is None or "Unknown" in speed or width in ("0", "255"):
        return None
    return f"{speed.removesuffix(' PCIe')} x{width}"


def _xgmi_links(node: NodeReader) -> Reading:
    """Read how each pair of GPUs is linked.

    Source:
        ROCm/amdsmi, CHANGELOG.md of 6.3: ``topology --json`` has ``links``, one for each other device; before
        that ``link_type`` and ``num_hops`` by ``gpu_<N>``.
    """
    rows = node.rows("topology")
    gpus = {row["gpu"]: str(row.get("bdf", row["gpu"])).rsplit(".")[0] for row in rows}
    ways = {
        f"{row['gpu']}-{other}": way
        for row in rows
        for other, way in _ways(row)
        if gpus.get(other) != gpus[row["gpu"]]
    }
    if not ways:
        raise UnreadableError(
            "no pair of GPUs is told", remedy="With one GPU there is none; else see amd-smi topology."
        )
    lacking = [
        f"{one}-{two}"
        for one, two in combinations(gpus, 2)
        if gpus[one] != gpus[two] and not {f"{one}-{two}", f"{two}-{one}"} & set(ways)
    ]
    return judged({**ways, **dict.fromkeys(lacking)}, lambda way: way == "XGMI, 1 hop", remedy=_ON_BARE_METAL)


def _ways(row: Row) -> Iterator[tuple[object, str | None]]:
    links = row.get("links")
    for link in links if isinstance(links, list) else []:
        yield link.get("gpu"), _way(link.get("link_type"), link.get("num_hops"), link.get("link_status"))
    hops = section(row, "num_hops")
    for name, kind in section(row, "link_type").items():
        yield int(name.removeprefix("gpu_")), _way(kind, hops.get(name), None)


def _way(kind: object, hops: object, status: object) -> str | None:
    count = quantity(hops)
    if kind in (None, "N/A") or count is None:
        return None
    broken = "" if status in (None, "N/A", "ENABLED") else f", {str(status).lower()}"
    return f"{kind}, {count:.0f} hop{'' if count == 1 else 's'}{broken}"


def _power_cap(node: NodeReader) -> Reading:
    """Read the cap: ``limit.ppt0.socket_power_limit``, or ``limit.socket_power`` in earlier releases.

    Source:
        ROCm/amdsmi, CHANGELOG.md (``ppt0`` and ``ppt1``); amd-node-scraper, amdsmidata.py, StaticLimit.
    """
    told = _by_gpu(node, node.rows("static", "--limit"), _cap_w)
    return judged(told, lambda cap: cap == f"{POWER_W} W", remedy=_ON_BARE_METAL)


def _cap_w(row: Row) -> str | None:
    limit = section(row, "limit")
    first = section(limit, "ppt0")
    for told in (first.get("socket_power_limit"), limit.get("socket_power"), limit.get("current_power")):
        watts = quantity(told)
        if watts:  # 0: not told
            return f"{watts:.0f} W"
    return None


def _clocks(node: NodeReader) -> Reading:
    """Read level and highest clock of the compute units, which idleness does not change."""
    told = _by_gpu(node, node.rows("metric", "--clock", "--perf-level"), _clock)
    limited, free = (f"{mhz} MHz at most" for mhz in CLOCKS_MHZ)
    return judged(
        told, lambda clock: clock in (f"auto, {free}", f"determinism, {limited}"), remedy=_ON_BARE_METAL
    )


def _clock(row: Row) -> str | None:
    level = str(row.get("perf_level", "N/A")).rsplit("LEVEL_", maxsplit=1)[-1].lower()
    most = quantity(section(section(row, "clock"), "gfx_0").get("max_clk"))
    if level in ("n/a", "unknown", "none") or most is None:
        return None
    return f"{level}, {most:.0f} MHz at most"


def _partition_mode(node: NodeReader) -> Reading:
    found = node.amd_node()
    if found.partition_mode is None or found.memory_mode is None:
        raise UnreadableError("the mode is not told", remedy=_ON_BARE_METAL)
    pair = (found.partition_mode, found.memory_mode)
    return Reading(verdict=verdict_of(pair in MODES), found=" with ".join(pair))


def _driver_and_rocm(node: NodeReader) -> Reading:
    found = node.amd_node()
    return driver_reading(driver=found.driver, rocm=found.rocm)


def _ecc_errors(node: NodeReader) -> Reading:
    told = _by_gpu(node, node.rows("metric", "--ecc"), _ecc)
    return judged(
        told, lambda errors: errors.startswith("0 uncorrectable, 0 deferred"), remedy=_ON_BARE_METAL
    )


def _ecc(row: Row) -> str | None:
    ecc = section(row, "ecc")
    lost, deferred, mended = (
        quantity(ecc.get(f"total_{kind}_count")) for kind in ("uncorrectable", "deferred", "correctable")
    )
    if lost is None:
        return None
    # Releases before 6.2 do not count deferred ones apart.
    return f"{lost:.0f} uncorrectable, {deferred or 0:.0f} deferred, {mended or 0:.0f} corrected"


def _throttling(node: NodeReader) -> Reading:
    """Read the counters since the driver was loaded, and what is active now.

    Source:
        ROCm/amdsmi, docs/how-to/amdsmi-cli-tool.md and CHANGELOG.md of 6.3, ``metric --throttle``: MI300 and
        later. Power (``ppt``) is counted at any full load, so only its status now matters.
    """
    told = _by_gpu(node, node.rows("metric", "--throttle"), _throttled)
    return judged(told, lambda found: found == "none", remedy=_ON_BARE_METAL)


def _throttled(row: Row) -> str | None:
    throttle = section(row, "throttle")
    counts = {kind: quantity(throttle.get(f"{kind}_accumulated")) for kind in _THERMAL}
    active = [
        name.removesuffix("_violation_status")
        for name, status in throttle.items()
        if name.endswith("_violation_status")
        and status == "ACTIVE"
        and not name.startswith("low_utilization")
    ]
    if all(count is None for count in counts.values()) and not active:
        return None
    parts = [f"{kind} {count:.0f} times" for kind, count in counts.items() if count]
    return "; ".join([*parts, *(f"{name} now" for name in active)]) or "none"


def _other_processes(node: NodeReader) -> Reading:
    try:
        numbers = device_numbers(node.run, root=node.root)
    except PlacementError as exc:
        raise UnreadableError(str(exc), remedy=AMD_ADVICE) from exc
    if isinstance(numbers, Absent):
        raise UnreadableError(numbers.reason, remedy=INSTALL_AMD_SMI)
    devices = sorted(numbers.values())
    found = DeviceProcesses(platform=Platform.MI300X, devices=devices, run=node.run).pids()
    if found is None:
        raise UnreadableError("amd-smi process tells nothing", remedy=AMD_ADVICE)
    return Reading(verdict=verdict_of(not found), found=", ".join(map(named, sorted(found))) or "none")


GPU_READINGS: Mapping[str, Callable[[NodeReader], Reading]] = MappingProxyType(
    {
        "gpu_count": _gpu_count,
        "pcie_link": _pcie_link,
        "xgmi_links": _xgmi_links,
        "power_cap": _power_cap,
        "clocks": _clocks,
        "partition_mode": _partition_mode,
        "driver_and_rocm": _driver_and_rocm,
        "ecc_errors": _ecc_errors,
        "throttling": _throttling,
        "other_processes": _other_processes,
    }
)
"""How each check of the GPUs is read, by its name; each may raise UnreadableError."""


def _addresses(node: NodeReader) -> list[str]:
    """Return the addresses of the MI300X on the PCI bus.

    Raises:
        UnreadableError: There is no PCI bus to look at.
    """
    devices = node.texts(f"{_PCI}/*/device")
    if not devices:
        raise UnreadableError("no PCI bus is shown", remedy=_ON_BARE_METAL)
    return [path.split("/")[-2] for path, number in devices.items() if number in _MI300X]


def _none(reason: str, node: NodeReader) -> list[str]:
    raise UnreadableError(reason, remedy=driver_advice(node.root) + AMD_ADVICE)


def _by_gpu(
    node: NodeReader, rows: list[dict[str, object]], value: Callable[[Row], str | None]
) -> dict[str, str | None]:
    """Return one value for each physical GPU: that of its first partition which has one."""
    buses = {row["gpu"]: str(row.get("bdf", row["gpu"])).rsplit(".")[0] for row in node.rows("list")}
    found: dict[str, str | None] = {}
    for row in rows:
        bus = buses.get(row["gpu"], str(row["gpu"]))
        found[bus] = found.get(bus) or value(row)
    return {f"GPU {place}": told for place, told in enumerate(found.values())}
