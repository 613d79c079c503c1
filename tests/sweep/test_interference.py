"""The interference check: its arithmetic by hand, its pairs with stand-ins, and the command on a model."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from sweeper import cli
from sweeper.errors import EngineError, PlacementError
from sweeper.records import (
    FailureClass,
    LoadPoint,
    Measurement,
    Placement,
    Provenance,
    TrialResult,
    TrialSpec,
    TrialState,
)
from sweeper.schedule.allocator import Allocator
from sweeper.sweep import interference
from sweeper.sweep.interference import Pair, finding, findings, run_pairs
from sweeper.topology import modelled_mi300x

POINT = LoadPoint(dataset="random", num_prompts=4, input_len=8, output_len=8)
OTHER = replace(POINT, request_rate_per_s=2.0)


def result(spec: TrialSpec, placement: Placement, **rates: float) -> TrialResult:
    points = {"now": POINT, "slow": OTHER}
    return TrialResult(
        spec=spec,
        placement=placement,
        state=TrialState.COMPLETE,
        provenance=Provenance.MEASURED,
        measurements=tuple(
            Measurement(
                load_point=points[name],
                restart=0,
                repeat=0,
                metrics={"request_throughput_per_s": rate, "completed": 4.0},
                telemetry={},
                measured_s=1.0,
                client_overhead_s=0.0,
                started_at=0.0,
                ended_at=1.0,
            )
            for name, rate in rates.items()
        ),
    )


class Runs:
    """Stands for ``trial.run``: copies load until they are told to end; the control notes who does."""

    def __init__(self, *, neighbour_fails: bool = False, control_fails: FailureClass | None = None) -> None:
        self.loading: set[tuple[int, ...]] = set()
        self.seen: list[tuple[int, set[tuple[int, ...]]]] = []
        self.neighbour_fails = neighbour_fails
        self.control_fails = control_fails

    def __call__(
        self,
        spec: TrialSpec,
        placement: Placement,
        *,
        cancelled: Callable[[], bool],
        before_load: Callable[[], object] | None = None,
    ) -> TrialResult:
        if before_load is None:
            self.seen.append((spec.attempt, set(self.loading)))
            done = result(spec, placement, now=10.0)
            if self.control_fails is None:
                return done
            failed = replace(done, state=TrialState.FAILED, measurements=(), failure_message="boom")
            return replace(failed, failure_class=self.control_fails)
        if self.neighbour_fails:
            return replace(result(spec, placement), state=TrialState.FAILED, failure_message="no memory")
        self.loading.add(placement.devices)
        before_load()
        pause = threading.Event()
        while not cancelled():
            pause.wait(0.005)
        self.loading.remove(placement.devices)
        return result(spec, placement)


def four_devices_each(spec: TrialSpec) -> TrialSpec:
    return replace(spec, devices_wanted=4)


# The arithmetic


def test_ratio_is_geometric_mean_and_its_interval_lies_on_logarithm() -> None:
    # Logarithms 0, ln 2, 2 ln 2: mean ln 2, deviation ln 2; t(2) = 4.3027, so half the interval is
    # 4.3027 / sqrt(3) * ln 2 = 2.4842 * ln 2, and its ends are 2 ** (1 - 2.4842) and 2 ** (1 + 2.4842).
    found = finding("mean_ttft_ms", [1.0, 2.0, 4.0])
    assert found.ratio == pytest.approx(2.0)
    assert found.low == pytest.approx(0.3575, abs=2e-4)
    assert found.high == pytest.approx(11.190, abs=2e-3)
    assert found.pairs == 3


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        # Mean 0.9; logarithms differ by 0.1 %, so the interval is far below 1.
        ([0.9, 0.9009, 0.8991], "interferes: 10.0 % lower beside neighbours"),
        # Equal ratios have no spread: the interval is the point.
        ([1.25, 1.25], "interferes: 25.0 % higher beside neighbours"),
        # Half of the interval: 4.3027 / sqrt(3) * 0.01 = 0.0248; exp(0.0248) - 1 = 2.5 %.
        ([0.99005, 1.0, 1.01005], "no effect seen above 2.5 %"),
        # The same with ten times the spread: exp(0.248) - 1 = 28.2 %.
        ([0.904837, 1.0, 1.105171], "inconclusive: an effect of up to 28.2 % cannot be told from chance"),
        ([1.3], "inconclusive: one pair has no interval"),
    ],
)
def test_verdict_follows_interval(ratios: list[float], verdict: str) -> None:
    assert finding("x", ratios).verdict.startswith(verdict)


def test_load_points_of_pair_are_averaged_and_metrics_that_are_no_speed_left_out(
    simulated_spec: TrialSpec, placement: Placement
) -> None:
    # Half as fast all at once, twice as fast at 2 QPS: the geometric mean is 1.
    alone = result(simulated_spec, placement, now=10.0, slow=2.0)
    beside = result(simulated_spec, placement, now=5.0, slow=4.0)
    (found,) = findings([Pair(alone=alone, beside=beside)] * 2)
    assert found.metric == "request_throughput_per_s"
    assert found.ratio == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("ratios", "provenance", "told"),
    [
        ([1.0, 1.0], Provenance.SIMULATED, "simulated: the model of a node has no neighbours"),
        ([0.5, 0.5], Provenance.MEASURED, "interferes with itself in x: use study.isolation=exclusive"),
        ([1.0, 1.5], Provenance.MEASURED, "the pairs are inconclusive"),
        ([1.0, 1.0], Provenance.MEASURED, "beside 1 neighbour no effect was seen"),
    ],
)
def test_conclusion_is_worst_of_all_metrics(ratios: list[float], provenance: Provenance, told: str) -> None:
    found = [finding(name, ratios if name == "x" else [1.0, 1.0]) for name in "xy"]
    assert told in interference.conclusion(found, provenance=provenance, neighbours=1)


# The pairs


def test_every_pair_has_control_once_alone_and_once_beside_loaded_neighbours_in_turn(
    simulated_spec: TrialSpec,
) -> None:
    runs, kept = Runs(), list[TrialResult]()
    pairs = list(
        run_pairs(
            replace(simulated_spec, devices_wanted=2),
            Allocator(modelled_mi300x("SPX", "NPS1")),
            pairs=2,
            keep=kept.append,
            cancelled=lambda: False,
            first_attempt=5,
            run=runs,
        )
    )
    others = {(2, 3), (4, 5), (6, 7)}
    # Eight devices in blocks of two: three neighbours; the second pair begins with them.
    assert runs.seen == [(5, set()), (6, others), (7, others), (8, set())]
    assert not runs.loading, "the neighbours are gone"
    assert [interference.neighbours_of(pair.alone) for pair in pairs] == [0, 0]
    assert [interference.neighbours_of(pair.beside) for pair in pairs] == [3, 3]
    assert [one.spec.attempt for one in kept] == [5, 6, 7, 8]


def first_pair(spec: TrialSpec, runs: Runs, kept: list[TrialResult]) -> None:
    node = modelled_mi300x("SPX", "NPS1")
    list(run_pairs(spec, Allocator(node), pairs=1, keep=kept.append, cancelled=lambda: False, run=runs))


def test_neighbour_that_fails_ends_check_and_names_its_reason(simulated_spec: TrialSpec) -> None:
    kept: list[TrialResult] = []
    with pytest.raises(EngineError, match="a neighbour ended before the control trial did: no memory"):
        first_pair(four_devices_each(simulated_spec), Runs(neighbour_fails=True), kept)
    assert [one.spec.attempt for one in kept] == [1], "what was measured alone is kept"


def test_control_that_fails_is_kept_as_failure(simulated_spec: TrialSpec) -> None:
    kept: list[TrialResult] = []
    with pytest.raises(EngineError, match="the control trial failed: boom"):
        first_pair(four_devices_each(simulated_spec), Runs(control_fails=FailureClass.CRASH), kept)
    assert [one.state for one in kept] == [TrialState.FAILED]


def test_control_that_is_cut_off_is_not_kept(simulated_spec: TrialSpec) -> None:
    kept: list[TrialResult] = []
    with pytest.raises(EngineError, match="boom"):
        first_pair(four_devices_each(simulated_spec), Runs(control_fails=FailureClass.INTERRUPTED), kept)
    assert kept == []


def test_trial_that_fills_node_has_no_neighbours(simulated_spec: TrialSpec) -> None:
    with pytest.raises(PlacementError, match="leaves no other block of that size free"):
        first_pair(replace(simulated_spec, devices_wanted=8), Runs(), [])


# The command


def test_command_stores_its_pairs_in_study_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["interference", "+experiment=case6_kv_cache_dtype", "platform=simulated", "--pairs", "1"]
    arguments.append("workload.num_prompts=20")
    assert cli.main(arguments) == cli.OK
    told = capsys.readouterr().out
    assert "interference: simulated: the model of a node has no neighbours" in told
    folder = tmp_path / "outputs" / "case6_kv_cache_dtype-simulated-interference"
    frame = pd.read_parquet(folder / "measurements")
    assert sorted(set(frame["extra.neighbours"])) == [0, 1]
    assert set(frame["study"]) == {folder.name}
    written = json.loads((folder / "interference.json").read_text())
    assert {item["ratio"] for item in written["findings"]} == {1.0}
    # Again: the attempts go on where they ended. (Runs of one process are named by the second.)
    time.sleep(1.0)
    assert cli.main([*arguments, "--json"]) == cli.OK
    assert json.loads(capsys.readouterr().out) == written
    assert sorted(set(pd.read_parquet(folder / "measurements")["attempt"])) == [1, 2, 3, 4]


def test_command_says_what_it_cannot_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    case = ["interference", "+experiment=case6_kv_cache_dtype", "platform=simulated"]
    assert cli.main([*case, "--pairs", "0"]) == cli.MISTAKE
    assert "--pairs: is 0; expected at least 1" in capsys.readouterr().err
    assert cli.main([*case, "knobs.tensor_parallel_size=8"]) == cli.MISTAKE
    assert "leaves room for a neighbour" in capsys.readouterr().err
    assert not (tmp_path / "outputs").exists()
