"""A study in MLflow, read back by MLflow itself: each trial once, with its knobs, numbers and ending."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from analysis.cli import main
from sweeper.records import LoadPoint, Provenance, TrialResult

MakeTrial = Callable[..., TrialResult]
MakeFolder = Callable[..., Path]


def runs(tracking: str, experiment: str) -> dict[str, Run]:
    client = MlflowClient(tracking_uri=tracking)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    listed = client.search_runs([found.experiment_id])
    named = {str(run.info.run_name): run for run in listed}
    assert len(named) == len(listed)
    return named


def test_each_trial_is_a_run_and_is_written_once(
    trial: MakeTrial, study_folder: MakeFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracking = f"sqlite:///{tmp_path / 'm.db'}"
    fast = trial(
        knobs={"max_num_seqs": 64},
        rates=(16.0, 32.0),
        runs_at=lambda point: [
            [{"request_throughput_per_s": start + (point.request_rate_per_s or 0.0)}] for start in (8.0, 10.0)
        ],
        provenance=Provenance.MEASURED,
    )
    failed = trial(knobs={"max_num_seqs": 2048}, provenance=Provenance.MEASURED)
    folder = study_folder(fast, failed)
    for written, known in ((2, 0), (0, 2)):
        assert main(["mlflow", str(folder), "--tracking", tracking]) == 0
        assert f"{written} runs written to {tracking}; {known} were there" in capsys.readouterr().out
    found = runs(tracking, folder.name)
    assert set(found) == {"max_num_seqs=64", "max_num_seqs=2048"}
    run = found["max_num_seqs=64"]
    assert run.data.params["max_num_seqs"] == "64" and run.info.status == "FINISHED"
    # Means over two starts.
    assert run.data.metrics["request_throughput_per_s at 16 QPS"] == 25.0
    assert run.data.metrics["request_throughput_per_s at 32 QPS"] == 41.0
    assert run.data.tags["provenance"] == "measured" and run.data.tags["sweeper.trial"] == fast.spec.key
    broken = found["max_num_seqs=2048"]
    assert broken.info.status == "FAILED" and broken.data.metrics == {}
    assert broken.data.tags["failure_class"] == "out_of_memory"


def test_simulated_study_is_an_experiment_that_says_so(
    trial: MakeTrial, study_folder: MakeFolder, tmp_path: Path
) -> None:
    tracking = f"sqlite:///{tmp_path / 'm.db'}"
    made = trial(knobs={"n": 1}, runs=[[{"request_throughput_per_s": 1.0}]], provenance=Provenance.SIMULATED)
    folder = study_folder(made)
    assert main(["mlflow", str(folder), "--tracking", tracking]) == 0
    (run,) = runs(tracking, f"{folder.name} (simulated)").values()
    assert run.data.tags["provenance"] == "simulated"


def test_missing_package_and_wrong_place_are_said(
    trial: MakeTrial,
    study_folder: MakeFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = str(study_folder(trial(knobs={"n": 1}, runs=[[{"request_throughput_per_s": 1.0}]])))
    assert main(["mlflow", folder, "--tracking", "nowhere://x"]) == 2
    assert "error: --tracking: nowhere://x did not take the study (" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    assert main(["mlflow", folder]) == 2
    assert 'Run: pip install "mi300x-sweeper[mlflow]"' in capsys.readouterr().err


def test_password_of_tracking_is_not_said_by_what_mlflow_complains_of(
    trial: MakeTrial,
    study_folder: MakeFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    folder = str(study_folder(trial(knobs={"n": 1}, runs=[[{"request_throughput_per_s": 1.0}]])))
    assert main(["mlflow", folder, "--tracking", "http://me:hunter22secret@127.0.0.1:1/"]) == 2
    told = capsys.readouterr().err
    assert told.count("http://me:***@127.0.0.1:1/") == 2
    assert "hunter22secret" not in told


def test_loads_of_one_rate_do_not_take_each_others_place(
    trial: MakeTrial, study_folder: MakeFolder, tmp_path: Path
) -> None:
    points = tuple(
        LoadPoint(dataset="random", num_prompts=9, input_len=length, output_len=8, request_rate_per_s=4.0)
        for length in (128, 1024)
    )
    made = trial(
        knobs={"max_num_seqs": 64},
        points=points,
        runs_at=lambda point: [[{"mean_ttft_ms": float(point.input_len or 0)}]],
        provenance=Provenance.MEASURED,
    )
    folder, tracking = study_folder(made), f"sqlite:///{tmp_path / 'm.db'}"
    assert main(["mlflow", str(folder), "--tracking", tracking]) == 0
    (run,) = runs(tracking, folder.name).values()
    told = {name: value for name, value in run.data.metrics.items() if name.startswith("mean_ttft_ms")}
    assert told == {"mean_ttft_ms at 128 in": 128.0, "mean_ttft_ms at 1024 in": 1024.0}
