"""Trials that share an engine's start: one after another on it, each its own setting, or a failed trial."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.processes import orphans
from sweeper.processes.orphans import read_start_file
from sweeper.records import FailureClass, Placement, Platform, TrialResult, TrialSpec, TrialState
from sweeper.store.rows import rows_of
from sweeper.trial.kept import KeptEngines
from tests.standin_server import PLACEMENT, make_spec, never, write_interpreter

START = {"max_num_seqs": 32, "max_num_batched_tokens": 2048}


class Bench:
    """Runs trials of a study in this process."""

    def __init__(self, outputs: Path, python: Path) -> None:
        self.outputs = outputs
        self.python = python
        self.engines = KeptEngines()

    def spec(self, *, start: dict[str, int] | None = START, **limits: int) -> TrialSpec:
        changes = {"assignment": {**START, **limits}, "live_start": start, "platform": Platform.CPU}
        spec = make_spec(self.outputs, self.python, **changes)
        return replace(spec, folder=str(self.outputs / "study" / "trials" / spec.key))

    def run(self, spec: TrialSpec, placement: Placement = PLACEMENT) -> TrialResult:
        return self.engines.run(spec, placement, cancelled=never)

    def starts(self) -> int:
        return len(list(self.outputs.glob("study/trials/*/engine-*.log")))

    def engine_pids(self) -> list[int]:
        """The supervised programs that live, each with its supervisor."""
        files = self.outputs.glob("study/trials/*/engine-*.start.json")
        launches = [launch for launch in map(read_start_file, files) if launch is not None]
        return [member.pid for launch in launches for member in launch.members()]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "outputs", write_interpreter(tmp_path / "bin"))
    yield bench
    bench.engines.close()
    assert bench.engine_pids() == []


def row_of(result: TrialResult) -> dict[str, object]:
    return rows_of(result, queued_s=0.0)[0]


def test_trials_go_one_after_another_on_one_start(bench: Bench) -> None:
    results = [bench.run(bench.spec(max_num_seqs=seqs)) for seqs in (8, 32, 4)]
    assert [result.failure_message for result in results] == [None] * 3
    rows = [row_of(result) for result in results]
    assert bench.starts() == 1
    assert [row["effective.max_num_seqs"] for row in rows] == [8, 32, 4]
    assert [row["set_live"] for row in rows] == ["max_num_seqs 8", "", "max_num_seqs 4"]
    assert {row["started_with"] for row in rows} == {
        "long_prefill_token_threshold 0, max_num_batched_tokens 2048, max_num_seqs 32"
    }
    assert [row["live_trial"] for row in rows] == [0, 1, 2]
    assert len({row["trial_key"] for row in rows}) == 3
    assert {row["log_path"] for row in rows} == {results[0].log_path}
    # What the engine counted before is none of the later trials' telemetry: two requests each, warm-up apart.
    assert len({row["prefix_cache_hit_rate"] for row in rows}) == 1
    assert all(row["engine_start_s"] < rows[0]["engine_start_s"] for row in rows[1:])  # type: ignore[operator]


def test_trial_of_its_own_start_finds_devices_empty(bench: Bench) -> None:
    bench.run(bench.spec(max_num_seqs=8))
    fresh = bench.run(bench.spec(start=None, max_num_seqs=8))
    assert fresh.state is TrialState.COMPLETE
    assert bench.engine_pids() == []
    row = row_of(fresh)
    assert row.keys().isdisjoint({"set_live", "started_with", "live_trial"})
    assert fresh.spec.key != bench.spec(max_num_seqs=8).key
    assert bench.run(bench.spec(max_num_seqs=4)).state is TrialState.COMPLETE
    assert bench.starts() == 3


def test_other_start_on_same_devices_takes_place_of_first(bench: Bench) -> None:
    bench.run(bench.spec(max_num_seqs=8))
    other = bench.run(bench.spec(start={**START, "max_num_seqs": 64}, max_num_seqs=16))
    assert row_of(other)["started_with"] == (
        "long_prefill_token_threshold 0, max_num_batched_tokens 2048, max_num_seqs 64"
    )
    assert bench.starts() == 1 + 1


def test_each_block_has_its_engine_and_wide_trial_ends_both(bench: Bench) -> None:
    places = [replace(PLACEMENT, devices=(device,)) for device in (0, 1)]
    for place in places:
        assert bench.run(bench.spec(max_num_seqs=8), place).state is TrialState.COMPLETE
    assert len(bench.engine_pids()) >= 2
    bench.run(bench.spec(start=None, max_num_seqs=8), replace(PLACEMENT, devices=(0, 1)))
    assert bench.engine_pids() == []


def test_engine_that_died_between_trials_is_started_again(bench: Bench) -> None:
    bench.run(bench.spec(max_num_seqs=8))
    for pid in bench.engine_pids():
        os.kill(pid, signal.SIGKILL)
    result = bench.run(bench.spec(max_num_seqs=4))
    assert result.state is TrialState.COMPLETE
    assert row_of(result)["live_trial"] == 0


# Each of these is a failed trial with its reason, and the rest of the settings get a new start.


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("wedged", "asked for max_num_batched_tokens 2048, max_num_seqs 4 it took no notice"),
        ("fixed", "The engine ignored --scheduler-cls"),
        ("die-on-load", "HIP out of memory"),
    ],
)
def test_fault_fails_trial_and_leaves_no_engine(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fault: str, reason: str
) -> None:
    monkeypatch.setenv("STANDIN", fault)
    failed = bench.run(bench.spec(max_num_seqs=4))
    assert failed.state is TrialState.FAILED and failed.measurements == ()
    assert reason in str(failed.failure_message)
    assert bench.engine_pids() == []
    monkeypatch.delenv("STANDIN")
    assert bench.run(bench.spec(max_num_seqs=8)).state is TrialState.COMPLETE


def test_start_that_fails_is_said_to_be_a_shared_one(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN", "die")
    monkeypatch.setenv("STANDIN_LAST_WORDS", "torch.OutOfMemoryError: HIP out of memory.")
    failed = bench.run(bench.spec(max_num_seqs=4))
    assert failed.failure_class is FailureClass.OUT_OF_MEMORY
    assert "a start with max_num_batched_tokens 2048, max_num_seqs 32, which settings share" in str(
        failed.failure_message
    )
    own = bench.run(bench.spec(max_num_seqs=32))
    assert "which settings share" not in str(own.failure_message)


def test_limit_above_start_is_failed_trial(bench: Bench) -> None:
    bench.run(bench.spec(max_num_seqs=8))
    failed = bench.run(bench.spec(max_num_seqs=33))
    assert failed.failure_class is FailureClass.WRONG_ENGINE
    assert "33 is above 32, which the engine was started with" in str(failed.failure_message)
    assert bench.engine_pids() == []


def test_damaged_confirmation_is_failed_trial(bench: Bench) -> None:
    first = bench.run(bench.spec(max_num_seqs=8))
    (folder := Path(first.spec.folder) / "live").chmod(0o700)
    (folder / "confirmed.json.partial").mkdir()
    failed = bench.run(bench.spec(max_num_seqs=4))
    assert failed.state is TrialState.FAILED
    assert orphans.find_orphans(bench.outputs) == []


def test_words_of_a_death_are_those_of_the_trial_that_it_ended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bench.run(bench.spec(max_num_seqs=8))
    with Path(str(first.log_path)).open("a") as log:
        log.write("torch.OutOfMemoryError: HIP out of memory. Tried to allocate 9.00 GiB\n")
    second = bench.run(bench.spec(max_num_seqs=4))
    assert second.state is TrialState.COMPLETE
    # Killed from outside: its log tells nothing since the trial began.
    spec = bench.spec(max_num_seqs=2)
    result = bench.engines.run(spec, PLACEMENT, cancelled=Killer(bench))
    assert result.state is TrialState.FAILED
    assert "9.00 GiB" not in str(result.failure_message)


class Killer:
    """Ends the engine when the trial first asks whether it was cancelled."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._is_done = False

    def __call__(self) -> bool:
        if not self._is_done:
            self._is_done = True
            for pid in self._bench.engine_pids():
                os.kill(pid, signal.SIGKILL)
        return False
