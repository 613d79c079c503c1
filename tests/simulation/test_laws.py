"""Laws that hold of any server of requests, whatever its parameters; for single decisions: test_scheduler."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.metrics import RequestRecords, summarize, ttft_ms
from sweeper.records import LoadPoint, ModelShape, Ramp
from sweeper.simulation.calibration import Calibration
from sweeper.simulation.costs import CostModel, Floats, Step
from sweeper.simulation.device import MI300X
from sweeper.simulation.kv_cache import KvCache
from sweeper.simulation.precision import uniform
from sweeper.simulation.scheduler import SchedulerConfig, simulate
from sweeper.workload.requests import Workload, make_workload

LLAMA_70B = ModelShape(
    layers=80,
    hidden=8192,
    intermediate=28672,
    heads=64,
    kv_heads=8,
    head_dim=128,
    vocab=128256,
    max_positions=131072,
)
COSTS = CostModel(device=MI300X, devices=4, gpus=4, built=LLAMA_70B.architecture, calibration=Calibration())

V0 = SchedulerConfig(
    is_v1=False, max_num_seqs=64, max_num_batched_tokens=131072, max_model_len=131072, chunked_prefill=False
)
MULTI_STEP = replace(V0, scheduler_steps=8)
CHUNKED = replace(V0, max_num_batched_tokens=512, chunked_prefill=True)
V1 = replace(CHUNKED, is_v1=True, max_num_batched_tokens=2048)
KINDS = pytest.mark.parametrize(
    "config", [V0, MULTI_STEP, CHUNKED, V1], ids=["V0", "multi-step", "chunked", "V1"]
)
CONFIGS = st.sampled_from([V0, MULTI_STEP, CHUNKED, V1, replace(V1, max_num_seqs=3)])
SHAPES = st.lists(
    st.tuples(st.floats(0, 5), st.integers(1, 900), st.integers(1, 80)), min_size=1, max_size=20
).map(sorted)


def requests(shapes: list[tuple[float, int, int]]) -> Workload:
    """Make requests of (arrival in seconds, prompt tokens, output tokens)."""
    arrivals, inputs, outputs = zip(*shapes, strict=True)
    return Workload(
        arrival_s=np.array(arrivals, np.float64),
        input_tokens=np.array(inputs, np.int64),
        output_tokens=np.array(outputs, np.int64),
        prompt_ids=np.arange(len(shapes), dtype=np.int64),
    )


def sharegpt(count: int = 200, *, rate: float | None = None, seed: int = 0) -> Workload:
    return make_workload(LoadPoint(dataset="sharegpt", num_prompts=count, request_rate_per_s=rate), seed=seed)


def serve(
    workload: Workload, config: SchedulerConfig, *, costs: CostModel = COSTS, kv: KvCache | None = None
) -> RequestRecords:
    return simulate(workload, config=config, costs=costs, kv=kv or KvCache(blocks=100_000))


@dataclass(frozen=True, kw_only=True)
class Watched(CostModel):
    """Costs as they are, and a list of every step with prompts that was asked for."""

    seen: list[Step] = field(default_factory=list)

    def groups_s(self, step: Step, *, steps: int, groups: int) -> Floats:
        if step.prefill_tokens:
            self.seen.append(step)
        return super().groups_s(step, steps=steps, groups=groups)


def watched() -> Watched:
    return Watched(device=MI300X, devices=4, gpus=4, built=LLAMA_70B.architecture, calibration=Calibration())


# --- time ---


@settings(max_examples=25, deadline=None)
@given(CONFIGS, SHAPES)
def test_tokens_come_after_their_request_and_in_order(
    config: SchedulerConfig, shapes: list[tuple[float, int, int]]
) -> None:
    workload = requests(shapes)
    seen = serve(workload, config)
    assert (seen.first_token_s > workload.arrival_s).all()
    assert (seen.last_token_s >= seen.first_token_s).all()
    alone = workload.output_tokens == 1
    assert np.array_equal(seen.last_token_s[alone], seen.first_token_s[alone])


@settings(max_examples=25, deadline=None)
@given(CONFIGS, SHAPES)
def test_gaps_between_tokens_add_up_to_time_from_first_to_last(
    config: SchedulerConfig, shapes: list[tuple[float, int, int]]
) -> None:
    seen = serve(requests(shapes), config)
    assert seen.inter_token_s.sum() == pytest.approx((seen.last_token_s - seen.first_token_s).sum())


@settings(max_examples=25, deadline=None)
@given(SHAPES)
def test_prompt_is_never_faster_among_others_than_alone(shapes: list[tuple[float, int, int]]) -> None:
    workload = requests(shapes)
    seen = serve(workload, V0)
    alone_s = [
        COSTS.step_s(
            Step(
                prefill_tokens=int(tokens),
                prefill_pairs=float(tokens * (tokens + 1) / 2),
                prefill_sequences=1,
                samples=1,
            )
        )
        for tokens in workload.input_tokens
    ]
    assert (seen.first_token_s - seen.arrival_s >= np.array(alone_s) * (1 - 1e-9)).all()


@KINDS
def test_in_long_run_littles_law_holds_for_those_who_wait_for_first_token(
    config: SchedulerConfig,
) -> None:
    seen = serve(sharegpt(rate=6.0), replace(config, max_num_seqs=16))
    end_s = float(seen.last_token_s.max())
    # The mean number that waits, looked at from outside at 20,001 moments ...
    looks_s = np.linspace(0, end_s, 20_001)
    arrived = np.searchsorted(np.sort(seen.arrival_s), looks_s, side="right")
    answered = np.searchsorted(np.sort(seen.first_token_s), looks_s, side="right")
    # ... is the rate of arrivals times the mean wait.
    assert (arrived - answered).mean() == pytest.approx(200 / end_s * ttft_ms(seen).mean() / 1e3, rel=0.01)


# --- limits of the device ---


@KINDS
@pytest.mark.parametrize(("devices", "weight_bits"), [(1, 8), (4, 16), (8, 16)])
def test_throughput_is_never_above_roofline(config: SchedulerConfig, devices: int, weight_bits: int) -> None:
    costs = replace(COSTS, devices=devices, gpus=devices, precision=uniform(weight_bits))
    workload = sharegpt()
    seen = serve(workload, replace(config, max_num_seqs=1000), costs=costs)
    duration_s = float(seen.last_token_s.max())
    # Data sheet: 1307.4 or 2614.9 TFLOP/s and 5.3 TB/s a GPU. A layer has 2 x 8192 x 8192 weights in queries
    # and outputs, 2 x 8192 x 1024 in keys and values and 3 x 8192 x 28672 in its MLP: 855,638,016.
    weights = 80 * 855_638_016
    peak_flop_per_s = (2614.9e12 if weight_bits == 8 else 1307.4e12) * devices
    # A prompt's last token gives the first token of the answer, so one token of each request is no row.
    rows = int((workload.input_tokens + workload.output_tokens - 1).sum())
    assert duration_s > 2 * weights * rows / peak_flop_per_s
    # Every token of the longest answer reads all weights.
    read_s = weights * weight_bits / 8 / (5.3e12 * devices)
    assert duration_s > int(workload.output_tokens.max()) * read_s


# --- chunks ---


@settings(max_examples=25, deadline=None)
@given(SHAPES)
def test_v1_with_budget_beyond_all_prompts_does_not_care_whether_it_may_cut(
    shapes: list[tuple[float, int, int]],
) -> None:
    # 20 prompts of at most 900 tokens, and 20 decodes.
    roomy = replace(V1, max_num_batched_tokens=20 * 900 + 20)
    cut = serve(requests(shapes), roomy)
    whole = serve(requests(shapes), replace(roomy, chunked_prefill=False))
    assert np.array_equal(cut.first_token_s, whole.first_token_s)
    assert np.array_equal(cut.last_token_s, whole.last_token_s)


@settings(max_examples=25, deadline=None)
@given(SHAPES)
def test_v0_with_budget_beyond_all_prompts_at_once_chunks_nothing(
    shapes: list[tuple[float, int, int]],
) -> None:
    together = requests([(0.0, prompt, answer) for _, prompt, answer in shapes])
    whole = serve(together, V0)
    cut = serve(together, replace(V0, chunked_prefill=True))
    assert cut.last_token_s.tolist() == pytest.approx(whole.last_token_s.tolist())


# --- nothing is lost ---


@settings(max_examples=25, deadline=None)
@given(CONFIGS, SHAPES)
def test_every_prompt_token_is_computed_once_while_there_is_memory(
    config: SchedulerConfig, shapes: list[tuple[float, int, int]]
) -> None:
    costs = watched()
    workload = requests(shapes)
    seen = serve(workload, config, costs=costs)
    assert sum(step.prefill_tokens for step in costs.seen) == workload.input_tokens.sum()
    assert np.array_equal(seen.output_tokens, workload.output_tokens)


def test_what_prefix_cache_finds_is_not_computed_again() -> None:
    kv = KvCache(blocks=100_000, keeps_prefixes=True)
    costs = watched()
    workload = sharegpt()
    for _ in range(2):
        serve(workload, V1, costs=costs, kv=kv)
    computed = sum(step.prefill_tokens for step in costs.seen)
    assert kv.prefix_hits > 0
    assert computed + kv.prefix_hits == 2 * workload.input_tokens.sum()


@KINDS
def test_full_cache_preempts_and_loses_nothing(config: SchedulerConfig) -> None:
    # The longest, 391 + 400 tokens, takes 50 of the 100 blocks of 16 tokens, so all 40 never fit together.
    workload = requests([(0.0, 40 + 9 * number, 400) for number in range(40)])
    kv, costs = KvCache(blocks=100), watched()
    seen = serve(workload, config, costs=costs, kv=kv)
    assert kv.preemptions > 0
    assert kv.peak_blocks <= 100
    assert kv.used_blocks == 0
    assert seen.output_tokens.tolist() == [400] * 40
    # Who lost its blocks computed its prompt, and what it had told, a second time.
    assert sum(step.prefill_tokens for step in costs.seen) > workload.input_tokens.sum()


@KINDS
def test_no_requests_take_no_time(config: SchedulerConfig) -> None:
    kv = KvCache(blocks=10)
    seen = serve(sharegpt(0), config, kv=kv)
    assert len(seen.last_token_s) == len(seen.inter_token_s) == 0
    assert kv.used_blocks == 0
    assert summarize(seen)["completed"] == 0


@KINDS
def test_one_request_is_served_from_moment_it_comes(config: SchedulerConfig) -> None:
    now, later = (serve(requests([(at, 300, 20)]), config) for at in (0.0, 70.0))
    assert later.first_token_s[0] == pytest.approx(70 + now.first_token_s[0])
    assert later.last_token_s[0] == pytest.approx(70 + now.last_token_s[0])
    assert now.output_tokens.tolist() == [20]


# --- load and seeds ---


@KINDS
def test_on_average_more_load_never_lowers_queueing(config: SchedulerConfig) -> None:
    def wait_ms(rate: float | None) -> float:
        runs = [
            serve(sharegpt(120, rate=rate, seed=seed), replace(config, max_num_seqs=24)) for seed in range(2)
        ]
        return float(np.mean([ttft_ms(run).mean() for run in runs]))

    waits_ms = [wait_ms(rate) for rate in (1.0, 4.0, 16.0, 64.0, None)]
    assert waits_ms == sorted(waits_ms)


@KINDS
def test_same_seed_gives_same_times_and_another_one_others(config: SchedulerConfig) -> None:
    one, again, other = (serve(sharegpt(rate=10.0, seed=seed), config) for seed in (5, 5, 6))
    assert np.array_equal(one.first_token_s, again.first_token_s)
    assert np.array_equal(one.inter_token_s, again.inter_token_s)
    assert not np.array_equal(one.first_token_s, other.first_token_s)


# --- arrivals ---


@KINDS
def test_trace_is_sent_at_its_times_and_ramp_from_gap_to_gap(config: SchedulerConfig, tmp_path: Path) -> None:
    times_ms = [0, 40, 40, 900, 2500]
    path = tmp_path / "trace.jsonl"
    rows = ({"timestamp": time, "input_length": 300, "output_length": 20} for time in times_ms)
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    trace = LoadPoint(dataset="timed_trace", num_prompts=5, dataset_path=str(path))
    seen = serve(make_workload(trace, seed=0), config)
    assert seen.arrival_s == pytest.approx([0, 0.04, 0.04, 0.9, 2.5])
    assert (seen.first_token_s > seen.arrival_s).all()

    # From 1 to 9 a second, evenly from request to request: the gap in the middle is a fifth of a second.
    ramp = Ramp(strategy="linear", start_per_s=1, end_per_s=9)
    steady = LoadPoint(
        dataset="random", num_prompts=2001, input_len=8, output_len=1, ramp=ramp, burstiness=1e6
    )
    sent_s = serve(make_workload(steady, seed=0), config).arrival_s
    assert np.diff(sent_s)[[0, 999, 1999]] == pytest.approx([1, 1 / 5, 1 / 9], rel=0.02)


@KINDS
def test_closed_loop_of_so_many_users_has_never_more_under_way(config: SchedulerConfig) -> None:
    point = LoadPoint(dataset="random", num_prompts=40, input_len=200, output_len=20, range_ratio=0.5)
    workload = make_workload(point, seed=0)

    def by_users(users: int) -> RequestRecords:
        kv = KvCache(blocks=100_000)
        return simulate(workload, config=config, costs=COSTS, kv=kv, max_concurrency=users)

    for users in (1, 4):
        seen = by_users(users)
        for moment in seen.arrival_s:
            assert ((seen.arrival_s <= moment) & (seen.last_token_s > moment)).sum() <= users
    # One user never idles: the next request is sent when the last one is answered.
    alone = by_users(1)
    assert alone.arrival_s[1:] == pytest.approx(alone.last_token_s[:-1])
