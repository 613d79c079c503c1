"""The nodes that the simulated platform models, by name of their GPUs."""

from __future__ import annotations

import pytest

from sweeper.errors import PlacementError
from sweeper.topology import modelled_mi300x, modelled_node


def test_nobody_names_usual_node() -> None:
    assert modelled_node(None) == modelled_node("mi300x", mode="SPX") == modelled_mi300x()
    assert modelled_mi300x().summary == "modelled: 8 x modelled AMD Instinct MI300X (SPX/NPS1), 192 GiB each"


def test_node_of_nvidia_gpus_has_no_modes() -> None:
    node = modelled_node("h200")
    # 143771 MiB.
    assert node.summary == "modelled-h200: 8 x modelled NVIDIA H200, 140.4 GiB each"
    assert (node.mode_label, node.gfx_target, node.parents) == (None, None, tuple(range(8)))


def test_successors_of_mi300x_are_partitioned_as_it_is() -> None:
    node = modelled_node("mi355x", mode="CPX", memory_mode="NPS1")
    assert (len(node.devices), node.gfx_target, node.mode_label) == (64, "gfx950", "CPX/NPS1")
    # 288 / 8 GiB and 256 / 8 compute units.
    assert (node.devices[9].memory_gib, node.devices[9].compute_units) == (36, 32)
    assert (node.devices[9].parent, node.devices[9].partition_id) == (1, 1)


@pytest.mark.parametrize("modes", [{"mode": "CPX"}, {"memory_mode": "NPS1"}])
def test_modes_are_refused_where_there_are_none(modes: dict[str, str]) -> None:
    with pytest.raises(PlacementError, match="expected none on a H100 SXM, which has no such modes"):
        modelled_node("h100", **modes)
