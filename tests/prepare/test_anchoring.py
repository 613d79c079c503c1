"""A measured study moves what the model says of its trials, from its rows alone.

What plays the measured truth is the model with other parameters: so it is known how far off the predictor
is. The rest is what a measured study has: planner, search, store, and the loop between them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper import topology
from sweeper.goals.objectives import measured_row, objective_value
from sweeper.plan.planner import Planner
from sweeper.prepare.anchoring import MOST_TRIALS, Anchoring
from sweeper.prepare.estimate import simulated_estimate
from sweeper.records import (
    Constraint,
    EngineSpec,
    LoadPoint,
    Model,
    Placement,
    Platform,
    Provenance,
    TrialResult,
    TrialSpec,
)
from sweeper.schedule.durations import Predictor
from sweeper.search import Hints
from sweeper.simulation.calibration import Calibration
from sweeper.simulation.device import USUAL_DEVICE
from sweeper.space.domains import Choice
from sweeper.space.space import Space
from sweeper.store.store import Store
from sweeper.sweep.ledger import Ledger
from sweeper.sweep.outlook import Outlook
from sweeper.sweep.terms import Terms
from sweeper.trial import trial
from tests.stand_ins import THROUGHPUT, ScriptedExecutor, sweep_of
from tests.sweep.test_sweep import Diary

RPS, TTFT = "request_throughput_per_s", "mean_ttft_ms"
SLOWER = {
    "gemm_frac": Calibration().gemm_frac * 0.5,
    "weight_read_frac": Calibration().weight_read_frac * 0.5,
    "host_step_s": Calibration().host_step_s * 2,
}
LOADS = tuple(
    LoadPoint(dataset="random", num_prompts=24, input_len=256, output_len=16, request_rate_per_s=rate)
    for rate in (2.0, None)
)
SEQS = (2, 4, 8, 16, 32, 64)


@pytest.fixture
def planner(tmp_path: Path, llama_70b: Model) -> Planner:
    return Planner(
        study="test",
        trials_folder=str(tmp_path / "test" / "trials"),
        space=Space(
            base={"tensor_parallel_size": 4, "max_model_len": 4096},
            domains={"max_num_seqs": Choice(values=SEQS)},
        ),
        engine=EngineSpec(kind="vllm", release="0.6.2"),
        model=llama_70b,
        platform=Platform.MI300X,
        node=topology.modelled_mi300x(),
        accelerator="rocm",
        load_points=LOADS,
    )


def measured(spec: TrialSpec, placement: Placement) -> TrialResult:
    """Measure a trial on a machine that is slower than the model believes."""
    modelled = replace(
        spec,
        platform=Platform.SIMULATED,
        engine=replace(spec.engine, kind="simulated"),
        calibration=SLOWER,
    )
    made = trial.run(modelled, placement, cancelled=lambda: False)
    return replace(made, spec=spec, provenance=Provenance.MEASURED)


def anchoring_for(planner: Planner) -> Anchoring:
    return Anchoring(node=planner.node, device=USUAL_DEVICE, metrics=(RPS,))


def swept(
    planner: Planner,
    folder: Path,
    anchoring: Anchoring,
    *,
    method: str = "grid",
    trials: int | None = None,
    bound: Constraint | None = None,
    stop: Callable[[], bool] = lambda: False,
    show_outlook: Callable[[Outlook], None] = lambda _: None,
) -> ScriptedExecutor:
    executor = ScriptedExecutor(measured)
    folder.mkdir(exist_ok=True)
    estimate = simulated_estimate(
        planner.job,
        node=planner.node,
        device=USUAL_DEVICE,
        objectives=(THROUGHPUT,),
        constraints=() if bound is None else (bound,),
        anchoring=anchoring,
    )
    hints = Hints(estimate=estimate, revision=lambda: anchoring.revision, trials=trials)
    sweep_of(
        planner,
        folder,
        executor,
        observer=Diary(),
        method=method,
        trials=trials,
        stop=stop,
        hints=hints,
        anchoring=anchoring,
        show_outlook=show_outlook,
    )
    return executor


def test_finished_trials_move_what_is_expected_of_others(planner: Planner, tmp_path: Path) -> None:
    anchoring = anchoring_for(planner)
    swept(planner, tmp_path, anchoring)
    assert anchoring.anchors.trials == len(SEQS)
    told = anchoring.expected_before()
    assert {one.load for one in told} == {"2 QPS", "all at once"}
    crowded = [one for one in told if (one.load, one.metric) == ("all at once", RPS)]
    assert [one.anchored_by for one in crowded] == list(range(len(SEQS)))
    off = [one.value / (one.measured or 0.0) - 1 for one in crowded]
    # Half as fast as the model believes; one trial says most of it, and five say all of it.
    assert off[0] > 0.5
    assert abs(off[1]) < off[0] / 2
    assert abs(off[-1]) < 0.1
    later = [one for one in told if one.anchored_by]
    inside = sum((one.low or 0.0) <= (one.measured or 0.0) <= (one.high or 0.0) for one in later)
    assert inside >= 0.7 * len(later)


def test_measured_rows_hold_what_was_measured_and_no_expectation(planner: Planner, tmp_path: Path) -> None:
    anchoring = anchoring_for(planner)
    executor = swept(planner, tmp_path, anchoring)
    frame = Store(tmp_path / "test").read()
    assert set(frame["provenance"]) == {"measured"}
    truth = [measured(spec, topology_block(planner)) for spec in executor.specs]
    assert sorted(frame[RPS]) == pytest.approx(sorted(m.metrics[RPS] for t in truth for m in t.measurements))
    assert not [name for name in frame if "anchor" in name or "expected_before" in name]
    assert frame["interval_80"].isna().all()
    assert frame["expected_error"].isna().all()


def topology_block(planner: Planner) -> Placement:
    return Placement(node=planner.node.host, devices=(0, 1, 2, 3), parents=(0, 1, 2, 3))


def test_killed_study_has_same_anchors_when_it_goes_on(planner: Planner, tmp_path: Path) -> None:
    cut = anchoring_for(planner)
    executor = swept(
        planner, tmp_path / "cut", cut, method="guided", trials=4, stop=lambda: cut.revision >= 2
    )
    assert 2 <= cut.anchors.trials < 4
    resumed = anchoring_for(planner)
    # With its budget spent nothing is measured: all that it knows is what the store held.
    swept(planner, tmp_path / "cut", resumed, method="guided", trials=cut.anchors.trials)
    assert resumed.anchors.numbers == cut.anchors.numbers
    spec = executor.specs[0]
    assert resumed.rows(spec) == cut.rows(spec)


def test_time_left_of_search_that_goes_on_rests_on_what_it_measured(planner: Planner, tmp_path: Path) -> None:
    swept(planner, tmp_path, anchoring_for(planner), method="random", trials=2)
    left: list[float | None] = []
    executor = swept(
        planner,
        tmp_path,
        anchoring_for(planner),
        method="random",
        trials=3,
        show_outlook=lambda outlook: left.append(outlook.left_s),
    )
    (spec,) = executor.specs
    # A plan learns from the same trials: they are planned again from what the store holds.
    ledger = Ledger(Store(tmp_path / "test"), planner, Terms(objectives=(THROUGHPUT,), method="random"))
    known = {job.spec.key: job.spec for job in ledger.stored_jobs()}
    assert len(known) == 3 and spec.key in known
    taught = Predictor(measured_device=USUAL_DEVICE)
    for key in known.keys() - {spec.key}:
        taught.learn(known[key], ledger.stored.rows_of(key))
    assert left[0] == pytest.approx(taught.predict(spec).total_s, rel=0.02)
    assert left[0] != pytest.approx(Predictor(measured_device=USUAL_DEVICE).predict(spec).total_s, rel=0.02)


def test_bound_is_judged_by_what_trials_measured(planner: Planner, tmp_path: Path) -> None:
    anchoring = anchoring_for(planner)
    point = planner.space.point({"max_num_seqs": 16})
    job = planner.job(point)
    (truth,) = (
        objective_value(
            Constraint(metric=TTFT, limit=1.0, is_upper=True),
            [measured_row(m) for m in measured(job.spec, topology_block(planner)).measurements],
        ),
    )
    (said,) = (
        objective_value(Constraint(metric=TTFT, limit=1.0, is_upper=True), anchoring.rows(job.spec) or []),
    )
    assert truth is not None and said is not None and said < truth
    # Between what the model says and what is true: kept by the one, and broken by the other.
    bound = Constraint(metric=TTFT, limit=(said + truth) / 2, is_upper=True)
    estimate = simulated_estimate(
        planner.job,
        node=planner.node,
        device=USUAL_DEVICE,
        objectives=(THROUGHPUT,),
        constraints=(bound,),
        anchoring=anchoring,
    )
    assert estimate(point) is not None
    for seqs in (2, 4, 8):
        spec = planner.job(planner.space.point({"max_num_seqs": seqs})).spec
        rows = [measured_row(one) for one in measured(spec, topology_block(planner)).measurements]
        anchoring.learn(spec, rows)
    assert estimate(point) is None


def test_search_ranks_anew_when_trial_has_taught_it(planner: Planner, tmp_path: Path) -> None:
    anchoring = anchoring_for(planner)
    asked: list[int] = []

    class Watched(Anchoring):
        def rows(self, spec: TrialSpec) -> list[dict[str, object]] | None:
            asked.append(self.revision)
            return super().rows(spec)

    watched = Watched(node=planner.node, device=USUAL_DEVICE, metrics=(RPS,))
    swept(planner, tmp_path, watched, method="guided", trials=4)
    # Two trials run side by side; each that ends is heeded by the next proposal.
    assert len(set(asked)) >= 2
    assert watched.anchors.trials == 4
    assert anchoring.revision == 0


def test_latest_trials_anchor_and_repetitions_do_not(planner: Planner) -> None:
    anchoring = anchoring_for(planner)
    spec = planner.job(planner.space.point({"max_num_seqs": 16})).spec
    rows = [measured_row(one) for one in measured(spec, topology_block(planner)).measurements]
    anchoring.learn(replace(spec, control=0), rows)
    assert anchoring.revision == 0
    for number in range(MOST_TRIALS + 3):
        anchoring.learn(replace(spec, assignment={**spec.assignment, "max_num_seqs": 16 + number}), rows)
    assert len(anchoring._learnt) == MOST_TRIALS
