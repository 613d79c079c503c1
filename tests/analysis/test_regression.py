"""``compare --fail-if``: equal, better, worse and noisy pairs, and what it writes for a CI run."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from analysis import cli
from sweeper import config
from sweeper.records import Platform, Provenance, TrialResult

ROOT = Path(__file__).resolve().parents[2]

MakeTrial = Callable[..., TrialResult]
MakeFolder = Callable[..., Path]

RPS = "request_throughput_per_s"
TTFT = "mean_ttft_ms"
FAST = (10.0, 10.02, 9.98)
"""Three engine starts, 0.2 % apart: the 95 % interval of a ratio of two such is about 0.5 % wide."""


@pytest.fixture
def measured(trial: MakeTrial, study_folder: MakeFolder) -> Callable[..., Path]:
    """Store a measured study of one setting: requests/s of its starts, and ten times that in TTFT."""

    def make(
        name: str, *values: float, rates: Sequence[float | None] = (16.0,), with_ttft: bool = False
    ) -> Path:
        runs = [[{RPS: value} | ({TTFT: 10 * value} if with_ttft else {})] for value in values]
        made = trial(series=("base",), runs=runs, rates=rates, name=name, provenance=Provenance.MEASURED)
        return study_folder(made, name=name)

    return make


def compare(first: Path, second: Path, *more: object) -> int:
    return cli.main(["compare", str(first), str(second), *map(str, more)])


@pytest.mark.parametrize(
    ("values", "code", "word"),
    [
        (FAST, 0, "equal"),
        ((12.0, 12.02, 11.98), 0, "better"),
        ((8.0, 8.02, 7.98), 1, "worse"),
        # 7 to 12: nobody knows.
        ((7.0, 12.0, 9.0), 5, "inconclusive"),
        # Just at the margin: 9.5 of 10 with an interval of half a percent reaches across 5 %.
        ((9.5, 9.52, 9.48), 5, "inconclusive"),
        # One start has no interval.
        ((8.0,), 5, "inconclusive"),
    ],
)
def test_exit_code_is_that_of_the_interval(
    measured: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    values: Sequence[float],
    code: int,
    word: str,
) -> None:
    condition = f"{RPS} worse than 5%"

    assert compare(measured("old", *FAST), measured("new", *values), "--fail-if", condition) == code

    told = capsys.readouterr().out.splitlines()
    assert told[-1] == f"{condition}: {word} (1 {word} of 1)"


def test_which_way_is_worse_follows_from_the_metric(measured: Callable[..., Path]) -> None:
    old = measured("old", *FAST, with_ttft=True)
    new = measured("new", 8.0, 8.02, 7.98, with_ttft=True)

    # Fewer requests per second are worse, and a shorter TTFT is better.
    assert compare(old, new, "--fail-if", f"{TTFT} worse than 5%") == 0
    assert compare(new, old, "--fail-if", f"{TTFT} worse than 5%") == 1
    assert compare(new, old, "--fail-if", f"{RPS} worse than 5%") == 0


def test_files_tell_every_point(
    measured: Callable[..., Path], trial: MakeTrial, study_folder: MakeFolder, tmp_path: Path
) -> None:
    """The old study has three rates; of the new one the second is noisy and the third was not run."""
    old = measured("old", *FAST, rates=(8.0, 16.0, 32.0), with_ttft=True)
    new = study_folder(
        trial(
            series=("base",),
            rates=(8.0, 16.0),
            runs_at=lambda point: [
                [{RPS: value, TTFT: 10 * value}]
                for value in ((8.0, 8.02, 7.98) if point.request_rate_per_s == 8 else (7.0, 12.0, 9.0))
            ],
            name="new",
            release="0.11.0",
            provenance=Provenance.MEASURED,
        ),
        name="new",
    )
    files = {name: tmp_path / "ci" / f"check.{name}" for name in ("json", "junit", "markdown")}

    code = compare(
        old,
        new,
        *("--fail-if", f"{RPS} worse than 5%", "--fail-if", f"{TTFT} worse than 5 %"),
        *(word for name, path in files.items() for word in (f"--{name}", path)),
    )

    assert code == 1
    told = json.loads(files["json"].read_text(encoding="utf-8"))
    assert (told["outcome"], told["exit_code"]) == ("worse", 1)
    assert told["first"] == {"name": "old", "provenance": "measured"}
    assert [each["outcome"] for each in told["checks"]] == ["worse", "inconclusive"]
    worse, noisy, absent = told["checks"][0]["points"]
    assert (worse["setting"], worse["load_point"], worse["first"], worse["second"]) == (
        "base",
        "8 QPS",
        10.0,
        8.0,
    )
    assert worse["ratio"] == pytest.approx(0.8)
    assert worse["low"] < 0.8 < worse["high"] < 0.95
    assert noisy["outcome"] == "inconclusive" and noisy["low"] < 0.95 < noisy["high"]
    assert (absent["second"], absent["reason"]) == (None, "the second study has not run it")
    assert len(told["others"][0]["metrics"][RPS]) == 2

    root = ElementTree.parse(files["junit"]).getroot()
    assert [root.get(name) for name in ("tests", "failures", "errors")] == ["6", "1", "4"]
    assert [suite.get("name") for suite in root] == [
        f"{RPS} worse than 5%: new against old",
        f"{TTFT} worse than 5 %: new against old",
    ]
    (failed,) = root.iter("failure")
    assert failed.get("message") == (
        f"Requests per second: 10.00 to 8.00; -20.0 % ({(worse['low'] - 1) * 100:+.1f} % to "
        f"{(worse['high'] - 1) * 100:+.1f} %); the whole interval lies beyond the margin"
    )

    page = files["markdown"].read_text(encoding="utf-8")
    assert page.startswith("## Regression check: worse\n")
    assert "| 0.6.2 | 0.11.0 |" in page
    assert f"### {RPS} worse than 5%: worse (1 worse, 2 inconclusive of 3)" in page
    rows = [line for line in page.splitlines() if line.startswith("| base")]
    assert len(rows) == 6
    assert "8.00 (n=3)" in rows[0] and "worse: the whole interval lies beyond the margin" in rows[0]


def test_setting_that_no_longer_runs_is_worse(
    measured: Callable[..., Path], trial: MakeTrial, study_folder: MakeFolder, tmp_path: Path
) -> None:
    broken = study_folder(trial(series=("base",), name="new", provenance=Provenance.MEASURED), name="new")
    into = tmp_path / "check.json"

    code = compare(measured("old", *FAST), broken, "--fail-if", f"{RPS} worse than 5%", "--json", into)

    assert code == 1
    (point,) = json.loads(into.read_text(encoding="utf-8"))["checks"][0]["points"]
    assert point["reason"] == "no number: failed: out_of_memory"


def test_simulated_pair_is_judged_by_stated_margin_and_says_so(
    trial: MakeTrial, study_folder: MakeFolder, tmp_path: Path
) -> None:
    old, new = (
        study_folder(trial(series=("base",), runs=[[{RPS: value}]], name=name), name=name)
        for name, value in (("old", 10.0), ("new", 9.0))
    )
    page = tmp_path / "summary.md"

    assert compare(old, new, "--fail-if", f"{RPS} worse than 5%", "--markdown", page) == 1

    text = page.read_text(encoding="utf-8")
    assert "Simulated numbers are the same at every start: theirs is a stated margin of 2 %" in text
    assert text.count("Simulated: no GPU was measured") == 2


def test_json_without_a_condition_has_every_number(measured: Callable[..., Path], tmp_path: Path) -> None:
    into = tmp_path / "numbers.json"

    assert compare(measured("old", *FAST), measured("new", 8.0, 8.02, 7.98), "--json", into) == 0

    told = json.loads(into.read_text(encoding="utf-8"))
    assert told["outcome"] is None
    (row,) = told["others"][0]["metrics"][RPS]
    assert (row["first"], row["second"], row["verdict"]) == (10.0, 8.0, "worse")


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (
            "request_troughput_per_s worse than 5%",
            "'request_troughput_per_s' is no metric of a result. Did you",
        ),
        (f"{RPS} worse than 5", "without %; expected METRIC worse than NUMBER%"),
        (f"{RPS} worse than five%", "'five' is no number"),
        (f"{RPS} worse than 0%", "the margin in"),
        (f"{RPS} worse than -5%", "expected above 0 and below 100"),
        (f"{RPS} worse than nan%", "expected above 0 and below 100"),
        (f"{RPS} < 5%", "expected METRIC worse than NUMBER%"),
        ("", "is ''; expected METRIC worse than NUMBER%"),
        ("completed worse than 5%", "'completed' has no good side"),
    ],
)
def test_mistake_in_a_condition_is_one_sentence_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], condition: str, words: str
) -> None:
    assert compare(tmp_path / "none", tmp_path / "none", "--fail-if", condition) == 2

    told = capsys.readouterr().err
    assert told.startswith("error: --fail-if: ") and words in told
    assert len(told.splitlines()) == 1


def test_files_of_checks_need_a_condition(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(tmp_path / "none", tmp_path / "none", "--junit", tmp_path / "j.xml") == 2
    assert "Add one." in capsys.readouterr().err


def test_studies_with_nothing_in_common_are_a_mistake(
    measured: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = measured("old", *FAST, rates=(8.0,)), measured("new", *FAST, rates=(16.0,))

    assert compare(old, new, "--fail-if", f"{RPS} worse than 5%") == 2

    assert "no setting and load point in common" in capsys.readouterr().err


WORKFLOW = ROOT / "examples" / "ci" / "regression-check.yml"


@pytest.fixture
def steps() -> dict[str, str]:
    """The scripts of the example's steps by their names."""
    workflow = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    assert set(workflow["jobs"]) == {"check"}
    return {step["name"]: step["run"] for step in workflow["jobs"]["check"]["steps"] if "run" in step}


@pytest.mark.parametrize(("values", "code"), [((8.0, 8.02, 7.98), 1), ((7.0, 12.0, 9.0), 0)])
def test_workflow_compares_and_writes_summary(
    measured: Callable[..., Path],
    steps: Mapping[str, str],
    tmp_path: Path,
    values: Sequence[float],
    code: int,
) -> None:
    """The step is run by its shell, as the runner does: worse fails it, inconclusive is a warning."""
    (tmp_path / "nightly").mkdir()
    old, new = measured("old", *FAST), measured("random-mi300x", *values)
    new.rename(tmp_path / "nightly" / new.name)
    summary = tmp_path / "summary.md"
    script = steps["Compare with the last release"].replace(
        '--fail-if "p99_ttft_ms worse than 10%"', f'--fail-if "{RPS} worse than 10%"'
    )
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "BASELINE": str(old),
        "EXPERIMENT": "random",
        "GITHUB_STEP_SUMMARY": str(summary),
    }

    ended = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert ended.returncode == code, ended.stderr
    assert ("::warning::the regression check is inconclusive" in ended.stdout) == (code == 0)
    assert summary.read_text(encoding="utf-8").startswith("## Regression check: ")
    assert {path.suffix for path in (tmp_path / "nightly").glob("check.*")} == {".json", ".md", ".xml"}


def test_workflow_measures_by_a_command_that_composes(steps: Mapping[str, str]) -> None:
    workflow = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    named = workflow["jobs"]["check"]["env"]["EXPERIMENT"]
    words = shlex.split(steps["Measure"].replace("$EXPERIMENT", named))
    assert words[:3] == ["python", "-m", "sweeper"]

    settings = config.settings(config.compose_run(words[3:]), platform=Platform.MI300X)

    assert settings.repeats >= 3
    # The folder that the next step looks for.
    assert settings.folder.parent.name == "nightly"
    assert settings.folder.name.startswith(f"{named}-")
