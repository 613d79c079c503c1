"""The SQLite file of a search: where it may lie, and what is said of one that is not as it was written."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import optuna
import pytest
import sqlalchemy

from sweeper import cli
from sweeper.errors import ConfigError, StoreError
from sweeper.search import database, storage_url

pytestmark = pytest.mark.usefixtures("without_report")

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
    assert sorted(path.name for path in outputs.iterdir()) == [".optuna.db.lock", "optuna.db"]
    assert [path.name for path in tmp_path.iterdir()] == [folder]
    assert optuna.load_study(storage=storage_url(outputs), study_name="here").trials == []


def open_together(url: str, ready: threading.Barrier, told: multiprocessing.Queue[str]) -> None:
    ready.wait()
    try:
        database.open_storage(url)
    except StoreError as exc:
        told.put(str(exc))
    else:
        told.put("opened")


@pytest.mark.parametrize("folder", ["plain", "50%41"])
def test_drivers_that_begin_at_once_share_a_new_database(folder: str, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir()
    together = multiprocessing.get_context("fork")
    ready, told = together.Barrier(4), together.Queue()
    arguments = (storage_url(tmp_path / folder), ready, told)
    drivers = [together.Process(target=open_together, args=arguments) for _ in range(4)]
    for driver in drivers:
        driver.start()
    assert [told.get(timeout=60) for _ in drivers] == ["opened"] * 4
    for driver in drivers:
        driver.join()


def test_folder_that_takes_no_lock_is_read_all_the_same(tmp_path: Path) -> None:
    database.open_storage(storage_url(tmp_path))
    (tmp_path / ".optuna.db.lock").unlink()
    (tmp_path / ".optuna.db.lock").mkdir()
    database.open_storage(storage_url(tmp_path))


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


def make_and_kill(statements: int, path: Path) -> None:
    """Make the database and a study in it, and kill this process once so many statements are executed."""
    left = iter(range(statements, -1, -1))

    def count(*_: object) -> None:
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sqlalchemy.event.listen(sqlalchemy.Engine, "after_cursor_execute", count)
    make_study(path)


def make_study(path: Path) -> int:
    storage = database.open_storage(database.file_url(path))
    made = optuna.create_study(storage=storage, study_name="one", load_if_exists=True)
    return len(made.get_trials()) + 1


def test_database_whose_maker_was_killed_at_any_statement_is_completed(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    statements = 0
    while True:
        path = tmp_path / f"{statements}.db"
        maker = fork.Process(target=make_and_kill, args=(statements, path))
        maker.start()
        maker.join()
        for _ in range(2):
            assert make_study(path) == 1, statements
        with closing(sqlite3.connect(path)) as file:
            assert file.execute("SELECT count(*) FROM studies").fetchone() == (1,), statements
        if maker.exitcode == 0:
            break
        assert maker.exitcode == -signal.SIGKILL
        statements += 1
    assert statements > 20
