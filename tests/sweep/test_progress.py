"""What a study has found, and when that is enough."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.goals.termination import Termination
from sweeper.records import (
    Constraint,
    FailureClass,
    Measurement,
    Objective,
    Placement,
    TrialResult,
    TrialSpec,
    TrialState,
)
from sweeper.store.store import Store
from sweeper.store.trials import StoredTrials
from sweeper.sweep.progress import Progress
from tests.stand_ins import complete, failed

RPS = "request_throughput_per_s"
THROUGHPUT = Objective(metric=RPS, direction="maximize")
LATENCY = Objective(metric="p99_tpot_ms", direction="minimize")


@pytest.fixture
def spec(simulated_spec: TrialSpec) -> TrialSpec:
    return simulated_spec


def result(
    spec: TrialSpec, placement: Placement, name: int, *, measured_s: float = 1.0, **metrics: float
) -> TrialResult:
    one = complete(replace(spec, assignment={"max_num_seqs": name}), placement)
    run: Measurement = replace(one.measurements[0], metrics=metrics, measured_s=measured_s)
    return replace(one, measurements=(run,))


def progress(*objectives: Objective, bounds: tuple[Constraint, ...] = (), **endings: float) -> Progress:
    return Progress(
        objectives=objectives or (THROUGHPUT,),
        constraints=bounds,
        endings=Termination(**endings),  # type: ignore[arg-type]
    )


def test_best_are_ranked_by_objective(spec: TrialSpec, placement: Placement) -> None:
    found = progress()
    results = [
        result(spec, placement, name, **{RPS: value}) for name, value in ((1, 5.0), (2, 9.0), (3, 7.0))
    ]
    for one in results:
        found.learn(one, node_devices=8)
    assert found.best(2) == [results[1].spec.key, results[2].spec.key]
    assert found.incumbents == ((9.0,),)


def test_setting_without_number_at_one_load_point(spec: TrialSpec, placement: Placement) -> None:
    # The first has 12 at the one load that it has a number for; the other 12 and 4, in the mean 8.
    found = progress()
    light = spec.load_points[0]
    heavy = replace(light, request_rate_per_s=32.0)
    results = []
    for name, at_heavy in ((1, None), (2, 4.0)):
        one = result(spec, placement, name, **{RPS: 12.0})
        other = replace(one.measurements[0], load_point=heavy, metrics={RPS: at_heavy})
        results.append(replace(one, measurements=(*one.measurements, other)))
    for one in results:
        found.learn(one, node_devices=8)
    assert found.best(2) == [results[1].spec.key]
    assert found.incumbents == ((8.0,),)


def test_of_several_objectives_front_comes_first(spec: TrialSpec, placement: Placement) -> None:
    found = progress(THROUGHPUT, LATENCY)
    # The third is behind the first in both; the fourth is in the middle of the front.
    values = [(9.0, 30.0), (3.0, 5.0), (8.0, 40.0), (6.0, 10.0)]
    results = [
        result(spec, placement, name, **{RPS: rps, "p99_tpot_ms": tpot})
        for name, (rps, tpot) in enumerate(values)
    ]
    for one in results:
        found.learn(one, node_devices=8)
    assert found.incumbents == ((9.0, 30.0), (3.0, 5.0), (6.0, 10.0))
    assert found.best(4) == [results[place].spec.key for place in (0, 3, 1, 2)]


def test_what_breaks_bound_or_is_repetition_is_never_best(spec: TrialSpec, placement: Placement) -> None:
    bound = Constraint(metric="p99_ttft_ms", limit=100.0, is_upper=True)
    found = progress(bounds=(bound,))
    found.learn(result(spec, placement, 1, **{RPS: 9.0, "p99_ttft_ms": 101.0}), node_devices=8)
    found.learn(result(spec, placement, 2, **{RPS: 8.0}), node_devices=8)
    again = result(spec, placement, 3, **{RPS: 7.0, "p99_ttft_ms": 1.0})
    found.learn(replace(again, spec=replace(again.spec, control=0)), node_devices=8)
    assert found.best(3) == []
    kept = result(spec, placement, 4, **{RPS: 1.0, "p99_ttft_ms": 100.0})
    found.learn(kept, node_devices=8)
    assert found.best(3) == [kept.spec.key]


def test_study_ends_by_clock(spec: TrialSpec) -> None:
    found = progress(max_hours=2.0)
    assert found.reason_to_end(elapsed_s=7199.0) is None
    assert found.reason_to_end(elapsed_s=7200.0) == "search.max_hours: 2 hours are over"


def test_node_hours_count_share_of_node(spec: TrialSpec, placement: Placement) -> None:
    found = progress(max_node_hours=1.0)
    # 3600 s on 4 of 8 devices is half a node-hour.
    found.learn(result(spec, placement, 1, measured_s=3600.0, **{RPS: 1.0}), node_devices=8)
    assert found.reason_to_end(elapsed_s=0.0) is None
    lost = failed(FailureClass.CRASH)(replace(spec, assignment={"max_num_seqs": 2}), placement)
    found.learn(replace(lost, started_at=100.0, ended_at=3700.0), node_devices=8)
    assert found.reason_to_end(elapsed_s=0.0) == "search.max_node_hours: 1.00 of 1 are spent"


def test_study_ends_when_nothing_better_comes(spec: TrialSpec, placement: Placement) -> None:
    found = progress(min_improvement=0.05, patience=3)
    # 10.4 is 4 % better than 10 and no improvement; 11 is one, and counting begins anew.
    reasons = []
    for name, value in enumerate((10.0, 10.4, 9.0, 11.0, 11.1, 5.0, 11.2)):
        found.learn(result(spec, placement, name, **{RPS: value}), node_devices=8)
        reasons.append(found.reason_to_end(elapsed_s=0.0))
    assert reasons[:6] == [None] * 6
    assert reasons[6] == (
        "search.min_improvement: none of the last 3 trials was better than what was known by more than 0.05 "
        "of its value"
    )


def test_failures_alone_never_look_like_end_of_improvement(spec: TrialSpec, placement: Placement) -> None:
    found = progress(min_improvement=0.05, patience=1)
    for name in range(3):
        lost = failed(FailureClass.CRASH)(replace(spec, assignment={"max_num_seqs": name}), placement)
        found.learn(lost, node_devices=8)
    assert found.reason_to_end(elapsed_s=0.0) is None


def test_what_store_holds_counts_as_if_it_had_just_been_measured(
    spec: TrialSpec, placement: Placement, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    done = result(spec, placement, 1, measured_s=7200.0, **{RPS: 9.0})
    lost = failed(FailureClass.CRASH)(replace(spec, assignment={"max_num_seqs": 2}), placement)
    for one in (done, replace(lost, started_at=100.0, ended_at=3700.0)):
        store.append(one, queued_s=50.0, knobs=[])
    found = progress(max_node_hours=1.5)
    trials = StoredTrials(store)
    # 7200 s and 3600 s on half of a node: 1.5 node-hours.
    for trial in trials:
        assert found.reason_to_end(elapsed_s=0.0) is None
        found.learn_stored(trial, node_devices=8)
    assert found.reason_to_end(elapsed_s=0.0) == "search.max_node_hours: 1.50 of 1.5 are spent"
    assert found.best(1) == [done.spec.key]
    assert [row[RPS] for row in trials.rows_of(done.spec.key)] == [9.0]
    assert trials.rows_of(lost.spec.key) == ()


def test_trial_that_was_stopped_early_keeps_its_numbers_and_is_never_complete(
    spec: TrialSpec, placement: Placement, tmp_path: Path
) -> None:
    half = result(spec, placement, 1, **{RPS: 3.0})
    second = replace(half.measurements[0].load_point, request_rate_per_s=2.0)
    points = (half.measurements[0].load_point, second)
    stopped = replace(
        half,
        spec=replace(half.spec, load_points=points),
        state=TrialState.SKIPPED,
        failure_message="hopeless",
    )
    store = Store(tmp_path)
    store.append(stopped, queued_s=0.0, knobs=[])
    frame = store.read()
    assert frame["state"].tolist() == ["skipped", "skipped"]
    assert frame["failure_message"].tolist() == ["hopeless", "hopeless"]
    assert frame[RPS].fillna(0.0).tolist() == [3.0, 0.0]
    assert frame["request_rate_per_s"].fillna(0.0).tolist() == [0.0, 2.0]
    found = progress()
    for trial in StoredTrials(store):
        found.learn_stored(trial, node_devices=8)
    assert found.best(1) == []


def test_setting_measured_anew_may_be_best_no_longer(spec: TrialSpec, placement: Placement) -> None:
    found = progress(THROUGHPUT, LATENCY)

    def learn(name: int, rps: float, tpot: float) -> str:
        one = result(spec, placement, name, **{RPS: rps, "p99_tpot_ms": tpot})
        found.learn(one, node_devices=8)
        return one.spec.key

    first, second = learn(1, 9.0, 30.0), learn(2, 8.0, 20.0)
    assert (found.leader, found.incumbents) == (first, ((9.0, 30.0), (8.0, 20.0)))
    # Equal values are one point of the front; what is beaten leaves it.
    learn(3, 9.0, 30.0)
    assert (found.leader, found.incumbents) == (first, ((9.0, 30.0), (8.0, 20.0)))
    learn(4, 9.0, 10.0)
    assert (found.leader, found.incumbents) == (first, ((9.0, 10.0),))
    learn(1, 1.0, 40.0)
    assert found.leader != first
    assert found.value_of(found.leader or "") == 9.0
    learn(4, 1.0, 40.0)
    assert found.incumbents == ((8.0, 20.0), (9.0, 30.0))
    assert found.best(1) and second in found.best(2)
