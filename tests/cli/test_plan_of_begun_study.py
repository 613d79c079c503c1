"""A plan of a study that has begun refuses what its run refuses, in the same words, and touches nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper import cli

pytestmark = pytest.mark.usefixtures("without_report")

GRID = (
    *("platform=simulated", "executor=inline", "workload=random", "workload.num_prompts=20"),
    *("knobs.tensor_parallel_size=4", "study.name=mine", "space.knobs.max_num_seqs=[8,16]"),
)
SEARCH = (*GRID, "search=guided", "search.trials=1")
OTHER_GOAL = (
    "objective.throughput.metric=mean_tpot_ms",
    "objective.throughput.direction=minimize",
)
OTHER_BOUND = ("objective.latency={metric: p99_ttft_ms, at_most: 90000}",)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def everything() -> dict[str, bytes]:
    files = (path for path in Path("outputs").rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("begun", "changed", "message"),
    [
        (SEARCH, ("space.knobs.max_num_seqs=[8,32]",), "was started with another space of knobs"),
        (SEARCH, ("space.rules=['max_num_seqs < 99']",), "was started with the space.rules none, now"),
        (SEARCH, ("knobs.max_model_len=8192",), "it measured 1 trial, none of them as its settings are"),
        (SEARCH, ("engine.release=0.9.2",), "it measured 1 trial, none of them as its settings are"),
        (SEARCH, ("repeats=2",), "it measured 1 trial, none of them as its settings are"),
        (SEARCH, OTHER_GOAL, "was started with the objectives"),
        (SEARCH, OTHER_BOUND, "was started with the constraints none, now"),
        (GRID, OTHER_GOAL, "was started with the objectives"),
        (GRID, OTHER_BOUND, "was started with the constraints none, now"),
        (GRID, ("study.results=elsewhere",), "the study keeps its results in"),
    ],
    ids=[
        *("space", "rules", "fixed knob", "release", "repeats", "goal"),
        "bound",
        "goal of a grid",
        "bound of a grid",
        "results",
    ],
)
def test_what_has_changed_since_is_refused_by_the_plan_as_by_the_run(
    begun: tuple[str, ...], changed: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(begun) == cli.OK
    before = everything()
    capsys.readouterr()
    assert cli.main([*begun, *changed, "plan=true"]) == cli.MISTAKE
    planned = capsys.readouterr().err
    assert message in planned
    assert cli.main([*begun, *changed]) == cli.MISTAKE
    assert capsys.readouterr().err == planned
    # Neither of the two has touched the study: it still says what its trials were measured for.
    assert everything() == before


def test_what_a_run_goes_on_with_is_planned(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*GRID, "plan=true"]) == cli.OK
    assert not Path("outputs").exists()
    assert cli.main(GRID) == cli.OK
    before = everything()
    # A grid learns nothing from its past: its space may change, and a search may spend more.
    for more in (("space.knobs.max_num_seqs=[8,32]",), ("study.name=another",)):
        assert cli.main([*GRID, *more, "plan=true"]) == cli.OK
    assert everything() == before


def test_plan_goes_on_where_the_database_cannot_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(GRID) == cli.OK
    Path("outputs/optuna.db").write_bytes(b"no database " * 99)
    capsys.readouterr()
    assert cli.main([*GRID, "plan=true"]) == cli.OK
    told = capsys.readouterr().out
    assert "not compared with the study's past: sqlite:///" in told
    assert "cannot be opened as an Optuna study database" in told
    assert cli.main(GRID) == cli.AT_RISK


def test_search_plans_and_runs_again_what_failed_when_it_is_asked_to(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = (*GRID, "search=guided", "search.trials=2", "space.knobs.max_num_seqs=[8]")
    words = (*words, "space.knobs.dtype=[bfloat16,float32]")
    assert cli.main(words) == cli.SOME_FAILED
    told = capsys.readouterr().out
    assert "1 complete, 1 failed; started now: 2" in told
    assert "retry_failed=true runs it again" in " ".join(told.split())
    assert cli.main([*words, "plan=true"]) == cli.SOME_FAILED
    assert "without a result" not in capsys.readouterr().out
    assert cli.main([*words, "plan=true", "retry_failed=true"]) == cli.OK
    told = " ".join(capsys.readouterr().out.split())
    assert "2 trials, 2 of them in the store, 0 left; 1 trial without a result will be run again" in told
    assert cli.main([*words, "retry_failed=true"]) == cli.SOME_FAILED
    assert "1 complete, 1 failed; started now: 1" in capsys.readouterr().out
