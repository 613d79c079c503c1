"""A node is read through a real amd-smi on PATH, in every legal mode, and whatever may be wrong with it."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.errors import PlacementError
from sweeper.records import Platform
from sweeper.schedule.allocator import Allocator
from sweeper.topology import (
    LEGAL_MEMORY_MODES,
    Answer,
    detect,
    modelled_as,
    modelled_mi300x,
    read_amd,
    run_command,
)
from tests.topology.amd_smi_outputs import (
    MI300A,
    MI300X,
    MI308X,
    MI325X,
    NO_DRIVER,
    NO_PERMISSION,
    SPLIT,
    Gpu,
    current,
    install,
    listed,
    outputs,
    static,
)
from tests.topology.replaying import node_of

LEGAL = [(mode, memory) for mode, legal in LEGAL_MEMORY_MODES.items() for memory in legal]


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is first on PATH."""
    folder = tmp_path / "tools"
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def kernel(root: Path, *, initstate: str | None) -> Path:
    """A /sys in which amdgpu is in this state; None for not loaded."""
    (root / "sys/module").mkdir(parents=True)
    if initstate is not None:
        (root / "sys/module/amdgpu").mkdir()
        (root / "sys/module/amdgpu/initstate").write_text(f"{initstate}\n")
    return root


@pytest.mark.parametrize(("mode", "memory_mode"), LEGAL)
def test_every_legal_pair_of_modes_is_read_like_modelled_node(
    mode: str, memory_mode: str, tools: Path
) -> None:
    install(tools, outputs(mode, memory_mode))
    node = node_of(read_amd())
    modelled = modelled_mi300x(mode, memory_mode)
    assert node.mode_label == f"{mode}/{memory_mode}"
    assert len(node.devices) == 8 * SPLIT[mode]
    for device, expected in zip(node.devices, modelled.devices, strict=True):
        place = (device.index, device.parent, device.partition_id, device.numa_node, device.compute_units)
        wanted = (
            *(expected.index, expected.parent, expected.partition_id),
            *(expected.numa_node, expected.compute_units),
        )
        assert place == wanted
        # 196592 MB of 192 GiB: amd-smi tells a little less than the nominal share.
        assert device.memory_gib == pytest.approx(expected.memory_gib, rel=2e-4)
    assert node.rocm == "7.0.2"


def test_only_first_partition_of_gpu_tells_mode(tools: Path) -> None:
    silent = json.dumps({"gpu_data": static("DPX", "NPS2", siblings_tell=False)})
    install(tools, {**outputs("DPX", "NPS2"), "static": silent})
    node = node_of(read_amd())
    assert node.mode_label == "DPX/NPS2"
    assert {device.compute_units for device in node.devices} == {152}


@pytest.mark.parametrize("mode", ["SPX", "CPX"])
def test_modes_come_from_partition_command_where_static_no_longer_tells(mode: str, tools: Path) -> None:
    memory_mode = LEGAL_MEMORY_MODES[mode][-1]
    without = json.dumps({"gpu_data": static(mode, memory_mode, has_modes=False)})
    told = {**outputs(mode, memory_mode), "static": without, "partition": current(mode, memory_mode)}
    install(tools, told)
    assert node_of(read_amd()).mode_label == f"{mode}/{memory_mode}"


def test_every_partition_that_tells_whole_gpus_memory_gets_its_share(tools: Path) -> None:
    whole = static("CPX", "NPS4")
    for row in whole:
        row["vram"]["size"]["value"] = 196592
    install(tools, {**outputs("CPX", "NPS4"), "static": json.dumps(whole)})
    assert {device.memory_gib for device in node_of(read_amd()).devices} == {24.0}  # 192 / 8


def test_larger_mi325x_is_shared_out_too(tools: Path) -> None:
    whole = static("CPX", "NPS4")
    for row in whole:
        row["asic"]["market_name"] = "AMD Instinct MI325X"
        row["vram"]["size"] = {"value": 256, "unit": "GB"}
    install(tools, {**outputs("CPX", "NPS4"), "static": json.dumps(whole)})
    assert {device.memory_gib for device in node_of(read_amd()).devices} == {32.0}  # 256 / 8


def test_missing_device_is_refused_with_its_gpu(tools: Path) -> None:
    rows = [row for row in listed("QPX") if row["gpu"] != 13]  # the second partition of GPU 3
    kept = [row for row in static("QPX", "NPS4") if row["gpu"] != 13]
    for number, row in enumerate(rows):
        row["hip_id"] = number
    told = {**outputs("QPX", "NPS4"), "list": json.dumps(rows), "static": json.dumps(kept)}
    install(tools, told)
    with pytest.raises(
        PlacementError, match=r"got 3 devices \(partition ids \[0, 2, 3\]\) of GPU 0000:65:00.0"
    ):
        read_amd()


def test_mixed_modes_are_refused_with_both_of_them(tools: Path) -> None:
    mixed = static("SPX", "NPS1")
    mixed[2]["partition"]["accelerator_partition"] = "CPX"
    install(tools, {**outputs("SPX", "NPS1"), "static": json.dumps(mixed)})
    with pytest.raises(PlacementError, match=r"SPX on 0000:05:00.0, .* CPX on 0000:46:00.0\); expected one"):
        read_amd()


def test_user_without_permission_is_told_groups(tools: Path, tmp_path: Path) -> None:
    install(tools, {"": NO_PERMISSION})
    with pytest.raises(
        PlacementError, match=r"status 1: 10 \| AMDSMI_STATUS_NO_PERM - Permission Denied.*-aG render,video"
    ) as refused:
        read_amd(root=kernel(tmp_path, initstate="live"))
    assert "driver" not in str(refused.value)


@pytest.mark.parametrize(
    ("initstate", "words"),
    [
        (None, "The amdgpu driver is not loaded"),
        ("going", "The amdgpu driver is being loaded or unloaded (going): try again in some minutes."),
    ],
)
def test_driver_that_is_being_reloaded_is_told_as_such(
    initstate: str | None, words: str, tools: Path, tmp_path: Path
) -> None:
    install(tools, {"": NO_DRIVER})
    with pytest.raises(PlacementError, match="Unable to detect any GPU devices") as refused:
        read_amd(root=kernel(tmp_path, initstate=initstate))
    assert words in str(refused.value)


def test_reload_between_two_questions_is_refused_and_not_read_in_part(tools: Path, tmp_path: Path) -> None:
    # The list is of the old mode, the rest already of the new one.
    install(tools, {**outputs("SPX", "NPS1"), "list": json.dumps(listed("CPX"))})
    with pytest.raises(
        PlacementError, match=r"64 devices from `amd-smi list` but 8 .*\(coming\).*change of mode may be"
    ):
        read_amd(root=kernel(tmp_path, initstate="coming"))


def test_amd_smi_that_hangs_is_ended_and_named(tools: Path) -> None:
    install(tools, outputs("SPX", "NPS1"), hangs="static")
    with pytest.raises(
        PlacementError,
        match=r"`amd-smi static .*`: got amd-smi did not end within 0.5 s; expected an answer.*dmesg",
    ):
        read_amd(functools.partial(run_command, timeout_s=0.5))


@pytest.mark.parametrize("garbage", ["not JSON at all", '{"gpu_data": [', '[{"gpu": "x"}]', "null", "[[]]"])
def test_garbage_is_refused_in_tools_own_words(garbage: str, tools: Path) -> None:
    install(tools, {"": Answer(exit_status=0, stdout=garbage)})
    with pytest.raises(PlacementError, match=r"got no JSON list of devices .*expected one row per device"):
        read_amd()


def test_machine_whose_amd_smi_is_broken_says_so_when_it_is_simulated_instead(tools: Path) -> None:
    install(tools, {"": NO_PERMISSION})

    def without_nvidia(command: Sequence[str]) -> Answer:
        if command[0] == "nvidia-smi":
            raise FileNotFoundError
        return run_command(command)

    found = detect(without_nvidia)
    assert found.platform is Platform.SIMULATED
    assert "AMDSMI_STATUS_NO_PERM - Permission Denied" in found.reason


@pytest.mark.parametrize(
    ("gpu", "mode", "devices", "memory_gib", "units"),
    [
        (MI300A, "TPX", 24, 131072 / 1024 / 3, 76),
        (MI300A, "CPX", 48, 131072 / 1024 / 6, 38),
        (MI308X, "SPX", 8, 196592 / 1024, 80),
        (MI308X, "CPX", 32, 196592 / 1024 / 4, 20),
        (MI325X, "CPX", 64, 262128 / 1024 / 8, 38),
    ],
)
def test_kin_of_mi300x_are_read_with_their_own_sizes(
    gpu: Gpu, mode: str, devices: int, memory_gib: float, units: int, tools: Path
) -> None:
    install(tools, outputs(mode, "NPS1", of=gpu))
    node = node_of(read_amd())
    assert len(node.devices) == devices
    assert node.partitions_per_gpu == devices // 8
    assert {device.compute_units for device in node.devices} == {units}
    assert node.devices[0].memory_gib == pytest.approx(memory_gib, rel=1e-3)
    assert node.device_name == gpu.name
    placement = Allocator(node).acquire(1)
    assert placement is not None
    assert (placement.device_name, placement.partitions_per_gpu) == (gpu.name, devices // 8)


def test_node_is_modelled_as_what_it_is(tools: Path) -> None:
    found = {}
    for gpu in (MI300X, MI325X, MI308X, MI300A):
        install(tools, outputs("SPX", "NPS1", of=gpu))
        found[gpu.name[-6:]] = modelled_as(node_of(read_amd()))
    assert found == {"MI300X": "mi300x", "MI325X": "mi325x", "MI308X": None, "MI300A": None}
    # An old amd-smi knows no names; then an MI300X is what has all of its sizes.
    for gpu, expected in ((MI300X, "mi300x"), (MI308X, None)):
        install(tools, outputs("CPX", "NPS1", of=replace(gpu, name="AMD Radeon Graphics")))
        assert modelled_as(node_of(read_amd())) == expected
