from __future__ import annotations

import pytest

from sweeper.errors import PlacementError
from sweeper.simulation.device import DEVICES, H100, MI300X, MI355X, device_named, partition_of


def test_whole_gpu_is_what_spx_and_no_mode_show() -> None:
    assert partition_of("SPX") == partition_of(None) == MI300X
    assert (MI300X.compute_units, MI300X.memory_bytes / 2**30) == (304, 192)


def test_cpx_partition_is_eighth_of_gpu() -> None:
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


def test_partitions_of_one_gpu_are_bound_by_package() -> None:
    # Half of 5.3 / 8 TB/s.
    assert partition_of("CPX").group_bytes_per_s(devices=8, gpus=1) == pytest.approx(0.33125e12)


def test_partitions_of_several_gpus_are_bound_by_their_share_of_links() -> None:
    # 64 / 8 GB/s to one other GPU.
    assert partition_of("CPX").group_bytes_per_s(devices=16, gpus=2) == 8e9


def test_unknown_mode_is_refused_with_nearest() -> None:
    with pytest.raises(PlacementError, match=r"'CXP'; expected one of SPX, DPX, QPX, CPX.*'CPX'\?"):
        partition_of("CXP")


def test_gpus_behind_switch_have_all_of_their_way_to_it_however_many_they_are() -> None:
    # NVLink 4: 900 GB/s both directions together.
    assert [H100.group_bytes_per_s(devices=n, gpus=n) for n in (2, 4, 8)] == [450e9] * 3
    # 7 links of 153.6 GB/s both directions together.
    assert MI355X.group_bytes_per_s(devices=8, gpus=8) == pytest.approx(537.6e9)


def test_matrix_rate_of_half_bits_is_twice_as_high_on_every_device() -> None:
    for whole in DEVICES.values():
        assert whole.fp8_flop_per_s / whole.bf16_flop_per_s == pytest.approx(2, rel=1e-3)


def test_device_is_found_by_its_name_and_nobody_names_usual_one() -> None:
    assert device_named(None) is device_named("mi300x") is MI300X
    # "141 GB" of 4.8 TB/s, and the matrix rate of an H100.
    h200 = device_named("h200")
    assert (round(h200.memory_bytes / 2**30, 1), h200.memory_bytes_per_s) == (140.4, 4.8e12)
    assert h200.bf16_flop_per_s == H100.bf16_flop_per_s


def test_quarter_of_another_gpu_is_quarter_of_that_gpu() -> None:
    part = partition_of("QPX", device="mi325x")
    # 256 / 4 GiB, 6 / 4 TB/s.
    assert (part.name, part.memory_bytes / 2**30) == ("MI325X (QPX)", 64)
    assert part.memory_bytes_per_s == pytest.approx(1.5e12)


def test_unknown_device_is_refused_with_nearest() -> None:
    with pytest.raises(PlacementError, match=r"'h20'.*expected one of mi300x, mi325x.*'h200'\?"):
        partition_of(None, device="h20")


def test_device_without_partitions_takes_no_mode() -> None:
    with pytest.raises(PlacementError, match="mode is 'CPX'; expected none on a H100 SXM"):
        partition_of("CPX", device="h100")
