"""Ten Ctrl-C in a row, at any moment: never a traceback, nothing left behind, exit code 130."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeper.cli.signals import StopSignals
from sweeper.processes import process
from tests.standin_server import write_interpreter

SIMULATED = (
    *("platform=simulated", "executor=inline", "study.name=mine", "executor.max_parallel=1"),
    *("knobs.tensor_parallel_size=4", "knobs.max_model_len=8192", "workload=sharegpt"),
    "workload.request_rate_per_s=[16]",
    f"space.knobs.max_num_seqs={','.join(str(n) for n in range(100, 160))}",
)


def sweep(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    with (tmp_path / "told").open("w") as told:
        return subprocess.Popen(
            [sys.executable, "-m", "sweeper", *arguments, f"study.outputs={tmp_path}/outputs"],
            stdout=told,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "COLUMNS": "200", **environment},
        )


def wait_until(
    is_true: Callable[[], bool], running: subprocess.Popen[str], *, within_s: float = 120.0
) -> None:
    deadline = time.monotonic() + within_s
    while not is_true():
        assert running.poll() is None, "it ended before it could be interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def interrupt_ten_times(running: subprocess.Popen[str], *, gap_s: float) -> None:
    for _ in range(10):
        if running.poll() is None:
            running.send_signal(signal.SIGINT)
        time.sleep(gap_s)
    running.wait(120)


@pytest.mark.parametrize(("moment", "gap_s"), [("node: ", 0.03), ("done", 0.0), ("done", 0.3)])
def test_ten_interruptions_of_simulated_sweep(moment: str, gap_s: float, tmp_path: Path) -> None:
    running = sweep(tmp_path, *SIMULATED)
    wait_until(lambda: moment in (tmp_path / "told").read_text(), running)
    interrupt_ten_times(running, gap_s=gap_s)
    told = (tmp_path / "told").read_text()
    assert running.returncode == 130, told
    assert "Traceback" not in told
    assert "KeyboardInterrupt" not in told
    assert "stopped" in told
    if moment == "done":
        assert list((tmp_path / "outputs" / "mine" / "measurements").glob("*.parquet"))


@pytest.mark.parametrize("gap_s", [0.0, 0.1])
def test_ten_interruptions_leave_nothing_of_engine_under_load(gap_s: float, tmp_path: Path) -> None:
    python = write_interpreter(tmp_path / "bin")
    only = ("space.knobs.max_num_seqs=[8]", "space.knobs.max_num_batched_tokens=[2048]")
    running = sweep(
        tmp_path,
        *("+experiment=cpu_smoke", *only, f"engine.python={python}", "executor=inline"),
        STANDIN="slow",
    )
    logs = lambda: [log.read_text() for log in tmp_path.glob("outputs/*/trials/*/client-1.log")]  # noqa: E731
    wait_until(lambda: any("arguments" in log for log in logs()), running)
    interrupt_ten_times(running, gap_s=gap_s)
    told = (tmp_path / "told").read_text()
    assert running.returncode == 130, told
    assert "Traceback" not in told
    assert "KeyboardInterrupt" not in told
    assert "stopping: waiting for the trials that run to end their engines, at most " in told or not gap_s
    assert process.marked(process.OUTPUTS_MARK, str((tmp_path / "outputs").resolve())) == []
    # What was cut off is no finding.
    assert not list(tmp_path.glob("outputs/*/measurements/*.parquet"))


def test_first_asks_second_tells_third_hurries_and_more_change_nothing(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with StopSignals(waits_for="a train") as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.is_set()
        assert capfd.readouterr().err == ""
        os.kill(os.getpid(), signal.SIGTERM)
        assert "stopping: waiting for a train" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        for _ in range(7):
            os.kill(os.getpid(), signal.SIGINT)
    # The code is that of the first.
    assert stop.signalled == signal.SIGINT


def test_nothing_hurries_what_is_being_ended() -> None:
    with StopSignals() as stop:
        stop.settle()
        for _ in range(10):
            os.kill(os.getpid(), signal.SIGINT)
    assert stop.signalled == signal.SIGINT
