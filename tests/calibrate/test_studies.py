"""Calibrations of a node's own studies, from its stored rows to the study that uses them.

The rows of these test studies are made by the model itself with other parameters, and marked as measured: so
what a fit has to find is known. What a study says of itself is written by the product; one study is measured
by it from its command line to its report, on a stand-in for vLLM and a node that is only recorded.
"""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from sweeper import cli, config, topology
from sweeper.calibrate.figures import FIT, VALIDATION
from sweeper.calibrate.fitting import fit
from sweeper.calibrate.studies import study_figures
from sweeper.errors import ConfigError
from sweeper.records import EngineSpec, LoadPoint, Placement, Platform, Provenance, TrialResult, TrialSpec
from sweeper.simulation.calibration import LATER, Calibration
from sweeper.store.store import Store
from sweeper.store.study_folder import StudyFolder
from sweeper.trial import trial
from tests.standin_server import write_interpreter

POINTS = tuple(
    LoadPoint(dataset="random", num_prompts=24, input_len=tokens, output_len=12, request_rate_per_s=rate)
    for tokens in (64, 1024)
    for rate in (4.0, None)
)
TRUTH = {"gemm_frac": Calibration().gemm_frac * 0.8, "host_step_s": Calibration().host_step_s * 1.3}


def result_of(
    spec: TrialSpec,
    placement: Placement,
    *,
    seqs: int,
    is_measured: bool,
    platform: Platform = Platform.MI300X,
) -> TrialResult:
    asked = replace(
        spec,
        assignment={**spec.assignment, "max_num_seqs": seqs},
        load_points=POINTS,
        calibration=TRUTH,
        series=(f"seqs_{seqs}",),
    )
    made = trial.run(asked, placement, cancelled=lambda: False)
    if not is_measured:
        return made
    spec = replace(
        made.spec, platform=platform, engine=EngineSpec(kind="vllm", release="0.6.2"), calibration={}
    )
    return replace(made, spec=spec, provenance=Provenance.MEASURED)


def study(folder: Path, spec: TrialSpec, placement: Placement, *, is_measured: bool = True) -> Path:
    store = Store(folder)
    for seqs in (4, 8, 16, 32):
        made = result_of(spec, placement, seqs=seqs, is_measured=is_measured)
        store.append(made, queued_s=0.0, knobs=[])
    return described(folder, spec, Platform.MI300X if is_measured else Platform.SIMULATED)


def described(folder: Path, spec: TrialSpec, platform: Platform) -> Path:
    composed = config.compose_run(["+experiment=quick_start", "platform=simulated"])
    asked = config.settings(composed, platform=Platform.SIMULATED)
    assert asked.model == spec.model
    StudyFolder(folder).describe(
        name=folder.name,
        experiment="",
        question="",
        source="",
        platform=platform,
        platform_reason="asked for",
        node=topology.modelled_mi300x("SPX", "NPS1"),
        engine_release="0.6.2",
        model=asked.model,
        space=asked.space,
        objectives=asked.objectives,
        load_points=asked.load_points,
        resolved=asked.resolved,
    )
    return folder


def test_parameters_are_recovered_from_rows_of_study(
    tmp_path: Path, simulated_spec: TrialSpec, placement: Placement
) -> None:
    figures = study_figures(study(tmp_path / "node", simulated_spec, placement))
    found = fit([f for f in figures if f.role == FIT], {}, parameters=list(TRUTH), rounds=6, ridge=0.0)
    assert found == pytest.approx(TRUTH, rel=0.03)


def test_every_fourth_setting_is_kept_to_judge_by(
    tmp_path: Path, simulated_spec: TrialSpec, placement: Placement
) -> None:
    figures = study_figures(study(tmp_path / "node", simulated_spec, placement))
    # 4 settings, 4 load points, 3 metrics.
    assert len(figures) == 48
    settings = {role: {f.series for f in figures if f.role == role} for role in (FIT, VALIDATION)}
    assert [len(settings[FIT]), len(settings[VALIDATION])] == [3, 1]


def test_half_of_load_points_is_kept_where_it_is_asked_for(
    tmp_path: Path, simulated_spec: TrialSpec, placement: Placement, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = study_on(tmp_path / "node", simulated_spec, placement, [(Platform.MI300X, None)] * 2)
    # Of two settings load points are kept without being asked for.
    for judged_by in (None, "loads"):
        figures = study_figures(folder, judged_by=judged_by)
        loads = {role: {f.point for f in figures if f.role == role} for role in (FIT, VALIDATION)}
        assert (loads[FIT], loads[VALIDATION]) == ({*POINTS[::2]}, {*POINTS[1::2]})
    asked = ["calibrate", str(folder), "--name", "mine", "--into", str(tmp_path), "--rounds", "1"]
    assert cli.main([*asked, "--judge-by", "loads"]) == cli.OK
    told = capsys.readouterr().out
    assert "24 figures: 12 to fit (0 of them passed over), 12 to judge by" in told
    assert told.count("; predicted ") == 12
    assert "seqs_4, all at once, request_throughput_per_s: " in told
    # None was read off a chart: first tokens count however short they are.
    (line,) = [line for line in told.splitlines() if line.startswith("mean absolute error, validation")]
    assert [word in line for word in ("requests/s", "mean TTFT", "mean TPOT")] == [True] * 3

    assert cli.main([*asked, "--judge-by", "settings"]) == cli.MISTAKE
    assert "holds 2 measured trials to fit; expected at least 4" in " ".join(capsys.readouterr().err.split())


def test_study_without_measured_rows_is_refused(
    tmp_path: Path, simulated_spec: TrialSpec, placement: Placement, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = study(tmp_path / "made_up", simulated_spec, placement, is_measured=False)
    with pytest.raises(
        ConfigError, match="holds simulated on simulated; expected rows measured on mi300x or cuda or cpu"
    ):
        study_figures(folder)
    assert cli.main(["calibrate", str(folder), "--name", "mine"]) == cli.MISTAKE
    assert "expected rows measured on" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"nowhere: no such folder; expected a study's"):
        study_figures(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r": holds no study\.json"):
        study_figures(tmp_path)


def test_study_that_cannot_be_modelled_says_why(
    tmp_path: Path, simulated_spec: TrialSpec, placement: Placement
) -> None:
    made = result_of(simulated_spec, placement, seqs=8, is_measured=True)
    in_stages = {**made.spec.assignment, "tensor_parallel_size": 2, "pipeline_parallel_size": 2}
    for name, spec, why in (
        ("stages", replace(made.spec, assignment=in_stages), "pipeline_parallel_size"),
        (
            "unknown",
            replace(made.spec, model=replace(made.spec.model, name="own")),
            "the build of own is not",
        ),
    ):
        folder = tmp_path / name
        Store(folder).append(replace(made, spec=spec), queued_s=0.0, knobs=[])
        described(folder, simulated_spec, Platform.MI300X)
        with pytest.raises(
            ConfigError, match=f"none of its 1 measured trial can be modelled.* Of the first it says: .*{why}"
        ):
            study_figures(folder)


def test_trial_that_cannot_be_modelled_is_left_out_and_said_to_be(
    tmp_path: Path, simulated_spec: TrialSpec, placement: Placement
) -> None:
    store = Store(tmp_path / "node")
    for seqs in (4, 8, 12, 16, 32):
        made = result_of(simulated_spec, placement, seqs=seqs, is_measured=True)
        if seqs == 12:
            in_stages = {**made.spec.assignment, "tensor_parallel_size": 2, "pipeline_parallel_size": 2}
            made = replace(made, spec=replace(made.spec, assignment=in_stages))
        store.append(made, queued_s=0.0, knobs=[])
    told: list[str] = []
    folder = described(tmp_path / "node", simulated_spec, Platform.MI300X)
    figures = study_figures(folder, tell=told.append)
    (line,) = told
    assert "1 of 5 measured trials left out, since not modelled; of the first: " in line
    assert "pipeline_parallel_size" in line
    # One of four that are left is kept to judge by, whichever place the fifth has among them.
    settings = {role: {f.series for f in figures if f.role == role} for role in (FIT, VALIDATION)}
    assert [len(settings[FIT]), len(settings[VALIDATION])] == [3, 1]


def test_calibration_that_predicts_badly_is_doubted(
    tmp_path: Path, simulated_spec: TrialSpec, placement: Placement, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, far = study(tmp_path / "node", simulated_spec, placement), tmp_path / "far.json"
    far.write_text(json.dumps({"host_step_s": 1.0}))
    asked = ["calibrate", str(folder), "--name", "mine", "--into", str(tmp_path), "--fit", "none"]
    for values, is_doubted in (([], False), (["--values", str(far)], True)):
        assert cli.main([*asked, *values]) == cli.OK
        told = capsys.readouterr().out
        assert ("WARNING: what was not fitted is requests/s " in told) == is_doubted, told


@pytest.mark.parametrize(
    "product",
    [
        "AMD Instinct MI325X",
        "AMD Instinct MI308X OAM",
        "AMD Instinct MI300X and AMD Instinct MI325X",
        "NVIDIA H100 80GB HBM3",
    ],
)
def test_study_of_another_gpu_is_refused(
    tmp_path: Path,
    simulated_spec: TrialSpec,
    placement: Placement,
    product: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = study(tmp_path / "node", simulated_spec, replace(placement, device_name=product))
    assert cli.main(["calibrate", str(folder), "--name", "mine"]) == cli.MISTAKE
    told = " ".join(capsys.readouterr().err.split())
    assert f"holds rows measured on {product}; expected AMD Instinct MI300X" in told


def test_modelled_gpu_may_be_named_with_its_form_factor(
    tmp_path: Path, simulated_spec: TrialSpec, placement: Placement
) -> None:
    named = replace(placement, device_name="AMD Instinct MI300X OAM")
    assert len(study_figures(study(tmp_path / "node", simulated_spec, named))) == 48


def study_on(
    folder: Path, spec: TrialSpec, placement: Placement, devices: list[tuple[Platform, str | None]]
) -> Path:
    """Write a measured study whose settings ran on these devices, one setting on each."""
    store = Store(folder)
    for number, (platform, name) in enumerate(devices):
        where = replace(placement, device_name=name)
        made = result_of(spec, where, seqs=4 + number, is_measured=True, platform=platform)
        store.append(made, queued_s=0.0, knobs=[])
    return described(folder, spec, devices[0][0])


H100, H200, MI300X = "NVIDIA H100 80GB HBM3", "NVIDIA H200", "AMD Instinct MI300X"


def test_study_of_one_nvidia_gpu_is_fitted(
    tmp_path: Path, simulated_spec: TrialSpec, placement: Placement
) -> None:
    devices: list[tuple[Platform, str | None]] = [(Platform.CUDA, H100)] * 4
    figures = study_figures(study_on(tmp_path / "node", simulated_spec, placement, devices))
    found = fit([f for f in figures if f.role == FIT], {}, parameters=list(TRUTH), rounds=6, ridge=0.0)
    assert found == pytest.approx(TRUTH, rel=0.03)


@pytest.mark.parametrize(
    ("devices", "held"),
    [
        ([(Platform.CUDA, H100), (Platform.CUDA, H200)], f"{H100}, {H200}"),
        ([(Platform.CUDA, f"{H100} and {H200}")], f"{H100} and {H200}"),
        ([(Platform.CUDA, H100), (Platform.MI300X, MI300X)], f"{MI300X}, {H100}"),
        ([(Platform.CUDA, H100), (Platform.MI300X, None)], H100),
    ],
)
def test_study_of_several_gpus_is_refused(
    tmp_path: Path,
    simulated_spec: TrialSpec,
    placement: Placement,
    devices: list[tuple[Platform, str | None]],
    held: str,
) -> None:
    folder = study_on(tmp_path / "node", simulated_spec, placement, devices)
    with pytest.raises(
        ConfigError, match=f"holds rows measured on {held}; expected .* one and the same NVIDIA"
    ):
        study_figures(folder)


def test_node_is_calibrated_under_name_that_simulated_study_uses(
    tmp_path: Path,
    simulated_spec: TrialSpec,
    placement: Placement,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    study(tmp_path / "node", simulated_spec, replace(placement, partition_mode="SPX", memory_mode="NPS1"))

    assert cli.main(["calibrate", "node", "--name", "my_node", "--rounds", "1"]) == cli.OK
    told = capsys.readouterr().out
    assert "48 figures: 36 to fit (0 of them passed over), 12 to judge by" in told
    assert "use it with platform.calibration=my_node" in told

    use = ("platform=simulated", "executor=inline", "workload=random", "workload.num_prompts=4")
    knobs = ("knobs.tensor_parallel_size=4", "knobs.max_model_len=8192", "space.knobs.max_num_seqs=64")
    assert cli.main([*use, *knobs, "platform.calibration=my_node", "study.name=used"]) == cli.OK
    rows = pd.read_parquet("outputs/used/measurements")
    assert set(rows["calibration_name"]) == {"my_node"}
    (expected,) = set(rows["expected_error"])
    assert expected.startswith("requests/s ") and expected.endswith("(runs not fitted)")
    written = json.loads(Path("outputs/calibrations/my_node.json").read_text(encoding="utf-8"))
    # What came later is left out of a trial where it has its default.
    assert {**LATER, **json.loads(rows["calibration"].iloc[0])} == written["values"]
    assert f"Calibration `my_node`; expected mean error: {expected}." in Path(
        "outputs/used/report.md"
    ).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give folders of measured studies, or --published, or --table, just one"),
        (["node", "--published"], "give folders of measured studies, or --published, or --table, just one"),
        (["node"], "got no --name"),
        (["node", "--name", "article_0_6_2"], "'article_0_6_2' is a shipped calibration"),
        (["node", "--name", "x", "--rounds", "0"], "--rounds: is 0"),
        (["node", "--name", "x", "--fit", "effects"], "--fit effects: is given without the article"),
        (["--published", "--judge-by", "loads"], "--judge-by: is given without the folder of a study"),
        (["--published", "--values", "gone.json"], "--values: gone.json cannot be read"),
        (["--published", "--start", "gone"], "platform.calibration: there is no 'gone'"),
    ],
)
def test_mistake_is_answered_before_anything_is_run(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["calibrate", *arguments]) == cli.MISTAKE
    assert message in capsys.readouterr().err


def test_measured_platform_has_no_calibration(capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["+experiment=case2_sched_steps", "platform=cpu", "platform.calibration=article_0_6_2"])
    assert code == cli.MISTAKE
    assert "nothing is simulated there" in capsys.readouterr().err.replace("\n", " ")


OWN = """\
# @package _global_
defaults: [{override /model: qwen3_8b}, {override /workload: random}]
study: {experiment: own, question: "How large a batch?"}
knobs: {max_model_len: 2048}
space: {knobs: {max_num_seqs: [8, 16]}}
workload: {num_prompts: 4, input_len: 64, output_len: 16, request_rate_per_s: [null], warmup_prompts: 0}
"""


LARGER = ("space.knobs.max_num_seqs=[8,16,32]",)


def test_study_that_product_has_just_measured_is_calibrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = Path(__file__).parents[1] / "recorded" / "rocm_6.4_cpx_nps4"
    python = write_interpreter(tmp_path / "bin")
    smi = tmp_path / "bin" / "amd-smi"
    smi.write_text(
        f"#!{sys.executable}\nimport pathlib, sys\nfolder = pathlib.Path({str(recorded)!r})\nprint((folder / "
        "(sys.argv[1] + '.json')).read_text(encoding='utf-8'), end='')\n"
    )
    smi.chmod(0o755)
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "own.yaml").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    asked = ["--config-dir", "conf", "+experiment=own", "executor=inline"]
    assert cli.main([*asked, "platform=mi300x", f"engine.python={python}"]) == cli.OK
    told = " ".join(capsys.readouterr().out.split())
    # The second of its two trials was expected from the first one, before it was measured.
    assert "expected: 1 trial was predicted from those before it" in told
    with Path("outputs/own-mi300x/expected.csv").open(encoding="utf-8") as file:
        expected = list(csv.DictReader(file))
    assert {row["anchored_by_trials"] for row in expected} == {"1"}
    rows = pd.read_parquet("outputs/own-mi300x/measurements")
    (later,) = {row["trial_key"] for row in expected}
    own = rows[rows["trial_key"] == later].iloc[0]
    for row in expected:
        assert row["load"] == "all at once"
        assert float(row["measured"]) == pytest.approx(own[row["metric"]])
        assert float(row["low_80"]) < float(row["expected"]) < float(row["high_80"])
    assert {*rows["provenance"]} == {"measured"}
    # A plan of what is left says what it expects, and from how many trials.
    assert cli.main([*asked, "platform=mi300x", f"engine.python={python}", *LARGER, "plan=true"]) == cli.OK
    told = " ".join(capsys.readouterr().out.split())
    assert (
        "request_throughput_per_s: predicted, not measured; the model's numbers moved by 2 trials of this "
        "study" in told
    )
    assert "four of five of these request_throughput_per_s within" in told
    assert "3: 1 run, 0 refused, 2 in the store" in told
    words = [*asked, "platform=mi300x", f"engine.python={python}", *LARGER, "plan=true", "plan_json=-"]
    assert cli.main(words) == cli.OK
    plan = json.loads(capsys.readouterr().out)
    (left,) = [point for point in plan["points"] if point["what_happens"] == "runs"]
    assert left["knobs"]["max_num_seqs"] == 32
    assert {one["anchored_by_trials"] for one in left["expected"]} == {2}
    for one in left["expected"]:
        assert one["low_80"] < one["value"] < one["high_80"]
    assert not any(point["expected"] for point in plan["points"] if point["what_happens"] == "stored")
    assert cli.main(["calibrate", "outputs/own-mi300x", "--name", "mine", "--fit", "none"]) == cli.OK
    told = " ".join(capsys.readouterr().out.split())
    assert "4 figures: 4 to fit" in told
    assert "outputs/calibrations/mine.json: use it with platform.calibration=mine" in told
    made = json.loads((tmp_path / "outputs" / "calibrations" / "mine.json").read_text())
    assert made["about"].startswith("vLLM 0.32.0 as measured in own-mi300x")
    assert made["compared"]["models"] == ["qwen3-8b"]
    # One load point each leaves nothing to judge by: every number is predicted from the others.
    assert cli.main(["calibrate", "outputs/own-mi300x", "--name", "few"]) == cli.OK
    told = " ".join(capsys.readouterr().out.split())
    assert "4 numbers; vLLM 0.32.0 by own-mi300x; the nearest stack known is amd_0_10_0" in told
    assert told.count("; from the others ") == 4
    made = json.loads((tmp_path / "outputs" / "calibrations" / "few.json").read_text())
    assert (made["stack"]["release"], made["stack"]["parent"]) == ("0.32.0", "amd_0_10_0")
    assert made["errors_pct"]["validation"]["request_throughput_per_s"] > 0

    # The same question asked of the model gives nothing to fit to, and it is said so.
    assert cli.main([*asked, "platform=simulated", "engine.release=0.32.0"]) == cli.OK
    assert cli.main(["calibrate", "outputs/own-simulated", "--name", "other"]) == cli.MISTAKE
    told = capsys.readouterr().err
    assert (
        "outputs/own-simulated: holds simulated on simulated; expected rows measured on mi300x or cuda or cpu"
        in told
    )
