"""Conversations on the simulated platform: hits worked out by hand, and laws of users and pauses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.clients.simulated import SimulatedClient
from sweeper.engines.simulated import SimulatedEngine
from sweeper.errors import MeasurementError
from sweeper.metrics import RequestRecords
from sweeper.records import EngineSpec, LoadPoint, Placement, Ramp, Scalar, TrialSpec
from sweeper.simulation.costs import CostModel
from sweeper.simulation.kv_cache import KvCache
from sweeper.simulation.scheduler import SchedulerConfig, simulate
from sweeper.workload.requests import Workload, make_workload
from tests.simulation.test_scheduler import COSTS, ONE_SECOND, V1, roomy, seconds

# Two conversations of three messages of 100 tokens, and answers of 50.
POINT = LoadPoint(
    dataset="conversations", num_prompts=6, input_len=100, output_len=50, options=(("turns", 3),)
)


def with_options(point: LoadPoint = POINT, **options: Scalar) -> LoadPoint:
    return replace(point, options=tuple(sorted({**dict(point.options), **options}.items())))


def served(
    point: LoadPoint,
    *,
    kv: KvCache | None = None,
    costs: CostModel = COSTS,
    config: SchedulerConfig = V1,
) -> tuple[Workload, RequestRecords]:
    workload = make_workload(point, seed=0)
    seen = simulate(
        workload,
        config=config,
        costs=costs,
        kv=kv or roomy(keeps_prefixes=True),
        max_concurrency=point.max_concurrency,
    )
    return workload, seen


# --- hits by hand ---


def test_prompts_hold_all_that_was_said_before() -> None:
    # 100; 100 + 50 + 100; 250 + 50 + 100; and the second conversation from the beginning.
    workload = make_workload(with_options(system_len=64), seed=0)
    assert (workload.input_tokens - 64).tolist() == [100, 250, 400] * 2
    assert workload.output_tokens.tolist() == [50] * 6
    assert workload.turns is not None
    assert workload.turns.follows.tolist() == [False, True, True] * 2


def test_hits_of_one_conversation_are_those_of_hand() -> None:
    # The second prompt begins with 100 + 50 tokens, of which the last was made and not computed: 149 tokens
    # fill 9 blocks of 16, 144 tokens. The third begins with 250 + 50: 299 tokens fill 18 blocks, 288 tokens.
    kv = roomy(keeps_prefixes=True)
    served(replace(POINT, num_prompts=3), kv=kv)
    assert kv.prefix_queries == 100 + 250 + 400
    assert kv.prefix_hits == 144 + 288


def test_hits_of_shared_system_prompt_are_those_of_hand() -> None:
    # 70 tokens of system prompt fill 4 blocks. Of the second conversation, which comes after the first, the
    # first prompt finds these 64; the others find 70 + 149 = 219 tokens in 13 blocks, 208, and 70 + 299 = 369
    # in 23, 368, as those of the first conversation do.
    kv = roomy(keeps_prefixes=True)
    served(with_options(replace(POINT, max_concurrency=1), system_len=70), kv=kv)
    assert kv.prefix_queries == 2 * (170 + 320 + 470)
    assert kv.prefix_hits == 64 + 2 * (208 + 368)


def test_hits_are_the_same_for_conversations_side_by_side() -> None:
    # The second finds the system prompt's four blocks, though the first computes them in the same step.
    kv = roomy(keeps_prefixes=True)
    served(with_options(system_len=70), kv=kv)
    assert kv.prefix_hits == 64 + 2 * (208 + 368)


def test_turn_finds_nothing_where_memory_went_to_others() -> None:
    # 40 blocks of 16: the first conversation's 300 tokens do not last while the others run.
    point = with_options(replace(POINT, num_prompts=12, max_concurrency=4), pause_s=1000.0)
    small, large = (KvCache(blocks=blocks, keeps_prefixes=True) for blocks in (40, 4000))
    for kv in (small, large):
        served(point, kv=kv)
        assert kv.used_blocks == 0
        assert kv.free_blocks == kv.blocks
    assert small.prefix_hits < large.prefix_hits == 4 * (144 + 288)


def test_row_tells_hit_rate_and_requests_of_conversations(
    simulated_spec: TrialSpec, placement: Placement
) -> None:
    spec = replace(
        simulated_spec,
        engine=EngineSpec(kind="simulated", release="0.11.0"),
        assignment={"tensor_parallel_size": 4, "enable_prefix_caching": True},
    )
    server = SimulatedEngine().start(spec, placement, restart=0, cancelled=lambda: False)
    measured = SimulatedClient(spec).measure(server, POINT, restart=0, repeat=0, cancelled=lambda: False)
    # By hand above: 432 of 750 tokens, in each of two conversations.
    assert measured.telemetry["prefix_cache_hit_rate"] == pytest.approx(0.576)
    assert measured.metrics["completed"] == 6
    assert measured.metrics["total_input_tokens"] == 1500


def test_conversation_stays_with_one_of_several_replicas(
    simulated_spec: TrialSpec, placement: Placement
) -> None:
    spec = replace(
        simulated_spec,
        engine=EngineSpec(kind="simulated", release="0.11.0"),
        assignment={"tensor_parallel_size": 4, "data_parallel_size": 2},
    )
    eight = replace(placement, devices=tuple(range(8)), parents=tuple(range(8)))
    workload = make_workload(POINT, seed=0)
    assert workload.share(index=1, parts=2).tolist() == [3, 4, 5]
    server = SimulatedEngine().start(spec, eight, restart=0, cancelled=lambda: False)
    found = server.serve(workload)
    # Each finds what its own conversation has said, as by hand above, and turns come back in their order.
    assert found.prefix_hits == 2 * (144 + 288)
    assert found.records.input_tokens.tolist() == workload.input_tokens.tolist()
    assert (np.diff(found.records.arrival_s)[[0, 1, 3, 4]] > 0).all()


# --- turns and pauses by hand; a step takes one second ---


def test_turn_comes_after_answer_and_pause() -> None:
    # Prompt step and one decode: 2 s for each answer of 2 tokens. Pauses of 5 s.
    point = with_options(replace(POINT, num_prompts=3, input_len=10, output_len=2), pause_s=5.0)
    _, seen = served(point, costs=ONE_SECOND)
    assert seconds(seen.arrival_s) == [0, 7, 14]
    assert seconds(seen.last_token_s) == [2, 9, 16]


def test_user_holds_place_to_end_of_conversation() -> None:
    point = with_options(
        replace(POINT, num_prompts=4, input_len=10, output_len=2, max_concurrency=1), turns=2, pause_s=5.0
    )
    _, seen = served(point, costs=ONE_SECOND)
    # The second conversation begins when the first has ended, not while its user pauses.
    assert seconds(seen.arrival_s) == [0, 7, 9, 16]


def test_rate_is_that_of_all_turns() -> None:
    point = with_options(
        replace(POINT, num_prompts=400, output_len=4, request_rate_per_s=2.0), turns=4, pause_s=3.0
    )
    workload, seen = served(point)
    # No turn is sent before its arrival, and while there are conversations to begin none is late.
    assert (np.sort(seen.arrival_s) >= workload.arrival_s - 1e-9).all()
    assert np.sort(seen.arrival_s)[:380] == pytest.approx(workload.arrival_s[:380])


def test_times_of_file_are_kept_unless_answer_comes_later(tmp_path: Path) -> None:
    turns = ([0, 1000, 20000], [4500, 30000])
    path = tmp_path / "talk.jsonl"
    path.write_text(
        "\n".join(
            json.dumps(
                {"turns": [{"input_length": 10, "output_length": 2, "timestamp": time} for time in times]}
            )
            for times in turns
        ),
        encoding="utf-8",
    )
    point = LoadPoint(dataset="timed_conversations", num_prompts=5, dataset_path=str(path))
    _, seen = served(point, costs=ONE_SECOND)
    # Each answer takes 2 s: that to 0 is there at 2, so that the turn of 1 s is sent then.
    assert seconds(seen.arrival_s) == [0, 2, 20, 4.5, 30]
    # Of two replicas each keeps the times of its own conversations.
    second = make_workload(point, seed=0).part(index=1, parts=2)
    assert second.arrival_s.tolist() == [4.5, 30]
    alone = simulate(second, config=V1, costs=ONE_SECOND, kv=roomy())
    assert seconds(alone.arrival_s) == [4.5, 30]
    _, fast = served(replace(point, options=(("speed", 2.0),)), costs=ONE_SECOND)
    assert seconds(fast.arrival_s)[2:4] == [10, 2.25]


def test_turn_too_long_for_model_ends_its_conversation_and_is_told(
    simulated_spec: TrialSpec, placement: Placement
) -> None:
    short = replace(V1, max_model_len=320)
    _, seen = served(replace(POINT, max_concurrency=1), config=short)
    # 400 + 50 tokens do not fit; the next conversation begins all the same.
    assert np.isnan(seen.last_token_s).tolist() == [False, False, True] * 2
    spec = replace(simulated_spec, assignment={"tensor_parallel_size": 4, "max_model_len": 320})
    server = SimulatedEngine().start(spec, placement, restart=0, cancelled=lambda: False)
    with pytest.raises(MeasurementError, match=r"4 of 6 requests completed; .*the longest with 450 tokens"):
        SimulatedClient(spec).measure(server, POINT, restart=0, repeat=0, cancelled=lambda: False)


# --- laws ---

TALKS = st.builds(
    lambda prompts, users, turns, ratio, pause, rate, system: with_options(
        replace(
            POINT,
            num_prompts=prompts,
            max_concurrency=users,
            range_ratio=ratio,
            request_rate_per_s=rate,
        ),
        turns=turns,
        pause_s=pause,
        system_len=system,
    ),
    st.integers(1, 40),
    st.sampled_from([None, 1, 2, 5]),
    st.integers(1, 8),
    st.sampled_from([0.0, 0.5]),
    st.sampled_from([0.0, 2.0]),
    st.sampled_from([None, 0.5, 20.0]),
    st.sampled_from([0, 70]),
)


@settings(max_examples=40, deadline=None)
@given(TALKS)
def test_every_turn_waits_for_answer_and_pause_and_users_are_no_more_than_asked(point: LoadPoint) -> None:
    kv = roomy(keeps_prefixes=True)
    workload, seen = served(point, kv=kv)
    turns = workload.turns
    assert turns is not None
    assert workload.requests == point.num_prompts
    assert not np.isnan(seen.last_token_s).any()
    later = np.flatnonzero(turns.follows)
    assert (seen.arrival_s[later] >= seen.last_token_s[later - 1] + turns.pause_s[later] - 1e-9).all()
    begins = np.flatnonzero(~turns.follows)
    ends = np.append(begins[1:], workload.requests) - 1
    if point.max_concurrency is not None:
        for moment in seen.arrival_s[begins]:
            under_way = (seen.arrival_s[begins] <= moment) & (seen.last_token_s[ends] > moment)
            assert under_way.sum() <= point.max_concurrency
    assert kv.used_blocks == 0
    assert kv.prefix_queries == workload.input_tokens.sum()


@settings(max_examples=20, deadline=None)
@given(TALKS)
def test_one_user_is_one_request_at_a_time(point: LoadPoint) -> None:
    workload, seen = served(replace(point, max_concurrency=1))
    assert (seen.arrival_s[1:] >= seen.last_token_s[:-1]).all()
    if point.request_rate_per_s is None and workload.turns is not None:
        # And it never idles but for its pauses.
        waits = seen.arrival_s[1:] - seen.last_token_s[:-1]
        assert waits == pytest.approx(workload.turns.pause_s[1:])


@pytest.mark.parametrize("users", [1, 8, None])
@pytest.mark.parametrize("shared", [0, 128, 512, 1024])
def test_longer_shared_system_prompt_of_equal_prompts_is_never_slower(shared: int, users: int | None) -> None:
    def duration_s(system: int) -> float:
        point = with_options(
            replace(POINT, num_prompts=48, max_concurrency=users),
            turns=4,
            system_len=system,
            context_len=2048 - system,
        )
        _, seen = served(point, costs=replace(COSTS, has_prefix_cache=True))
        return float(np.nanmax(seen.last_token_s))

    assert duration_s(2 * shared) <= duration_s(shared) + 1e-9


def test_cache_that_keeps_prefixes_is_faster_the_longer_conversations_are() -> None:
    def gain(turns: int) -> float:
        point = with_options(replace(POINT, num_prompts=64, input_len=400, max_concurrency=8), turns=turns)
        with_cache, without = (
            float(np.nanmax(served(point, kv=roomy(keeps_prefixes=keeps))[1].last_token_s))
            for keeps in (True, False)
        )
        return without / with_cache

    gains = [gain(turns) for turns in (1, 4, 16)]
    assert gains == sorted(gains)
    assert gains[0] == pytest.approx(1.0, abs=0.02)
    assert gains[-1] > 1.2


def test_ramp_of_conversations_rises_as_that_of_single_requests() -> None:
    ramp = Ramp(strategy="linear", start_per_s=1, end_per_s=9)
    point = replace(POINT, num_prompts=400, output_len=4, ramp=ramp)
    workload, seen = served(point)
    single = make_workload(replace(point, dataset="random", options=()), seed=0)
    assert np.array_equal(workload.arrival_s, single.arrival_s)
    assert np.sort(seen.arrival_s)[:300] == pytest.approx(single.arrival_s[:300])
