"""What a plan would cost, and the file that its time-line is drawn from."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.plan.forecast import CSV_COLUMNS, forecast, write_csv
from sweeper.records import Model
from sweeper.schedule.durations import Predictor
from sweeper.schedule.scheduler import Scheduler
from tests.stand_ins import THREE_SERIES, planner_of_three_series


def test_two_trials_of_half_node_run_side_by_side(tmp_path: Path, llama_70b: Model) -> None:
    planner = planner_of_three_series(tmp_path, llama_70b)
    nodes = (planner.node,)
    found = forecast(planner.grid(), predictor=Predictor(), scheduler=Scheduler(nodes), nodes=nodes)
    durations = [prediction.total_s for prediction in found.predictions.values()]
    assert [span.start_s for span in found.spans] == [0, 0]
    assert found.makespan_s == max(durations)
    assert found.node_hours == pytest.approx(max(durations) / 3600)
    # Each holds half of the devices.
    assert found.idle_share == pytest.approx(1 - sum(durations) / 2 / max(durations))
    assert found.basis == "modelled"


def test_plan_on_modelled_node_lets_host_settings_run_alone_as_real_one_would(
    tmp_path: Path, llama_70b: Model
) -> None:
    planner = planner_of_three_series(tmp_path, llama_70b)
    tuned = replace(THREE_SERIES, base={**THREE_SERIES.base, "host_numa_balancing": False})
    nodes = (planner.node,)
    jobs = replace(planner, space=tuned).grid()
    found = forecast(jobs, predictor=Predictor(), scheduler=Scheduler(nodes), nodes=nodes)
    first, second = found.spans
    assert second.start_s == first.end_s
    # 4 of 8 devices all the time
    assert found.idle_share == pytest.approx(0.5)


def test_file_has_row_for_each_trial_and_device_and_for_each_idle_device(
    tmp_path: Path, llama_70b: Model
) -> None:
    planner = planner_of_three_series(tmp_path, llama_70b)
    nodes = (planner.node,)
    first = planner.grid()[:1]
    path = tmp_path / "new" / "plan.csv"
    write_csv(forecast(first, predictor=Predictor(), scheduler=Scheduler(nodes), nodes=nodes), path)
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert [row["device"] for row in rows] == [str(device) for device in range(8)]
    assert [bool(row["trial_key"]) for row in rows] == [True] * 4 + [False] * 4
    assert (rows[0]["start_s"], rows[0]["provenance"], rows[0]["basis"]) == ("0.0", "predicted", "modelled")
