"""The wheel carries everything that a run needs, far from the repository, whatever lies where it is run."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy
import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

CASE_2 = (
    *("-m", "sweeper", "+experiment=case2_sched_steps", "platform=simulated"),
    *("executor=inline", "workload.num_prompts=20"),
)
STUDY = Path("outputs/case2_sched_steps-simulated")
USERS_OWN = ("analysis", "conf", "experiments", "tests")
"""Names that this repository has at top level, and that a user's folder may have as well."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder))
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment into which the wheel was installed; its requirements are ours."""
    environment = tmp_path_factory.mktemp("installed") / "venv"
    uv = (sys.executable, "-m", "uv", "--quiet")
    subprocess.run([*uv, "venv", "--python", sys.executable, str(environment)], check=True)
    interpreter = environment / "bin" / "python"
    install = ("pip", "install", "--offline", "--no-deps", "--python", str(interpreter), str(wheel))
    subprocess.run([*uv, *install], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    # A folder named in a .pth file is searched, but .pth files in it are not read: not our checkout's.
    (site / "requirements.pth").write_text(str(Path(numpy.__file__).parents[1]) + "\n")
    return interpreter


@pytest.fixture(scope="module")
def beside_users_own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with packages of the names that our repository has, none of which may be imported."""
    folder = tmp_path_factory.mktemp("users")
    for name in USERS_OWN:
        (folder / name).mkdir()
        for module in ("__init__", "__main__", "cli", "report", "study"):
            (folder / name / f"{module}.py").write_text("raise SystemExit('the package of a user')\n")
    return folder


def run(python: Path, *arguments: str, folder: Path) -> str:
    done = subprocess.run([str(python), *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def told(python: Path, beside_users_own: Path) -> str:
    """What Case 2 says, run from the installed wheel in that folder."""
    where = run(python, "-c", "import sweeper; print(sweeper.__file__)", folder=beside_users_own)
    assert where.startswith(str(python.parents[1]))
    return run(python, *CASE_2, folder=beside_users_own)


def test_case_2_has_its_charts_and_published_figures(told: str, beside_users_own: Path) -> None:
    assert "trials: 5 complete; started now: 5" in told
    assert (beside_users_own / STUDY / "report.md").is_file()
    assert "<script>" in (beside_users_own / STUDY / "report.html").read_text(encoding="utf-8")
    published = (beside_users_own / STUDY / "figures" / "request_throughput_per_s.csv").read_text()
    # 8.14: the article's printed label for no chunked prefill, 1 step, 16 QPS
    assert "8.14" in published


def test_every_command_of_analysis_is_reached(told: str, python: Path, beside_users_own: Path) -> None:
    text = run(python, "-m", "sweeper", "analysis", "--help", folder=beside_users_own)
    assert text.startswith("usage: python -m sweeper analysis ")
    ours = subprocess.run(
        [sys.executable, "-m", "analysis", "--help"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    # All that follows the name of the program.
    assert text.partition("COMMAND")[2] == ours.partition("COMMAND")[2]
    drawn = run(python, "-m", "sweeper", "analysis", "timeline", str(STUDY), folder=beside_users_own)
    assert all((beside_users_own / line).is_file() for line in drawn.splitlines())


def test_console_script_reaches_it_as_well(told: str, python: Path, beside_users_own: Path) -> None:
    command = [str(python.with_name("sweeper")), "analysis", "guide", str(STUDY)]
    done = subprocess.run(command, cwd=beside_users_own, capture_output=True, text=True)
    assert done.stdout == f"{STUDY}/benchmark_results.md\n", done.stderr


def test_message_names_command_that_there_is(python: Path, beside_users_own: Path) -> None:
    options = ("plan=true", "plan_csv=plan.csv")
    said = run(python, *CASE_2, *options, folder=beside_users_own)
    assert "draw it with: python -m sweeper analysis timeline plan.csv" in said


def test_wheel_brings_all_of_it_in_one_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for name in (
        "sweeper/analysis/__main__.py",
        "sweeper/analysis/figures.py",
        "sweeper/conf/config.yaml",
        "sweeper/conf/experiment/cpu_smoke.yaml",
        "sweeper/experiments/case2_sched_steps/published.csv",
        "sweeper/knobs/data/vllm_flags.csv",
    ):
        assert name in names, name
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"sweeper"}
