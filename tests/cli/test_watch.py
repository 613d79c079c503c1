"""The page of a study while it runs: who may ask for it, and what it says."""

from __future__ import annotations

import http.client
import itertools
import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sweeper import cli
from sweeper.cli.progress import Progress, Together
from sweeper.cli.watch import NEWS, Watched, live, server_of
from sweeper.errors import ConfigError
from sweeper.records import Placement, TrialSpec
from sweeper.store.description import Description
from sweeper.store.store import Store
from sweeper.sweep.outlook import Outlook
from sweeper.trial import stages, trial
from tests.conftest import ROOT

MARKUP = "<img src=x onerror=alert(1)></script>"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs" / "mine"
    folder.mkdir(parents=True)
    about = Description(name="mine", question=f"Which? {MARKUP}", platform="simulated", node="modelled")
    (folder / "study.json").write_text(about.as_json, encoding="utf-8")
    (folder / "runs" / "2026-01-01T00-00-00.000-1").mkdir(parents=True)
    return folder


def progress_of(study: Path) -> Progress:
    (run,) = (study / "runs").iterdir()
    # Each look at the clock is a second after the last, so that nothing is held back.
    return Progress(run, devices=8, clock=partial(next, itertools.count(1000.0)))


@contextmanager
def served(study: Path) -> Iterator[int]:
    with server_of(Watched(study), port=0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def asked(port: int, path: str, *, host: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path, headers={} if host is None else {"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def newer_than(number: int, port: int) -> dict[str, Any]:
    """Ask until there are results of a higher number: they are read beside the answers."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        news: dict[str, Any] = json.loads(asked(port, f"{NEWS}?known={number}")[1])
        if news["number"] > number:
            return news
        time.sleep(0.2)
    raise AssertionError("the results were never read again")


def listening(pid: int) -> set[str]:
    """Return the addresses on which a process listens, as /proc writes them: 0100007F is 127.0.0.1."""
    sockets = {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.add(fields[1].partition(":")[0])
    return found


def test_page_and_news_of_a_study_that_runs(
    study: Path, simulated_spec: TrialSpec, placement: Placement
) -> None:
    spec = replace(simulated_spec, folder=str(study / "trials" / "ab"), series=(MARKUP,))
    with progress_of(study) as progress, served(study) as port:
        both = Together([progress])
        both.planned(total=3, done=1, refused=0)
        both.started(spec, placement)
        progress.look_ahead(Outlook(left_s=90.0, leader=MARKUP, value=7.5))
        stages.announce(Path(spec.folder), "warming up")
        status, page = asked(port, "/")
        first = json.loads(asked(port, f"{NEWS}?known=9")[1])
        # The same number again: nothing new, so the results are not sent once more.
        second = json.loads(asked(port, f"{NEWS}?known={first['number']}")[1])
        result = trial.run(spec, placement, cancelled=lambda: False)
        Store(study).append(result, queued_s=0.0, knobs=[])
        both.finished(result, will_retry=False)
        third = newer_than(first["number"], port)

    assert status == 200
    assert "connect-src 'self'" in page
    assert "<img" not in page
    assert page.count("</script>") == 1
    assert "SIMULATED - no GPU was measured" in page
    now = first["live"]
    (running,) = now["running"]
    assert (now["state"], now["total"], now["left_s"], now["value"]) == ("running", 3, 90.0, 7.5)
    assert (running["devices"], running["stage"]) == ([0, 1, 2, 3], "warming up")
    assert 1000.0 < running["since"] < now["written_at"]
    assert first["results"]["settings"] == []
    assert second["results"] is None
    assert third["number"] == first["number"] + 1
    assert len(third["results"]["settings"]) == 1
    assert (third["live"]["running"], third["live"]["counts"]["complete"]) == ([], 1)


def test_news_of_short_trials_is_held_back_and_not_lost(
    study: Path, simulated_spec: TrialSpec, placement: Placement
) -> None:
    (run,) = (study / "runs").iterdir()
    seconds = [1000.0]

    def total() -> int | None:
        now: dict[str, Any] = json.loads((run / "now.json").read_text())
        return int(now["counts"].get("complete", 0))

    result = trial.run(simulated_spec, placement, cancelled=lambda: False)
    with Progress(run, devices=8, clock=lambda: seconds[0]) as progress:
        for _ in range(3):
            progress.finished(result, will_retry=False)
        progress.tick()
        assert total() == 0
        seconds[0] += 1.0
        progress.tick()
        assert total() == 3
        progress.finished(result, will_retry=False)
    # The end is written whenever it comes.
    assert total() == 4


def test_sweep_that_is_over_and_one_whose_process_is_gone(study: Path) -> None:
    progress = progress_of(study)
    assert live(study) is None
    with progress:
        assert live(study)["state"] == "running"  # type: ignore[index]
    assert live(study)["state"] == "over"  # type: ignore[index]
    (path,) = study.glob("runs/*/now.json")
    told = json.loads(path.read_text()) | {"is_over": False, "process": {"pid": 2**22 + 1, "start_time": 1}}
    path.write_text(json.dumps(told))
    assert live(study)["state"] == "gone"  # type: ignore[index]


def test_page_is_refused_by_another_name_and_nothing_else_is_there(study: Path) -> None:
    with served(study) as port:
        # A page of another site whose name was made to point to this machine sends that name.
        assert asked(port, NEWS, host=f"evil.example:{port}")[0] == 403
        assert asked(port, "/", host=f"localhost:{port}")[0] == 200
        assert asked(port, "/study.json")[0] == 404
        assert asked(port, "/../study.json")[0] == 404


def test_command_listens_on_loopback_alone(study: Path) -> None:
    command = [sys.executable, "-m", "sweeper", "watch", str(study)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.match(r"http://127\.0\.0\.1:(\d+)/ ", line)
            assert found is not None
            assert listening(process.pid) == {"0100007F"}
            with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}{NEWS}", timeout=120) as answer:
                told: dict[str, Any] = json.load(answer)
            assert told["results"]["name"] == "mine"
        finally:
            process.terminate()


def test_folder_without_a_study_and_taken_port_are_mistakes(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["watch", str(tmp_path)]) == cli.MISTAKE
    assert "holds no study; expected a study's folder" in " ".join(capsys.readouterr().err.split())
    with (
        server_of(Watched(study), port=0) as server,
        pytest.raises(ConfigError, match="expected a free port"),
    ):
        server_of(Watched(study), port=server.server_port)
