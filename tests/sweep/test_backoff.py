"""How long a repetition waits, and devices on which there was trouble."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sweeper.executors import Ticket
from sweeper.plan.planner import Planner
from sweeper.records import FailureClass, Model, Placement, TrialResult, TrialSpec, TrialState
from sweeper.schedule.scheduler import Scheduler
from sweeper.space.domains import Choice
from sweeper.space.space import Space
from sweeper.sweep.sweep import Outcome
from tests.stand_ins import (
    THREE_SERIES,
    ScriptedExecutor,
    complete,
    failed,
    planner_of_three_series,
    sweep_of,
)
from tests.sweep.test_sweep import Diary

PAUSE_S = 10.0


@dataclass(frozen=True)
class Start:
    at_s: float
    setting: int
    attempt: int
    devices: tuple[int, ...]


class Timed(ScriptedExecutor):
    """Runs trials in no time; a second goes by whenever there is nothing to wait for."""

    def __init__(self, script: Callable[[TrialSpec, Placement], TrialResult]) -> None:
        super().__init__(script)
        self.now_s = 0.0
        self.starts: list[Start] = []

    def submit(self, spec: TrialSpec, placement: Placement) -> Ticket:
        setting = int(spec.assignment["max_num_seqs"])
        self.starts.append(Start(self.now_s, setting, spec.attempt, placement.devices))
        return super().submit(spec, placement)

    def wait(self, timeout_s: float) -> list[tuple[Ticket, TrialResult]]:
        results = super().wait(timeout_s)
        self.now_s += not results
        return results


@pytest.fixture
def planner(tmp_path: Path, llama_70b: Model) -> Planner:
    return planner_of_three_series(tmp_path, llama_70b)


def swept(
    planner: Planner,
    folder: Path,
    executor: Timed,
    *,
    max_attempts: int = 3,
    method: str = "grid",
    trials: int | None = None,
) -> Outcome:
    return sweep_of(
        planner,
        folder,
        executor,
        observer=Diary(),
        method=method,
        trials=trials,
        scheduler=Scheduler((planner.node,), order="as_written"),
        max_attempts=max_attempts,
        first_pause_s=PAUSE_S,
        clock=lambda: executor.now_s,
    )


def of_one_series(planner: Planner, **knobs: int) -> Planner:
    series = THREE_SERIES.series[0]
    one = replace(series, knobs={**series.knobs, **knobs})
    return replace(planner, space=replace(THREE_SERIES, series=(one,)))


def test_repetition_waits_and_next_one_twice_as_long(planner: Planner, tmp_path: Path) -> None:
    executor = Timed(failed(FailureClass.PORT))
    outcome = swept(of_one_series(planner), tmp_path, executor)
    assert [start.attempt for start in executor.starts] == [1, 2, 3]
    first, second, third = (start.at_s for start in executor.starts)
    assert second - first == pytest.approx(PAUSE_S, abs=1)
    assert third - second == pytest.approx(2 * PAUSE_S, abs=1)
    assert outcome.states == {TrialState.FAILED: 1}
    assert not outcome.was_stopped


def test_devices_with_trouble_are_left_alone_and_others_serve_meanwhile(
    planner: Planner, tmp_path: Path
) -> None:
    def troubled(spec: TrialSpec, placement: Placement) -> TrialResult:
        is_first = spec.attempt == 1 and spec.assignment["max_num_seqs"] == 4
        script = failed(FailureClass.INFRASTRUCTURE) if is_first else complete
        return script(spec, placement)

    executor = Timed(troubled)
    whole = replace(THREE_SERIES, base={**THREE_SERIES.base, "tensor_parallel_size": 4})
    outcome = swept(replace(planner, space=whole), tmp_path, executor)
    assert outcome.states == {TrialState.COMPLETE: 2}
    first, other, again = executor.starts
    assert (first.setting, other.setting, again.setting) == (4, 64, 4)
    assert set(first.devices).isdisjoint(other.devices)
    assert other.at_s < again.at_s
    assert again.at_s - first.at_s == pytest.approx(PAUSE_S, abs=1)


def test_trial_waits_for_only_devices_after_trouble_that_is_not_repeated(
    planner: Planner, tmp_path: Path
) -> None:
    def troubled(spec: TrialSpec, placement: Placement) -> TrialResult:
        is_small = spec.assignment["max_num_seqs"] == 4
        return (failed(FailureClass.INFRASTRUCTURE) if is_small else complete)(spec, placement)

    executor = Timed(troubled)
    whole = replace(THREE_SERIES, base={**THREE_SERIES.base, "tensor_parallel_size": 8})
    outcome = swept(replace(planner, space=whole), tmp_path, executor, max_attempts=1)
    assert outcome.states == {TrialState.FAILED: 1, TrialState.COMPLETE: 1}
    first, other = executor.starts
    assert other.at_s - first.at_s == pytest.approx(PAUSE_S, abs=1)


def test_failure_of_engine_holds_nobody_up(planner: Planner, tmp_path: Path) -> None:
    executor = Timed(failed(FailureClass.OUT_OF_MEMORY))
    outcome = swept(planner, tmp_path, executor)
    assert outcome.states == {TrialState.FAILED: 2}
    assert {start.at_s for start in executor.starts} == {0.0}
    assert executor.now_s < PAUSE_S


def test_search_asks_on_when_only_devices_have_rested(planner: Planner, tmp_path: Path) -> None:
    executor = Timed(failed(FailureClass.INFRASTRUCTURE))
    wide = Space(base={"tensor_parallel_size": 8}, domains={"max_num_seqs": Choice(values=(8, 16, 32))})
    searched = replace(planner, space=wide)
    outcome = swept(searched, tmp_path, executor, max_attempts=1, method="random", trials=3)
    assert outcome.states == {TrialState.FAILED: 3}
    times = [start.at_s for start in executor.starts]
    assert [later - earlier for earlier, later in itertools.pairwise(times)] == pytest.approx(
        [PAUSE_S, PAUSE_S], abs=1
    )
    # Nothing waits for the last pause, after which nothing would run.
    assert executor.now_s < times[-1] + PAUSE_S
