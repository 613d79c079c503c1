"""The SQLite file of a search: where it may lie, and what is said of one that is not as it was written."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from sweeper import cli
from sweeper.errors import ConfigError
from sweeper.search import database, storage_url

SEARCH = (
    *("platform=simulated", "executor=inline", "workload=random", "knobs.tensor_parallel_size=4"),
    *("workload.num_prompts=5", "space.knobs.max_num_seqs=[8,16,32]", "search.method=tpe", "search.trials=2"),
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("folder", ["a?b", "50%41", "c#1", "with space", "é"])
def test_path_is_path_whatever_characters_it_has(folder: str, tmp_path: Path) -> None:
    outputs = tmp_path / folder
    outputs.mkdir()
    optuna.create_study(storage=database.open_storage(storage_url(outputs)), study_name="here")
    assert [path.name for path in outputs.iterdir()] == ["optuna.db"]
    assert [path.name for path in tmp_path.iterdir()] == [folder]
    assert optuna.load_study(storage=storage_url(outputs), study_name="here").trials == []


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_database_in_memory_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"is a database in memory.*Name a file"):
        database.check(url)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE trial_user_attributes SET value_json = '{broken'",
        "UPDATE study_system_attributes SET value_json = '{broken'",
        "UPDATE trial_params SET param_value = 99",
        "UPDATE trial_params SET distribution_json = '[]'",
    ],
)
def test_study_that_optuna_cannot_read_is_named_with_remedy(
    damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # A categorical parameter is stored as its index.
    assert cli.main(SEARCH) == cli.OK
    with closing(sqlite3.connect("outputs/optuna.db")) as file, file:
        assert file.execute(damage).rowcount
    capsys.readouterr()
    code = cli.main(["search.seed=0", *SEARCH[:-1], "search.trials=3"])
    told = capsys.readouterr().err
    assert code == cli.AT_RISK
    assert "outputs/optuna.db: holds a study that Optuna cannot read" in told
    assert "Move it away" in told
    assert "defect" not in told
    Path("outputs/optuna.db").unlink()
    assert cli.main(SEARCH) == cli.OK
