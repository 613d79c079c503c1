"""How long a trial will take: from the arithmetic of its load, then from what the study has seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.plan.planner import Planner
from sweeper.records import (
    EngineSpec,
    FailureClass,
    LoadPoint,
    Model,
    Platform,
    RateSearch,
    TrialResult,
    TrialSpec,
    TrialState,
)
from sweeper.schedule.allocator import Allocator
from sweeper.schedule.durations import Predictor, SharedStarts
from tests.stand_ins import LOAD, complete, failed, planner_of_three_series


@pytest.fixture
def planner(tmp_path: Path, llama_70b: Model) -> Planner:
    return planner_of_three_series(tmp_path, llama_70b)


@pytest.fixture
def spec(planner: Planner) -> TrialSpec:
    return planner.grid()[0].spec


def took(spec: TrialSpec, planner: Planner, *, start_s: float, load_s: float) -> TrialResult:
    """A complete trial that took so long."""
    placement = Allocator(planner.node).acquire(4)
    assert placement is not None
    result = complete(spec, placement)
    measured = tuple(replace(one, measured_s=load_s) for one in result.measurements)
    return replace(result, measurements=measured, phases={"engine_start_s": start_s})


def test_start_is_booting_and_loading_weights(spec: TrialSpec) -> None:
    # 45 s, and 70.6e9 weights of 2 bytes over 4 devices at 1 GB/s: 35.3 s
    assert Predictor().predict(spec).start_s == pytest.approx(80.3, abs=0.1)
    assert Predictor().predict(spec).basis == "modelled"


def test_run_takes_at_least_as_long_as_its_requests_arrive(spec: TrialSpec) -> None:
    slow = replace(spec, load_points=(replace(LOAD, num_prompts=600, request_rate_per_s=2.0),))
    # 600 requests at 2 per second arrive within 300 s; the last answer of 8 tokens takes less than 1 s.
    assert 300 < Predictor().predict(slow).load_s < 301


def test_users_of_conversations_pause_side_by_side(spec: TrialSpec) -> None:
    def load_s(pause_s: float, users: int) -> float:
        point = LoadPoint(
            dataset="conversations",
            num_prompts=40,
            input_len=32,
            output_len=8,
            max_concurrency=users,
            options=(("pause_s", pause_s), ("turns", 5)),
        )
        return Predictor().predict(replace(spec, load_points=(point,))).load_s

    # 8 conversations with 4 pauses of 10 s each: 320 s for one user, 80 s for four.
    assert load_s(10.0, 1) - load_s(0.0, 1) == pytest.approx(320)
    assert load_s(10.0, 4) - load_s(0.0, 4) == pytest.approx(80)


def test_every_probe_of_search_over_rate_takes_its_time(spec: TrialSpec) -> None:
    search = RateSearch(low=1.0, high=3.0, resolution=1.0, bounds=(("p99_ttft_ms", 100.0),))
    point = replace(LOAD, num_prompts=600, rate_search=search)
    # Both ends and the middle: 600 requests at 1, 3 and 2 per second.
    assert 1100 < Predictor().predict(replace(spec, load_points=(point,))).load_s < 1103


def test_warm_up_by_users_is_part_of_every_run(spec: TrialSpec) -> None:
    closed = replace(spec.load_points[0], request_rate_per_s=None, max_concurrency=16)

    def predicted(*, warmup_per_user: int, runs: int) -> tuple[float, float]:
        point = replace(closed, warmup_per_user=warmup_per_user)
        found = Predictor().predict(replace(spec, load_points=(point,), runs_per_start=runs))
        return found.start_s, found.load_s

    cold, warm, twice = (
        predicted(warmup_per_user=each, runs=runs) for each, runs in ((0, 1), (2, 1), (2, 2))
    )
    assert warm[0] > cold[0]
    assert twice[0] - cold[0] == pytest.approx(2 * (warm[0] - cold[0]))
    assert warm[1] == cold[1]


def test_decoding_takes_reading_of_weights_per_token(spec: TrialSpec) -> None:
    point = LoadPoint(dataset="random", num_prompts=1, input_len=32, output_len=1000)
    load_s = Predictor().predict(replace(spec, load_points=(point,))).load_s
    # 35.3 GB at no more than 5.3 TB/s is 6.7 ms a token; launches, links and the host do not make it 4 times
    # as long.
    assert 6.7 < load_s < 27


def test_repeats_starts_and_points_add_up(spec: TrialSpec) -> None:
    once = Predictor().predict(spec)
    twice = Predictor().predict(replace(spec, load_points=(LOAD, replace(LOAD, keeps_prefix_cache=True))))
    assert twice.load_s == pytest.approx(2 * once.load_s)
    repeated = Predictor().predict(replace(spec, repeats=3, runs_per_start=2))
    assert repeated.start_s == pytest.approx(3 * once.start_s)
    assert repeated.load_s == pytest.approx(6 * once.load_s)
    assert repeated.total_s == pytest.approx(3 * once.start_s + 6 * once.load_s)


def test_more_sequences_and_more_steps_at_once_are_no_slower(spec: TrialSpec) -> None:
    point = LoadPoint(dataset="sharegpt", num_prompts=1000)

    def load_s(**knobs: int) -> float:
        asked = replace(spec, load_points=(point,), assignment={**spec.assignment, **knobs})
        return Predictor().predict(asked).load_s

    assert load_s(max_num_seqs=256) < load_s(max_num_seqs=16)
    assert load_s(max_num_seqs=256, num_scheduler_steps=10) < load_s(max_num_seqs=256, num_scheduler_steps=1)


def test_gpu_of_another_maker_is_predicted_from_its_peaks_where_they_are_known(spec: TrialSpec) -> None:
    load = LoadPoint(dataset="random", num_prompts=240, input_len=512, output_len=128)
    on_gpu = replace(spec, platform=Platform.CUDA, partitioning=None, load_points=(load,))
    h200, h100, unknown = (Predictor(measured_device=name).predict(on_gpu) for name in ("h200", "h100", None))
    assert h200.basis == "modelled from the peaks of NVIDIA H200"
    assert unknown.basis == "assumed"
    # The same compute, and memory that is faster.
    assert h200.load_s < h100.load_s


def test_without_model_of_machine_basis_says_so(spec: TrialSpec) -> None:
    on_cpu = Predictor().predict(replace(spec, platform=Platform.CPU))
    # A minute to start; 8 requests of 32 tokens at 2000/s and 8 at 200/s: 8 x (0.016 + 0.04) s
    assert (on_cpu.start_s, on_cpu.basis) == (60, "assumed")
    assert on_cpu.load_s == pytest.approx(0.448)
    attached = replace(spec, engine=EngineSpec(kind="attach", release="0.32.0"), platform=Platform.CPU)
    assert Predictor().predict(attached).start_s == 0


def test_trial_that_was_seen_takes_what_it_took(spec: TrialSpec, planner: Planner) -> None:
    predictor = Predictor()
    predictor.learn_result(took(spec, planner, start_s=100, load_s=7))
    found = predictor.predict(spec)
    assert (found.start_s, found.load_s) == (100, 7)
    assert found.basis == "seen: 1 trial of this study"


def test_others_are_scaled_by_middle_of_what_was_seen(spec: TrialSpec, planner: Planner) -> None:
    predictor, before = Predictor(), Predictor()
    for seqs, factor in ((8, 1.0), (16, 2.0), (32, 9.0)):
        other = replace(spec, assignment={**spec.assignment, "max_num_seqs": seqs})
        guess = before.predict(other)
        predictor.learn_result(
            took(other, planner, start_s=guess.start_s * factor / 2, load_s=guess.load_s * factor)
        )
    found, guess = predictor.predict(spec), before.predict(spec)
    # Of 1, 2 and 9 the middle is 2; starts took half of that.
    assert found.load_s == pytest.approx(2 * guess.load_s)
    assert found.start_s == pytest.approx(guess.start_s)
    assert found.basis == "seen: 3 trials of this study"


def test_stored_rows_teach_same_as_result(spec: TrialSpec, planner: Planner) -> None:
    rows = [{"engine_start_s": 100.0, "stop_s": float("nan"), "measured_s": 7.0, "client_overhead_s": None}]
    predictor = Predictor()
    predictor.learn(spec, rows)
    predictor.learn(replace(spec, repeats=9), [])
    assert predictor.predict(spec).total_s == 107
    assert predictor.predict(spec).basis == "seen: 1 trial of this study"


def test_failure_teaches_nothing(spec: TrialSpec, planner: Planner) -> None:
    placement = Allocator(planner.node).acquire(4)
    assert placement is not None
    predictor = Predictor()
    result = failed(FailureClass.CRASH)(spec, placement)
    assert result.state is TrialState.FAILED
    predictor.learn_result(result)
    assert predictor.predict(spec).basis == "modelled"


def test_start_that_several_share_is_predicted_once(spec: TrialSpec) -> None:
    first = replace(spec, live_start=spec.assignment)
    second = replace(first, assignment={**spec.assignment, "max_num_seqs": 17})
    predict, starts = Predictor().predict, SharedStarts()
    assert starts.share(first, predict(first)) == predict(first)
    assert starts.share(second, predict(second)) == replace(predict(second), start_s=0.0)
    # Asked again, the same one makes it; a start of its own is made in any case.
    assert starts.share(first, predict(first)) == predict(first)
    assert starts.share(spec, predict(spec)) == predict(spec)


def test_trial_that_found_its_engine_running_teaches_nothing_of_starts(
    spec: TrialSpec, planner: Planner
) -> None:
    predictor = Predictor()
    known = predictor.predict(spec)
    shared = replace(spec, live_start=spec.assignment)
    found = took(shared, planner, start_s=0.01, load_s=1.0)
    predictor.learn_result(replace(found, effective={"live_trial": 1}))
    assert predictor.predict(spec).start_s == known.start_s
    predictor.learn_result(replace(found, effective={"live_trial": 0}))
    assert predictor.predict(spec).start_s == pytest.approx(0.01)
