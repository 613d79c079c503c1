"""Which stack a run gets, and how sure its numbers are."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from sweeper.simulation import calibration, intervals, stacks
from sweeper.simulation.intervals import Unseen
from sweeper.simulation.stack import Asked, minors_between


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (Asked(release="0.6.2", generation="v0", weights="bfloat16"), "article_0_6_2"),
        (Asked(release="0.6.2", generation="v0", weights="fbgemm_fp8"), "article_0_6_2"),
        (Asked(release="0.6.2", generation="v0", weights="fp8"), "amd_0_6_6"),
        (Asked(release="0.6.4", generation="v0", weights="bfloat16"), "article_0_6_2"),
        (Asked(release="0.8.5", generation="v0", weights="fp8"), "amd_0_8_5"),
        (Asked(release="0.9.1", generation="v1", weights="fp8"), "amd_0_9_1"),
        # The scheduler's form comes before the release.
        (Asked(release="0.9.1", generation="v0", weights="fp8"), "amd_0_8_5"),
        (Asked(release="0.32.0", generation="v1", weights="bfloat16", aiter=True), "amd_0_10_0"),
    ],
)
def test_run_gets_nearest_stack(asked: Asked, name: str) -> None:
    assert stacks.nearest(asked).name == name


def test_kernels_are_those_of_nearest_release_whatever_its_scheduler_is() -> None:
    asked = Asked(release="0.9.1", generation="v0", weights="fp8")
    found, whole, kernels = (
        stacks.nearest(asked),
        calibration.load("amd_0_8_5"),
        calibration.load("amd_0_9_1"),
    )
    expected = replace(whole.calibration, kernel_layer_s=kernels.calibration.kernel_layer_s)
    assert found.calibration == expected != whole.calibration
    # What it says of itself agrees with that.
    assert found.taken["kernel_layer_s"] == "amd_0_9_1"
    assert "kernel_layer_s" not in found.fitted
    assert stacks.nearness(found, asked) == (
        "vLLM 0.8.5 in place of 0.9.1; launches of a layer as amd_0_9_1 has them"
    )


def test_kernels_of_same_scheduler_are_its_own() -> None:
    found = stacks.nearest(Asked(release="0.8.5", generation="v0", weights="fp8"))
    assert found == calibration.load("amd_0_8_5")


def test_nearness_says_what_differs_the_weightiest_first() -> None:
    named = calibration.load("amd_0_10_0")
    asked = Asked(release="0.11.1", generation="v1", device="h100", weights="bfloat16", aiter=True)
    assert stacks.nearness(named, asked) == (
        "mi300x in place of h100; AITER off there, on here; weights in fp8 in place of bfloat16; "
        "vLLM 0.10.0 in place of 0.11.1"
    )
    assert stacks.nearness(named, Asked(release="0.10.0", generation="v1", weights="fp8")) == "the same stack"


def test_releases_are_counted_in_minor_ones() -> None:
    assert minors_between("0.9.1", "0.10.0") == pytest.approx(0.9)
    assert minors_between("0.8.5", "0.8.5") == 0


def test_interval_of_kind_is_that_of_its_unseen_errors() -> None:
    errors = [
        Unseen(source="s", metric="mean_ttft_ms", distance=0.0, published=100 + n, predicted=100)
        for n in range(1, 10)
    ]
    # Nine errors, 1 to 9 %: eight tenths of ten places is the eighth.
    assert intervals.factor("median_ttft_ms", 0.0, errors) == pytest.approx(1.08)
    assert intervals.factor("mean_tpot_ms", 0.0, errors) is None
    assert intervals.factor("gpu_power_w", 0.0, errors) is None
    assert intervals.interval("mean_ttft_ms", None, 0.0) is None
    low, high = intervals.interval("mean_ttft_ms", 100.0, 0.0) or (math.nan, math.nan)
    assert low * high == pytest.approx(100.0**2)


def test_intervals_hold_four_of_five_unseen_numbers_of_every_kind() -> None:
    found = intervals.coverage(intervals.known(), alike=lambda each, other: each is other)
    assert set(found) == {"throughput", "latency", "TTFT", "TPOT"}
    for family, (inside, count) in found.items():
        assert count >= 40, family
        assert 0.7 <= inside / count <= 0.9, family
