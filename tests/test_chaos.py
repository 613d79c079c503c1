"""A study under fire: a random fault every few seconds for its whole length, and in the end the same rows.

Real processes throughout: driver, doorkeepers, supervisors, servers, benchmark workers. A fault is a kill -9
of any of them, the driver included, which is started again by the same command; a SIGSTOP, after which a
process lives and does nothing; or a theft: a server is killed and a foreign one answers on its port with
nonsense.

The whole, with 200 trials: ``python -m pytest tests/test_chaos.py -m slow -s``.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pandas as pd
import pytest

from sweeper import processes
from sweeper.processes import Process
from tests.standin_chaos import write_interpreter

# A thief's speed: no setting of the study has it, so a row with it was measured on the wrong server.
STOLEN = 99_999
KINDS = ("kill", "kill", "stop", "theft")
# Deterministic columns; those of time and of the attempt differ by nature.
SAME = ("trial_key", "knob.max_num_seqs", "num_prompts", "request_throughput_per_s", "completed", "failed")


def command(python: Path, *, trials: int) -> list[str]:
    return [
        *(sys.executable, "-m", "sweeper", "platform=cpu", "model=tiny_llama", "workload=random"),
        *("executor=inline", "executor.max_parallel=2", "study.name=chaos", "study.order=shuffled"),
        *("workload.num_prompts=4", "workload.input_len=8", "workload.output_len=4"),
        f"space.knobs.max_num_seqs=[{','.join(map(str, range(1, trials + 1)))}]",
        *(f"engine.python={python}", "engine.allow_unknown=true", "retry_failed=true"),
        *("engine.start_timeout_s=20", "engine.sanity_timeout_s=4", "engine.load_timeout_s=6"),
        "engine.stop_timeout_s=1",
    ]


class Nonsense(BaseHTTPRequestHandler):
    """A foreign server: healthy, polite and wrong."""

    def do_GET(self) -> None:
        body = {"vllm_config": {"scheduler_config": {"max_num_seqs": STOLEN}}, "version": "0.32.0"}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        return


class Thief(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


@dataclass
class Chaos:
    """Faults on the processes of one study, drawn from a seed."""

    outputs: Path
    every_s: float
    chance: random.Random
    done: Counter[str] = field(default_factory=Counter)
    frozen: dict[Process, float] = field(default_factory=dict)
    thieves: list[Thief] = field(default_factory=list)

    def strike(self, driver: subprocess.Popen[bytes]) -> None:
        kind = self.chance.choice(KINDS)
        ours = self.ours(driver)
        if not ours:
            return
        if kind == "theft":
            self.steal(ours)
            return
        victim = self.chance.choice(ours)
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim.pid, signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
            self.done[f"{kind} {'driver' if victim.pid == driver.pid else role(victim)}"] += 1
            if kind == "stop" and victim.pid == driver.pid:
                # Nobody can do anything for a driver that stands still; it goes on after a while.
                self.frozen[victim] = time.monotonic() + 2

    def steal(self, ours: list[Process]) -> None:
        servers = [process for process in ours if role(process) == "server"]
        if not servers:
            return
        victim = self.chance.choice(servers)
        words = processes.title(victim.pid).split()
        if "--port" not in words:
            return
        port = int(words[words.index("--port") + 1])
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim.pid, signal.SIGKILL)
        for _ in range(50):
            with contextlib.suppress(OSError):
                thief = Thief(("127.0.0.1", port), Nonsense)
                threading.Thread(target=thief.serve_forever, daemon=True).start()
                self.thieves.append(thief)
                self.done["theft of a port"] += 1
                return
            time.sleep(0.01)

    def thaw(self) -> None:
        for process, due in list(self.frozen.items()):
            if time.monotonic() >= due:
                del self.frozen[process]
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGCONT)

    def ours(self, driver: subprocess.Popen[bytes]) -> list[Process]:
        found = set(processes.marked(processes.OUTPUTS_MARK, str(self.outputs)))
        found |= set(processes.descendants(driver.pid))
        me = processes.find(driver.pid)
        return sorted(found | ({me} if me else set()))

    def close(self) -> None:
        for thief in self.thieves:
            thief.shutdown()
            thief.server_close()


def role(process: Process) -> str:
    words = processes.title(process.pid)
    for name, mark in (("supervisor", "supervisor.py"), ("server", "api_server"), ("client", "_worker.py")):
        if mark in words:
            return name
    return "other"


def run_undisturbed(folder: Path, words: list[str]) -> None:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr


def run_under_fire(folder: Path, words: list[str], *, every_s: float, seed: int) -> tuple[Chaos, int]:
    """Run the same command again until it says that everything is complete, striking all the while."""
    chaos = Chaos(outputs=folder / "outputs", every_s=every_s, chance=random.Random(seed))
    starts, code = 0, None
    with (folder / "driver.log").open("ab") as log:
        try:
            while code != 0:
                assert starts < 100, (folder / "driver.log").read_text()[-3000:]
                driver = subprocess.Popen(words, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
                starts += 1
                code = watch(driver, chaos)
        finally:
            chaos.close()
    return chaos, starts


def watch(driver: subprocess.Popen[bytes], chaos: Chaos) -> int:
    struck = time.monotonic()
    while driver.poll() is None:
        chaos.thaw()
        if time.monotonic() - struck >= chaos.every_s:
            struck = time.monotonic()
            # Nothing is to be hit before a trial runs: a driver that is killed at each start gets nowhere.
            if processes.descendants(driver.pid):
                chaos.strike(driver)
        time.sleep(0.1)
    return driver.wait()


def rows(folder: Path) -> pd.DataFrame:
    frame = pd.read_parquet(folder / "outputs" / "chaos" / "measurements")
    last = frame.groupby("trial_key")["attempt"].transform("max")
    latest = frame[frame["attempt"] == last]
    assert list(latest["state"].unique()) == ["complete"]
    complete = frame[frame["state"] == "complete"]
    assert (complete["request_throughput_per_s"] == complete["knob.max_num_seqs"]).all(), "mislabelled"
    return latest[list(SAME)].sort_values("knob.max_num_seqs").reset_index(drop=True)


def check(tmp_path: Path, *, trials: int, every_s: float, seed: int) -> None:
    words = command(write_interpreter(tmp_path / "standin"), trials=trials)
    calm, storm = tmp_path / "calm", tmp_path / "storm"
    calm.mkdir()
    storm.mkdir()
    run_undisturbed(calm, words)
    began = time.monotonic()
    chaos, starts = run_under_fire(storm, words, every_s=every_s, seed=seed)
    took_s = time.monotonic() - began
    told = ", ".join(f"{count} x {kind}" for kind, count in sorted(chaos.done.items()))
    print(f"{trials} trials in {took_s:.0f} s, {starts} starts of the driver, faults: {told}")
    assert chaos.done.total() > 0
    pd.testing.assert_frame_equal(rows(storm), rows(calm))
    assert len(rows(calm)) == trials
    deadline = time.monotonic() + 10
    while (left := left_behind(storm)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []


def left_behind(folder: Path) -> list[str]:
    found = processes.marked(processes.OUTPUTS_MARK, str(folder / "outputs"))
    return [f"{process} {processes.title(process.pid)}" for process in found]


@pytest.mark.slow
def test_a_small_study_under_fire_ends_with_the_rows_of_the_undisturbed_one(tmp_path: Path) -> None:
    check(tmp_path, trials=6, every_s=5.0, seed=1)


@pytest.mark.slow
def test_a_study_of_200_trials_under_fire_ends_with_the_rows_of_the_undisturbed_one(tmp_path: Path) -> None:
    check(tmp_path, trials=200, every_s=6.0, seed=2)
