"""What a warm-up sends: other requests of a load point's kind, all at once, of a number that can be sent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sweeper.clients import dataset_arguments, sendable, warm_up_point
from sweeper.clients.vllm_bench import arrival_arguments
from sweeper.config.settings import Settings
from sweeper.errors import ConfigError
from sweeper.records import LoadPoint, Platform, Ramp
from tests.clients.test_sendable import POINTS
from tests.config.test_effect import settled

CLOSED = replace(POINTS["random"], max_concurrency=256, num_prompts=1024, warmup_per_user=2)


def test_warm_up_sends_at_once_whatever_the_arrivals() -> None:
    ramp = Ramp(strategy="linear", start_per_s=1, end_per_s=9)
    for point in (
        replace(CLOSED, ramp=ramp),
        replace(CLOSED, request_rate_per_s=2.0, burstiness=0.5),
    ):
        warm = warm_up_point(point, prompts=8)
        assert arrival_arguments(warm) == ["--request-rate", "inf"]
        assert (warm.num_prompts, warm.max_concurrency) == (8, 256)
        assert warm.client_seed != point.client_seed


def test_warm_up_of_a_trace_waits_for_none_of_its_times() -> None:
    traced = replace(POINTS["timed_trace"], options=(("chunk_len", 16), ("speed", 2.0)))
    words = dataset_arguments.of(warm_up_point(traced, prompts=4))
    assert "--self-timed" in dataset_arguments.of(traced)
    assert "--no-self-timed" in words
    assert words[words.index("--timed-trace-chunk-hash-size") + 1] == "16"


@pytest.mark.parametrize(("prompts", "sent"), [(1, 4), (4, 4), (5, 8)])
def test_warm_up_sends_every_shared_prefix_equally_often(prompts: int, sent: int) -> None:
    point = replace(
        POINTS["prefix_repetition"], options=(("num_prefixes", 4), ("prefix_len", 64), ("suffix_len", 16))
    )
    assert warm_up_point(point, prompts=prompts).num_prompts == sent


@pytest.mark.parametrize("name", POINTS)
def test_warm_up_of_every_dataset_can_be_sent_where_it_can(name: str) -> None:
    release = "0.31.0"
    sendable.check(POINTS[name], release=release)
    sendable.check(warm_up_point(POINTS[name], prompts=8), release=release)


def test_warm_up_follows_users_and_is_no_part_of_identity_where_there_is_none() -> None:
    assert CLOSED.warmup_prompts == 512
    assert replace(CLOSED, max_concurrency=1).warmup_prompts == 2
    assert replace(CLOSED, warmup_per_user=0).warmup_prompts is None
    assert CLOSED.identity["warmup_per_user"] == 2
    assert "warmup_per_user" not in replace(CLOSED, warmup_per_user=0).identity


def points(*overrides: str) -> tuple[LoadPoint, ...]:
    found: Settings = settled("workload=random", *overrides, platform=Platform.SIMULATED)
    return found.load_points


def test_each_load_point_has_the_warm_up_of_its_users() -> None:
    found = points(
        "workload.max_concurrency=[1,16,256]", "workload.prompts_per_user=4", "workload.warmup_per_user=2"
    )
    assert [(point.num_prompts, point.warmup_prompts) for point in found] == [(4, 2), (64, 32), (1024, 512)]


def test_warm_up_in_proportion_needs_a_number_of_users() -> None:
    with pytest.raises(ConfigError, match=r"workload\.warmup_per_user: is 2, and max_concurrency has null"):
        points("workload.warmup_per_user=2", "workload.max_concurrency=[4,null]")
    with pytest.raises(ConfigError, match=r"workload\.warmup_per_user: is -1; expected 0 or more"):
        points("workload.warmup_per_user=-1")
