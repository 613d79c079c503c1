"""The cores that this process may use are devices, each with its share of memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from sweeper.errors import PlacementError
from sweeper.records import Platform
from sweeper.topology import read_cpu


def machine(root: Path, *, threads: Mapping[int, str], numa: Mapping[int, int], memory_kib: int) -> Path:
    """Write the files of /proc and /sys that tell about cores."""
    for cpu, siblings in threads.items():
        folder = root / f"sys/devices/system/cpu/cpu{cpu}"
        (folder / "topology").mkdir(parents=True)
        (folder / "topology/thread_siblings_list").write_text(f"{siblings}\n")
        (folder / f"node{numa[cpu]}").mkdir()
    (root / "proc").mkdir()
    (root / "proc/meminfo").write_text(f"MemTotal:       {memory_kib} kB\nMemFree:  1 kB\n")
    (root / "proc/cpuinfo").write_text("processor\t: 0\nmodel name\t: AMD EPYC 9654\n")
    return root


def test_cores_become_devices_grouped_by_numa_node(tmp_path: Path) -> None:
    # Two NUMA nodes of two cores with two threads each: 0 and 4 share a core, 1 and 5, ...
    threads = {cpu: f"{cpu % 4},{cpu % 4 + 4}" for cpu in range(8)}
    numa = {cpu: cpu % 4 // 2 for cpu in range(8)}
    root = machine(tmp_path, threads=threads, numa=numa, memory_kib=16 * 2**20)

    node = read_cpu(root=root, allowed=range(8))

    assert node.platform is Platform.CPU
    assert [device.index for device in node.devices] == [0, 1, 2, 3]
    assert [(device.parent, device.partition_id) for device in node.devices] == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
    ]
    assert [device.numa_node for device in node.devices] == [0, 0, 1, 1]
    assert {device.memory_gib for device in node.devices} == {4.0}  # 16 GiB over 4 cores
    assert node.devices[0].name == "AMD EPYC 9654"


def test_only_allowed_cores_are_devices_under_their_own_numbers(tmp_path: Path) -> None:
    threads = {cpu: f"{cpu % 4},{cpu % 4 + 4}" for cpu in range(8)}
    root = machine(tmp_path, threads=threads, numa=dict.fromkeys(range(8), 0), memory_kib=2**20)
    # 3 and 7 are threads of one core; of 1 and 5 only the second is allowed.
    node = read_cpu(root=root, allowed={3, 5, 7})
    assert [device.index for device in node.devices] == [3, 5]
    assert node.source == "the kernel: cores 3,5 are allowed"


def test_slots_take_first_cores_and_leave_share_of_memory_alone(tmp_path: Path) -> None:
    threads = {cpu: str(cpu) for cpu in range(4)}
    root = machine(tmp_path, threads=threads, numa=dict.fromkeys(range(4), 0), memory_kib=8 * 2**20)
    node = read_cpu(2, root=root, allowed=range(4))
    assert [device.index for device in node.devices] == [0, 1]
    assert node.devices[0].memory_gib == 2.0  # 8 GiB over all 4 cores


def test_memory_limit_of_control_group_counts(tmp_path: Path) -> None:
    root = machine(tmp_path, threads={0: "0"}, numa={0: 0}, memory_kib=8 * 2**20)
    (root / "sys/fs/cgroup").mkdir(parents=True)
    (root / "sys/fs/cgroup/memory.max").write_text(f"{3 * 2**30}\n")
    assert read_cpu(root=root, allowed={0}).devices[0].memory_gib == 3.0
    (root / "sys/fs/cgroup/memory.max").write_text("max\n")
    assert read_cpu(root=root, allowed={0}).devices[0].memory_gib == 8.0


@pytest.mark.parametrize("slots", [0, 3])
def test_slots_beyond_cores_are_refused(tmp_path: Path, slots: int) -> None:
    root = machine(tmp_path, threads={0: "0", 1: "1"}, numa={0: 0, 1: 0}, memory_kib=2**20)
    with pytest.raises(PlacementError, match=rf"got {slots} devices; expected 1 to 2, .*\(0-1\)"):
        read_cpu(slots, root=root, allowed={0, 1})


def test_this_machine_can_be_read() -> None:
    node = read_cpu()
    assert {device.index for device in node.devices} <= os.sched_getaffinity(0)
    assert all(device.memory_gib is None or device.memory_gib > 0 for device in node.devices)
