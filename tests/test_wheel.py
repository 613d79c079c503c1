"""The wheel carries everything that a run needs, far from the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what pip would install from the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.mark.slow
def test_case_2_runs_from_the_wheel_with_the_published_figures(unpacked: Path, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "sweeper", "+experiment=case2_sched_steps", "platform=simulated"),
        *("executor=inline", "workload.num_prompts=20"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(unpacked), "PYTHONSAFEPATH": "1"}
    where = subprocess.run(
        [sys.executable, "-c", "import sweeper; print(sweeper.__file__)"],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert where.stdout.startswith(str(unpacked))
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = tmp_path / "outputs" / "case2_sched_steps-simulated" / "figures"
    published = (figures / "request_throughput_per_s.csv").read_text()
    # 8.14: the article's printed label for no chunked prefill, 1 step, 16 QPS
    assert "8.14" in published


def test_the_wheel_brings_configuration_release_tables_and_both_packages(unpacked: Path) -> None:
    for name in (
        "sweeper/conf/config.yaml",
        "sweeper/conf/experiment/cpu_smoke.yaml",
        "sweeper/knobs/data/vllm_flags.csv",
        "analysis/experiments/case2_sched_steps/published.csv",
        "analysis/figures.py",
    ):
        assert (unpacked / name).is_file(), name
    assert not list(unpacked.glob("tests*"))
