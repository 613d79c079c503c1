"""A study under fire: one random fault after another for its whole length, and in the end the same rows.

Real processes throughout: driver, doorkeepers, supervisors, servers, benchmark workers. A fault is a kill -9
of any of them, the driver included, which is started again by the same command; a SIGSTOP, after which a
process lives and does nothing for some seconds; or a theft: a server is killed and a foreign one answers on
its port with nonsense.

Which faults come, and in which order, is drawn from a seed. When one comes depends on progress, not on time:
after so many further complete trials. So the study comes to its end however slow the machine is, since there
are never more faults than trials.

The whole, with 200 trials: ``python -m pytest tests/test_chaos.py -m slow -s``.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest

from sweeper.processes import process as processes
from sweeper.processes.process import Process
from sweeper.store.store import Store
from tests.faults.studies import ROOT
from tests.standin_chaos import Server, thief, write_interpreter

DEVICES = 3
FROZEN_S = 5.0
# What is done to whom. A driver comes as often as each of the others, though there is only one.
FAULTS = (
    *(("kill", who) for who in ("driver", "doorkeeper", "supervisor", "server", "server", "client")),
    *(("stop", who) for who in ("driver", "doorkeeper", "supervisor", "server", "client")),
    *(("theft", "server"), ("theft", "server")),
)
# Deterministic columns; those of time and of the attempt differ by nature.
SAME = [
    *("trial_key", "knob.max_num_seqs", "effective.max_num_seqs", "dataset", "num_prompts", "input_len"),
    *("output_len", "state", "completed", "failed", "request_throughput_per_s", "sanity_fingerprint"),
]


@dataclass(frozen=True, kw_only=True)
class Command:
    """One study, and the machine with three GPUs on which it runs."""

    folder: Path
    trials: int

    def start(self) -> subprocess.Popen[bytes]:
        tools = self.folder / "tools"
        python = write_interpreter(self.folder / "bin")
        if not tools.exists():
            write_gpus(tools)
        words = [
            *("platform=cuda", "model=tiny_llama", "workload=random", "executor=inline"),
            *("study.name=chaos", "study.order=shuffled", "retry_failed=true"),
            *("workload.num_prompts=4", "workload.input_len=8", "workload.output_len=4"),
            f"space.knobs.max_num_seqs=[{','.join(map(str, range(1, self.trials + 1)))}]",
            *(f"engine.python={python}", "engine.allow_unknown=true", "engine.binds_numa=false"),
            *("engine.start_timeout_s=60", "engine.ready_timeout_s=60", "engine.sanity_timeout_s=4"),
            *(
                "engine.load_timeout_s=4",
                "retry_pause_s=1",
                "engine.warmup_timeout_s=10",
                "engine.stop_timeout_s=1",
            ),
        ]
        path = f"{tools}:{os.environ['PATH']}"
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "sweeper", *words],
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": path},
            )

    @property
    def log(self) -> Path:
        return self.folder / "told.txt"

    @property
    def study(self) -> Path:
        return self.folder / "outputs" / "chaos"

    def processes(self) -> list[Process]:
        """What was started for it and lives, the driver left out."""
        return processes.marked(processes.OUTPUTS_MARK, str(self.folder / "outputs"))


def write_gpus(folder: Path) -> None:
    """Make a stand-in for nvidia-smi that knows the devices and nothing of their power."""
    folder.mkdir()
    lines = "\\n".join(f"{i}, GPU-{i}, Stand-in, 81920, 00000000:{i:02x}:00.0, 550.1" for i in range(DEVICES))
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncase $* in *index,uuid,name*) printf '{lines}\\n';; *) exit 9;; esac\n")
    program.chmod(0o755)


@dataclass
class Progress:
    """The parts of a study as they come: which exist, whether they stay as they are, how many complete."""

    folder: Path
    seen: dict[Path, int] = field(default_factory=dict)
    complete: int = 0

    def look(self) -> int:
        # A part that is being written has a hidden name.
        for path in self.folder.glob("measurements/[!.]*.parquet"):
            if path not in self.seen:
                self.seen[path] = path.stat().st_mtime_ns
                self.complete += pd.read_parquet(path, columns=["state"])["state"].iloc[0] == "complete"
        return self.complete

    def check_nothing_lost(self) -> None:
        assert {path: path.stat().st_mtime_ns for path in self.seen} == self.seen


@dataclass
class Chaos:
    """Faults on the processes of one study, drawn from a seed."""

    command: Command
    every: int
    chance: random.Random
    done: Counter[str] = field(default_factory=Counter)
    next: tuple[str, str] | None = None
    struck_at: int = 0
    frozen: dict[Process, float] = field(default_factory=dict)
    thieves: list[Server] = field(default_factory=list)

    def look(self, driver: subprocess.Popen[bytes], *, complete: int) -> None:
        """Strike when it is time and the one to be struck is there; let go on what stood still for long."""
        self._thaw()
        if complete - self.struck_at < self.every:
            return
        if self.next is None:
            self.next = self.chance.choice(FAULTS)
            # Somewhere in the trials that follow, and not always at the start of the next one.
            time.sleep(self.chance.uniform(0, 0.5))
        kind, who = self.next
        victims = self._processes(driver).get(who, [])
        if victims and self._strike(kind, self.chance.choice(victims)):
            self.done[f"{kind} {who}"] += 1
            self.next = None
            self.struck_at = complete

    def close(self) -> None:
        for server in self.thieves:
            server.shutdown()
            server.server_close()

    def _strike(self, kind: str, victim: Process) -> bool:
        try:
            if kind == "theft":
                return self._steal(victim)
            os.kill(victim.pid, signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
        except ProcessLookupError:
            return False
        if kind == "stop":
            self.frozen[victim] = time.monotonic() + FROZEN_S
        return True

    def _steal(self, victim: Process) -> bool:
        words = processes.title(victim.pid).split()
        if "--port" not in words:
            return False
        port = int(words[words.index("--port") + 1])
        os.kill(victim.pid, signal.SIGKILL)
        for _ in range(200):
            with contextlib.suppress(OSError):
                server = thief(port)
                threading.Thread(target=server.serve_forever, daemon=True).start()
                self.thieves.append(server)
                return True
            time.sleep(0.005)
        return False

    def _thaw(self) -> None:
        for process, due in list(self.frozen.items()):
            if time.monotonic() >= due:
                del self.frozen[process]
                if processes.is_alive(process):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process.pid, signal.SIGCONT)

    def _processes(self, driver: subprocess.Popen[bytes]) -> dict[str, list[Process]]:
        """The study's processes by what they are.

        Below the driver stand doorkeepers, below each its supervisor, below it the program.
        """
        found: dict[str, list[Process]] = {}
        me = processes.find(driver.pid)
        if me is None:
            return found
        found["driver"] = [me]
        doorkeepers = set(children(driver.pid))
        for process in self.command.processes():
            title = processes.title(process.pid)
            if "supervisor.main()" in title:
                who = "doorkeeper" if process.pid in doorkeepers else "supervisor"
            else:
                who = "client" if "vllm_bench_worker.py" in title else "server"
            found.setdefault(who, []).append(process)
        return found


def children(pid: int) -> list[int]:
    try:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []


def run_undisturbed(command: Command) -> None:
    driver = command.start()
    assert driver.wait(timeout=1500) == 0, command.log.read_text()[-3000:]


def run_under_fire(command: Command, *, every: int, seed: int) -> tuple[Chaos, list[int]]:
    """Run the same command again until it says that everything is complete, striking all the while.

    Returns:
        What was done to it, and the exit codes in order; negative where a signal ended the driver.
    """
    chaos = Chaos(command=command, every=every, chance=random.Random(seed))
    progress = Progress(command.study)
    codes: list[int] = []
    try:
        while not codes or codes[-1] != 0:
            # A run ends by a kill of its driver, or with failures that the next one repeats.
            assert len(codes) <= command.trials, command.log.read_text()[-3000:]
            driver = command.start()
            while driver.poll() is None:
                chaos.look(driver, complete=progress.look())
                time.sleep(0.05)
            codes.append(driver.wait())
            progress.look()
            progress.check_nothing_lost()
    finally:
        chaos.close()
    return chaos, codes


def latest(command: Command) -> pd.DataFrame:
    """The rows that count, their deterministic columns."""
    frame = Store(command.study).latest(Store(command.study).read())
    return frame[SAME].sort_values("knob.max_num_seqs").reset_index(drop=True)


def check_labels(frame: pd.DataFrame) -> None:
    """See that each trial has one complete row, with the number of the engine that its knobs name."""
    complete = frame[frame["state"] == "complete"]
    assert not complete["trial_key"].duplicated().any()
    assert (complete["request_throughput_per_s"] == complete["knob.max_num_seqs"]).all()
    assert (complete["effective.max_num_seqs"] == complete["knob.max_num_seqs"]).all()
    assert frame[frame["state"] != "complete"]["request_throughput_per_s"].isna().all()


def check_devices(frame: pd.DataFrame) -> None:
    """See that each device had work, and never that of two trials at once."""
    frame = frame.explode("devices").sort_values("started_at")
    assert set(frame["devices"]) == set(range(DEVICES))
    for _, rows in frame.groupby("devices"):
        assert (rows["started_at"].iloc[1:].to_numpy() >= rows["ended_at"].iloc[:-1].to_numpy()).all()


def check_nobody_is_left(command: Command) -> None:
    """See that no process lives, and so that no device is held."""
    deadline = time.monotonic() + 20
    while (left := command.processes()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [processes.title(process.pid) for process in left] == []


def check(tmp_path: Path, *, trials: int, every: int, seed: int) -> None:
    calm = Command(folder=tmp_path / "calm", trials=trials)
    storm = Command(folder=tmp_path / "storm", trials=trials)
    for command in (calm, storm):
        command.folder.mkdir()
    run_undisturbed(calm)
    began = time.monotonic()
    chaos, codes = run_under_fire(storm, every=every, seed=seed)
    frame = Store(storm.study).read()
    print(
        f"\n{trials} trials in {time.monotonic() - began:.0f} s; {chaos.done.total()} faults: "
        f"{', '.join(f'{count} x {fault}' for fault, count in sorted(chaos.done.items()))}; "
        f"exit codes {dict(Counter(codes))}; rows: {dict(Counter(frame['state']))}; "
        f"failed as {dict(Counter(frame['failure_class'].dropna()))}"
    )
    # One or a few find no victim, such as that of the end of a run.
    assert chaos.done.total() >= trials // every - max(1, trials // 50)
    assert set(codes) <= {0, 1, -signal.SIGKILL}
    assert latest(storm)["state"].tolist() == ["complete"] * trials
    pd.testing.assert_frame_equal(latest(storm), latest(calm))
    check_labels(frame)
    check_devices(frame)
    check_nobody_is_left(storm)


@pytest.mark.slow
def test_small_study_under_fire_ends_with_rows_of_undisturbed_one(tmp_path: Path) -> None:
    check(tmp_path, trials=9, every=2, seed=6)


@pytest.mark.slow
@pytest.mark.skipif(
    "SWEEPER_CHAOS" not in os.environ,
    reason="takes a quarter of an hour on a busy machine; set SWEEPER_CHAOS=1",
)
def test_study_of_200_trials_under_fire_ends_with_rows_of_undisturbed_one(tmp_path: Path) -> None:
    check(tmp_path, trials=200, every=4, seed=2)
