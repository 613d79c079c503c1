"""Nodes of eight MI300X for the audit: the kernel's files below a folder, and what amd-smi prints.

Nothing was captured. Files are as Linux documents them (admin-guide/pm, ABI/testing/sysfs-bus-pci, proc(5));
amd-smi's rows as its sources and amd-node-scraper's models have them: ``limit`` with ``ppt0`` in later
releases and ``socket_power`` before, ``metric`` with ``clock``, ``perf_level``, ``ecc`` and ``throttle``,
``topology`` with ``links``. The bad node has each fault that an audit can name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeper.topology import Answer
from tests.topology import amd_smi_outputs

CPUS = "sys/devices/system/cpu"
PCI = "sys/bus/pci/devices"

GOOD_FILES: Mapping[str, str] = {
    "proc/sys/kernel/numa_balancing": "0\n",
    "proc/cmdline": "BOOT_IMAGE=/boot/vmlinuz-6.8.0 ro pci=realloc=off,bfsort iommu=pt\n",
    "proc/cpuinfo": "vendor_id\t: AuthenticAMD\n",
    "proc/meminfo": "MemTotal:       2113400000 kB\n",
    "proc/self/limits": (
        "Limit                     Soft Limit           Hard Limit           Units\n"
        "Max open files            1024                 1048576              files\n"
        "Max locked memory         unlimited            unlimited            bytes\n"
    ),
    "proc/self/mounts": "tmpfs /dev/shm tmpfs rw,nosuid,nodev,inode64 0 0\n",
    "sys/kernel/mm/transparent_hugepage/enabled": "[always] madvise never\n",
    f"{CPUS}/cpufreq/boost": "1\n",
    "sys/devices/system/node/node0/cpulist": "0\n",
    "sys/devices/system/node/node1/cpulist": "1\n",
    **{
        f"{CPUS}/cpu{cpu}/{path}": text
        for cpu in (0, 1)
        for path, text in {
            "cpufreq/scaling_governor": "performance\n",
            "cpuidle/state0/name": "POLL\n",
            "cpuidle/state2/name": "C2\n",
            "cpuidle/state2/disable": "1\n",
            "topology/physical_package_id": f"{cpu}\n",
        }.items()
    },
    **{
        f"{PCI}/0000:{bus}:00.0/{name}": text
        for bus in amd_smi_outputs.BUSES
        for name, text in {
            "device": "0x74a1\n",
            "current_link_speed": "32.0 GT/s PCIe\n",
            "current_link_width": "16\n",
        }.items()
    },
}

BAD_FILES: Mapping[str, str] = {
    **{path: text for path, text in GOOD_FILES.items() if f"0000:{amd_smi_outputs.BUSES[7]}" not in path},
    "proc/sys/kernel/numa_balancing": "1\n",
    "proc/cmdline": "BOOT_IMAGE=/boot/vmlinuz-6.8.0 ro quiet iommu=soft\n",
    "proc/self/limits": GOOD_FILES["proc/self/limits"]
    .replace("unlimited", "8388608")
    .replace("1048576", "4096"),
    "proc/self/mounts": "shm /dev/shm tmpfs rw,nosuid,nodev,size=65536k 0 0\n",
    "sys/kernel/mm/transparent_hugepage/enabled": "always madvise [never]\n",
    f"{CPUS}/cpufreq/boost": "0\n",
    f"{CPUS}/cpu1/cpufreq/scaling_governor": "powersave\n",
    f"{CPUS}/cpu1/cpuidle/state2/disable": "0\n",
    "sys/devices/system/node/node2/cpulist": "2\n",
    f"{PCI}/0000:{amd_smi_outputs.BUSES[3]}:00.0/current_link_speed": "16.0 GT/s PCIe\n",
}

Rows = list[dict[str, Any]]


def write(root: Path, files: Mapping[str, str]) -> Path:
    """Write the files of a node below a folder, and return it."""
    for path, text in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="ascii")
    return root


def good_amd_smi(mode: str = "SPX", memory_mode: str = "NPS1") -> dict[str, str | Answer]:
    """What amd-smi of ROCm 7.0 prints on the good node, by its first argument."""
    listed = amd_smi_outputs.listed(mode)
    static = amd_smi_outputs.static(mode, memory_mode)
    for row in static:
        row["driver"]["version"] = "6.14.14"
        row["limit"] = _limit(750) if row.get("asic", {}).get("market_name") != "N/A" else "N/A"
    metric = [_metric(row["gpu"], tells=row["partition_id"] == 0) for row in listed]
    return {
        "list": json.dumps(listed),
        "static": json.dumps({"gpu_data": static}),
        "version": json.dumps([{"tool": "AMDSMI Tool", "rocm_version": "7.0.2"}]),
        "metric": json.dumps({"gpu_data": metric}),
        "topology": json.dumps([_topology(row, listed) for row in listed]),
        "process": json.dumps(
            [{"gpu": 0, "process_list": [{"process_info": "No running processes detected"}]}]
        ),
    }


def bad_amd_smi() -> dict[str, str | Answer]:
    """What it prints on the bad one: a driver of ROCm 6.0, DPX, capped, limited, linked by PCIe, and used."""
    outputs = good_amd_smi("DPX", "NPS2")
    static, metric, topology = (json.loads(str(outputs[name])) for name in ("static", "metric", "topology"))
    for row in static["gpu_data"]:
        row["driver"]["version"] = "6.3.6"
    static["gpu_data"][4]["limit"] = {
        "max_power": {"value": 750, "unit": "W"},
        "socket_power": {"value": 600, "unit": "W"},
    }
    worst = metric["gpu_data"][4]
    worst["clock"]["gfx_0"]["max_clk"]["value"] = 1400
    worst["perf_level"] = "AMDSMI_DEV_PERF_LEVEL_MANUAL"
    worst["ecc"]["total_uncorrectable_count"] = 2
    worst["throttle"]["hbm_thermal_accumulated"] = 31
    worst["throttle"]["ppt_violation_status"] = "ACTIVE"
    topology[0]["links"][4] |= {"link_type": "PCIE", "num_hops": 2}
    used = {
        "name": "python3",
        "pid": 4194303,
        "memory_usage": {"vram_mem": {"value": 4 * 2**30, "unit": "B"}},
    }
    return {
        **outputs,
        "static": json.dumps(static),
        "metric": json.dumps(metric),
        "topology": json.dumps(topology),
        "process": json.dumps([{"gpu": 0, "process_list": [{"process_info": used}]}]),
    }


def _limit(watts: int) -> dict[str, Any]:
    cap = {"value": watts, "unit": "W"}
    return {
        "ppt0": {
            "max_power_limit": cap,
            "min_power_limit": {"value": 0, "unit": "W"},
            "socket_power_limit": cap,
        },
        "ppt1": dict.fromkeys(("max_power_limit", "min_power_limit", "socket_power_limit"), "N/A"),
    }


def _metric(gpu: int, *, tells: bool) -> dict[str, Any]:
    if not tells:
        return {"gpu": gpu, "clock": "N/A", "perf_level": "N/A", "ecc": "N/A", "throttle": "N/A"}
    kinds = ("prochot", "ppt", "socket_thermal", "vr_thermal", "hbm_thermal")
    return {
        "gpu": gpu,
        "clock": {"gfx_0": {"clk": {"value": 132, "unit": "MHz"}, "max_clk": {"value": 2100, "unit": "MHz"}}},
        "perf_level": "AMDSMI_DEV_PERF_LEVEL_AUTO",
        "ecc": {f"total_{kind}_count": 0 for kind in ("correctable", "uncorrectable", "deferred")},
        "throttle": {
            "accumulation_counter": 11240028,
            **{f"{kind}_accumulated": 912 if kind == "ppt" else 0 for kind in kinds},
            **{f"{kind}_violation_status": "NOT ACTIVE" for kind in kinds},
        },
    }


def _topology(row: dict[str, Any], listed: Rows) -> dict[str, Any]:
    links = [
        {
            "gpu": other["gpu"],
            "bdf": other["bdf"],
            "link_status": "ENABLED",
            "link_type": "SELF" if other is row else "XGMI",
            "num_hops": 0 if other is row else 1,
        }
        for other in listed
    ]
    return {"gpu": row["gpu"], "bdf": row["bdf"], "links": links}
