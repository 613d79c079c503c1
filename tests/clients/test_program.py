"""A program is run to its end, or ended for a reason; nothing of it is left."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sweeper.clients import program
from sweeper.errors import EngineError
from sweeper.processes import orphans
from sweeper.records import FailureClass
from tests.standin_benchmarks import QuietServer


def run(folder: Path, code: str, *, server: QuietServer | None = None, **changes: object) -> program.Ended:
    given: dict[str, object] = {"limit_s": 60.0, "launch_s": 60.0, "cancelled": lambda: False, **changes}
    return program.run_to_end(
        [sys.executable, "-c", code],
        env={"GREETING": "hello"},
        cwd=folder,
        log_path=folder / "client.log",
        note={"trial": "0123"},
        server=server or QuietServer(),
        **given,  # type: ignore[arg-type]
    )


def test_program_runs_to_its_end_in_its_environment_and_leaves_log(tmp_path: Path) -> None:
    ended = run(tmp_path, "import os; print(os.environ['GREETING'])")
    assert ended.exit_code == 0
    assert program.last_line(tmp_path / "client.log") == "hello"
    assert run(tmp_path, "raise SystemExit(3)").exit_code == 3


def test_engines_counters_are_looked_at_while_it_runs(tmp_path: Path) -> None:
    # They are read once a second; the stand-in reports half of its cache in use.
    assert run(tmp_path, "import time; time.sleep(2)").peak_kv_cache_usage == 0.5
    assert run(tmp_path, "").peak_kv_cache_usage is None


@pytest.mark.parametrize(
    ("changes", "is_dead", "failure"),
    [
        ({"limit_s": 0.5}, False, FailureClass.HANG),
        # As engine.launch_timeout_s has it, which the message names.
        ({"launch_s": 0.0}, False, FailureClass.INFRASTRUCTURE),
        ({"cancelled": lambda: True}, False, FailureClass.INTERRUPTED),
        ({}, True, FailureClass.OUT_OF_MEMORY),
    ],
)
def test_program_is_ended_for_reason(
    tmp_path: Path, changes: dict[str, object], is_dead: bool, failure: FailureClass
) -> None:
    server = QuietServer()
    server.is_dead = is_dead
    with pytest.raises(EngineError) as caught:
        run(tmp_path, "import time; time.sleep(600)", server=server, **changes)
    assert caught.value.failure is failure
    launch = orphans.read_start_file(tmp_path / "client.start.json")
    assert launch is None or launch.members() == []


def test_dying_engine_takes_blame_and_living_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    server = QuietServer()
    monkeypatch.setattr(program, "_DEATH_S", 0.3)
    program.blame_engine(server)
    server.is_dead = True
    with pytest.raises(EngineError, match="out of memory"):
        program.blame_engine(server)


def test_last_line_of_log_is_last_that_says_anything(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("first\n  second  \n\n")
    assert program.last_line(tmp_path / "log") == "second"
    assert program.last_line(tmp_path / "missing") == "nothing in its log"
