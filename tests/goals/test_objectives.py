"""Objectives: what a trial's rows come to, for the search and for the dashboard."""

from __future__ import annotations

from dataclasses import replace

from sweeper.goals.objectives import (
    bound_attributes,
    measured_row,
    objective_value,
    trial_attributes,
    violations,
)
from sweeper.records import (
    Constraint,
    LoadPoint,
    Measurement,
    Objective,
    Placement,
    RateSearch,
    TrialSpec,
)
from tests.goals.test_pruner import measured


def test_objective_is_mean_over_its_load_point() -> None:
    rows = [
        {"mean_ttft_ms": 10.0, "request_rate_per_s": 16.0},
        {"mean_ttft_ms": 30.0, "request_rate_per_s": 16.0},
        {"mean_ttft_ms": 80.0, "request_rate_per_s": None},
        {"mean_ttft_ms": float("nan"), "request_rate_per_s": 16.0},
    ]
    everywhere = Objective(metric="mean_ttft_ms", direction="minimize")
    assert objective_value(everywhere, rows) == 40.0
    assert objective_value(replace(everywhere, request_rate_per_s=16.0), rows) == 20.0
    assert objective_value(replace(everywhere, request_rate_per_s=99.0), rows) is None


def test_second_runs_count_neither_for_search_nor_on_dashboard(simulated_spec: TrialSpec) -> None:
    fresh = simulated_spec.load_points[0]
    spec = replace(simulated_spec, load_points=(fresh, replace(fresh, keeps_prefix_cache=True)))
    rows = [
        {"mean_ttft_ms": 10.0, "request_rate_per_s": None, "keeps_prefix_cache": False},
        {"mean_ttft_ms": 2.0, "request_rate_per_s": None, "keeps_prefix_cache": True},
    ]
    assert objective_value(Objective(metric="mean_ttft_ms", direction="minimize"), rows) == 10.0
    shown = trial_attributes(spec, rows)
    assert {name: value for name, value in shown.items() if "ttft" in name} == {
        "mean_ttft_ms (all at once)": 10.0
    }


def test_dashboard_shows_each_metric_at_each_load_point_that_measured_it(
    simulated_spec: TrialSpec,
) -> None:
    at_once = simulated_spec.load_points[0]
    spec = replace(simulated_spec, load_points=(replace(at_once, request_rate_per_s=16.0), at_once))
    rows = [
        {"mean_ttft_ms": 10.0, "request_rate_per_s": float("nan")},
        {"mean_ttft_ms": 1.0, "request_rate_per_s": 16.0},
        {"mean_ttft_ms": 2.0, "request_rate_per_s": 16.0},
    ]
    assert trial_attributes(spec, rows) == {
        "key": spec.key,
        "series": "tuned",
        "mean_ttft_ms (16 QPS)": 1.5,  # (1 + 2) / 2
        "mean_ttft_ms (all at once)": 10.0,
    }


def test_measurement_is_laid_out_with_rate_of_its_load_point() -> None:
    measurement = Measurement(
        load_point=LoadPoint(
            dataset="random", num_prompts=8, input_len=32, output_len=8, request_rate_per_s=4.0
        ),
        restart=0,
        repeat=0,
        metrics={"mean_ttft_ms": 12.5},
        telemetry={"power_w": 700.0},
        measured_s=1.0,
        client_overhead_s=0.0,
        started_at=0.0,
        ended_at=1.0,
    )
    assert measured_row(measurement) == {
        "mean_ttft_ms": 12.5,
        "request_rate_per_s": 4.0,
        "max_concurrency": None,
        "input_len": 32,
        "output_len": 8,
        "num_prompts": 8,
        "dataset": "random",
        "range_ratio": 0.0,
        "ignore_eos": False,
        "dataset_options": None,
        "arrivals": None,
        "request_form": None,
        "keeps_prefix_cache": False,
        "max_rate_slo": None,
        "max_users_slo": None,
        "devices": [],
        "partition_mode": None,
        "partitions_per_gpu": None,
    }
    search = RateSearch(low=1, high=8, resolution=1, bounds=(("p99_ttft_ms", 100.0),))
    probe = replace(measurement, load_point=replace(measurement.load_point, rate_search=search))
    held = Placement(node="n", devices=(8, 9), parents=(1,), partition_mode="CPX")
    row = measured_row(probe, held)
    assert (row["max_rate_slo"], row["devices"], row["partition_mode"]) == (
        "p99_ttft_ms <= 100",
        [8, 9],
        "CPX",
    )


def test_per_gpu_partition_counts_as_its_share() -> None:
    per_gpu = Objective(metric="request_throughput_per_s", direction="maximize", per="gpu")
    row = {"request_throughput_per_s": 12.0, "request_rate_per_s": None, "devices": [0, 1, 2, 3]}
    # 4 whole GPUs: 12 / 4. 4 of the 8 partitions of one GPU are half of it: 12 / 0.5.
    assert objective_value(per_gpu, [{**row, "partition_mode": "SPX"}]) == 3.0
    assert objective_value(per_gpu, [{**row, "partition_mode": "CPX"}]) == 24.0
    assert objective_value(per_gpu, [{**row, "partition_mode": float("nan")}]) == 3.0
    assert per_gpu.name == "request_throughput_per_s per GPU"


def test_bounds_are_broken_by_share_of_themselves() -> None:
    slow = Constraint(metric="p99_ttft_ms", limit=2000.0, is_upper=True, request_rate_per_s=16.0)
    few = Constraint(metric="request_throughput_per_s", limit=10.0, is_upper=False)
    rows = [
        {"p99_ttft_ms": 3000.0, "request_throughput_per_s": 10.0, "request_rate_per_s": 16.0},
        {"p99_ttft_ms": 9000.0, "request_throughput_per_s": 20.0, "request_rate_per_s": 32.0},
    ]
    # 3000 is (3000 - 2000) / 2000 = 0.5 above; a mean of 15 is (10 - 15) / 10 = -0.5: kept.
    found = violations((slow, few), rows)
    assert found == {"p99_ttft_ms at 16 QPS <= 2000": 0.5, "request_throughput_per_s >= 10": -0.5}
    assert bound_attributes(found) == {"feasible": False, "breaks": "p99_ttft_ms at 16 QPS <= 2000"}
    assert violations((replace(slow, request_rate_per_s=4.0),), rows) is None
    assert violations((replace(slow, limit=3000.0),), rows) == {"p99_ttft_ms at 16 QPS <= 3000": 0.0}


def test_probes_of_rate_search_count_for_what_it_found_and_nothing_else() -> None:
    slo = "p99_ttft_ms <= 100"
    rows = [
        {"mean_ttft_ms": 10.0, "request_rate_per_s": 16.0, "max_rate_slo": None},
        {"mean_ttft_ms": 90.0, "request_rate_per_s": 16.0, "max_rate_slo": slo, "max_rate_per_s": 16.0},
        {"mean_ttft_ms": 99.0, "request_rate_per_s": 17.0, "max_rate_slo": slo, "max_rate_per_s": None},
    ]
    assert objective_value(Objective(metric="mean_ttft_ms", direction="minimize"), rows) == 10.0
    assert objective_value(Objective(metric="max_rate_per_s", direction="maximize"), rows) == 16.0


def test_load_point_by_users_counts_alone_where_objective_names_it() -> None:
    rows = [
        {"p99_ttft_ms": 10.0, "request_rate_per_s": None, "max_concurrency": 4},
        {"p99_ttft_ms": 70.0, "request_rate_per_s": float("nan"), "max_concurrency": 64.0},
        {"p99_ttft_ms": 40.0, "request_rate_per_s": 16.0, "max_concurrency": None},
    ]
    everywhere = Objective(metric="p99_ttft_ms", direction="minimize")
    assert objective_value(everywhere, rows) == 40.0  # (10 + 70 + 40) / 3
    assert objective_value(replace(everywhere, max_concurrency=64), rows) == 70.0
    assert objective_value(replace(everywhere, max_concurrency=8), rows) is None
    bound = Constraint(metric="p99_ttft_ms", limit=50.0, is_upper=True, max_concurrency=64)
    # 70 is (70 - 50) / 50 = 0.4 above, and it is at 64 users that this counts.
    assert violations((bound,), rows) == {"p99_ttft_ms at 64 users <= 50": 0.4}


def test_probes_of_each_search_count_for_its_own_answer() -> None:
    rows = [
        {"max_rate_slo": "p99_ttft_ms <= 100", "max_users_slo": None, "max_rate_per_s": 16.0},
        {"max_rate_slo": None, "max_users_slo": "p99_ttft_ms <= 100", "max_users": 40},
        {"max_rate_slo": None, "max_users_slo": "p99_ttft_ms <= 100", "max_users": None},
    ]
    assert objective_value(Objective(metric="max_rate_per_s", direction="maximize"), rows) == 16.0
    assert objective_value(Objective(metric="max_users", direction="maximize"), rows) == 40.0


def test_dashboard_keeps_numbers_of_users_apart(simulated_spec: TrialSpec) -> None:
    one = replace(simulated_spec.load_points[0], max_concurrency=1, num_prompts=10)
    many = replace(one, max_concurrency=64, num_prompts=640)
    rows = [measured_row(measured(point, mean_ttft_ms=ms)) for point, ms in ((one, 10.0), (many, 90.0))]
    shown = trial_attributes(replace(simulated_spec, load_points=(one, many)), rows)
    assert {name: value for name, value in shown.items() if "ttft" in name} == {
        "mean_ttft_ms (1 user)": 10.0,
        "mean_ttft_ms (64 users)": 90.0,
    }


def test_third_of_gpu_counts_as_its_share_whatever_mode_is_called() -> None:
    # An MI300A has six XCDs: TPX shows three devices of each GPU, and CPX six.
    per_gpu = Objective(metric="request_throughput_per_s", direction="maximize", per="gpu")
    row = {"request_throughput_per_s": 12.0, "devices": [0, 1], "partition_mode": "TPX"}
    assert objective_value(per_gpu, [row]) == 18.0
    assert objective_value(per_gpu, [{**row, "partition_mode": "CPX", "partitions_per_gpu": 6}]) == 36.0
    assert objective_value(per_gpu, [{**row, "partition_mode": "CPX", "partitions_per_gpu": None}]) == 48.0


def test_load_point_without_number() -> None:
    # Alone, the lighter load would look twice as good as both: (10 + 30) / 2 = 20.
    everywhere = Objective(metric="mean_tpot_ms", direction="minimize")
    light = {"mean_tpot_ms": 10.0, "dataset": "random", "input_len": 64, "request_rate_per_s": None}
    heavy = {**light, "input_len": 2048, "mean_tpot_ms": 30.0}
    assert objective_value(everywhere, [light, heavy]) == 20.0
    for missing in (None, float("nan")):
        rows = [light, {**heavy, "mean_tpot_ms": missing}]
        assert objective_value(everywhere, rows) is None
        assert objective_value(everywhere, rows, is_partial=True) == 10.0
    bound = Constraint(metric="mean_tpot_ms", limit=15.0, is_upper=True)
    assert violations((bound,), [light, {**heavy, "mean_tpot_ms": None}]) is None


def test_load_point_that_cannot_have_metric_does_not_count() -> None:
    batch = {"mean_batch_latency_ms": 40.0, "mean_ttft_ms": None, "dataset": "latency"}
    served = {"mean_batch_latency_ms": None, "mean_ttft_ms": 8.0, "dataset": "sharegpt"}
    for metric, value in (("mean_batch_latency_ms", 40.0), ("mean_ttft_ms", 8.0)):
        assert objective_value(Objective(metric=metric, direction="minimize"), [batch, served]) == value
