"""The loop: what is run, what is not, what is kept, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from sweeper import topology
from sweeper.errors import KnobError
from sweeper.executors import Ticket
from sweeper.executors.inline import InlineExecutor
from sweeper.goals.termination import Termination
from sweeper.plan.planner import Planner
from sweeper.records import (
    EngineSpec,
    FailureClass,
    Model,
    Placement,
    Platform,
    TrialResult,
    TrialSpec,
    TrialState,
)
from sweeper.schedule.scheduler import Scheduler
from sweeper.space.domains import Choice, Range
from sweeper.space.rules import Rule
from sweeper.space.space import Series, Space
from sweeper.store.store import Store
from sweeper.sweep.outlook import Outlook
from sweeper.sweep.sweep import Outcome
from tests.stand_ins import (
    THREE_SERIES,
    ScriptedExecutor,
    complete,
    failed,
    planner_of_three_series,
    sweep_of,
)


@dataclass
class Diary:
    """An observer that remembers."""

    plans: list[tuple[int | None, int, int]] = field(default_factory=list)
    starts: list[tuple[str, ...]] = field(default_factory=list)
    ends: list[tuple[TrialState, bool]] = field(default_factory=list)

    def planned(self, *, total: int | None, done: int, refused: int) -> None:
        self.plans.append((total, done, refused))

    def started(self, spec: TrialSpec, placement: Placement) -> None:
        self.starts.append(spec.series)

    def finished(self, result: TrialResult, *, will_retry: bool) -> None:
        self.ends.append((result.state, will_retry))

    def tick(self) -> None:
        pass


@pytest.fixture
def planner(tmp_path: Path, llama_70b: Model) -> Planner:
    return planner_of_three_series(tmp_path, llama_70b)


@pytest.fixture
def diary() -> Diary:
    return Diary()


def swept(
    planner: Planner,
    folder: Path,
    diary: Diary,
    executor: ScriptedExecutor | InlineExecutor,
    *,
    method: str = "grid",
    trials: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    retry_failed: bool = False,
    scheduler: Scheduler | None = None,
    endings: Termination | None = None,
) -> Outcome:
    return sweep_of(
        planner,
        folder,
        executor,
        observer=diary,
        method=method,
        trials=trials,
        stop=stop,
        scheduler=scheduler,
        retry_failed=retry_failed,
        endings=endings or Termination(),
    )


@pytest.fixture
def inline() -> Iterator[InlineExecutor]:
    executor = InlineExecutor(max_parallel=8)
    yield executor
    executor.close()


def test_equal_assignments_run_once_and_serve_every_series_that_names_them(
    planner: Planner, tmp_path: Path, diary: Diary, inline: InlineExecutor
) -> None:
    outcome = swept(planner, tmp_path, diary, inline)
    assert outcome.measured_now == 2
    assert sorted(diary.starts) == [("large", "same"), ("small",)]
    frame = Store(tmp_path / "test").read()
    assert set(frame["state"]) == {"complete"}
    assert set(frame["provenance"]) == {"simulated"}
    assert {tuple(names) for names in frame["series"]} == {("small",), ("large", "same")}
    assert (frame["completed"] == 8).all()


def test_same_sweep_again_starts_nothing(planner: Planner, tmp_path: Path, diary: Diary) -> None:
    swept(planner, tmp_path, diary, ScriptedExecutor(complete))
    again = ScriptedExecutor(complete)
    outcome = swept(planner, tmp_path, diary, again)
    assert again.specs == []
    assert outcome.states == {TrialState.COMPLETE: 2}
    assert diary.plans[-1] == (2, 2, 0)


def test_new_series_is_only_one_run(planner: Planner, tmp_path: Path, diary: Diary) -> None:
    swept(planner, tmp_path, diary, ScriptedExecutor(complete))
    more = (*THREE_SERIES.series, Series(name="huge", label="Huge", knobs={"max_num_seqs": 512}))
    executor = ScriptedExecutor(complete)
    swept(replace(planner, space=replace(THREE_SERIES, series=more)), tmp_path, diary, executor)
    assert [spec.series for spec in executor.specs] == [("huge",)]


def test_trials_of_four_devices_run_two_at_time_on_disjoint_blocks(
    planner: Planner, tmp_path: Path, diary: Diary
) -> None:
    executor = ScriptedExecutor(complete)
    swept(planner, tmp_path, diary, executor)
    assert executor.held == [(0, 1, 2, 3), (4, 5, 6, 7)]


class SlowExecutor(ScriptedExecutor):
    """Ends one trial at a time, oldest first; remembers beside which others each one began."""

    def __init__(self) -> None:
        super().__init__(complete)
        self.running: list[str] = []
        self.beside: dict[str, list[str]] = {}

    def submit(self, spec: TrialSpec, placement: Placement) -> Ticket:
        self.beside[spec.label] = list(self.running)
        self.running.append(spec.label)
        return super().submit(spec, placement)

    def wait(self, timeout_s: float) -> list[tuple[Ticket, TrialResult]]:
        if self.running:
            self.running.pop(0)
        return super().wait(timeout_s)


def with_a_host_setting(planner: Planner, **devices: int) -> Planner:
    """Series of so many devices each, on a real node; `host` names those that change the host."""
    series = tuple(
        Series(
            name=name,
            label=name,
            knobs={
                "tensor_parallel_size": count,
                "max_num_seqs": 100 + index,
                **({"host_numa_balancing": False} if name.startswith("host") else {}),
            },
        )
        for index, (name, count) in enumerate(devices.items())
    )
    space = Space(base={"max_model_len": 4096, "quantization": "fp8"}, series=series)
    return replace(planner, space=space, platform=Platform.MI300X)


def test_trial_that_changes_host_runs_alone(planner: Planner, tmp_path: Path, diary: Diary) -> None:
    executor = SlowExecutor()
    swept(with_a_host_setting(planner, a=4, host=4, b=4, c=4), tmp_path, diary, executor)
    # It began while the node was empty; when it had ended the others ran two at a time.
    assert executor.beside == {"host": [], "a": [], "b": ["a"], "c": ["b"]}


def test_trial_that_changes_host_is_not_overtaken_for_ever(
    planner: Planner, tmp_path: Path, diary: Diary
) -> None:
    executor = SlowExecutor()
    swept(with_a_host_setting(planner, host_a=8, host_b=2, b=2, c=1, d=1), tmp_path, diary, executor)
    assert [spec.label for spec in executor.specs] == ["host_a", "host_b", "b", "c", "d"]
    assert executor.beside["host_a"] == executor.beside["host_b"] == []
    assert executor.beside["d"] == ["b", "c"]


def test_on_modelled_node_host_settings_hold_nobody_up(
    planner: Planner, tmp_path: Path, diary: Diary
) -> None:
    executor = SlowExecutor()
    modelled = replace(with_a_host_setting(planner, a=4, host=4), platform=Platform.SIMULATED)
    swept(modelled, tmp_path, diary, executor)
    assert executor.beside["host"] == ["a"]


class LosingExecutor(ScriptedExecutor):
    """Has lost a node once a trial ran there."""

    def __init__(self, name: str) -> None:
        super().__init__(self.end)
        self._name = name
        self.nodes: list[str] = []

    def end(self, spec: TrialSpec, placement: Placement) -> TrialResult:
        self.nodes.append(placement.node)
        is_lost = placement.node == self._name
        return failed(FailureClass.INFRASTRUCTURE)(spec, placement) if is_lost else complete(spec, placement)

    def lost_nodes(self) -> frozenset[str]:
        return frozenset({self._name} & set(self.nodes))


def two_nodes(planner: Planner, *, first: Sequence[int] = range(8)) -> Scheduler:
    node = planner.node
    return Scheduler(
        (replace(topology.restrict(node, first, said_by="test"), host="one"), replace(node, host="two"))
    )


def test_trials_of_lost_node_run_again_on_another(planner: Planner, tmp_path: Path, diary: Diary) -> None:
    whole = replace(THREE_SERIES, base={**THREE_SERIES.base, "tensor_parallel_size": 8})
    executor = LosingExecutor("one")
    outcome = swept(replace(planner, space=whole), tmp_path, diary, executor, scheduler=two_nodes(planner))
    assert sorted(executor.nodes) == ["one", "two", "two"]
    assert outcome.states == {TrialState.COMPLETE: 2}
    assert len(Store.latest(Store(tmp_path / "test").read())) == 2


def test_what_fits_on_no_node_that_is_left_is_told_and_runs_another_day(
    planner: Planner, tmp_path: Path, diary: Diary
) -> None:
    space = Space(
        base={"max_model_len": 4096, "quantization": "fp8"},
        domains={"tensor_parallel_size": Choice(values=(8, 4)), "max_num_seqs": Choice(values=(1, 2))},
    )
    several = replace(planner, space=space)
    executor = LosingExecutor("two")
    outcome = swept(several, tmp_path, diary, executor, scheduler=two_nodes(planner, first=range(4)))
    # Node two died under the first trial of 8 devices; node one has 4.
    assert outcome.states == {TrialState.FAILED: 2, TrialState.COMPLETE: 2}
    assert {result.failure_message for result in outcome.failures} == {
        "its line",
        "needs 8 devices on one node; no node with so many is left",
    }
    again = swept(several, tmp_path, diary, ScriptedExecutor(complete))
    assert again.states == {TrialState.COMPLETE: 4}


@pytest.mark.parametrize("method", ["grid", "random"])
def test_what_comes_after_a_node_was_lost_and_fits_on_none_that_is_left_is_told(
    planner: Planner, tmp_path: Path, diary: Diary, method: str
) -> None:
    space = Space(
        base={"max_model_len": 4096, "quantization": "fp8", "tensor_parallel_size": 8},
        domains={"tensor_parallel_size": Choice(values=(8, 4)), "max_num_seqs": Choice(values=(1, 2))},
    )
    several = replace(planner, space=space, control="base")
    outcome = swept(
        several,
        tmp_path,
        diary,
        LosingExecutor("two"),
        method=method,
        trials=4,
        scheduler=two_nodes(planner, first=range(4)),
        endings=Termination(finalists=1, final_repeats=1),
    )
    # Of 8 devices: two settings, the control at three times, and the default beside the finalist.
    assert outcome.states == {TrialState.FAILED: 6, TrialState.COMPLETE: 3}
    assert {result.failure_message for result in outcome.failures} == {
        "its line",
        "needs 8 devices on one node; no node with so many is left",
    }


@pytest.mark.parametrize("method", ["grid", "random"])
def test_study_that_lost_every_node_says_so(
    planner: Planner, tmp_path: Path, diary: Diary, method: str
) -> None:
    whole = replace(THREE_SERIES, base={**THREE_SERIES.base, "tensor_parallel_size": 8})
    several = replace(planner, space=whole, control="base")
    executor, scheduler = LosingExecutor("one"), Scheduler((replace(planner.node, host="one"),))
    outcome = swept(several, tmp_path, diary, executor, method=method, trials=9, scheduler=scheduler)
    assert (executor.nodes, outcome.ended_by) == (["one"], "no node is left")


def test_trials_that_wait_are_predicted_anew_from_those_that_ended(
    planner: Planner, tmp_path: Path, diary: Diary
) -> None:
    space = Space(
        base={"max_model_len": 4096, "tensor_parallel_size": 8},
        domains={"max_num_seqs": Choice(values=(1, 2, 4))},
    )
    scheduler = Scheduler((planner.node,))
    seen: list[float] = []

    def slow(spec: TrialSpec, placement: Placement) -> TrialResult:
        seen.append(sum(entry.predicted_s for entry in scheduler.waiting))
        return replace(complete(spec, placement), phases={"engine_start_s": 7000.0})

    swept(replace(planner, space=space), tmp_path, diary, ScriptedExecutor(slow), scheduler=scheduler)
    # Two wait while the first runs, at about 70 s each; one while the second does, and starts take 7000 s.
    assert seen[0] < 200
    assert 7000 <= seen[1] < 7100


def test_large_blocks_are_placed_before_small_ones(planner: Planner, tmp_path: Path, diary: Diary) -> None:
    space = Space(
        base={"max_model_len": 4096, "quantization": "fp8"},
        domains={"tensor_parallel_size": Choice(values=(2, 8, 4))},
    )
    executor = ScriptedExecutor(complete)
    swept(replace(planner, space=space), tmp_path, diary, executor)
    assert [len(held) for held in executor.held] == [8, 4, 2]


def test_failure_is_kept_and_not_tried_again_unless_asked(
    planner: Planner, tmp_path: Path, diary: Diary
) -> None:
    outcome = swept(planner, tmp_path, diary, ScriptedExecutor(failed(FailureClass.OUT_OF_MEMORY)))
    assert outcome.states == {TrialState.FAILED: 2}
    assert [result.failure_message for result in outcome.failures] == ["its line", "its line"]
    untouched = ScriptedExecutor(complete)
    swept(planner, tmp_path, diary, untouched)
    assert untouched.specs == []
    asked = ScriptedExecutor(complete)
    assert swept(planner, tmp_path, diary, asked, retry_failed=True).states == {TrialState.COMPLETE: 2}
    assert len(asked.specs) == 2


def test_absurd_value_fails_its_trial_and_sweep_goes_on(
    planner: Planner, tmp_path: Path, diary: Diary
) -> None:
    def absurd(spec: TrialSpec, placement: Placement) -> TrialResult:
        result = complete(spec, placement)
        if spec.assignment["max_num_seqs"] != 4:
            return result
        measured = replace(result.measurements[0], metrics={"total_output_tokens": 1e30})
        return replace(result, measurements=(measured,))

    outcome = swept(planner, tmp_path, diary, ScriptedExecutor(absurd))
    assert outcome.states == {TrialState.FAILED: 1, TrialState.COMPLETE: 1}
    assert sorted(diary.ends) == [(TrialState.COMPLETE, False), (TrialState.FAILED, False)]
    (failure,) = outcome.failures
    assert failure.failure_class is FailureClass.CLIENT
    assert "column 'total_output_tokens' is given [1e+30]; expected int64" in str(failure.failure_message)
    assert set(Store(tmp_path / "test").read()["state"]) == {"failed", "complete"}


def test_transient_failure_is_repeated_up_to_its_limit(
    planner: Planner, tmp_path: Path, diary: Diary
) -> None:
    one = replace(planner, space=replace(THREE_SERIES, series=THREE_SERIES.series[:1]))
    executor = ScriptedExecutor(failed(FailureClass.INFRASTRUCTURE))
    outcome = swept(one, tmp_path, diary, executor)
    assert [spec.attempt for spec in executor.specs] == [1, 2]
    assert diary.ends == [(TrialState.FAILED, True), (TrialState.FAILED, False)]
    assert outcome.states == {TrialState.FAILED: 1}


def test_repeated_trial_that_succeeds_is_complete(planner: Planner, tmp_path: Path, diary: Diary) -> None:
    one = replace(planner, space=replace(THREE_SERIES, series=THREE_SERIES.series[:1]))

    def second_time_lucky(spec: TrialSpec, placement: Placement) -> TrialResult:
        return complete(spec, placement) if spec.attempt == 2 else failed(FailureClass.PORT)(spec, placement)

    outcome = swept(one, tmp_path, diary, ScriptedExecutor(second_time_lucky))
    assert outcome.states == {TrialState.COMPLETE: 1}
    latest = Store.latest(Store(tmp_path / "test").read())
    assert list(latest["state"]) == ["complete"]


def test_what_breaks_rule_is_no_point_and_what_does_not_fit_is_row_that_costs_no_start(
    planner: Planner, tmp_path: Path, diary: Diary
) -> None:
    space = Space(
        base={"max_model_len": 4096},
        domains={"tensor_parallel_size": Choice(values=(1, 4, 16)), "max_num_seqs": Choice(values=(4,))},
        rules=(Rule(text="tensor_parallel_size != 4"),),
    )
    executor = ScriptedExecutor(complete)
    partitioned = replace(planner, space=space, node=topology.modelled_mi300x("CPX", "NPS4"))
    outcome = swept(partitioned, tmp_path, diary, executor)
    # 70B in bfloat16 is 131 GiB: too much for one partition of 24 GiB, not for 16 of them
    assert [len(held) for held in executor.held] == [16]
    # What breaks a rule is no point of the space; what does not fit is one, and a row that says why.
    assert outcome.states == {TrialState.INFEASIBLE: 1, TrialState.COMPLETE: 1}
    reason = outcome.failures[0].failure_message or ""
    assert reason.startswith("does not fit in memory: weights 131.4 GiB + ")


def test_what_was_infeasible_runs_once_its_rule_is_gone(
    planner: Planner, tmp_path: Path, diary: Diary
) -> None:
    ruled = replace(THREE_SERIES, rules=(Rule(text="max_num_seqs < 64"),))
    swept(replace(planner, space=ruled), tmp_path, diary, ScriptedExecutor(complete))
    executor = ScriptedExecutor(complete)
    outcome = swept(planner, tmp_path, diary, executor)
    assert [spec.series for spec in executor.specs] == [("large", "same")]
    assert outcome.states == {TrialState.COMPLETE: 2}


def test_more_devices_than_node_has_is_infeasible(planner: Planner, tmp_path: Path, diary: Diary) -> None:
    space = Space(base={"tensor_parallel_size": 16, "max_model_len": 4096})
    outcome = swept(replace(planner, space=space), tmp_path, diary, ScriptedExecutor(complete))
    assert outcome.states == {TrialState.INFEASIBLE: 1}
    assert "needs 16 devices" in (outcome.failures[0].failure_message or "")


def test_knob_that_release_lacks_stops_everything_before_start(
    planner: Planner, tmp_path: Path, diary: Diary
) -> None:
    space = replace(THREE_SERIES, base={**THREE_SERIES.base, "num_scheduler_steps": 10})
    today = replace(planner, space=space, engine=EngineSpec(kind="simulated", release="0.32.0"))
    executor = ScriptedExecutor(complete)
    with pytest.raises(KnobError, match=r"vLLM 0\.32\.0: .*num_scheduler_steps.*0\.10\.1"):
        swept(today, tmp_path, diary, executor)
    assert executor.specs == []


def test_stop_keeps_what_is_finished_and_next_run_does_rest(
    planner: Planner, tmp_path: Path, diary: Diary
) -> None:
    executor = ScriptedExecutor(complete)
    outcome = swept(planner, tmp_path, diary, executor, stop=lambda: len(diary.ends) >= 1)
    assert outcome.was_stopped
    assert executor.is_cancelled
    assert outcome.states[TrialState.COMPLETE] >= 1
    again = swept(planner, tmp_path, diary, ScriptedExecutor(complete))
    assert not again.was_stopped
    assert again.states == {TrialState.COMPLETE: 2}


def test_what_was_interrupted_is_not_result(planner: Planner, tmp_path: Path, diary: Diary) -> None:
    stopping = ScriptedExecutor(failed(FailureClass.INTERRUPTED))
    swept(planner, tmp_path, diary, stopping, stop=lambda: bool(stopping.specs))
    assert Store(tmp_path / "test").finished() == {}
    executor = ScriptedExecutor(complete)
    swept(planner, tmp_path, diary, executor)
    assert len(executor.specs) == 2


def test_search_spends_its_budget_and_no_more(planner: Planner, tmp_path: Path, diary: Diary) -> None:
    space = Space(
        base={"tensor_parallel_size": 4, "max_model_len": 4096},
        domains={"max_num_seqs": Range(low=1, high=512, is_int=True)},
    )
    search = replace(planner, space=space)
    executor = ScriptedExecutor(complete)
    outcome = swept(search, tmp_path, diary, executor, method="tpe", trials=6)
    assert len(executor.specs) == 6
    assert len({spec.key for spec in executor.specs}) == 6
    assert outcome.states == {TrialState.COMPLETE: 6}
    more = ScriptedExecutor(complete)
    swept(search, tmp_path, diary, more, method="tpe", trials=8)
    assert len(more.specs) == 2


def searched(planner: Planner) -> Planner:
    """A planner of a search that nothing refuses."""
    space = Space(
        base={"tensor_parallel_size": 4, "max_model_len": 4096},
        domains={"max_num_seqs": Choice(values=(1, 2, 4, 8, 16, 32))},
    )
    return replace(planner, space=space)


@pytest.mark.parametrize("method", ["tpe", "guided", "staged"])
def test_search_tries_again_what_failed_when_it_is_asked_to_and_spends_nothing_on_it(
    planner: Planner, tmp_path: Path, diary: Diary, method: str
) -> None:
    def out_of_memory_above_four(spec: TrialSpec, placement: Placement) -> TrialResult:
        is_large = spec.assignment["max_num_seqs"] > 4
        return (failed(FailureClass.OUT_OF_MEMORY) if is_large else complete)(spec, placement)

    def run(executor: ScriptedExecutor, *, retry_failed: bool = False, trials: int = 4) -> Outcome:
        return swept(
            searched(planner),
            tmp_path,
            diary,
            executor,
            method=method,
            trials=trials,
            retry_failed=retry_failed,
        )

    before = run(ScriptedExecutor(out_of_memory_above_four)).states
    assert sum(before.values()) == 4
    assert before[TrialState.FAILED] > 0
    untouched = ScriptedExecutor(complete)
    run(untouched)
    assert untouched.specs == []
    asked = ScriptedExecutor(complete)
    assert run(asked, retry_failed=True).states == {TrialState.COMPLETE: 4}
    assert len(asked.specs) == before[TrialState.FAILED]
    assert {spec.attempt for spec in asked.specs} == {2}
    assert all(spec.assignment["max_num_seqs"] > 4 for spec in asked.specs)
    # What ran out of memory once holds back no setting that needs as much, now that it has not.
    more = ScriptedExecutor(complete)
    assert run(more, trials=6).states == {TrialState.COMPLETE: 6}
    assert len(more.specs) == 2


def test_search_tries_failures_of_the_machine_again_by_itself(
    planner: Planner, tmp_path: Path, diary: Diary
) -> None:
    first = ScriptedExecutor(failed(FailureClass.INFRASTRUCTURE))
    sweep_of(searched(planner), tmp_path, first, observer=diary, method="random", trials=2, max_attempts=1)
    again = ScriptedExecutor(complete)
    outcome = swept(searched(planner), tmp_path, diary, again, method="random", trials=3)
    assert outcome.states == {TrialState.COMPLETE: 3}
    assert [spec.key for spec in again.specs[:2]] == [spec.key for spec in first.specs]
    assert [spec.attempt for spec in again.specs] == [2, 2, 1]
    assert diary.plans[-1] == (3, 0, 0)


def test_trial_that_is_repeated_takes_no_place_of_another(
    planner: Planner, tmp_path: Path, diary: Diary
) -> None:
    shown: list[int] = []

    def lost_first(spec: TrialSpec, placement: Placement) -> TrialResult:
        shown.append(spec.attempt)
        return (failed(FailureClass.PORT) if spec.attempt == 1 else complete)(spec, placement)

    executor = ScriptedExecutor(lost_first)
    outcome = sweep_of(
        searched(planner), tmp_path, executor, observer=diary, method="random", trials=4, first_pause_s=0.0
    )
    assert outcome.states == {TrialState.COMPLETE: 4}
    assert sorted(shown) == [1, 1, 1, 1, 2, 2, 2, 2]


def test_repetitions_of_a_control_come_on_top_of_what_a_search_will_take(
    planner: Planner, tmp_path: Path, diary: Diary
) -> None:
    space = Space(
        base={"max_model_len": 4096, "tensor_parallel_size": 8},
        domains={"max_num_seqs": Range(low=1, high=64, is_int=True)},
    )

    measured = replace(planner, space=space, platform=Platform.MI300X)

    def first_left_s(folder: str, control_every: int | None) -> float:
        shown: list[Outlook] = []
        (tmp_path / folder).mkdir()
        sweep_of(
            replace(measured, control=control_every and "base", control_every=control_every),
            tmp_path / folder,
            ScriptedExecutor(complete),
            observer=diary,
            method="random",
            trials=4,
            show_outlook=shown.append,
        )
        return shown[0].left_s or 0.0

    # Four trials, and as many repetitions and one.
    assert first_left_s("with", 1) > 1.8 * first_left_s("without", None)


def test_search_over_few_points_ends_when_they_are_used_up(
    planner: Planner, tmp_path: Path, diary: Diary
) -> None:
    space = Space(
        base={"tensor_parallel_size": 4, "max_model_len": 4096},
        domains={"max_num_seqs": Choice(values=(1, 2))},
    )
    executor = ScriptedExecutor(complete)
    swept(replace(planner, space=space), tmp_path, diary, executor, method="random", trials=10)
    assert len(executor.specs) == 2


def test_search_over_nothing_feasible_ends(planner: Planner, tmp_path: Path, diary: Diary) -> None:
    space = Space(
        base={"tensor_parallel_size": 4, "max_model_len": 4096},
        domains={"max_num_seqs": Choice(values=(1, 2))},
        rules=(Rule(text="max_num_seqs > 5"),),
    )
    outcome = swept(
        replace(planner, space=space), tmp_path, diary, ScriptedExecutor(complete), method="random", trials=3
    )
    assert outcome.measured_now == 0
    assert outcome.states == {}
    assert outcome.ended_by == "the search proposes nothing that is not known"
