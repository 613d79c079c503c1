from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.metrics import RequestRecords, summarize, ttft_ms
from sweeper.records import LoadPoint, ModelShape
from sweeper.simulation.calibration import Calibration
from sweeper.simulation.costs import CostModel, Step
from sweeper.simulation.device import MI300X
from sweeper.simulation.front_end import FrontEnd
from sweeper.simulation.kv_cache import KvCache
from sweeper.simulation.scheduler import SchedulerConfig, simulate
from sweeper.workload.requests import Workload, make_workload

SHAPE = ModelShape(
    layers=80,
    hidden=8192,
    intermediate=28672,
    heads=64,
    kv_heads=8,
    head_dim=128,
    vocab=128256,
    max_positions=131072,
)
COSTS = CostModel(device=MI300X, devices=4, gpus=4, built=SHAPE.architecture, calibration=Calibration())
# One second for each step or group of steps, and next to nothing else: a tiny model, a host that is slow.
TINY = ModelShape(
    layers=1, hidden=1, intermediate=1, heads=1, kv_heads=1, head_dim=1, vocab=1, max_positions=1000
)
NOTHING = dict.fromkeys(
    (
        *("decode_head_s", "kernel_layer_s", "eager_layer_s", "mixed_layer_s", "sample_s", "capture_s"),
        *("host_sequence_s", "host_token_s"),
    ),
    0.0,
)
ONE_SECOND = CostModel(
    device=MI300X,
    devices=1,
    gpus=1,
    built=TINY.architecture,
    calibration=replace(Calibration(), host_step_s=1.0, **NOTHING),
)
WHOLE = SchedulerConfig(
    is_v1=False, max_num_seqs=256, max_num_batched_tokens=131072, max_model_len=131072, chunked_prefill=False
)
CHUNKED = replace(WHOLE, max_num_batched_tokens=512, chunked_prefill=True)
V1 = replace(CHUNKED, is_v1=True, max_num_batched_tokens=8192)


def requests(*shape: tuple[float, int, int], ids: list[int] | None = None) -> Workload:
    """Make requests of (arrival in seconds, prompt tokens, output tokens)."""
    arrivals, inputs, outputs = zip(*shape, strict=True)
    return Workload(
        arrival_s=np.array(arrivals, np.float64),
        input_tokens=np.array(inputs, np.int64),
        output_tokens=np.array(outputs, np.int64),
        prompt_ids=np.array(ids if ids is not None else range(len(shape)), np.int64),
    )


def roomy(*, keeps_prefixes: bool = False) -> KvCache:
    return KvCache(blocks=100_000, keeps_prefixes=keeps_prefixes)


def run(
    workload: Workload,
    config: SchedulerConfig,
    *,
    costs: CostModel = ONE_SECOND,
    kv: KvCache | None = None,
    max_concurrency: int | None = None,
    front_end: FrontEnd | None = None,
) -> RequestRecords:
    return simulate(
        workload,
        config=config,
        costs=costs,
        kv=kv or roomy(),
        max_concurrency=max_concurrency,
        front_end=front_end,
    )


def sharegpt(count: int = 300, rate: float | None = 16.0, seed: int = 0) -> Workload:
    point = LoadPoint(dataset="sharegpt", num_prompts=count, request_rate_per_s=rate)
    return make_workload(point, seed=seed)


def seconds(values: np.ndarray) -> list[float]:
    return [round(float(value), 3) for value in values]


# --- single decisions, worked out by hand; a step or a group takes one second ---


def test_request_gets_its_first_token_from_its_prompt_step() -> None:
    seen = run(requests((0, 10, 3)), WHOLE)
    # Prompt until 1, decodes until 2 and 3.
    assert seconds(seen.first_token_s) == [1.0]
    assert seconds(seen.last_token_s) == [3.0]
    assert seconds(seen.inter_token_s) == [1.0, 1.0]


def test_single_token_needs_no_decode() -> None:
    seen = run(requests((0, 10, 1)), WHOLE)
    assert seconds(seen.first_token_s) == seconds(seen.last_token_s) == [1.0]
    assert len(seen.inter_token_s) == 0


def test_request_waits_for_place_among_sequences() -> None:
    seen = run(requests((0, 10, 3), (0, 10, 3)), replace(WHOLE, max_num_seqs=1))
    # The second one's prompt begins when the first is done, at 3.
    assert seconds(seen.first_token_s) == [1.0, 4.0]
    assert seconds(seen.last_token_s) == [3.0, 6.0]


def test_without_chunked_prefill_new_prompt_interrupts_decoding() -> None:
    seen = run(requests((0, 10, 4), (1.5, 10, 2)), WHOLE)
    # Prompt 0-1, decode 1-2, the newcomer's prompt 2-3, decodes of both 3-4, of the first 4-5.
    assert seconds(seen.first_token_s) == [1.0, 3.0]
    assert seconds(seen.last_token_s) == [5.0, 4.0]
    assert sorted(seconds(seen.inter_token_s)) == [1.0, 1.0, 1.0, 2.0]


def test_prompts_share_step_as_far_as_its_tokens_go() -> None:
    config = replace(WHOLE, max_num_batched_tokens=25)
    seen = run(requests((0, 10, 1), (0, 10, 1), (0, 10, 1)), config)
    assert seconds(seen.first_token_s) == [1.0, 1.0, 2.0]


def test_multi_step_hands_out_tokens_of_group_together() -> None:
    seen = run(requests((0, 10, 8)), replace(WHOLE, scheduler_steps=3))
    # 7 tokens after the first: groups of 3, 3 and 1.
    assert seconds(seen.inter_token_s) == [1.0, 1.0, 1.0]
    assert seconds(seen.last_token_s) == [4.0]


SERVED = FrontEnd(entry_s=0.0, token_s=0.0, return_s=0.0)
# A tenth of a second for each step of a group, after half a second of the host.
STEPPED = replace(
    ONE_SECOND,
    calibration=replace(Calibration(), host_step_s=0.5, **(NOTHING | {"kernel_layer_s": 0.1})),
)


def test_server_sends_each_step_of_group_and_ends_answers_in_their_own() -> None:
    config = replace(WHOLE, scheduler_steps=4, async_output=True)
    work = requests((0, 10, 3), (0, 10, 9))
    seen = run(work, config, costs=STEPPED, front_end=SERVED)
    # Prompts, whose launches hold them up, until 0.626; a group until 1.526, its steps at 1.226, 1.326 and so
    # on; the next until 2.426.
    assert seconds(seen.first_token_s) == [0.626, 0.626]
    assert seconds(seen.last_token_s) == [1.326, 2.426]
    assert seconds(seen.inter_token_s) == [0.6, 0.1, 0.6, 0.1, 0.1, 0.1, 0.6, 0.1, 0.1, 0.1]


def test_server_that_does_not_stream_steps_still_ends_answers_in_their_own() -> None:
    config = replace(WHOLE, scheduler_steps=4, async_output=True, streams_steps=False)
    seen = run(requests((0, 10, 3), (0, 10, 9)), config, costs=STEPPED, front_end=SERVED)
    assert seconds(seen.last_token_s) == [1.326, 2.426]
    assert seconds(seen.inter_token_s) == [0.7, 0.9, 0.9]


@pytest.mark.parametrize(
    ("front_end", "async_output"),
    [pytest.param(None, True, id="offline"), pytest.param(SERVED, False, id="answers read at once")],
)
def test_group_ends_together_offline_and_where_answers_are_not_read_beside_the_next_step(
    front_end: FrontEnd | None, async_output: bool
) -> None:
    config = replace(WHOLE, scheduler_steps=4, async_output=async_output)
    seen = run(requests((0, 10, 3), (0, 10, 9)), config, costs=STEPPED, front_end=front_end)
    assert seconds(seen.last_token_s) == [1.526, 2.426]


def test_place_of_user_whose_answer_ended_within_group_is_free_since_then() -> None:
    config = replace(WHOLE, scheduler_steps=4, async_output=True)
    seen = run(
        requests((0, 10, 3), (0, 10, 9), (0, 10, 1)),
        config,
        costs=STEPPED,
        front_end=SERVED,
        max_concurrency=2,
    )
    # Sent when the first one's answer is there, in the middle of the group; computed after it.
    assert seconds(seen.arrival_s) == [0.0, 0.0, 1.326]
    assert seconds(seen.first_token_s)[2] == 2.152


def test_in_multi_step_newcomer_waits_for_end_of_group() -> None:
    # Two places. The first is done within the group that ends at 2, but keeps its place until then.
    config = replace(WHOLE, scheduler_steps=5, max_num_seqs=2)
    seen = run(requests((0, 10, 2), (0, 10, 11), (1.1, 10, 1)), config)
    assert seconds(seen.last_token_s) == [2.0, 4.0, 3.0]


def test_chunked_prefill_cuts_prompt_over_steps() -> None:
    seen = run(requests((0, 25, 2)), replace(CHUNKED, max_num_batched_tokens=10))
    # 10, 10 and 5 tokens, then a decode.
    assert seconds(seen.first_token_s) == [3.0]
    assert seconds(seen.last_token_s) == [4.0]


@pytest.mark.parametrize("config", [CHUNKED, V1])
def test_in_mixed_steps_decodes_come_before_prompts(config: SchedulerConfig) -> None:
    seen = run(requests((0, 4, 6), (0.5, 9, 1)), replace(config, max_num_batched_tokens=4))
    # From 1 on one decode a second leaves 3 tokens: the prompt of 9 takes until 4, and nobody is held up.
    assert seconds(seen.first_token_s) == [1.0, 4.0]
    assert seconds(seen.last_token_s) == [6.0, 4.0]


def test_v1_without_chunked_prefill_keeps_prompts_whole() -> None:
    config = replace(V1, chunked_prefill=False, max_num_batched_tokens=10)
    # The second prompt does not fit beside the first: 8 + 6 > 10.
    assert seconds(run(requests((0, 8, 1), (0, 6, 1)), config).first_token_s) == [1.0, 2.0]


def test_no_more_sequences_run_than_mixed_step_has_tokens() -> None:
    config = replace(CHUNKED, max_num_batched_tokens=2)
    seen = run(requests((0, 1, 3), (0, 1, 3), (0, 1, 3)), config)
    # Both tokens of each step go to the first two until they are done at 3.
    assert seconds(seen.first_token_s) == [1.0, 1.0, 4.0]
    assert seconds(seen.last_token_s) == [3.0, 3.0, 6.0]


def test_client_sends_no_more_than_it_may_have_under_way() -> None:
    seen = run(requests((0, 10, 3), (0, 10, 3), (10, 10, 1)), WHOLE, max_concurrency=1)
    # The second is sent when the first has ended, and its waiting is not counted.
    assert seconds(seen.arrival_s) == [0.0, 3.0, 10.0]
    assert seconds(seen.first_token_s) == [1.0, 4.0, 11.0]


def test_place_that_was_free_is_used_on_arrival() -> None:
    seen = run(requests((0, 10, 9), (0, 10, 4), (4.5, 10, 1)), WHOLE, max_concurrency=2)
    # The second ends at 4; the third arrives during a step and was sent at 4.5, not at the step's end.
    assert seconds(seen.arrival_s) == [0.0, 0.0, 4.5]


def test_request_longer_than_model_allows_fails_and_others_do_not() -> None:
    seen = run(requests((0, 10, 3), (0, 90, 11)), replace(WHOLE, max_model_len=100))
    assert seen.is_complete.tolist() == [True, False]
    assert seen.output_tokens.tolist() == [3, 0]


def test_request_that_can_never_run_is_error_and_not_endless_loop() -> None:
    with pytest.raises(RuntimeError, match=r"1 requests wait at .* none can run"):
        run(requests((0, 50, 1)), WHOLE, kv=KvCache(blocks=2))


def test_no_requests_make_no_records() -> None:
    assert len(run(requests((0, 1, 1)).part(index=1, parts=1), WHOLE).arrival_s) == 0


def test_time_of_lone_request_is_sum_of_its_steps() -> None:
    seen = run(requests((0, 100, 50)), WHOLE, costs=COSTS)
    prompt_s = COSTS.step_s(
        Step(prefill_tokens=100, prefill_pairs=5050, prefill_sequences=1, samples=1)  # 100 x 101 / 2 pairs
    )
    decode_s = [COSTS.step_s(Step(decodes=1, samples=1, context_tokens=100 + told)) for told in range(1, 50)]
    assert seen.first_token_s[0] == pytest.approx(prompt_s)
    assert seen.last_token_s[0] == pytest.approx(prompt_s + sum(decode_s))
    assert seen.inter_token_s.tolist() == pytest.approx(decode_s)


# --- KV cache ---


def test_blocks_are_rounded_up() -> None:
    kv = KvCache(blocks=10, block_tokens=16)
    assert [kv.blocks_for(tokens) for tokens in (1, 16, 17)] == [1, 1, 2]


def test_hit_rate_of_repeated_prefixes_is_that_of_hand() -> None:
    # 4 prefixes of 64 tokens, 8 requests each, one after another: all but the first of each find 64 of 96.
    point = LoadPoint(
        dataset="prefix_repetition",
        num_prompts=32,
        output_len=2,
        max_concurrency=1,
        options=(("num_prefixes", 4), ("prefix_len", 64), ("suffix_len", 32)),
    )
    kv = roomy(keeps_prefixes=True)
    simulate(make_workload(point, seed=0), config=V1, costs=COSTS, kv=kv, max_concurrency=1)
    assert kv.prefix_queries == 32 * 96
    assert kv.prefix_hits == 28 * 64


@pytest.mark.parametrize("shared", [0, 64, 256, 512])
def test_longer_shared_prefix_of_equal_prompts_is_never_slower(shared: int) -> None:
    def duration_s(prefix: int) -> float:
        point = LoadPoint(
            dataset="random",
            num_prompts=40,
            input_len=2048 - prefix,
            output_len=8,
            options=(("prefix_len", prefix),) if prefix else (),
        )
        costs = replace(COSTS, has_prefix_cache=True)
        seen = simulate(make_workload(point, seed=0), config=V1, costs=costs, kv=roomy(keeps_prefixes=True))
        return float(np.nanmax(seen.last_token_s))

    assert duration_s(shared * 2) <= duration_s(shared)


@pytest.mark.parametrize("config", [WHOLE, CHUNKED, V1])
def test_rerun_finds_its_prompts_cached_and_is_faster(config: SchedulerConfig) -> None:
    kv = roomy(keeps_prefixes=True)
    costs = replace(COSTS, has_prefix_cache=True)
    workload = requests(*[(0.0, 1001, 20)] * 50)
    first = summarize(run(workload, config, costs=costs, kv=kv))
    assert (kv.prefix_queries, kv.prefix_hits) == (50_050, 0)
    second = summarize(run(workload, config, costs=costs, kv=kv))
    # 62 of 63 blocks of each prompt: 992 tokens.
    assert kv.prefix_hits == 50 * 992
    assert second["duration_s"] < first["duration_s"]  # type: ignore[operator]


@pytest.mark.parametrize("config", [WHOLE, CHUNKED, replace(WHOLE, scheduler_steps=10)])
def test_sequence_takes_blocks_as_it_grows(config: SchedulerConfig) -> None:
    kv = KvCache(blocks=100, block_tokens=16)
    run(requests((0, 32, 34)), config, kv=kv)
    # 32 prompt tokens and all but the last of 34 told ones: 65 tokens, 5 blocks.
    assert kv.peak_blocks == 5


def test_when_blocks_run_out_last_admitted_computes_again() -> None:
    # 100 blocks. Each prompt takes 32, and 600 tokens in the end take 38: two fit, the third is too much.
    kv = KvCache(blocks=100, block_tokens=16)
    seen = run(requests((0, 500, 100), (0, 500, 100), (0, 500, 100)), WHOLE, kv=kv)
    assert seen.is_complete.all()
    assert kv.preemptions == 1
    assert seen.last_token_s[2] > seen.last_token_s[0]
    assert seen.output_tokens.tolist() == [100, 100, 100]
    assert kv.used_blocks == 0


# --- laws ---

CONFIGS = st.sampled_from(
    [
        WHOLE,
        replace(WHOLE, scheduler_steps=7),
        replace(WHOLE, max_num_seqs=3),
        replace(CHUNKED, max_num_batched_tokens=64),
        replace(CHUNKED, scheduler_steps=4),
        V1,
        replace(V1, max_num_seqs=5, chunked_prefill=False),
    ]
)
SHAPES = st.lists(
    st.tuples(st.floats(0, 20), st.integers(1, 200), st.integers(1, 60)), min_size=1, max_size=25
).map(sorted)


@settings(max_examples=60, deadline=None)
@given(CONFIGS, SHAPES, st.booleans(), st.sampled_from([20, 40, 1000]), st.sampled_from([None, 1, 4]))
def test_whatever_comes_is_served_in_order_of_time_and_whole(
    config: SchedulerConfig,
    shapes: list[tuple[float, int, int]],
    keeps_prefixes: bool,
    blocks: int,
    max_concurrency: int | None,
) -> None:
    kv = KvCache(blocks=blocks, keeps_prefixes=keeps_prefixes)
    workload = requests(*shapes, ids=[index % 7 for index in range(len(shapes))])
    # Equal prompts have equal lengths.
    workload = replace(workload, input_tokens=workload.input_tokens[workload.prompt_ids])
    seen = run(workload, config, costs=COSTS, kv=kv, max_concurrency=max_concurrency)
    assert seen.is_complete.all()
    assert (seen.arrival_s >= workload.arrival_s).all()
    assert (seen.first_token_s > seen.arrival_s).all()
    assert np.array_equal(seen.output_tokens, workload.output_tokens)
    assert (seen.inter_token_s > 0).all()
    # Nothing is left behind, and all that was lent has come back.
    assert kv.used_blocks == 0
    assert kv.peak_blocks <= blocks


@pytest.mark.parametrize("config", [WHOLE, CHUNKED, V1, replace(WHOLE, scheduler_steps=10)])
def test_same_requests_give_same_times(config: SchedulerConfig) -> None:
    one, other = (run(sharegpt(), config, costs=COSTS) for _ in range(2))
    assert np.array_equal(one.last_token_s, other.last_token_s)
    assert np.array_equal(one.inter_token_s, other.inter_token_s)


@pytest.mark.parametrize("config", [WHOLE, CHUNKED, V1])
def test_requests_in_system_obey_littles_law(config: SchedulerConfig) -> None:
    seen = run(sharegpt(rate=8.0), config, costs=COSTS)
    duration_s = seen.last_token_s.max()
    looks_s = np.linspace(0, duration_s, 20_001)
    inside = np.searchsorted(np.sort(seen.arrival_s), looks_s, side="right")
    inside = inside - np.searchsorted(np.sort(seen.last_token_s), looks_s, side="right")
    numbers = summarize(seen)
    rate, latency_ms = numbers["request_throughput_per_s"], numbers["mean_e2el_ms"]
    assert rate is not None
    assert latency_ms is not None
    assert inside.mean() == pytest.approx(rate * latency_ms / 1e3, rel=0.01)


@pytest.mark.parametrize("config", [WHOLE, CHUNKED, V1])
def test_no_more_sequences_run_than_may(config: SchedulerConfig) -> None:
    seen = run(sharegpt(rate=None), replace(config, max_num_seqs=20), costs=COSTS)
    events = sorted([(time, 1) for time in seen.first_token_s] + [(time, -1) for time in seen.last_token_s])
    most = max(np.cumsum([change for _, change in events]))
    assert most == 20


@pytest.mark.parametrize("config", [WHOLE, CHUNKED, V1, replace(WHOLE, scheduler_steps=10)])
def test_more_load_never_lowers_queueing(config: SchedulerConfig) -> None:
    means = [
        float(ttft_ms(run(sharegpt(rate=rate), replace(config, max_num_seqs=64), costs=COSTS)).mean())
        for rate in (2.0, 8.0, 32.0, 128.0)
    ]
    assert means == sorted(means)


def test_more_scheduler_steps_never_lower_throughput_at_saturation() -> None:
    durations = [
        run(sharegpt(1000, rate=None), replace(WHOLE, scheduler_steps=steps), costs=COSTS).last_token_s.max()
        for steps in (1, 2, 5, 10, 15)
    ]
    assert durations == sorted(durations, reverse=True)


def test_chunks_beyond_every_prompt_change_nothing_for_requests_that_come_one_by_one() -> None:
    workload = requests((0, 300, 5), (100, 200, 5), (200, 500, 5))
    cut, whole = run(workload, CHUNKED, costs=COSTS), run(workload, WHOLE, costs=COSTS)
    assert cut.last_token_s.tolist() == pytest.approx(whole.last_token_s.tolist())


def test_more_places_for_sequences_never_lengthen_saturated_run() -> None:
    durations = [
        run(sharegpt(1000, rate=None), replace(WHOLE, max_num_seqs=places), costs=COSTS).last_token_s.max()
        for places in (32, 128, 512)
    ]
    assert durations == sorted(durations, reverse=True)
