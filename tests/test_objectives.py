"""Objectives: what a trial's rows come to, for the search and for the dashboard."""

from __future__ import annotations

from dataclasses import replace

from sweeper.objectives import measured_row, objective_value, trial_attributes
from sweeper.records import LoadPoint, Measurement, Objective, TrialSpec


def test_an_objective_is_the_mean_over_its_load_point() -> None:
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


def test_second_runs_count_neither_for_the_search_nor_on_the_dashboard(simulated_spec: TrialSpec) -> None:
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


def test_the_dashboard_shows_each_metric_at_each_load_point_that_measured_it(
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


def test_a_measurement_is_laid_out_with_the_rate_of_its_load_point() -> None:
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
        "keeps_prefix_cache": False,
    }
