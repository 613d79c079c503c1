"""Answers that cannot be written: a sentence with place and remedy, and a complete study stays complete.

Places that refuse are made as an ordinary user can: a file where a folder is wanted, a folder where a file
is, the device that is always full, and a limit on the size of files.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.cli import main as analyse
from sweeper import cli
from sweeper.errors import AnswerError
from sweeper.text.writing import write_answer

STUDY = Path("outputs/mine-simulated")
RUN = (
    *("+experiment=case2_sched_steps", "study.experiment=mine", "study.name=mine-simulated"),
    *("platform=simulated", "executor=inline", "workload.num_prompts=20", "workload.request_rate_per_s=[16]"),
)
NO_FOLDER = "is no folder); expected a file in a writable folder with free space. Make room"
FULL = "standard output: cannot be written (No space left on device); expected a terminal, a pipe, or a file"


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study as a run leaves it; tests work on copies."""
    place = tmp_path_factory.mktemp("complete")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert cli.main(RUN) == cli.OK
    return place


@pytest.fixture
def study(complete: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(complete, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return STUDY


def a_file_for_figures(study: Path) -> None:
    shutil.rmtree(study / "figures")
    (study / "figures").write_text("not a folder")


def a_folder_for_the_report(study: Path) -> None:
    (study / "report.md").unlink()
    (study / "report.md").mkdir()


@pytest.mark.parametrize(
    ("spoil", "place", "reason"),
    [
        (a_file_for_figures, "figures/request_throughput_per_s.png", f"{STUDY / 'figures'} is no folder"),
        (a_folder_for_the_report, "report.md", "a folder of that name is there"),
    ],
)
def test_complete_study_whose_report_cannot_be_written_stays_complete(
    study: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], None],
    place: str,
    reason: str,
) -> None:
    spoil(study)
    assert cli.main(RUN) == cli.OK
    told = "".join(capsys.readouterr())
    assert f"report: not written: {study / place}: cannot be written ({reason}); expected a file in a" in told
    assert f"Then write it with: python -m analysis report {study}" in told
    assert "trials: 5 complete; started now: 0" in told
    assert "best: " in told
    assert "defect" not in told


@pytest.mark.parametrize("command", ["figures", "report", "timeline"])
def test_charts_into_file_are_refused_with_place(
    study: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    a_file_for_figures(study)
    assert analyse([command, str(study)]) == 2
    told = capsys.readouterr()
    assert told.err.startswith(f"error: {study / 'figures'}/")
    assert NO_FOLDER in told.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["claims", "--out", "{out}"],
        ["claims", "{study}", "--out", "{out}"],
        ["compare", "{study}", "{study}", "--out", "{out}"],
        ["blog", "{out}", "{study}"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("out", ["a_file", "a_file/below"])
def test_answer_into_file_is_refused_with_place(
    study: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], out: str
) -> None:
    Path("a_file").write_text("kept")
    assert analyse([text.format(out=out, study=study) for text in arguments]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {out}/")
    assert f"(a_file {NO_FOLDER}" in told
    assert Path("a_file").read_text() == "kept"


@pytest.mark.parametrize("command", ["guide"])
def test_folder_in_place_of_file_is_named(
    study: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    place = study / "benchmark_results.md"
    place.mkdir()
    assert analyse([command, str(study)]) == 2
    assert f"error: {place}: cannot be written (a folder of that name is there)" in capsys.readouterr().err


def test_plan_whose_time_line_cannot_be_written_names_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a_file").write_text("")
    assert cli.main([*RUN, "plan=true", "plan_csv=a_file/plan.csv"]) == cli.MISTAKE
    assert (
        f"error: plan_csv: a_file/plan.csv: cannot be written (a_file {NO_FOLDER}" in capsys.readouterr().err
    )


def program(*arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        **more,  # type: ignore[call-overload]
    )


def test_disk_that_is_full_leaves_no_half_written_chart(study: Path) -> None:
    # Where matplotlib has not yet noted this home's fonts, it would say that it cannot.
    program("analysis", "report", str(study), stdout=subprocess.PIPE)
    before = {path: path.read_bytes() for path in study.rglob("*") if path.is_file()}
    limit = 20_000  # bytes: of a chart the CSV fits, the picture does not

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    ended = program("analysis", "report", str(study), stdout=subprocess.PIPE, preexec_fn=limited)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: {study / 'figures'}/")
    assert "cannot be written (File too large)" in ended.stderr
    assert {path: path.read_bytes() for path in study.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_sweep_whose_output_is_full_measures_everything_and_says_so(study: Path) -> None:
    shutil.rmtree(study)
    with Path("/dev/full").open("w") as full:
        ended = program("sweeper", *RUN, stdout=full)
    assert ended.returncode == cli.OK
    assert ended.stderr.startswith(FULL)
    assert (study / "report.md").is_file()


@pytest.mark.slow
def test_sweep_whose_reader_leaves_measures_everything(study: Path) -> None:
    shutil.rmtree(study)
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        ended = program("sweeper", *RUN, stdout=closed)
    assert (ended.returncode, ended.stderr) == (cli.OK, "")
    assert (study / "report.md").is_file()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["sweeper", "--help"], 2),
        (["sweeper", "fit", "--help"], 2),
        (["sweeper", *RUN, "plan=true"], 2),
        (["analysis", "columns"], 2),
        (["analysis", "--help"], 2),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_command_whose_output_is_lost_says_so(tmp_path: Path, arguments: list[str], code: int) -> None:
    with Path("/dev/full").open("w") as full:
        ended = program(*arguments, stdout=full, cwd=tmp_path)
    assert ended.returncode == code
    assert FULL in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_reader_that_has_seen_enough_is_no_mistake(tmp_path: Path) -> None:
    for arguments in (["analysis", "columns"], ["sweeper", "--help"]):
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "w") as closed:
            ended = program(*arguments, stdout=closed, cwd=tmp_path)
        assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_streams_that_are_closed_are_no_mistake_and_no_file_gets_their_place(
    study: Path, closed: tuple[int, ...]
) -> None:
    def close() -> None:
        for number in closed:
            os.close(number)

    shutil.rmtree(study)
    for arguments in (["sweeper", *RUN], ["analysis", "costs", str(study), "--price=2"]):
        told = subprocess.run(
            [sys.executable, "-m", *arguments], preexec_fn=close, timeout=300,
            stdout=None if 1 in closed else subprocess.PIPE, stderr=None if 2 in closed else subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        )  # fmt: skip
        assert (told.returncode, told.stderr or b"") == (0, b"")
    assert (study / "report.md").read_text().startswith("# ")
    assert Path("outputs/optuna.db").read_bytes().startswith(b"SQLite format 3")


def test_device_is_written_to_and_never_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_answer(pipe, "a plan\n")
        assert os.read(reader, 100) == b"a plan\n"
        assert pipe.is_fifo()
    finally:
        os.close(reader)
    with pytest.raises(AnswerError, match=r"/dev/full: cannot be written \(No space left on device\)"):
        write_answer(Path("/dev/full"), "a plan\n")


def test_half_character_is_written_by_its_code(tmp_path: Path) -> None:
    assert write_answer(tmp_path / "x.md", "a \ud83d b").read_bytes() == b"a \\ud83d b"
