"""Where the repetitions of the control setting stand, and which setting it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper import cli, search
from sweeper.errors import ConfigError
from sweeper.plan.planner import Planner
from sweeper.records import Model, Objective, Placement, TrialResult, TrialSpec, TrialState
from sweeper.schedule.occupancy import Entry
from sweeper.schedule.scheduler import Scheduler
from sweeper.space import control
from sweeper.store.store import Store
from sweeper.sweep.ledger import Ledger
from sweeper.sweep.sweep import Outcome, Sweep
from sweeper.sweep.terms import Terms
from tests.stand_ins import THREE_SERIES, ScriptedExecutor, complete, planner_of_three_series


def test_control_stands_at_start_in_middle_and_at_end() -> None:
    assert control.positions(9, every=None) == (0, 4, 9)
    assert control.positions(1, every=None) == (0, 1)


def test_control_stands_after_every_so_many_trials_and_at_end() -> None:
    assert control.positions(7, every=3) == (0, 3, 6, 7)
    assert control.positions(6, every=3) == (0, 3, 6)


def test_series_or_base_is_control_and_nothing_else() -> None:
    assert control.point_of(THREE_SERIES, "small").assignment["max_num_seqs"] == 4
    assert "max_num_seqs" not in control.point_of(THREE_SERIES, control.BASE).assignment
    with pytest.raises(
        ConfigError, match=r"study.control: 'tiny' is no setting of this study; expected small,"
    ):
        control.point_of(THREE_SERIES, "tiny")


@pytest.fixture
def planner(tmp_path: Path, llama_70b: Model) -> Planner:
    return replace(planner_of_three_series(tmp_path, llama_70b), control="small")


class Nobody:
    """An observer that looks away."""

    def planned(self, *, total: int | None, done: int, refused: int) -> None: ...

    def started(self, spec: TrialSpec, placement: Placement) -> None: ...

    def finished(self, result: TrialResult, *, will_retry: bool) -> None: ...

    def tick(self) -> None: ...


def swept(
    planner: Planner,
    folder: Path,
    executor: ScriptedExecutor,
    *,
    method: str = "grid",
    trials: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    objective = Objective(metric="request_throughput_per_s", direction="maximize")
    memory = search.Search(
        storage=search.storage_url(folder),
        name="test",
        space=planner.space,
        objectives=(objective,),
        method=method,
        seed=1,
    )
    return Sweep(
        planner=planner,
        search=memory,
        ledger=Ledger(
            Store(folder / "test"), planner, Terms(objectives=(objective,), method=method, trials=trials)
        ),
        executor=executor,
        scheduler=Scheduler((planner.node,), max_parallel=1),
        observer=Nobody(),
    ).run(stop=stop)


def test_control_is_measured_first_between_and_last(planner: Planner, tmp_path: Path) -> None:
    executor = ScriptedExecutor(complete)
    outcome = swept(planner, tmp_path, executor)
    assert [spec.control for spec in executor.specs] == [0, None, 1, None, 2]
    assert {spec.assignment["max_num_seqs"] for spec in executor.specs if spec.control is not None} == {4}
    assert len({spec.key for spec in executor.specs}) == 5, "repetitions are trials of their own"
    assert outcome.states == {TrialState.COMPLETE: 5}
    frame = Store(tmp_path / "test").read()
    assert sorted(frame["role"].fillna("")) == ["", "", "control", "control", "control"]


def test_study_that_was_cut_off_repeats_no_control_that_it_has(planner: Planner, tmp_path: Path) -> None:
    first = ScriptedExecutor(complete)
    swept(planner, tmp_path, first, stop=lambda: len(first.specs) >= 3)
    again = ScriptedExecutor(complete)
    swept(planner, tmp_path, again)
    done = [spec.key for spec in first.specs[:2]]
    assert 0 < len(again.specs) < 5
    assert not {spec.key for spec in again.specs} & set(done)
    assert len(Store(tmp_path / "test").finished()) == 5


def test_search_spends_its_budget_on_other_trials(planner: Planner, tmp_path: Path) -> None:
    executor = ScriptedExecutor(complete)
    swept(planner, tmp_path, executor, method="random", trials=2)
    assert sorted(spec.control for spec in executor.specs if spec.control is not None) == [0, 1, 2]
    assert sum(spec.control is None for spec in executor.specs) == 2


def test_repetition_is_one_engine_start_with_folder_of_its_own(
    planner: Planner,
) -> None:
    assert replace(planner, control=None).controls(10) == []
    (_, first), *_ = planner.controls(10)
    assert (first.spec.repeats, first.points) == (1, ())
    assert first.spec.label == "control 1 (small)"
    assert first.spec.folder.endswith(first.spec.key)


def test_control_whose_time_has_come_starts_before_longer_trials_that_wait(planner: Planner) -> None:
    scheduler = Scheduler((planner.node,), max_parallel=1)
    scheduler.add(Entry(key="long", devices=8, predicted_s=900.0))
    scheduler.add(Entry(key="control", devices=1, predicted_s=10.0, is_next=True))
    ((first, _),) = scheduler.start(now_s=0.0)
    assert first.key == "control"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            ["study.control=nobody"],
            "study.control: 'nobody' is no setting of this study; expected default, ",
        ),
        (
            ["study.control=default", "study.control_every=0"],
            "study.control_every: is 0; expected ",
        ),
        (
            ["study.control_every=3"],
            "study.control_every: is given, and study.control is not; expected a setting to repeat.",
        ),
    ],
)
def test_control_that_makes_no_sense_is_refused_in_one_sentence(
    overrides: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code = cli.main(["+experiment=case2_sched_steps", "platform=simulated", *overrides])
    shown = capsys.readouterr().err
    assert code not in (cli.OK, None)
    assert told in " ".join(shown.split())
    assert "Traceback" not in shown


def test_plan_shows_repetitions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["+experiment=case2_sched_steps", "platform=simulated", "plan=true", "study.control=default"]
    assert cli.main(words) == cli.OK
    shown = capsys.readouterr().out
    assert all(f"control {number}" in shown for number in (1, 2, 3))
