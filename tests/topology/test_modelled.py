"""The modelled node has the devices that its mode gives, with even shares."""

from __future__ import annotations

import pytest

from sweeper.records import Platform
from sweeper.topology import modelled_mi300x


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
