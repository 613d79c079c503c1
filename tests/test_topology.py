"""A node is read from its vendor's tool, or refused with a message that says what to run."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeper.errors import PlacementError
from sweeper.records import Platform
from sweeper.topology import (
    Absent,
    Answer,
    Device,
    Node,
    Runner,
    detect,
    mode_commands,
    modelled_mi300x,
    node_table,
    read_amd,
    read_cpu,
    read_nvidia,
    restrict,
    run_command,
)

RECORDED = Path(__file__).parent / "recorded"
Rows = list[dict[str, Any]]


def replay(outputs: Mapping[str, str | Answer]) -> Runner:
    """Answer each command from its first three words, or refuse it as amd-smi refuses an unknown option."""

    def run(command: Sequence[str]) -> Answer:
        if not any(known.split()[0] == command[0] for known in outputs):
            raise FileNotFoundError(command[0])
        for known, output in outputs.items():
            words = known.split()
            if list(command[: len(words)]) == words:
                return output if isinstance(output, Answer) else Answer(exit_status=0, stdout=output)
        return Answer(exit_status=2, stdout="", stderr=f"unknown option in {' '.join(command)}")

    return run


def recorded(folder: str) -> dict[str, str]:
    """The three amd-smi outputs of a folder, by command."""
    names = {"amd-smi list": "list", "amd-smi static": "static", "amd-smi version": "version"}
    return {command: (RECORDED / folder / f"{name}.json").read_text() for command, name in names.items()}


def changed(folder: str, **edits: Callable[[Rows], object]) -> Runner:
    """A recorded node with an edit to the rows of ``listed`` or ``static``."""
    outputs = recorded(folder)
    for name, edit in edits.items():
        command = {"listed": "amd-smi list", "static": "amd-smi static"}[name]
        rows: Rows = json.loads(outputs[command])
        edit(rows)
        outputs[command] = json.dumps(rows)
    return replay(outputs)


def node_of(answer: Node | Absent) -> Node:
    assert isinstance(answer, Node)
    return answer


# --- AMD -----------------------------------------------------------------------------------------------


def test_whole_gpus_are_read_from_a_release_without_hip_numbers() -> None:
    outputs = recorded("rocm_6.2_spx")
    old = {"amd-smi list --json": outputs.pop("amd-smi list")} | outputs

    node = node_of(read_amd(replay(old)))

    assert node.platform is Platform.MI300X
    assert (node.partition_mode, node.memory_mode) == ("SPX", "NPS1")
    assert (node.driver, node.rocm, node.gfx_target) == ("6.8.5", "6.2.4", "gfx942")
    assert [device.index for device in node.devices] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert [device.parent for device in node.devices] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert [device.numa_node for device in node.devices] == [0, 0, 0, 0, 1, 1, 1, 1]
    first = node.devices[0]
    assert first.name == "AMD Instinct MI300X"
    assert first.bdf == "0000:05:00.0"
    assert first.compute_units == 304
    assert first.memory_gib == 196592 / 1024  # amd-smi's MB are MiB
    assert "HIP's is not told" in node.source


def test_cpx_partitions_are_grouped_by_their_physical_gpu() -> None:
    node = node_of(read_amd(replay(recorded("rocm_6.4_cpx_nps4"))))

    assert len(node.devices) == 64
    assert (node.partition_mode, node.memory_mode, node.mode_label) == ("CPX", "NPS4", "CPX/NPS4")
    assert node.parents == (0, 1, 2, 3, 4, 5, 6, 7)
    eleventh = node.devices[11]  # 8 devices on GPU 0, so number 11 is the fourth on GPU 1
    assert (eleventh.parent, eleventh.partition_id, eleventh.bdf) == (1, 3, "0000:26:00.3")
    assert eleventh.compute_units == 38
    assert eleventh.memory_gib == 24574 / 1024  # just below an eighth of 192 GiB
    assert eleventh.uuid == "GPU-a0b1c2d3e4f50103"
    assert "numbered as HIP does" in node.source


def test_partitions_that_answer_not_available_are_completed_from_their_sibling() -> None:
    node = node_of(read_amd(replay(recorded("rocm_7.0_dpx"))))

    assert len(node.devices) == 16
    assert (node.partition_mode, node.memory_mode) == ("DPX", "NPS1")
    second = node.devices[1]
    assert (second.parent, second.partition_id, second.numa_node) == (0, 1, 0)
    assert second.name == "AMD Instinct MI300X"
    assert second.compute_units == 152
    # The first partition tells the whole GPU's 196592 MiB, the second its own half.
    assert [device.memory_gib for device in node.devices[:2]] == [98296 / 1024, 98296 / 1024]
    assert (node.driver, node.rocm) == ("6.12.43-amd64", "7.0.2")


def test_share_of_an_mi300x_is_capped_where_only_the_first_partition_tells_the_whole() -> None:
    def silence_siblings(rows: Rows) -> None:
        for row in rows:
            first = row["gpu"] % 8 == 0
            row["vram"] = {"size": {"value": 196592, "unit": "MB"}} if first else {"size": "N/A"}
            row["asic"]["num_compute_units"] = 304 if first else "N/A"

    node = node_of(read_amd(changed("rocm_6.4_cpx_nps4", static=silence_siblings)))

    assert {device.memory_gib for device in node.devices} == {24.0}  # 192 / 8
    assert {device.compute_units for device in node.devices} == {38}  # 304 / 8


def test_share_of_an_unknown_gpu_is_an_even_part_where_only_the_first_partition_tells() -> None:
    def rebrand(rows: Rows) -> None:
        for row in rows:
            first = row["gpu"] % 8 == 0
            row["asic"]["market_name"] = "AMD Instinct MI999"
            row["vram"] = {"size": {"value": 800, "unit": "GB"}} if first else "N/A"

    node = node_of(read_amd(changed("rocm_6.4_cpx_nps4", static=rebrand)))

    assert {device.memory_gib for device in node.devices} == {
        100.0
    }  # 800 / 8: rather too small than too large
    assert {device.name for device in node.devices} == {"AMD Instinct MI999"}


def test_devices_are_numbered_as_hip_numbers_them() -> None:
    def reverse(rows: Rows) -> None:
        for row in rows:
            row["hip_id"] = 63 - row["gpu"]

    node = node_of(read_amd(changed("rocm_6.4_cpx_nps4", listed=reverse)))

    # HIP's 0 is amd-smi's 63: the last partition of the last GPU, which thus becomes GPU 0 here.
    first = node.devices[0]
    assert (first.index, first.bdf, first.parent, first.partition_id) == (0, "0000:e5:00.7", 0, 7)


def test_virtual_functions_without_modes_are_gpus_of_their_own() -> None:
    def to_guest(rows: Rows) -> None:
        for row in rows:
            row["bdf"] = f"0000:00:05.{row['gpu']}"

    def without_modes(rows: Rows) -> None:
        for row in rows:
            row["partition"] = "N/A"
            row["vram"] = {"size": {"value": 24574, "unit": "MB"}}

    node = node_of(read_amd(changed("rocm_6.2_spx", listed=to_guest, static=without_modes)))

    assert node.partition_mode is None
    assert node.parents == (0, 1, 2, 3, 4, 5, 6, 7)
    assert node.devices[0].memory_gib == 24574 / 1024


def test_a_release_that_does_not_know_an_option_is_asked_again_without_it() -> None:
    outputs = recorded("rocm_6.2_spx")
    static = outputs.pop("amd-smi static")
    node = node_of(read_amd(replay(outputs | {"amd-smi static --json": static})))
    assert len(node.devices) == 8


def test_node_is_complete_without_the_release_of_rocm() -> None:
    outputs = recorded("rocm_6.2_spx")
    del outputs["amd-smi version"]
    node = node_of(read_amd(replay(outputs)))
    assert node.rocm is None
    assert len(node.devices) == 8


def test_missing_amd_smi_is_an_absence_not_an_error() -> None:
    assert read_amd(replay({})) == Absent(reason="amd-smi: not found")


def test_no_devices_are_refused() -> None:
    with pytest.raises(PlacementError, match=r"got no devices; expected at least one AMD GPU.*ls /dev/kfd"):
        read_amd(replay({"amd-smi list": "[]", "amd-smi static": "[]"}))


def test_output_that_is_no_json_is_refused_with_the_tools_own_words() -> None:
    denied = Answer(exit_status=1, stdout="", stderr="ERROR: Unable to open /dev/kfd: Permission denied")
    with pytest.raises(
        PlacementError, match=r"status 1: ERROR: Unable to open /dev/kfd: Permission denied.*render,video"
    ):
        read_amd(replay({"amd-smi": denied}))


def test_output_cut_short_is_refused_rather_than_read_in_part() -> None:
    outputs = recorded("rocm_6.2_spx")
    for command in ("amd-smi list", "amd-smi static"):
        outputs[command] = outputs[command].replace("\n]\n", "")
    with pytest.raises(PlacementError, match="got no JSON list of devices"):
        read_amd(replay(outputs))


def test_an_error_object_is_not_taken_for_a_device() -> None:
    with pytest.raises(PlacementError, match="got no JSON list of devices"):
        read_amd(replay({"amd-smi": '{"error": "AMDSMI_STATUS_NO_PERM", "code": -10}'}))


def test_hidden_addresses_are_refused_with_advice_on_groups() -> None:
    def hide(rows: Rows) -> None:
        for row in rows:
            row["bdf"] = row["uuid"] = "N/A"

    with pytest.raises(PlacementError, match=r"got bdf 'N/A' for device 0; expected a PCI address.*usermod"):
        read_amd(changed("rocm_6.2_spx", listed=hide))


def test_device_that_only_one_command_knows_is_refused() -> None:
    with pytest.raises(PlacementError, match=r"8 devices from `amd-smi list` but 7 from `amd-smi static`"):
        read_amd(changed("rocm_6.2_spx", static=lambda rows: rows.pop()))


def test_gpu_that_lacks_a_partition_is_refused_with_the_way_to_get_it_back() -> None:
    # The kernel has 64 DRM nodes; the board's own display takes one of them.
    last = lambda rows: rows.pop()  # noqa: E731
    with pytest.raises(
        PlacementError, match=r"got 7 devices .*GPU 0000:e5:00.0; expected 8 in mode CPX.*sudo rmmod ast"
    ):
        read_amd(changed("rocm_6.4_cpx_nps4", listed=last, static=last))


def test_partitions_with_the_same_id_are_refused() -> None:
    def repeat(rows: Rows) -> None:
        rows[1]["partition_id"] = 0

    with pytest.raises(PlacementError, match=r"got 1 devices .*expected 8 in mode CPX"):
        read_amd(changed("rocm_6.4_cpx_nps4", listed=repeat))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("accelerator_partition", "QPX", r"different compute modes .*QPX on 0000:05:00.0.*compute-partition"),
        ("memory_partition", "NPS2", r"different memory modes .*NPS2 on 0000:05:00.0.*memory-partition NPS1"),
    ],
)
def test_mixed_modes_are_refused(key: str, value: str, message: str) -> None:
    def mix(rows: Rows) -> None:
        for row in rows[:8]:
            row["partition"].pop("compute_partition" if key == "accelerator_partition" else key)
            row["partition"][key] = value

    with pytest.raises(PlacementError, match=message):
        read_amd(changed("rocm_6.4_cpx_nps4", static=mix))


def test_partitioned_gpus_without_a_mode_are_refused() -> None:
    def forget(rows: Rows) -> None:
        for row in rows:
            row["partition"]["compute_partition"] = "N/A"

    with pytest.raises(
        PlacementError,
        match=r"got N/A as the compute mode of .* and 5 more; .*sudo amd-smi static --partition",
    ):
        read_amd(changed("rocm_6.4_cpx_nps4", static=forget))


def test_unknown_mode_is_refused() -> None:
    def rename(rows: Rows) -> None:
        for row in rows:
            row["partition"]["compute_partition"] = "OPX"

    with pytest.raises(PlacementError, match=r"got compute mode 'OPX'; expected one of SPX, DPX"):
        read_amd(changed("rocm_6.2_spx", static=rename))


def test_unknown_memory_is_refused() -> None:
    def forget(rows: Rows) -> None:
        rows[3]["vram"]["size"] = "N/A"

    with pytest.raises(PlacementError, match=r"got N/A as the memory of GPU 0000:65:00.0"):
        read_amd(changed("rocm_6.2_spx", static=forget))


def test_repeated_hip_numbers_are_refused() -> None:
    def repeat(rows: Rows) -> None:
        rows[1]["hip_id"] = 0

    with pytest.raises(PlacementError, match=r"got HIP numbers \[0, 0, 2, .*expected 0 to 63, each once"):
        read_amd(changed("rocm_6.4_cpx_nps4", listed=repeat))


# --- NVIDIA --------------------------------------------------------------------------------------------


def test_nvidia_gpus_are_read_with_their_numa_nodes(tmp_path: Path) -> None:
    for bus, numa in (("18", "0"), ("9a", "1"), ("2a", "-1")):
        folder = tmp_path / f"sys/bus/pci/devices/0000:{bus}:00.0"
        folder.mkdir(parents=True)
        (folder / "numa_node").write_text(f"{numa}\n")
    answers = {"nvidia-smi": (RECORDED / "nvidia/h100x8.csv").read_text()}

    node = node_of(read_nvidia(replay(answers), root=tmp_path))

    assert node.platform is Platform.CUDA
    assert node.driver == "570.133.20"
    assert node.partition_mode is None
    assert [device.parent for device in node.devices] == [0, 1, 2, 3, 4, 5, 6, 7]
    first = node.devices[0]
    assert (first.name, first.bdf) == ("NVIDIA H100 80GB HBM3", "0000:18:00.0")
    assert first.memory_gib == 81559 / 1024
    # Known, known as "none" (-1), and not told at all.
    assert [node.devices[i].numa_node for i in (0, 1, 2, 4)] == [0, None, None, 1]


def test_missing_nvidia_smi_is_an_absence_not_an_error() -> None:
    assert read_nvidia(replay({})) == Absent(reason="nvidia-smi: not found")


@pytest.mark.parametrize(
    "answer",
    [
        Answer(exit_status=9, stdout="NVIDIA-SMI has failed because it couldn't communicate with the driver"),
        Answer(exit_status=6, stdout="No devices were found"),
        Answer(exit_status=0, stdout=""),
        Answer(exit_status=0, stdout="0, GPU-1, NVIDIA H100\n"),
    ],
)
def test_nvidia_smi_without_gpus_is_refused(answer: Answer) -> None:
    with pytest.raises(PlacementError, match=r"nvidia-smi: got status \d and .*Run `nvidia-smi` by hand"):
        read_nvidia(replay({"nvidia-smi": answer}))


# --- CPU -----------------------------------------------------------------------------------------------


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


def test_slots_take_the_first_cores_and_leave_the_share_of_memory_alone(tmp_path: Path) -> None:
    threads = {cpu: str(cpu) for cpu in range(4)}
    root = machine(tmp_path, threads=threads, numa=dict.fromkeys(range(4), 0), memory_kib=8 * 2**20)
    node = read_cpu(2, root=root, allowed=range(4))
    assert [device.index for device in node.devices] == [0, 1]
    assert node.devices[0].memory_gib == 2.0  # 8 GiB over all 4 cores


def test_memory_limit_of_the_control_group_counts(tmp_path: Path) -> None:
    root = machine(tmp_path, threads={0: "0"}, numa={0: 0}, memory_kib=8 * 2**20)
    (root / "sys/fs/cgroup").mkdir(parents=True)
    (root / "sys/fs/cgroup/memory.max").write_text(f"{3 * 2**30}\n")
    assert read_cpu(root=root, allowed={0}).devices[0].memory_gib == 3.0
    (root / "sys/fs/cgroup/memory.max").write_text("max\n")
    assert read_cpu(root=root, allowed={0}).devices[0].memory_gib == 8.0


@pytest.mark.parametrize("slots", [0, 3])
def test_slots_beyond_the_cores_are_refused(tmp_path: Path, slots: int) -> None:
    root = machine(tmp_path, threads={0: "0", 1: "1"}, numa={0: 0, 1: 0}, memory_kib=2**20)
    with pytest.raises(PlacementError, match=rf"got slots={slots}; expected 1 to 2, .*\(0-1\)"):
        read_cpu(slots, root=root, allowed={0, 1})


def test_this_machine_can_be_read() -> None:
    node = read_cpu()
    assert {device.index for device in node.devices} <= os.sched_getaffinity(0)
    assert all(device.memory_gib is None or device.memory_gib > 0 for device in node.devices)


# --- modelled node and modes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "memory_mode", "count", "units", "gib"),
    [
        ("SPX", "NPS1", 8, 304, 192.0),
        ("DPX", "NPS2", 16, 152, 96.0),
        ("QPX", "NPS4", 32, 76, 48.0),
        ("CPX", "NPS4", 64, 38, 24.0),
    ],
)
def test_modelled_node_has_even_shares(
    mode: str, memory_mode: str, count: int, units: int, gib: float
) -> None:
    node = modelled_mi300x(mode, memory_mode)
    assert node.platform is Platform.SIMULATED
    assert len(node.devices) == count
    assert len(node.parents) == 8
    assert {device.compute_units for device in node.devices} == {units}
    assert {device.memory_gib for device in node.devices} == {gib}
    assert all(device.name.startswith("modelled") for device in node.devices)
    assert [node.devices[0].numa_node, node.devices[-1].numa_node] == [0, 1]


def test_mode_commands_set_memory_before_compute_and_then_show_the_result() -> None:
    assert mode_commands("CPX", "NPS4") == (
        "sudo amd-smi set --memory-partition NPS4",
        "sudo amd-smi set --gpu all --compute-partition CPX",
        "amd-smi static --partition",
    )
    assert "NPS1" in mode_commands("SPX")[0]


@pytest.mark.parametrize("act", [mode_commands, modelled_mi300x])
@pytest.mark.parametrize(("mode", "memory_mode"), [("SPX", "NPS4"), ("QPX", "NPS2"), ("CPX", "NPS2")])
def test_illegal_pair_of_modes_is_refused(
    act: Callable[[str, str], object], mode: str, memory_mode: str
) -> None:
    with pytest.raises(
        PlacementError, match=rf"got {mode} with memory mode '{memory_mode}'; expected NPS1.* with {mode}"
    ):
        act(mode, memory_mode)


def test_unknown_mode_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(
        PlacementError, match=r"got 'CPXX'; expected one of SPX, DPX, QPX, CPX\. Did you mean 'CPX'\?"
    ):
        mode_commands("CPXX")


# --- node ----------------------------------------------------------------------------------------------


def test_restricted_node_keeps_the_hardwares_numbers() -> None:
    node = restrict(modelled_mi300x("CPX", "NPS4"), [12, 13, 14, 15])
    assert [device.index for device in node.devices] == [12, 13, 14, 15]
    assert [(device.parent, device.partition_id) for device in node.devices] == [
        (1, 4),
        (1, 5),
        (1, 6),
        (1, 7),
    ]
    assert node.source.endswith("restricted to 12-15")


def test_restriction_to_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(PlacementError, match=r"got device indices \[8, 9\] to use; expected some of 0-7"):
        restrict(modelled_mi300x(), [7, 8, 9])


def test_restriction_to_no_device_is_refused() -> None:
    with pytest.raises(PlacementError, match="got no devices; expected at least one"):
        restrict(modelled_mi300x(), [])


def test_two_devices_in_one_place_are_refused() -> None:
    first = Device(index=0, parent=0, partition_id=0, name="GPU")
    for second, message in (
        (replace(first, index=1), r"several devices for \(GPU, partition\) \[\(0, 0\)\]"),
        (replace(first, partition_id=1), r"got device indices \[0, 0\]; expected them ascending"),
    ):
        with pytest.raises(PlacementError, match=message):
            Node(host="h", platform=Platform.CUDA, devices=(first, second), source="a test")


def test_table_has_a_row_per_device_and_leaves_the_unknown_empty() -> None:
    rows = node_table(modelled_mi300x("DPX"))
    assert len(rows) == 16
    assert rows[3] == {
        "device": "3",
        "gpu": "1",
        "partition": "1",
        "name": "modelled AMD Instinct MI300X",
        "memory (GiB)": "96.0",
        "compute units": "152",
        "numa node": "0",
        "bdf": "",
        "uuid": "",
    }


def test_table_shows_memory_to_a_tenth() -> None:
    rows = node_table(node_of(read_amd(replay(recorded("rocm_6.4_cpx_nps4")))))
    assert rows[0]["memory (GiB)"] == "24.0"  # 24574 / 1024 = 23.998
    assert rows[9]["bdf"] == "0000:26:00.1"


def test_summary_names_count_mode_and_memory() -> None:
    assert (
        modelled_mi300x("CPX", "NPS4").summary
        == "modelled: 64 x modelled AMD Instinct MI300X (CPX/NPS4), 24 GiB each"
    )


# --- detection -----------------------------------------------------------------------------------------


def test_mi300x_is_detected() -> None:
    found = detect(replay(recorded("rocm_6.4_cpx_nps4")))
    assert found.platform is Platform.MI300X
    assert found.node is not None
    assert len(found.node.devices) == 64
    assert "amd-smi answered" in found.reason
    assert "CPX/NPS4" in found.reason


def test_cuda_is_detected_where_no_amd_gpu_answers(tmp_path: Path) -> None:
    answers = {"nvidia-smi": (RECORDED / "nvidia/h100x8.csv").read_text()}
    found = detect(replay(answers), root=tmp_path)
    assert found.platform is Platform.CUDA
    assert found.node is not None
    assert found.node.devices[0].name == "NVIDIA H100 80GB HBM3"


def test_machine_without_gpus_is_simulated_and_the_reason_says_what_was_tried() -> None:
    found = detect(replay({}))
    assert found.platform is Platform.SIMULATED
    assert found.node is None
    assert found.reason == (
        "no AMD GPU answered (amd-smi: not found) and no NVIDIA GPU answered (nvidia-smi: not found)"
    )


def test_broken_amd_smi_is_named_in_the_reason() -> None:
    broken = Answer(exit_status=1, stdout="", stderr="Permission denied")
    found = detect(replay({"amd-smi": broken}))
    assert found.platform is Platform.SIMULATED
    assert "Permission denied" in found.reason


def test_other_amd_gpu_is_not_taken_for_an_mi300x() -> None:
    def to_laptop(rows: Rows) -> None:
        del rows[1:]
        rows[0]["asic"] = {"market_name": "AMD Radeon 780M", "target_graphics_version": "gfx1103"}
        rows[0]["partition"] = "N/A"

    def first_only(rows: Rows) -> None:
        del rows[1:]

    found = detect(changed("rocm_6.2_spx", listed=first_only, static=to_laptop))
    assert found.platform is Platform.SIMULATED
    assert found.reason.startswith("no MI300X answered (amd-smi: found ")
    assert "AMD Radeon 780M" in found.reason


def test_probe_that_hangs_does_not_stop_detection() -> None:
    def hang(command: Sequence[str]) -> Answer:
        raise TimeoutError(f"{command[0]} did not end within 60 s")

    found = detect(hang)
    assert found.platform is Platform.SIMULATED
    assert "amd-smi did not end within 60 s" in found.reason


def test_node_is_read_end_to_end_from_a_program_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = tmp_path / "amd-smi"
    folder = RECORDED / "rocm_7.0_dpx"
    stub.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, sys\n"
        f"print(pathlib.Path({str(folder)!r}, sys.argv[1] + '.json').read_text(encoding='utf-8'), end='')\n"
    )
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    found = detect()

    assert found.platform is Platform.MI300X
    assert found.node is not None
    assert len(found.node.devices) == 16
    assert found.node.mode_label == "DPX/NPS1"


# --- running a command ---------------------------------------------------------------------------------


def test_command_gives_its_output_and_exit_status() -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    answer = run_command([sys.executable, "-c", code])
    assert answer == Answer(exit_status=3, stdout="out\n", stderr="err\n")
    assert answer.last_line == "err"


def test_command_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    # The mark on the command line tells the child from every other process of the machine.
    mark = str(tmp_path)
    child = f"import time; time.sleep(600); {mark!r}"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]).wait()"
    with pytest.raises(TimeoutError, match=r"did not end within 2 s"):
        run_command([sys.executable, "-c", parent], timeout_s=2)
    deadline = time.monotonic() + 20  # the kernel may take a moment to bury it
    while alive(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alive(mark) == []


def alive(mark: str) -> list[str]:
    """Processes whose command line has the mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found += [path.parent.name] if mark.encode() in path.read_bytes() else []
    return found


def test_command_that_does_not_exist_is_told_apart() -> None:
    with pytest.raises(FileNotFoundError):
        run_command(["no-such-program-here"])
