"""Calibrations of a node's own studies, from its stored rows to the study that uses them.

The rows of these test studies are made by the model itself with other parameters, and marked as measured: so
what a fit has to find is known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import pytest

from sweeper import cli, trial
from sweeper.calibrate.figures import FIT, VALIDATION
from sweeper.calibrate.fitting import fit
from sweeper.calibrate.studies import study_figures
from sweeper.errors import ConfigError
from sweeper.records import EngineSpec, LoadPoint, Placement, Platform, Provenance, TrialResult, TrialSpec
from sweeper.simulation.calibration import Calibration
from sweeper.store import Store

POINTS = tuple(
    LoadPoint(dataset="random", num_prompts=24, input_len=tokens, output_len=12, request_rate_per_s=rate)
    for tokens in (64, 1024)
    for rate in (4.0, None)
)
TRUTH = {"gemm_frac": Calibration().gemm_frac * 0.8, "host_step_s": Calibration().host_step_s * 1.3}


def result_of(spec: TrialSpec, placement: Placement, *, seqs: int, is_measured: bool) -> TrialResult:
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
        made.spec, platform=Platform.MI300X, engine=EngineSpec(kind="vllm", release="0.6.2"), calibration={}
    )
    return replace(made, spec=spec, provenance=Provenance.MEASURED)


def study(folder: Path, spec: TrialSpec, placement: Placement, *, is_measured: bool = True) -> Path:
    store = Store(folder)
    for seqs in (4, 8, 16, 32):
        made = result_of(spec, placement, seqs=seqs, is_measured=is_measured)
        store.append(made, queued_s=0.0, knobs=[])
    model: Mapping[str, object] = {
        "name": spec.model.name,
        "path": spec.model.path,
        "dtype": spec.model.dtype,
        "shape": asdict(spec.model.shape),
    }
    about = {"engine_release": "0.6.2", "resolved": {"model": model, "space": {"series": {}}}}
    (folder / "study.json").write_text(json.dumps(about), encoding="utf-8")
    return folder


def test_parameters_are_recovered_from_the_rows_of_a_study(
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


def test_a_study_without_measured_rows_is_refused(
    tmp_path: Path, simulated_spec: TrialSpec, placement: Placement, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = study(tmp_path / "made_up", simulated_spec, placement, is_measured=False)
    with pytest.raises(
        ConfigError, match="holds simulated on simulated; expected rows measured on mi300x or cuda"
    ):
        study_figures(folder)
    assert cli.main(["calibrate", str(folder), "--name", "mine"]) == cli.MISTAKE
    assert "expected rows measured on" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"nowhere: holds no study\.json"):
        study_figures(tmp_path / "nowhere")


def test_a_node_is_calibrated_under_a_name_that_a_simulated_study_uses(
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
    assert json.loads(rows["calibration"].iloc[0]) == written["values"]
    assert f"Calibration `my_node`; expected mean error: {expected}." in Path(
        "outputs/used/report.md"
    ).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give folders of measured studies, or --published, and not both"),
        (["node", "--published"], "give folders of measured studies, or --published, and not both"),
        (["node"], "got no --name"),
        (["node", "--name", "article_0_6_2"], "'article_0_6_2' is a shipped calibration"),
        (["node", "--name", "x", "--rounds", "0"], "--rounds: is 0"),
        (["node", "--name", "x", "--fit", "effects"], "--fit effects: is given without the article"),
        (["--published", "--values", "gone.json"], "--values: gone.json cannot be read"),
        (["--published", "--start", "gone"], "platform.calibration: there is no 'gone'"),
    ],
)
def test_a_mistake_is_answered_before_anything_is_run(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["calibrate", *arguments]) == cli.MISTAKE
    assert message in capsys.readouterr().err


def test_a_measured_platform_has_no_calibration(capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["+experiment=case2_sched_steps", "platform=cpu", "platform.calibration=article_0_6_2"])
    assert code == cli.MISTAKE
    assert "nothing is simulated there" in capsys.readouterr().err.replace("\n", " ")
