"""A server of a killed sweep still answers when the sweep goes on: no number may come from it.

Another tool, killed in its first setting and resumed, measured its second one on the first one's server:
277 tokens a second in place of 1,735, and exit code 0. Here the same happens, and harder: what would
have ended the server is stopped, and a second server, which tells all that the next one should, listens
on the very port that the next one is given. With a stand-in, and with the real vLLM.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from sweeper.engines import vllm_reports
from sweeper.processes import orphans
from sweeper.processes import process as processes
from sweeper.processes.ports import ReservedPort
from tests.kept import kept
from tests.standin_server import write_interpreter

ROOT = Path(__file__).resolve().parents[1]
STUDY = Path("outputs/cpu_smoke-cpu")
# One setting after the other: the first answers one request at a time, the second thirty-two.
ARGUMENTS = (
    *("+experiment=cpu_smoke", "executor=inline", "platform.devices=1"),
    *("space.knobs.max_num_seqs=[1,32]", "space.knobs.max_num_batched_tokens=[2048]"),
    *("workload.request_rate_per_s=null", "workload.num_prompts=48", "workload.output_len=32"),
)
# Gives the first engine of this driver a port on which somebody answers already.
ON_A_TAKEN_PORT = """
import sys
from sweeper import cli
from sweeper.processes import ports
first = [int(sys.argv.pop(1))]
reserve = ports.ReservedPort.__init__
def taken(self):
    reserve(self)
    if first:
        self.port = first.pop()
ports.ReservedPort.__init__ = taken
sys.exit(cli.main(sys.argv[1:]))
"""


def started(folder: Path, python: str, *program: str, standin: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *program, *ARGUMENTS, f"engine.python={python}"],
        cwd=folder,
        env={**os.environ, "STANDIN": standin, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def page(port: int, path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def wait_for(condition: Callable[[], object], driver: subprocess.Popen[str], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert driver.poll() is None, driver.stdout.read() if driver.stdout else ""
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.05)


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[int]:
    """Port of a stand-in that passes for the next engine in everything it says."""
    with ReservedPort() as reserved:
        command = [
            *(str(write_interpreter(tmp_path / "bin")), "-m", "vllm.entrypoints.openai.api_server"),
            *("--served-model-name", "tiny-llama", "--port", str(reserved.port), "--max-num-seqs", "1"),
        ]
        process = subprocess.Popen(command, env={**os.environ, "VLLM_API_KEY": "key"})
        try:
            while not page(reserved.port, "/version"):
                assert process.poll() is None
                time.sleep(0.05)
            yield reserved.port
        finally:
            process.kill()
            process.wait()


def killed_and_resumed(
    folder: Path,
    python: str,
    foreign: int,
    *,
    standin: str,
    is_under_load: Callable[[int, Path], bool],
) -> pd.DataFrame:
    """Kill the driver in its first load, leave the server alive, go on; give what is stored then."""
    driver = started(folder, python, "-m", "sweeper", standin=standin)
    trials = folder / STUDY / "trials"
    wait_for(lambda: list(trials.glob("*/engine-1-0.start.json")), driver, seconds=300)
    (path,) = trials.glob("*/engine-1-0.start.json")
    launch = orphans.read_start_file(path)
    assert launch is not None
    stale_port = int(json.loads(path.read_text())["port"])
    wait_for(lambda: is_under_load(stale_port, path.parent), driver, seconds=600)
    # Whoever would end the engine with its driver is stopped first: it is left alive by force.
    for pid in {launch.supervisor.pid, *kept(folder / STUDY)}:
        os.kill(pid, signal.SIGSTOP)
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    stale = launch.members()
    assert page(stale_port, "/version"), "the stale server answers"
    assert not list((folder / STUDY / "measurements").glob("*.parquet"))

    second = started(folder, python, "-c", ON_A_TAKEN_PORT, str(foreign))
    told, _ = second.communicate(timeout=1200)
    assert second.returncode == 0, told

    # The stale one was found by its start file and ended; the foreign one is nobody's but its owner's.
    assert f"ended a process that an earlier run left behind: {launch.supervisor}" in told
    assert not [process for process in stale if processes.is_alive(process)]
    assert not page(stale_port, "/version")
    assert vllm_reports.read_metrics(page(foreign, "/metrics"))["prefix_cache_queries"] == 0.0
    assert f"port {foreign} is held by processes" in told
    return pd.read_parquet(folder / STUDY / "measurements")


def assert_nothing_is_mislabelled(rows: pd.DataFrame) -> pd.DataFrame:
    refused, measured = rows[rows["state"] == "failed"], rows[rows["state"] == "complete"]
    assert set(refused["failure_class"]) == {"port"}
    assert refused["output_throughput_tok_per_s"].isna().all()
    assert sorted(measured["knob.max_num_seqs"]) == [1, 32]
    assert (measured["knob.max_num_seqs"] == measured["effective.max_num_seqs"]).all()
    assert (measured["completed"] == 48).all()
    assert measured["foreign_processes"].isna().all(), "on cores it cannot be told"
    return measured


@pytest.mark.slow
def test_no_setting_is_measured_on_server_of_another(tmp_path: Path, foreign: int) -> None:
    def is_under_load(port: int, trial: Path) -> bool:
        log = trial / "client-1.log"
        return log.exists() and "arguments" in log.read_text()

    python = str(write_interpreter(tmp_path / "bin"))
    rows = killed_and_resumed(tmp_path, python, foreign, standin="slow", is_under_load=is_under_load)
    assert_nothing_is_mislabelled(rows)


@pytest.mark.vllm
@pytest.mark.slow
def test_no_setting_is_measured_on_real_server_of_another(
    tmp_path: Path, vllm_python: str, foreign: int
) -> None:
    def is_under_load(port: int, trial: Path) -> bool:
        return vllm_reports.read_metrics(page(port, "/metrics")).get("requests_succeeded", 0) >= 8

    rows = killed_and_resumed(tmp_path, vllm_python, foreign, standin="", is_under_load=is_under_load)
    measured = assert_nothing_is_mislabelled(rows)
    assert (measured["total_output_tokens"] == 48 * 32).all()
    speed = measured.set_index("knob.max_num_seqs")["output_throughput_tok_per_s"]
    # Many at a time are faster than one at a time on any machine; equal speeds were the mistake.
    assert speed[32] > 1.5 * speed[1], speed.to_dict()
