"""A node has each device once, can be restricted, and reads well."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sweeper.errors import PlacementError
from sweeper.records import Platform
from sweeper.topology import Device, Node, modelled_mi300x, node_table, read_amd, restrict
from tests.topology.replaying import node_of, recorded, replay


def test_restricted_node_keeps_hardwares_numbers() -> None:
    node = restrict(modelled_mi300x("CPX", "NPS4"), [12, 13, 14, 15], said_by="SLURM_JOB_GPUS=12-15")
    assert [device.index for device in node.devices] == [12, 13, 14, 15]
    assert [(device.parent, device.partition_id) for device in node.devices] == [
        (1, 4),
        (1, 5),
        (1, 6),
        (1, 7),
    ]
    assert node.source.endswith("restricted to 12-15")


def test_restriction_to_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(PlacementError, match=r"got device indices \[8, 9\] to use; expected some of 0-7"):
        restrict(modelled_mi300x(), [7, 8, 9], said_by="x")


def test_restriction_to_no_device_is_refused() -> None:
    with pytest.raises(PlacementError, match="got no devices; expected at least one"):
        restrict(modelled_mi300x(), [], said_by="x")


def test_two_devices_in_one_place_are_refused() -> None:
    first = Device(index=0, parent=0, partition_id=0, name="GPU")
    for second, message in (
        (replace(first, index=1), r"several devices for \(GPU, partition\) \[\(0, 0\)\]"),
        (replace(first, partition_id=1), r"got device indices \[0, 0\]; expected them ascending"),
    ):
        with pytest.raises(PlacementError, match=message):
            Node(host="h", platform=Platform.CUDA, devices=(first, second), source="a test")


def test_table_has_row_per_device_and_leaves_unknown_empty() -> None:
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


def test_table_shows_memory_to_tenth() -> None:
    rows = node_table(node_of(read_amd(replay(recorded("rocm_6.4_cpx_nps4")))))
    assert rows[0]["memory (GiB)"] == "24.0"  # 24574 / 1024 = 23.998
    assert rows[9]["bdf"] == "0000:26:00.1"


def test_summary_names_count_mode_and_memory() -> None:
    assert (
        modelled_mi300x("CPX", "NPS4").summary
        == "modelled: 64 x modelled AMD Instinct MI300X (CPX/NPS4), 24 GiB each"
    )
