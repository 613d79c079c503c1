"""Which stack a run gets, and how sure its numbers are."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from sweeper.simulation import calibration, intervals, stacks
from sweeper.simulation.intervals import Unseen
from sweeper.simulation.stack import Asked, day_of, minors_between


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (Asked(release="0.6.2", generation="v0", weights="bfloat16"), "article_0_6_2"),
        (Asked(release="0.6.2", generation="v0", weights="fbgemm_fp8"), "article_0_6_2"),
        (Asked(release="0.6.3", generation="v0", weights="fbgemm_fp8"), "dstack_0_6_3_fbgemm"),
        (Asked(release="0.7.0", generation="v0", weights="fbgemm_fp8"), "dstack_0_6_3_fbgemm"),
        (Asked(release="0.8.5", generation="v0", weights="fbgemm_fp8"), "amd_0_8_5"),
        (Asked(release="0.6.2", generation="v0", weights="fp8"), "amd_0_6_6"),
        (Asked(release="0.6.4", generation="v0", weights="bfloat16"), "article_0_6_2"),
        (Asked(release="0.8.5", generation="v0", weights="fp8"), "amd_0_8_5"),
        (Asked(release="0.9.1", generation="v1", weights="fp8"), "amd_0_9_1"),
        # The scheduler's form comes before the release.
        (Asked(release="0.9.1", generation="v0", weights="fp8"), "amd_0_9_0_1"),
        # Of two images of a release the newer one is taken.
        (Asked(release="0.7.3", generation="v0", weights="fp8"), "amd_0_7_3"),
        (Asked(release="0.32.0", generation="v1", weights="bfloat16", aiter=True), "amd_0_10_0"),
        # An MI325X is an MI300X with other memory.
        (Asked(release="0.14.0", generation="v1", device="mi325x", weights="fp8", aiter=True), "amd_0_10_0"),
        # An MI355X has a stack of its own in V1, with AITER and without; no other GPU gets it.
        (Asked(release="0.32.0", generation="v1", device="mi355x", weights="fp8"), "mi355x_0_14"),
        (
            Asked(release="0.10.0", generation="v1", device="mi355x", weights="mxfp4", aiter=True),
            "mi355x_0_14",
        ),
        (Asked(release="0.8.5", generation="v0", device="mi355x", weights="fp8"), "amd_0_8_5"),
        (Asked(release="0.32.0", generation="v1", device="h100", weights="bfloat16"), "amd_0_10_0"),
        (Asked(release="0.14.0", generation="v1", device="h200", weights="mxfp4"), "amd_0_10_0"),
        (Asked(release="0.6.2", generation="v0", device="h100", weights="fp8"), "amd_0_6_6"),
    ],
)
def test_run_gets_nearest_stack(asked: Asked, name: str) -> None:
    assert stacks.nearest(asked).name == name


def test_nearness_says_what_differs_the_weightiest_first() -> None:
    named = calibration.load("amd_0_10_0")
    asked = Asked(release="0.11.1", generation="v1", device="h100", weights="bfloat16", aiter=True)
    assert stacks.nearness(named, asked) == (
        "mi300x in place of h100; AITER off there, on here; weights in fp8 in place of bfloat16; "
        "vLLM 0.10.0 in place of 0.11.1"
    )
    assert stacks.nearness(named, Asked(release="0.10.0", generation="v1", weights="fp8")) == "the same stack"


def test_image_with_its_day_gets_calibration_of_that_image() -> None:
    asked = Asked(release="0.9.1", generation="v1", weights="fp8", date=day_of("rocm/vllm-dev:20250624"))
    assert stacks.nearest(asked).name == "amd_0_9_1_of_2025_06_24"
    later = replace(asked, date=day_of("rocm/vllm:rocm6.4.1_vllm_0.9.1_20250702"))
    found = stacks.nearest(later)
    assert found.name == "amd_0_9_1_of_2025_06_24"
    assert stacks.nearness(found, later) == "image of 2025-06-24 in place of 2025-07-02"
    # A day between two images is no other stack: the release decides before it.
    assert found.stack is not None
    assert intervals.kind_of(found.stack.distance(later)) == "same"
    assert stacks.nearest(replace(later, release="0.10.0")).name == "amd_0_10_0"


@pytest.mark.parametrize(
    ("image", "day"),
    [
        ("rocm/vllm-dev:20250114", "2025-01-14"),
        ("rocm/vllm:rocm6.3.1_vllm_0.8.5_20250521", "2025-05-21"),
        ("registry.example/vllm:nightly-2025-06-10", "2025-06-10"),
        ("vllm/vllm-openai:v0.9.1", None),
        ("rocm/vllm@sha256:2025052112345678", None),
        ("rocm/vllm:20251399", None),
    ],
)
def test_day_of_image_is_read_from_its_tag(image: str, day: str | None) -> None:
    assert day_of(image) == day


def test_releases_are_counted_in_minor_ones() -> None:
    assert minors_between("0.9.1", "0.10.0") == pytest.approx(0.9)
    assert minors_between("0.8.5", "0.8.5") == 0


def _off(percent: float, *, source: str, metric: str = "mean_ttft_ms", distance: float = 0.0) -> Unseen:
    return Unseen(source=source, metric=metric, distance=distance, published=100 + percent, predicted=100)


def test_interval_of_kind_is_that_of_its_unseen_errors() -> None:
    errors = [_off(n, source=f"s{n}") for n in range(1, 10)]
    # Nine errors, 1 to 9 %, each of a source of its own: eight tenths of ten places is the eighth.
    assert intervals.factor("median_ttft_ms", 0.0, errors) == pytest.approx(1.08)
    assert intervals.factor("mean_tpot_ms", 0.0, errors) is None
    assert intervals.factor("gpu_power_w", 0.0, errors) is None
    assert intervals.interval("mean_ttft_ms", None, 0.0) is None
    low, high = intervals.interval("mean_ttft_ms", 100.0, 0.0) or (math.nan, math.nan)
    assert low * high == pytest.approx(100.0**2)


def test_numbers_of_one_source_count_as_fewer() -> None:
    # Of nine sources the eighth largest holds four of five of ten: 2 %. Eight that are all the same and of
    # one source count as one number, so with the ninth as two: four of five of three lies beyond both.
    apart = [*(_off(2, source=str(n)) for n in range(8)), _off(8, source="other")]
    together = [replace(each, source="one") for each in apart[:8]] + apart[8:]
    assert intervals.factor("mean_ttft_ms", 0.0, apart) == pytest.approx(1.02)
    assert intervals.factor("mean_ttft_ms", 0.0, together) == pytest.approx(1.08)


def test_kinds_share_how_much_farther_ones_err() -> None:
    # Throughput errs by 2 % near and by 6 % far; of TTFT 5 % is known near, so 15 % is expected far.
    errors = [
        _off(
            100 * (math.exp(sign * size) - 1),
            source=f"{metric}{distance}{n}",
            metric=metric,
            distance=distance,
        )
        for metric, distance, size in (
            ("output_throughput_tok_per_s", 1.0, 0.02),
            ("output_throughput_tok_per_s", 9.0, 0.06),
            ("mean_ttft_ms", 1.0, 0.05),
        )
        for n, sign in enumerate((1, -1) * 4)
    ]
    assert intervals.factor("mean_ttft_ms", 1.0, errors) == pytest.approx(math.exp(0.05))
    assert intervals.factor("mean_ttft_ms", 9.0, errors) == pytest.approx(math.exp(0.15))
    # Nothing is known of a run of the very stack: it is taken to be as sure as the next nearest.
    assert intervals.factor("mean_ttft_ms", 0.0, errors) == pytest.approx(math.exp(0.05))


def test_farther_stack_is_never_the_surer_one() -> None:
    errors = [
        *(_off(9, source=f"n{n}", distance=1.0) for n in range(9)),
        *(_off(3, source=f"f{n}", distance=9.0) for n in range(9)),
    ]
    near, far = (intervals.factor("mean_ttft_ms", distance, errors) for distance in (1.0, 9.0))
    assert near == far


def test_interval_of_numbers_that_are_all_hit_is_no_wider_than_they() -> None:
    errors = [_off(0, source=str(n)) for n in range(9)]
    assert intervals.factor("mean_ttft_ms", 0.0, errors) == pytest.approx(1.0)


@pytest.mark.parametrize("shared", [0.0, 0.7])
def test_interval_holds_its_share_of_drawn_numbers(shared: float) -> None:
    # Twelve sources of five numbers, whose errors share a part of their variance; a thirteenth is unseen.
    rng = np.random.default_rng(1)
    inside = []
    for _ in range(200):
        offs = math.sqrt(shared) * rng.normal(size=(13, 1)) + math.sqrt(1 - shared) * rng.normal(size=(13, 5))
        drawn = [
            replace(_off(0, source=str(source)), published=100 * math.exp(off / 5))
            for source, group in enumerate(offs)
            for off in group
        ]
        wide = intervals.factor("mean_ttft_ms", 0.0, drawn[5:])
        assert wide is not None
        inside += [abs(each.off) <= math.log(wide) for each in drawn[:5]]
    assert 0.75 <= np.mean(inside) <= 0.87


@pytest.mark.parametrize("by_source", [False, True], ids=["one number left out", "its source left out"])
def test_intervals_hold_four_of_five_unseen_numbers_of_every_kind(by_source: bool) -> None:
    found = intervals.coverage(
        intervals.known(),
        alike=lambda each, other: each.source == other.source if by_source else each is other,
    )
    assert set(found) == {"throughput", "latency", "TTFT", "TPOT"}
    for family, (inside, count) in found.items():
        assert count >= 40, family
        assert 0.7 <= inside / count <= 0.9, family
