"""Studies that an earlier state of this program left undone are opened, drawn and gone on with, as recorded.

``tests/recorded/study_before_rooms/`` was written before the modules were moved into folders: a grid and a
search on the simulated platform, each stopped by its budget after two trials. What was to follow, by key, is
written down here as that same state of the program did it.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import optuna
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis import cli as analysis_cli
from sweeper import cli
from sweeper.search import storage_url
from tests.conftest import ROOT

RECORDED = ROOT / "tests" / "recorded" / "study_before_rooms"
GRID = Path("outputs/grid_before_rooms-simulated")
SEARCH = Path("outputs/search_before_rooms-simulated")
STORED = {
    GRID: {"266537eb7e5f42cb": "small", "7b1b707202855660": "middle", "7c235728b7763dc9": "wide"},
    SEARCH: {"a2cec9be9c422505": "max_num_seqs=256", "e706ca55d3b455ec": "max_num_seqs=9"},
}
THEN_MEASURED = {
    GRID: {"3e577adeb7e85d7d", "cecc4217d2e4ed83"},
    SEARCH: {"2f7a4b3294e9ebe2", "44c6df829a0f3b91", "845952fbc0c42830"},
}


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorded studies as outputs/ of an empty folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(RECORDED / "stored", "outputs")


@pytest.fixture(scope="module")
def gone_on(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the commands of both recorded studies were given again."""
    folder = tmp_path_factory.mktemp("gone_on")
    shutil.copytree(RECORDED / "stored", folder / "outputs")
    with contextlib.chdir(folder):
        assert [cli.main(sweep(study)) for study in (GRID, SEARCH)] == [cli.OK, cli.OK]
    return folder


def sweep(study: Path) -> list[str]:
    experiment = study.name.removesuffix("-simulated")
    # With another calibration they would be other trials: a modelled number is of what it was modelled with.
    calibration = "platform.calibration=article_as_it_was"
    return ["--config-dir", str(RECORDED / "conf"), f"+experiment={experiment}", calibration]


def parts(outputs: Path, study: Path) -> dict[str, pa.Table]:
    return {path.name: pq.read_table(path) for path in (outputs / study.name / "measurements").iterdir()}


@pytest.mark.parametrize("study", [GRID, SEARCH], ids=["grid", "search"])
def test_same_command_measures_what_was_left_and_nothing_twice(study: Path, gone_on: Path) -> None:
    before, after = parts(RECORDED / "stored", study), parts(gone_on / "outputs", study)
    assert set(before) == {f"{key}-1.parquet" for key in STORED[study]}
    assert set(after) - set(before) == {f"{key}-1.parquet" for key in THEN_MEASURED[study]}
    for name, table in before.items():
        # All that was stored stands as it was; what later versions record is empty for it.
        new = [column for column in after[name].column_names if column not in table.column_names]
        assert after[name].select(table.column_names).to_pylist() == table.to_pylist()
        assert all(after[name][column].null_count == len(table) for column in new), new
    frame = pd.read_parquet(gone_on / study / "measurements")
    assert set(frame["trial_key"]) == {*STORED[study], *THEN_MEASURED[study]}
    assert (gone_on / study / "report.md").is_file()


def test_plan_counts_what_is_stored(recorded: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*sweep(GRID), "plan=true"]) == cli.OK
    told = " ".join(capsys.readouterr().out.split())
    assert "trials 5: 2 run, 1 refused, 2 in the store" in told


def test_search_goes_on_with_its_old_trials_and_their_values(recorded: None, gone_on: Path) -> None:
    before, after = (
        optuna.load_study(storage=storage_url(outputs), study_name=SEARCH.name).trials
        for outputs in (Path("outputs"), gone_on / "outputs")
    )
    assert [trial.state.name for trial in before] == ["COMPLETE"] * 2
    assert [trial.state.name for trial in after] == ["COMPLETE"] * 5
    assert [(trial.number, trial.params, trial.values) for trial in after[:2]] == [
        (trial.number, trial.params, trial.values) for trial in before
    ]


def test_charts_and_report_come_from_folder_alone(recorded: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert analysis_cli.main(["report", str(GRID)]) == 0
    assert str(GRID / "report.md") in capsys.readouterr().out.split()
    table = pd.read_csv(GRID / "figures" / "request_throughput_per_s.csv")
    drawn = dict(zip(table["setting"], table["mean"].round(2), strict=True))
    # As the run that was recorded printed them.
    assert (drawn["Small"], drawn["Middle"]) == (1.17, 1.63)
    assert pd.isna(drawn["Wide"])
    assert "Simulated: no GPU was measured." in (GRID / "report.md").read_text()


def test_recorded_study_is_compared_with_what_it_became(recorded: None, gone_on: Path) -> None:
    today = gone_on / GRID
    assert analysis_cli.main(["compare", str(GRID), str(today), "--out", "side_by_side"]) == 0
    text = Path("side_by_side/compare.md").read_text()
    # Nothing differs but the version that measured what was left to do.
    differs = text.split("## What differs\n\n")[1].split("\n\n")[0].splitlines()[2:]
    assert [row.split(" | ")[0] for row in differs] == ["| version.sweeper"]
    assert f"only in `{GRID.name}`: Large\n" in text
    assert "| Middle | all at once | 1.63 | 1.63 | 1.000 " in text
