"""What a plan counts is what the same command then runs: both through the command line, on the real store."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sweeper import cli

pytestmark = pytest.mark.usefixtures("without_report")

SEARCH = (
    *("platform=simulated", "executor=inline", "workload=random", "knobs.tensor_parallel_size=4"),
    *("workload.num_prompts=20", "workload.output_len=200", "space.knobs.max_num_seqs=[1,2,4,64,128]"),
)
RATES = (
    "workload.request_rate_per_s=[4,16,1000]",
    "objective=throughput_slo",
    "objective.ttft_slo.at_most=4000",
)
STOPS = (*RATES, "search.stops_early=true")
FINALS = ("search.finalists=1", "search.final_repeats=2")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    code = cli.main([*SEARCH, *arguments])
    told = capsys.readouterr()
    assert code in (cli.OK, cli.SOME_FAILED), told
    return " ".join((told.out + told.err).split())


def planned_now(told: str) -> int:
    """How many trials a plan says would run."""
    found = re.search(r"predicted on a real node: (\d+) trials?", told)
    return int(found[1]) if found else 0


def started_now(told: str) -> int:
    found = re.search(r"started now: (\d+)", told)
    assert found
    return int(found[1])


def test_trials_that_search_stopped_early_are_spent_in_plan_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    search = ("search.method=random", "search.trials=4", *STOPS)
    assert "skipped" in run(capsys, *search)
    told = run(capsys, *search, "plan=true")
    assert "4 trials, 4 of them in the store, 0 left" in told
    assert planned_now(told) == started_now(run(capsys, *search)) == 0


def test_trials_that_grid_stopped_early_do_not_run_again(capsys: pytest.CaptureFixture[str]) -> None:
    grid = ("search.method=grid", *STOPS)
    assert "skipped" in run(capsys, *grid)
    told = run(capsys, *grid, "plan=true")
    assert "stored: skipped" in told
    assert "runs again" not in told
    assert planned_now(told) == started_now(run(capsys, *grid)) == 0


def test_without_early_stops_they_run_again_in_both(capsys: pytest.CaptureFixture[str]) -> None:
    skipped = run(capsys, "search.method=grid", *STOPS).count("skipped [")
    whole = ("search.method=grid", *RATES, "search.stops_early=false")
    told = run(capsys, *whole, "plan=true")
    assert planned_now(told) == started_now(run(capsys, *whole)) == skipped > 0


@pytest.mark.parametrize("method", [("grid",), ("random", "search.trials=5"), ("tpe", "search.trials=3")])
def test_finalists_and_controls_that_are_stored_are_not_planned_again(
    capsys: pytest.CaptureFixture[str], method: tuple[str, ...]
) -> None:
    study = (f"search.method={method[0]}", *method[1:], *FINALS, "study.control=base")
    first = run(capsys, *study, "plan=true")
    assert planned_now(first) == started_now(run(capsys, *study))
    told = run(capsys, *study, "plan=true")
    assert planned_now(told) == started_now(run(capsys, *study)) == 0


def test_longer_search_plans_only_what_was_added(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "search.method=random", "search.trials=2", *FINALS)
    longer = ("search.method=random", "search.trials=4")
    told = run(capsys, *longer, "plan=true")
    assert planned_now(told) == started_now(run(capsys, *longer)) == 2


@pytest.mark.parametrize("method", [("grid",), ("random", "search.trials=5")])
def test_plan_of_a_study_that_has_reached_a_limit_begins_nothing(
    capsys: pytest.CaptureFixture[str], method: tuple[str, ...]
) -> None:
    first, *more = method
    # Nothing is a hundred times as good as another: the second trial is no improvement.
    study = (f"search.method={first}", *more, "search.min_improvement=99", "search.patience=1")
    reached = "search.min_improvement: none of the last "
    assert reached in run(capsys, *study)
    told = run(capsys, *study, "plan=true", "plan_json=plan.json")
    assert reached in told
    assert "is not begun" in told or first == "random"
    plan = json.loads(Path("plan.json").read_text(encoding="utf-8"))
    assert plan["ended_by"].startswith(reached)
    assert {point["what_happens"] for point in plan["points"]} <= {"stored", "not begun"}
    assert planned_now(told) == plan["totals"]["run"] == started_now(run(capsys, *study)) == 0
    # Without that limit the rest runs, as the plan says.
    whole = (f"search.method={first}", *more)
    told = run(capsys, *whole, "plan=true")
    assert planned_now(told) == started_now(run(capsys, *whole)) > 0
