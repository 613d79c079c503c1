"""Modes that an MI300X takes are given as commands; others are refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sweeper.errors import PlacementError
from sweeper.topology import mode_commands, modelled_mi300x


def test_mode_commands_set_memory_before_compute_and_then_show_result() -> None:
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


def test_unknown_mode_is_refused_with_nearest_one() -> None:
    with pytest.raises(
        PlacementError, match=r"got 'CPXX'; expected one of SPX, DPX, QPX, CPX\. Did you mean 'CPX'\?"
    ):
        mode_commands("CPXX")
