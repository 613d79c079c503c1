"""When a trial can no longer matter, with bounds worked out by hand."""

from __future__ import annotations

from dataclasses import replace

from sweeper.goals.objectives import is_worse
from sweeper.goals.pruner import broken_before, decision_order, reason_to_stop
from sweeper.records import (
    Constraint,
    LoadPoint,
    Measurement,
    Objective,
    Placement,
    RateSearch,
    StopRule,
    TrialResult,
    TrialSpec,
    TrialState,
    UserSearch,
)
from sweeper.trial import trial
from tests.stand_ins import StandInClient, StandInEngine

RPS = "request_throughput_per_s"
BASE = LoadPoint(dataset="random", num_prompts=100, input_len=32, output_len=8)
AT_2, AT_8, AT_16 = (replace(BASE, request_rate_per_s=rate) for rate in (2.0, 8.0, 16.0))
THROUGHPUT = Objective(metric=RPS, direction="maximize")
LATENCY = Objective(metric="p99_tpot_ms", direction="minimize")
SLO = Constraint(metric="p99_ttft_ms", limit=1000.0, is_upper=True, request_rate_per_s=8.0)


def measured(point: LoadPoint, **metrics: float) -> Measurement:
    return Measurement(
        load_point=point,
        restart=0,
        repeat=0,
        metrics=metrics,
        telemetry={},
        measured_s=1.0,
        client_overhead_s=0.0,
        started_at=0.0,
        ended_at=1.0,
    )


def test_heaviest_load_comes_first_where_all_count_alike() -> None:
    assert decision_order((AT_2, AT_8, BASE), [THROUGHPUT], []) == (BASE, AT_8, AT_2)


def test_objectives_load_comes_first_and_then_what_bound_names() -> None:
    at_2 = replace(THROUGHPUT, request_rate_per_s=2.0)
    assert decision_order((BASE, AT_16, AT_8, AT_2), [at_2], [SLO]) == (AT_2, AT_8, BASE, AT_16)


def test_more_users_come_first_and_those_that_are_named_before_them() -> None:
    one, few, many = (replace(BASE, request_rate_per_s=None, max_concurrency=users) for users in (1, 16, 256))
    at_once = replace(BASE, request_rate_per_s=None)
    at_rate = replace(BASE, request_rate_per_s=16.0)
    points = (at_rate, one, few, many, at_once)
    rate = Objective(metric="request_throughput_per_s", direction="maximize")
    assert decision_order(points, (rate,), ()) == (at_once, many, few, one, at_rate)
    at_16 = Constraint(metric="p99_ttft_ms", limit=9.0, is_upper=True, max_concurrency=16)
    assert decision_order(points, (rate,), (at_16,)) == (few, at_once, many, one, at_rate)
    at_1 = replace(rate, max_concurrency=1)
    assert decision_order(points, (at_1,), (at_16,)) == (one, few, at_once, many, at_rate)


def test_bound_at_some_users_ends_trial_and_at_others_does_not() -> None:
    few, many = (replace(BASE, request_rate_per_s=None, max_concurrency=users) for users in (16, 256))
    slow = measured(many, p99_ttft_ms=900.0)
    rate = Objective(metric="request_throughput_per_s", direction="maximize")
    bound = Constraint(metric="p99_ttft_ms", limit=500.0, is_upper=True, max_concurrency=256)
    rule = StopRule(objectives=(rate,), constraints=(bound,))
    assert reason_to_stop(rule, (few, many), [slow], gpus=1.0) == (
        "breaks p99_ttft_ms at 256 users <= 500: 900, and may be 5 % off at most"
    )
    elsewhere = replace(rule, constraints=(replace(bound, max_concurrency=16),))
    assert reason_to_stop(elsewhere, (few, many), [slow], gpus=1.0) is None


def test_users_bound_no_throughput_but_search_for_them_does() -> None:
    closed = replace(BASE, request_rate_per_s=None, max_concurrency=16)
    rate = Objective(metric="request_throughput_per_s", direction="maximize")
    rule = StopRule(objectives=(rate,), incumbents=((1e6,),))
    assert reason_to_stop(rule, (closed,), [], gpus=1.0) is None
    search = UserSearch(low=1, high=64, resolution=1, bounds=(("p99_ttft_ms", 500.0),))
    searching = replace(BASE, request_rate_per_s=None, user_search=search)
    most = Objective(metric="max_users", direction="maximize")
    known = replace(rule, objectives=(most,), incumbents=((100.0,),))
    assert reason_to_stop(known, (searching,), [], gpus=1.0) == (
        "max_users can come to 64 at best, 100 is known"
    )
    within = replace(known, incumbents=((64.0,),))
    assert reason_to_stop(within, (searching,), [], gpus=1.0) is None


def test_second_run_stays_behind_its_first() -> None:
    second = replace(AT_8, keeps_prefix_cache=True)
    assert decision_order((AT_2, AT_8, second), [THROUGHPUT], []) == (AT_8, second, AT_2)


def test_no_throughput_is_above_rate_at_which_requests_come() -> None:
    rule = StopRule(objectives=(THROUGHPUT,), incumbents=((8.0,),), margin=0.05)
    # Measured 5 at 8 QPS; at 2 QPS at most 2 * (1 + 3 / sqrt(100)) = 2.6: (5 + 2.6) / 2 = 3.8 < 8.
    reason = reason_to_stop(rule, (AT_8, AT_2), [measured(AT_8, **{RPS: 5.0})], gpus=4)
    assert reason == "request_throughput_per_s can come to 3.8 at best, 8 is known"
    # Known is 3.9: 5 % below it is 3.7, so the trial may still come as near.
    near = replace(rule, incumbents=((3.9,),))
    assert reason_to_stop(near, (AT_8, AT_2), [measured(AT_8, **{RPS: 5.0})], gpus=4) is None


def test_what_nothing_bounds_goes_on() -> None:
    rule = StopRule(objectives=(THROUGHPUT,), incumbents=((1000.0,),))
    assert reason_to_stop(rule, (AT_8, BASE), [measured(AT_8, **{RPS: 1.0})], gpus=4) is None


def test_latency_that_is_too_long_already_cannot_be_mended_by_zeros() -> None:
    rule = StopRule(objectives=(LATENCY,), incumbents=((20.0,),), margin=0.05)
    # (50 + 0) / 2 = 25 > 20 * 1.05; (40 + 0) / 2 = 20 is not.
    assert reason_to_stop(rule, (AT_8, AT_2), [measured(AT_8, p99_tpot_ms=50.0)], gpus=4) is not None
    assert reason_to_stop(rule, (AT_8, AT_2), [measured(AT_8, p99_tpot_ms=40.0)], gpus=4) is None


def test_trial_goes_on_that_may_win_in_another_objective() -> None:
    rule = StopRule(objectives=(THROUGHPUT, LATENCY), incumbents=((9.0, 20.0), (4.0, 5.0)))
    slow = [measured(AT_8, **{RPS: 2.0, "p99_tpot_ms": 6.0})]
    # Behind the first by throughput alone, and behind the second in both: 6 / 2 = 3 is less than 5.
    assert reason_to_stop(rule, (AT_8, AT_2), slow, gpus=4) is None
    # (100 + 0) / 2 = 50 and (2 + 2.6) / 2 = 2.3: behind both trials in both.
    lost = [measured(AT_8, **{RPS: 2.0, "p99_tpot_ms": 100.0})]
    assert reason_to_stop(rule, (AT_8, AT_2), lost, gpus=4) is not None


def test_objective_per_gpu_is_divided_before_it_is_compared() -> None:
    rule = StopRule(objectives=(replace(THROUGHPUT, per="gpu"),), incumbents=((2.0,),))
    # On 4 GPUs 3.8 / 4 = 0.95 per GPU; on one 3.8.
    assert reason_to_stop(rule, (AT_8, AT_2), [measured(AT_8, **{RPS: 5.0})], gpus=4) is not None
    assert reason_to_stop(rule, (AT_8, AT_2), [measured(AT_8, **{RPS: 5.0})], gpus=1) is None


def test_bound_that_is_broken_by_more_than_margin_ends_trial() -> None:
    rule = StopRule(objectives=(THROUGHPUT,), constraints=(SLO,), margin=0.05)
    broken = reason_to_stop(rule, (AT_8, AT_2), [measured(AT_8, p99_ttft_ms=1100.0)], gpus=4)
    assert broken == "breaks p99_ttft_ms at 8 QPS <= 1000: 1100, and may be 5 % off at most"
    assert reason_to_stop(rule, (AT_8, AT_2), [measured(AT_8, p99_ttft_ms=1040.0)], gpus=4) is None
    assert reason_to_stop(rule, (AT_8, AT_2), [measured(AT_2, p99_ttft_ms=1100.0)], gpus=4) is None


def test_no_rate_is_found_above_highest_that_is_tried() -> None:
    search = replace(
        BASE, rate_search=RateSearch(low=1.0, high=10.0, resolution=1.0, bounds=(("p99_ttft_ms", 500.0),))
    )
    rule = StopRule(
        objectives=(Objective(metric="max_rate_per_s", direction="maximize"),), incumbents=((12.0,),)
    )
    assert reason_to_stop(rule, (search, AT_2), [measured(AT_2)], gpus=4) is not None
    assert (
        reason_to_stop(replace(rule, incumbents=((10.0,),)), (search, AT_2), [measured(AT_2)], gpus=4) is None
    )


def test_worse_means_worse_in_every_objective_by_more_than_margin() -> None:
    both = (THROUGHPUT, LATENCY)
    assert is_worse((8.9, 11.1), than=(10.0, 10.0), objectives=both, margin=0.1)
    assert not is_worse((9.1, 11.1), than=(10.0, 10.0), objectives=both, margin=0.1)
    assert not is_worse((8.9, 10.0), than=(10.0, 10.0), objectives=both, margin=0.1)


def run(spec: TrialSpec, placement: Placement, engine: StandInEngine) -> TrialResult:
    client = StandInClient(diary=engine.diary)
    return trial.run(
        spec, placement, cancelled=lambda: False, engine=engine, open_client=lambda spec, placement: client
    )


def test_hopeless_trial_leaves_out_its_other_loads_and_starts(
    simulated_spec: TrialSpec, placement: Placement
) -> None:
    # The stand-in measures 10 requests per second: at 16 QPS, 10 + 2.6 over two is 6.3, and 50 is known.
    rule = StopRule(objectives=(THROUGHPUT,), incumbents=((50.0,),))
    spec = replace(simulated_spec, load_points=(AT_2, AT_16), repeats=2, stop_rule=rule)
    engine = StandInEngine()
    result = run(spec, placement, engine)
    seen = [line for line in engine.diary if line.startswith(("start", "measure"))]
    assert seen == ["start 0", "measure 16 QPS"]
    assert engine.diary[-3:] == ["sanity", "stop", "close"]
    assert result.state is TrialState.SKIPPED
    assert [one.load_point for one in result.measurements] == [AT_16]
    assert (result.failure_message or "").startswith("request_throughput_per_s can come to")


def test_trial_that_still_matters_is_measured_whole(simulated_spec: TrialSpec, placement: Placement) -> None:
    rule = StopRule(objectives=(THROUGHPUT,), incumbents=((6.0,),))
    spec = replace(simulated_spec, load_points=(AT_2, AT_16), stop_rule=rule)
    result = run(spec, placement, StandInEngine())
    assert result.state is TrialState.COMPLETE
    assert [one.load_point for one in result.measurements] == [AT_16, AT_2]


def test_what_trial_is_held_against_is_no_part_of_what_it_is(simulated_spec: TrialSpec) -> None:
    held = replace(simulated_spec, stop_rule=StopRule(objectives=(THROUGHPUT,)))
    assert held.key == simulated_spec.key


def test_bound_that_is_broken_before_the_loads_ends_the_trial() -> None:
    bound = Constraint(metric="accuracy", limit=0.9, is_upper=False)
    rule = StopRule(objectives=(), constraints=(bound,))
    # 0.8 is a ninth below 0.9, and 0.88 within the margin of a twentieth.
    told = "breaks accuracy >= 0.9: 0.8, and may be 5 % off at most"
    assert broken_before(rule, {"accuracy": 0.8}) == told
    assert broken_before(rule, {"accuracy": 0.88}) is None
    assert broken_before(rule, {}) is None
