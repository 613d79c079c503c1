"""Studies that end by themselves: on a limit, with finalists, with nothing to run or nothing that works."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna
import pandas as pd
import pytest

from sweeper import cli
from sweeper.goals.termination import Termination
from sweeper.plan.planner import Planner
from sweeper.records import (
    FailureClass,
    Model,
    Placement,
    TrialResult,
    TrialSpec,
    TrialState,
)
from sweeper.search import storage_url
from sweeper.space.domains import Choice, Range
from sweeper.space.space import Space
from sweeper.store.store import Store
from sweeper.sweep.sweep import Outcome
from tests.stand_ins import ScriptedExecutor, complete, failed, planner_of_three_series, sweep_of
from tests.sweep.test_sweep import Diary

BASE = {"tensor_parallel_size": 8, "max_model_len": 4096}
NUMBERS = Space(base=BASE, domains={"max_num_seqs": Range(low=1, high=512, is_int=True)})
FOUR = Space(base=BASE, domains={"max_num_seqs": Choice(values=(8, 16, 32, 64))})


@pytest.fixture
def planner(tmp_path: Path, llama_70b: Model) -> Planner:
    return replace(planner_of_three_series(tmp_path, llama_70b), space=NUMBERS)


def swept(
    planner: Planner,
    folder: Path,
    executor: ScriptedExecutor,
    *,
    method: str = "random",
    trials: int | None = 8,
    endings: Termination | None = None,
    clock: Callable[[], float] = lambda: 0.0,
    retry_failed: bool = False,
) -> Outcome:
    return sweep_of(
        planner,
        folder,
        executor,
        observer=Diary(),
        method=method,
        trials=trials,
        endings=endings or Termination(),
        clock=clock,
        retry_failed=retry_failed,
    )


def states_in_the_database(folder: Path) -> list[str]:
    study = optuna.load_study(study_name="test", storage=storage_url(folder))
    return sorted(trial.state.name for trial in study.get_trials())


def test_search_says_that_its_trials_are_spent(planner: Planner, tmp_path: Path) -> None:
    outcome = swept(planner, tmp_path, ScriptedExecutor(complete), trials=3)
    assert outcome.ended_by == "search.trials: 3 trials are spent"
    assert not outcome.was_stopped


def test_grid_says_that_every_point_has_its_result(planner: Planner, tmp_path: Path) -> None:
    grid = replace(planner, space=FOUR)
    outcome = swept(grid, tmp_path, ScriptedExecutor(complete), method="grid", trials=None)
    assert outcome.ended_by == "every point of the grid has its result"


def test_search_says_that_nothing_is_left_to_propose(planner: Planner, tmp_path: Path) -> None:
    outcome = swept(replace(planner, space=FOUR), tmp_path, ScriptedExecutor(complete), trials=100)
    assert outcome.states == {TrialState.COMPLETE: 4}
    assert outcome.ended_by == "the search proposes nothing that is not known"


def test_nothing_begins_after_hours_are_over_and_rest_runs_another_day(
    planner: Planner, tmp_path: Path
) -> None:
    grid = replace(planner, space=FOUR)
    executor = ScriptedExecutor(complete)
    # A trial is an hour: the third is running when two and a half are over.
    outcome = swept(
        grid,
        tmp_path,
        executor,
        method="grid",
        endings=Termination(max_hours=2.5),
        clock=lambda: 3600.0 * len(executor.specs),
    )
    assert outcome.ended_by == "search.max_hours: 2.5 hours are over"
    assert outcome.states == {TrialState.COMPLETE: 3}
    again = ScriptedExecutor(complete)
    assert swept(grid, tmp_path, again, method="grid").states == {TrialState.COMPLETE: 4}
    assert len(again.specs) == 1


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_proposal_that_waited_when_hours_were_over_runs_first_another_day(
    planner: Planner, tmp_path: Path, method: str
) -> None:
    space = Space(
        base={"max_model_len": 4096, "quantization": "fp8"},
        domains={"tensor_parallel_size": Choice(values=(4, 8)), "max_num_seqs": Choice(values=(8, 16))},
    )
    several = replace(planner, space=space)
    executor = ScriptedExecutor(complete)
    # Something runs on half of the node, and what is proposed next needs all of it, when the time is over.
    swept(
        several,
        tmp_path,
        executor,
        method=method,
        endings=Termination(max_hours=0.5),
        clock=lambda: 3600.0 * any(len(held) == 4 for held in executor.held),
    )
    assert states_in_the_database(tmp_path).count("WAITING") == 1
    again = ScriptedExecutor(complete)
    assert swept(several, tmp_path, again, method=method).states == {TrialState.COMPLETE: 4}
    assert again.specs[0].devices_wanted == 8
    # What was cut off stays in the study, and says nothing.
    assert states_in_the_database(tmp_path) == ["COMPLETE"] * 4 + ["FAIL"]


def test_node_hours_of_earlier_runs_count(planner: Planner, tmp_path: Path) -> None:
    def long(spec: TrialSpec, placement: Placement) -> TrialResult:
        return replace(complete(spec, placement), phases={"engine_start_s": 3599.0})

    endings = Termination(max_node_hours=2.0)
    outcome = swept(planner, tmp_path, ScriptedExecutor(long), endings=endings)
    # 3599 s of start and 1 s of load, on all devices of the node: an hour each.
    assert outcome.states == {TrialState.COMPLETE: 2}
    again = ScriptedExecutor(long)
    assert swept(planner, tmp_path, again, endings=endings).ended_by == (
        "search.max_node_hours: 2.00 of 2 are spent"
    )
    assert again.specs == []


def test_search_ends_when_nothing_better_comes(planner: Planner, tmp_path: Path) -> None:
    def all_alike(spec: TrialSpec, placement: Placement) -> TrialResult:
        return complete(replace(spec, assignment={**spec.assignment, "max_num_seqs": 10}), placement)

    def alike(spec: TrialSpec, placement: Placement) -> TrialResult:
        return replace(all_alike(spec, placement), spec=spec)

    endings = Termination(min_improvement=0.01, patience=3)
    outcome = swept(planner, tmp_path, ScriptedExecutor(alike), trials=50, endings=endings)
    assert outcome.states == {TrialState.COMPLETE: 4}
    assert outcome.ended_by.startswith("search.min_improvement: none of the last 3 trials")


@pytest.mark.parametrize("method", ["random", "grid"])
def test_what_failed_is_tried_again_before_nothing_better_can_be_said_to_come(
    planner: Planner, tmp_path: Path, method: str
) -> None:
    asked = planner if method == "random" else replace(planner, space=FOUR)
    endings = Termination(min_improvement=0.01, patience=3)

    def first_alone(spec: TrialSpec, placement: Placement) -> TrialResult:
        if executor.specs[0].key == spec.key:
            return complete(spec, placement)
        ended = failed(FailureClass.OUT_OF_MEMORY)(spec, placement)
        return replace(ended, started_at=time.time(), ended_at=time.time())

    executor = ScriptedExecutor(first_alone)
    outcome = swept(asked, tmp_path, executor, method=method, trials=50, endings=endings)
    assert outcome.states == {TrialState.COMPLETE: 1, TrialState.FAILED: 3}
    assert outcome.ended_by.startswith("search.min_improvement: ") or method == "grid"
    untouched = ScriptedExecutor(complete)
    swept(asked, tmp_path, untouched, method=method, trials=50, endings=endings)
    assert untouched.specs == []
    again = ScriptedExecutor(complete)
    swept(asked, tmp_path, again, method=method, trials=50, endings=endings, retry_failed=True)
    assert {spec.key for spec in again.specs[:3]} == {spec.key for spec in executor.specs[1:]}


def test_best_and_default_are_measured_again_in_rounds(planner: Planner, tmp_path: Path) -> None:
    grid = replace(planner, space=FOUR)
    executor = ScriptedExecutor(complete)
    endings = Termination(finalists=2, final_repeats=3)
    outcome = swept(grid, tmp_path, executor, method="grid", endings=endings)
    finals = [spec for spec in executor.specs if spec.final is not None]
    # Three rounds of the best two (64 and 32) and the default, which sets no max_num_seqs.
    assert [spec.final for spec in finals] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    orders = [[spec.assignment.get("max_num_seqs") for spec in finals[k : k + 3]] for k in (0, 3, 6)]
    assert all(set(order) == {64, 32, None} for order in orders)
    assert len({tuple(order) for order in orders}) > 1, "the order changes from round to round"
    assert len({spec.key for spec in finals}) == 9
    assert outcome.states == {TrialState.COMPLETE: 4 + 9}
    frame = Store(tmp_path / "test").read()
    assert frame["role"].fillna("").value_counts().to_dict() == {"finalist": 6, "": 4, "default": 3}
    again = ScriptedExecutor(complete)
    swept(grid, tmp_path, again, method="grid", endings=endings)
    assert again.specs == []


def test_search_that_goes_on_knows_its_finalists_and_spends_nothing_on_them(
    planner: Planner, tmp_path: Path
) -> None:
    swept(planner, tmp_path, ScriptedExecutor(complete), trials=4)
    executor = ScriptedExecutor(complete)
    outcome = swept(planner, tmp_path, executor, trials=4, endings=Termination(finalists=1, final_repeats=2))
    assert len(executor.specs) == 4
    assert all(spec.final is not None for spec in executor.specs)
    best = max(int(seqs) for seqs in Store(tmp_path / "test").read()["knob.max_num_seqs"].dropna())
    assert {spec.assignment.get("max_num_seqs") for spec in executor.specs} == {best, None}
    more = ScriptedExecutor(complete)
    outcome = swept(planner, tmp_path, more, trials=6)
    assert len(more.specs) == 2
    assert outcome.ended_by == "search.trials: 6 trials are spent"


def test_what_was_stopped_early_is_spent_pruned_and_not_proposed_again(
    planner: Planner, tmp_path: Path
) -> None:
    def hopeless(spec: TrialSpec, placement: Placement) -> TrialResult:
        assert spec.stop_rule is not None
        whole = complete(spec, placement)
        if not spec.stop_rule.incumbents:
            return whole
        return replace(whole, state=TrialState.SKIPPED, failure_message="cannot win")

    executor = ScriptedExecutor(hopeless)
    two = replace(planner, space=FOUR)
    outcome = swept(two, tmp_path, executor, trials=4, endings=Termination(stop_margin=0.05))
    assert outcome.states == {TrialState.COMPLETE: 1, TrialState.SKIPPED: 3}
    assert outcome.failures == ()
    assert states_in_the_database(tmp_path) == ["COMPLETE", "PRUNED", "PRUNED", "PRUNED"]
    again = ScriptedExecutor(hopeless)
    swept(two, tmp_path, again, trials=4, endings=Termination(stop_margin=0.05))
    assert again.specs == []


def test_grid_measures_what_search_had_stopped_early(planner: Planner, tmp_path: Path) -> None:
    def hopeless(spec: TrialSpec, placement: Placement) -> TrialResult:
        return replace(complete(spec, placement), state=TrialState.SKIPPED, failure_message="cannot win")

    grid = replace(planner, space=FOUR)
    early = Termination(stop_margin=0.05)
    first = swept(grid, tmp_path, ScriptedExecutor(hopeless), method="grid", endings=early)
    assert first.states == {TrialState.SKIPPED: 4}
    whole = ScriptedExecutor(complete)
    assert swept(grid, tmp_path, whole, method="grid").states == {TrialState.COMPLETE: 4}
    # A grid has a place in its charts for every load point.
    assert {(spec.attempt, spec.stop_rule) for spec in whole.specs} == {(2, None)}


def test_search_of_failures_ends_with_its_budget(planner: Planner, tmp_path: Path) -> None:
    executor = ScriptedExecutor(failed(FailureClass.CRASH))
    endings = Termination(finalists=2, min_improvement=0.01, stop_margin=0.05)
    outcome = swept(planner, tmp_path, executor, trials=5, endings=endings)
    assert outcome.states == {TrialState.FAILED: 5}
    assert outcome.ended_by == "search.trials: 5 trials are spent"


# ---- the program as a user meets it ----

SMALL = (
    "platform=simulated",
    "executor=inline",
    "workload=random",
    "workload.num_prompts=8",
    "knobs.max_model_len=8192",
    "study.name=mine",
)


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str]:
        code = cli.main([*SMALL, *arguments])
        told = capsys.readouterr()
        assert "Traceback" not in told.out + told.err
        return code, told.out + told.err

    return run


def test_grid_ends_complete_with_exit_code_0(run: Callable[..., tuple[int, str]]) -> None:
    code, told = run("knobs.tensor_parallel_size=4", "space.knobs.max_num_seqs=1,64")
    assert code == cli.OK
    assert "trials: 2 complete; started now: 2" in told
    assert "ended: every point of the grid has its result" in told


@pytest.mark.parametrize("search", [(), ("search=random", "search.trials=5")], ids=["grid", "search"])
def test_study_of_which_nothing_can_run_ends_with_exit_code_3(
    run: Callable[..., tuple[int, str]], search: tuple[str, ...]
) -> None:
    # The node has eight devices.
    code, told = run("space.knobs.tensor_parallel_size=16,32", *search)
    assert code == cli.NOTHING_COMPLETE
    assert "trials: 2 infeasible; started now: 0" in told
    assert "ended: " in told


@pytest.mark.parametrize("search", [(), ("search=random", "search.trials=2")], ids=["grid", "search"])
def test_study_of_which_everything_fails_ends_with_exit_code_3(
    run: Callable[..., tuple[int, str]], search: tuple[str, ...]
) -> None:
    # The engine takes as many tokens as its device has room for, which are fewer than the client sends.
    code, told = run(
        "platform.partition_mode=CPX",
        "platform.memory_mode=NPS4",
        "engine.release=0.32.0",
        "model=llama_3_1_8b_instruct",
        "knobs.max_model_len=-1",
        "workload.input_len=100000",
        "workload.output_len=8",
        "space.knobs.max_num_seqs=1,64",
        *search,
    )
    assert code == cli.NOTHING_COMPLETE
    assert "trials: 2 failed; started now: 2" in told
    assert "once the cause is mended, retry_failed=true runs it again." in told
    assert "ended: " in told


def test_search_with_finalists_ends_with_verdict_and_line_for_production(
    run: Callable[..., tuple[int, str]],
) -> None:
    code, told = run(
        "knobs.tensor_parallel_size=4",
        "space.knobs.max_num_seqs=1,2,64",
        "search=random",
        "search.trials=3",
        "search.finalists=1",
        "search.final_repeats=3",
        "calibration.restart_noise=0.01",
    )
    assert code == cli.OK
    frame = pd.read_parquet("outputs/mine/measurements")
    roles = frame.drop_duplicates("trial_key")["role"].fillna("").value_counts().to_dict()
    assert roles == {"": 3, "finalist": 3, "default": 3}
    assert "request_throughput_per_s: recommended is " in told
    assert "against the default" in Path("outputs/mine/report.md").read_text(encoding="utf-8")


def test_limits_are_checked_before_anything_runs(run: Callable[..., tuple[int, str]]) -> None:
    for key, said in (
        ("search.max_hours=0", "search.max_hours: is 0.0; expected a number above 0."),
        ("search.stop_margin=1.5", "search.stop_margin: is 1.5; expected a share, 0 <= margin < 1"),
        ("search.finalists=-1", "search.finalists: is -1; expected 0 or more."),
    ):
        code, told = run("space.knobs.max_num_seqs=1,2", key)
        assert code == cli.MISTAKE
        assert said in told
