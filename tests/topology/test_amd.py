"""An AMD node is grouped by physical GPU, completed, and refused where it contradicts its mode."""

from __future__ import annotations

import pytest

from sweeper.errors import PlacementError
from sweeper.records import Platform
from sweeper.topology import read_amd
from tests.topology.replaying import Rows, changed, node_of, recorded, replay


def test_whole_gpus_are_read_from_release_without_hip_numbers() -> None:
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


def test_share_of_mi300x_is_capped_where_only_first_partition_tells_whole() -> None:
    def silence_siblings(rows: Rows) -> None:
        for row in rows:
            first = row["gpu"] % 8 == 0
            row["vram"] = {"size": {"value": 196592, "unit": "MB"}} if first else {"size": "N/A"}
            row["asic"]["num_compute_units"] = 304 if first else "N/A"

    node = node_of(read_amd(changed("rocm_6.4_cpx_nps4", static=silence_siblings)))

    assert {device.memory_gib for device in node.devices} == {24.0}  # 192 / 8
    assert {device.compute_units for device in node.devices} == {38}  # 304 / 8


def test_share_of_unknown_gpu_is_even_part_where_only_first_partition_tells() -> None:
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


def test_gpu_that_lacks_partition_is_refused_with_way_to_get_it_back() -> None:
    # The kernel has 64 DRM nodes; the board's own display takes one of them.
    last = lambda rows: rows.pop()  # noqa: E731
    with pytest.raises(
        PlacementError, match=r"got 7 devices .*GPU 0000:e5:00.0; expected 8 in mode CPX.*sudo rmmod ast"
    ):
        read_amd(changed("rocm_6.4_cpx_nps4", listed=last, static=last))


def test_partitions_with_same_id_are_refused() -> None:
    def repeat(rows: Rows) -> None:
        rows[1]["partition_id"] = 0

    with pytest.raises(PlacementError, match=r"got 1 device .*expected 8 in mode CPX"):
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


def test_partitioned_gpus_without_mode_are_refused() -> None:
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
