"""A plan as JSON: what it says is what the tables say, and what the study then does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sweeper import cli

pytestmark = pytest.mark.usefixtures("without_report")

GRID = (
    *("platform=simulated", "executor=inline", "workload=random", "workload.num_prompts=20"),
    *("knobs.tensor_parallel_size=4", "study.name=mine", "workload.request_rate_per_s=[2,null]"),
    "space.knobs.max_num_seqs=[8,16,32]",
)
SEARCH = (*GRID, "search=guided", "search.trials=2")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert cli.main([*words, "plan=true", "plan_json=-"]) == cli.OK
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def stored() -> pd.DataFrame:
    return pd.read_parquet("outputs/mine/measurements")


def test_plan_alone_is_on_standard_output_and_what_people_read_beside_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main([*GRID, "plan=true", "plan_json=-"]) == cli.OK
    told = capsys.readouterr()
    assert json.loads(told.out)["study"] == "mine"
    assert "platform: simulated: asked for" in told.err
    assert "plan of mine: nothing is started" in told.err


def test_file_holds_the_same_plan_and_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    alone = planned(capsys, *GRID)
    assert cli.main([*GRID, "plan=true", "plan_json=plans/mine.json"]) == cli.OK
    assert "plan: plans/mine.json" in capsys.readouterr().out
    assert json.loads(Path("plans/mine.json").read_text()) == alone


def test_numbers_expected_on_the_simulated_platform_are_those_that_its_trials_store(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan = planned(capsys, *GRID)
    assert cli.main(GRID) == cli.OK
    rows = stored()
    assert sorted(point["trial_key"] for point in plan["points"]) == sorted(rows["trial_key"].unique())
    for point in plan["points"]:
        own = rows[rows["trial_key"] == point["trial_key"]]
        by_load = {
            "all at once" if pd.isna(row["request_rate_per_s"]) else "2 QPS": row for _, row in own.iterrows()
        }
        assert {one["load_point"] for one in point["expected"]} == set(by_load)
        for one in point["expected"]:
            row = by_load[one["load_point"]]
            assert one["value"] == pytest.approx(row[one["metric"]])
            assert [one["low_80"], one["high_80"]] == json.loads(row["interval_80"])[one["metric"]]


def test_placements_and_cost_are_those_of_the_time_line_and_the_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = (*GRID, "study.price_per_gpu_hour=2.5", "study.currency=EUR")
    plan = planned(capsys, *words, "plan_csv=plan.csv")
    line = pd.read_csv("plan.csv").dropna(subset=["trial_key"])
    for point in plan["points"]:
        held = line[line["trial_key"] == point["trial_key"]]
        assert point["placement"]["devices"] == sorted(held["device"])
        assert round(point["placement"]["start_s"], 1) == held["start_s"].iloc[0]
        assert round(point["placement"]["end_s"], 1) == held["end_s"].iloc[0]
    forecast = plan["forecast"]
    assert forecast["makespan_s"] == pytest.approx(line["end_s"].max(), abs=0.1)
    # 8 GPUs of one node for the makespan, idle ones included
    assert forecast["cost"] == pytest.approx(forecast["makespan_s"] / 3600 * 8 * 2.5)
    assert forecast["currency"] == "EUR"


def test_refused_and_stored_trials_say_so_and_cost_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    # More devices than a node of 8 has, and a combination that is no point.
    words = (
        *(*GRID, "space.knobs.tensor_parallel_size=[4,16]", "space.knobs.max_num_seqs=[8,16]"),
        "space.rules=['max_num_seqs != 16 or tensor_parallel_size != 16']",
    )
    fresh = planned(capsys, *words)
    assert {
        (point["knobs"]["tensor_parallel_size"], point["knobs"]["max_num_seqs"]): point["what_happens"]
        for point in fresh["points"]
    } == {(4, 8): "runs", (4, 16): "runs", (16, 8): "refused"}
    (refused,) = [point for point in fresh["points"] if point["what_happens"] == "refused"]
    assert refused["placement"] is None and refused["predicted_s"] is None and not refused["expected"]
    told = {one["reason"]: one["count"] for one in fresh["left_out"]["points"]}
    assert told.pop(refused["refusal"]["reason"]) == 1
    (rule,) = told
    assert "max_num_seqs != 16 or tensor_parallel_size != 16" in rule and told[rule] == 1
    assert cli.main(words) == cli.OK
    capsys.readouterr()
    again = planned(capsys, *words)
    assert {(point["what_happens"], point["stored_state"]) for point in again["points"]} == {
        ("stored", "complete"),
        ("refused", "infeasible"),
    }
    assert again["forecast"] is None
    assert again["totals"] == {
        **{"listed": 3, "run": 0, "refused": 1, "stored": 2},
        **{"in_store": 3, "space": None},
    }


def test_search_lists_as_many_points_as_are_left_and_describes_its_space(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan = planned(capsys, *SEARCH, "space.rules=['max_num_seqs != 16']")
    assert plan["search"] == {"method": "guided", "seed": 0, "trials": 2, "spent": 0}
    assert plan["totals"]["space"] == {"combinations": 3, "looked_at": 3, "is_whole": True, "can_run": 2}
    assert len(plan["points"]) == 2 and all(point["expected"] for point in plan["points"])
    assert [one["count"] for one in plan["left_out"]["points"]] == [1]
    assert plan["forecast"]["trials"] == 2


def test_grid_that_is_too_large_is_described_and_not_listed(capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(capsys, *GRID, "search.grid_limit=2")
    assert plan["points"] == [] and plan["totals"]["listed"] == 0
    assert plan["totals"]["space"]["combinations"] == 3
    assert plan["forecast"]["trials"] == 3


TOO_WIDE = (*GRID, "knobs.tensor_parallel_size=16")
RULED_OUT = (*SEARCH, "space.rules=['max_num_seqs > 100']")


@pytest.mark.parametrize(
    "words",
    [
        TOO_WIDE,
        (*TOO_WIDE, "search=random", "search.trials=2"),
        (*TOO_WIDE, "search=guided", "search.trials=2"),
        RULED_OUT,
    ],
    ids=["grid", "search", "guided", "rules"],
)
def test_plan_in_which_no_trial_can_run_ends_as_its_study_does(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    planned_code = cli.main([*words, "plan=true", "plan_json=-"])
    told = capsys.readouterr()
    plan = json.loads(told.out)
    assert planned_code == plan["exit_code"] == cli.NOTHING_COMPLETE
    assert plan["nothing_runs"].startswith(
        "no trial can run: every setting is refused, for the reasons above"
    )
    assert f"result: {plan['nothing_runs']}" in told.err
    assert cli.main(words) == planned_code
    # and again once the study's refusals are recorded
    assert cli.main([*words, "plan=true"]) == planned_code


def test_plan_of_large_space_says_that_it_looked_at_a_part_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    domain = "space.knobs.max_num_batched_tokens={low: 1, high: 9999}"
    words = (*TOO_WIDE, "search=random", "search.trials=2", domain)
    assert cli.main([*words, "plan=true", "plan_json=-"]) == cli.NOTHING_COMPLETE
    plan = json.loads(capsys.readouterr().out)
    looked_at = plan["totals"]["space"]["looked_at"]
    assert f"all of {looked_at:,} settings drawn at random are refused" in plan["nothing_runs"]


def test_plan_counts_the_points_that_a_search_begins_with(capsys: pytest.CaptureFixture[str]) -> None:
    # Of a million values one keeps the rule; two thousand drawn at random miss it, the given start is it.
    words = (
        *(*GRID, "search=guided", "search.trials=2", "space.rules=['max_num_batched_tokens == 600011']"),
        "space.knobs.max_num_batched_tokens={low: 1, high: 1000000}",
        "search.start=[{max_num_batched_tokens: 600011}]",
    )
    plan = planned(capsys, *words)
    assert plan["totals"]["space"]["can_run"] == 0
    assert plan["exit_code"] == cli.OK and plan["nothing_runs"] is None
    assert [point["knobs"]["max_num_batched_tokens"] for point in plan["points"]] == [600011]


def test_finished_study_plans_no_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(GRID) == cli.OK
    capsys.readouterr()
    plan = planned(capsys, *GRID)
    assert plan["totals"]["run"] == 0
    assert plan["exit_code"] == cli.OK and plan["nothing_runs"] is None
