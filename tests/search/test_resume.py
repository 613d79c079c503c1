"""A search that is killed with kill -9 goes on with what it knew: real processes, a real study and store."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState as Told

from sweeper.executors import Ticket
from sweeper.plan.planner import Planner
from sweeper.records import FailureClass, Model, Objective, Placement, TrialResult, TrialSpec
from sweeper.schedule.scheduler import Scheduler
from sweeper.search import Hints, Search, storage_url
from sweeper.space.domains import Choice, Range
from sweeper.space.space import Space
from sweeper.store.store import Store
from sweeper.sweep.ledger import Ledger
from sweeper.sweep.sweep import Outcome, Sweep
from sweeper.sweep.terms import Terms
from tests.stand_ins import ScriptedExecutor, complete, failed, planner_of_three_series

BUDGET = 10
SPACE = Space(
    base={"tensor_parallel_size": 4, "max_model_len": 4096},
    domains={
        "max_num_seqs": Range(low=1, high=512, is_int=True),
        "enable_chunked_prefill": Choice(values=(False, True)),
    },
)
START = {"max_num_seqs": 256, "enable_chunked_prefill": False}
FORK = multiprocessing.get_context("fork")
"""A driver that is a fork of this process needs no second to import what it works with."""


class QuietObserver:
    def planned(self, **_: object) -> None:
        pass

    def started(self, *_: object) -> None:
        pass

    def finished(self, *_: object, **__: object) -> None:
        pass

    def tick(self) -> None:
        pass


class SlowExecutor(ScriptedExecutor):
    """Takes a moment for each trial, so that there is something to be killed in the midst of."""

    def wait(self, timeout_s: float) -> list[tuple[Ticket, TrialResult]]:
        time.sleep(0.01)
        return super().wait(timeout_s)


class DyingStore(Store):
    """Its driver is killed when the third trial was stored, before the search is told of it."""

    kept = 0

    def keep(self, *arguments: Any, **more: Any) -> TrialResult:
        stored = super().keep(*arguments, **more)
        self.kept += 1
        if self.kept == 3:
            die()
        return stored


class DyingSearch(Search):
    """Its driver is killed in the midst of telling: all is said of the third trial but how it ended."""

    told = 0

    def tell(self, number: int, *arguments: Any, **more: Any) -> None:
        self.told += 1
        if self.told == 3:
            die()
        super().tell(number, *arguments, **more)


class DyingExecutor(SlowExecutor):
    """Its driver is killed while the third trial and the fourth run."""

    def wait(self, timeout_s: float) -> list[tuple[Ticket, TrialResult]]:
        if len(self.specs) >= 4:
            die()
        return super().wait(timeout_s)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def drive(
    planner: Planner,
    folder: Path,
    *,
    search_kind: type[Search] = Search,
    store_kind: type[Store] = Store,
    executor: ScriptedExecutor | None = None,
    budget: int = BUDGET,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    objective = Objective(metric="request_throughput_per_s", direction="maximize")
    search = search_kind(
        storage=storage_url(folder),
        name="test",
        space=SPACE,
        objectives=[objective],
        method="tpe",
        seed=0,
        hints=Hints(defaults=START),
    )
    with closing(search):
        sweep = Sweep(
            planner=planner,
            search=search,
            ledger=Ledger(
                store_kind(folder / "test"),
                planner,
                Terms(objectives=[objective], method="tpe", trials=budget),
            ),
            executor=executor or SlowExecutor(complete),
            scheduler=Scheduler((planner.node,)),
            observer=QuietObserver(),
        )
        return sweep.run(stop=stop)


@pytest.fixture
def planner(tmp_path: Path, llama_70b: Model) -> Planner:
    return replace(planner_of_three_series(tmp_path, llama_70b), space=SPACE)


def run_and_kill(
    planner: Planner, folder: Path, *, when: Callable[[BaseProcess], None] | None = None, **kinds: Any
) -> int:
    """Drive in a process of its own, kill it when that returns, and give its exit code."""
    driver = FORK.Process(target=drive, args=(planner, folder), kwargs=kinds)
    driver.start()
    if when is not None:
        when(driver)
        driver.kill()
    driver.join()
    assert driver.exitcode is not None
    return driver.exitcode


def a_moment(folder: Path, moments: random.Random) -> Callable[[BaseProcess], None]:
    """Wait for some more trials to be stored, and then for a random part of the next one's time."""
    parts = folder / "test" / "measurements"
    wanted = len(list(parts.glob("*.parquet"))) + moments.randint(0, 3)
    jitter_s = moments.uniform(0.0, 0.1)

    def wait(driver: BaseProcess) -> None:
        while len(list(parts.glob("*.parquet"))) < min(wanted, BUDGET):
            assert driver.is_alive(), f"the driver ended with exit code {driver.exitcode}"
            time.sleep(0.002)
        time.sleep(jitter_s)

    return wait


def check_complete(folder: Path, *, budget: int = BUDGET) -> None:
    """Every trial of the budget was measured once, and the study knows what the store knows."""
    frame = Store(folder / "test").read()
    assert len(frame) == budget
    assert frame["trial_key"].nunique() == budget
    assert set(frame["state"]) == {"complete"}
    # What was stored and begun again would be a second attempt.
    assert set(frame["attempt"]) == {1}
    trials = stored_trials(folder)
    assert not [trial for trial in trials if trial.state in (Told.RUNNING, Told.WAITING)]
    told = {t.user_attrs["key"]: t.value for t in trials if t.state is Told.COMPLETE}
    # Two trials of one assignment would be one of them here.
    assert len([trial for trial in trials if trial.state is Told.COMPLETE]) == budget
    assert told == dict(zip(frame["trial_key"], frame["request_throughput_per_s"], strict=True))


def stored_trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="test", storage=storage_url(folder)).trials


@pytest.mark.parametrize("seed", [1, 2])
def test_search_killed_at_random_moments_is_complete_and_runs_nothing_twice(
    tmp_path: Path, planner: Planner, seed: int
) -> None:
    moments = random.Random(seed)
    for _ in range(4):
        run_and_kill(planner, tmp_path, when=a_moment(tmp_path, moments))
    assert run_and_kill(planner, tmp_path) == 0
    check_complete(tmp_path)


@pytest.mark.parametrize(
    ("kinds", "stored"),
    [
        ({"store_kind": DyingStore}, 3),
        ({"search_kind": DyingSearch}, 3),
        ({"executor": DyingExecutor(complete)}, 2),
    ],
    ids=["stored and not told", "half told", "running"],
)
def test_kill_at_each_step_of_trial_loses_nothing_that_was_finished(
    tmp_path: Path, planner: Planner, kinds: dict[str, Any], stored: int
) -> None:
    assert run_and_kill(planner, tmp_path, **kinds) == -signal.SIGKILL
    before = set(Store(tmp_path / "test").read()["trial_key"])
    assert len(before) == stored
    drive(planner, tmp_path)
    assert before < set(Store(tmp_path / "test").read()["trial_key"])
    check_complete(tmp_path)


def test_search_whose_last_trial_was_stored_and_not_told_only_tells_it(
    tmp_path: Path, planner: Planner
) -> None:
    assert run_and_kill(planner, tmp_path, store_kind=DyingStore, budget=3) == -signal.SIGKILL
    assert sum(trial.state is Told.COMPLETE for trial in stored_trials(tmp_path)) == 2
    executor = ScriptedExecutor(complete)
    outcome = drive(planner, tmp_path, executor=executor, budget=3)
    assert (executor.specs, outcome.measured_now) == ([], 0)
    check_complete(tmp_path, budget=3)


def test_what_was_running_is_run_first_when_search_goes_on(tmp_path: Path, planner: Planner) -> None:
    cut_off = DyingExecutor(complete)
    assert run_and_kill(planner, tmp_path, executor=cut_off) == -signal.SIGKILL
    running = [t.params for t in stored_trials(tmp_path) if t.state is Told.RUNNING]
    assert running
    executor = SlowExecutor(complete)
    drive(planner, tmp_path, executor=executor)
    begun = [{name: spec.assignment[name] for name in SPACE.domains} for spec in executor.specs]
    assert begun[: len(running)] == running


def test_stop_by_signal_leaves_trials_it_cut_off_to_be_run_first(tmp_path: Path, planner: Planner) -> None:
    executor = ScriptedExecutor(failed(FailureClass.INTERRUPTED))
    drive(planner, tmp_path, executor=executor, stop=lambda: len(executor.specs) >= 2)
    cut_off = [spec.key for spec in executor.specs]
    again = SlowExecutor(complete)
    drive(planner, tmp_path, executor=again)
    assert [spec.key for spec in again.specs[: len(cut_off)]] == cut_off
    check_complete(tmp_path)


def test_first_trials_outlive_kill_before_any_of_them_ran(tmp_path: Path, planner: Planner) -> None:
    def first(spec: TrialSpec, placement: Placement) -> TrialResult:
        die()
        raise AssertionError

    assert run_and_kill(planner, tmp_path, executor=ScriptedExecutor(first)) == -signal.SIGKILL
    executor = SlowExecutor(complete)
    drive(planner, tmp_path, executor=executor)
    assert START.items() <= dict(executor.specs[0].assignment).items()
    check_complete(tmp_path)


def test_search_that_goes_on_proposes_others_than_before(tmp_path: Path, planner: Planner) -> None:
    drive(planner, tmp_path, budget=6)
    executor = SlowExecutor(complete)
    outcome = drive(planner, tmp_path, executor=executor, budget=BUDGET)
    assert outcome.measured_now == len(executor.specs) == BUDGET - 6
    check_complete(tmp_path)
