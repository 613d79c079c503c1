from __future__ import annotations

import pytest

from sweeper.errors import PlacementError
from sweeper.simulation.device import MI300X, partition_of


def test_a_whole_gpu_is_what_spx_and_no_mode_show() -> None:
    assert partition_of("SPX") == partition_of(None) == MI300X
    assert (MI300X.compute_units, MI300X.memory_bytes / 2**30) == (304, 192)


def test_a_cpx_partition_is_an_eighth_of_a_gpu() -> None:
    part = partition_of("CPX")
    # 304 / 8 compute units, 192 / 8 GiB, 5.3 / 8 TB/s.
    assert (part.compute_units, part.memory_bytes / 2**30, part.gpu_frac) == (38, 24, 0.125)
    assert part.memory_bytes_per_s == pytest.approx(0.6625e12)
    assert part.bf16_flop_per_s == pytest.approx(163.425e12)


def test_gpus_use_their_links_to_all_others_at_once() -> None:
    # 3 links of 64 GB/s one way among 4, 7 among 8.
    assert MI300X.group_bytes_per_s(devices=4, gpus=4) == 192e9
    assert MI300X.group_bytes_per_s(devices=8, gpus=8) == 448e9


def test_one_device_has_nobody_to_wait_for() -> None:
    assert MI300X.group_bytes_per_s(devices=1, gpus=1) == float("inf")


def test_partitions_of_one_gpu_are_bound_by_the_package() -> None:
    # Half of 5.3 / 8 TB/s.
    assert partition_of("CPX").group_bytes_per_s(devices=8, gpus=1) == pytest.approx(0.33125e12)


def test_partitions_of_several_gpus_are_bound_by_their_share_of_the_links() -> None:
    # 64 / 8 GB/s to one other GPU.
    assert partition_of("CPX").group_bytes_per_s(devices=16, gpus=2) == 8e9


def test_an_unknown_mode_is_refused_with_the_nearest() -> None:
    with pytest.raises(PlacementError, match=r"'CXP'; expected one of SPX, DPX, QPX, CPX.*'CPX'\?"):
        partition_of("CXP")
