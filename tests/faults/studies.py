"""A study as its user runs it, in a process of its own, and what a test sees of it from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from sweeper.processes import process
from sweeper.processes.process import Process
from sweeper.store.store import Store
from tests.kept import kept

ROOT = Path(__file__).resolve().parents[2]
FOLDER_MARK = "FAULTS_FOLDER"

# On a machine that other tests keep busy, the start of a driver alone takes a while.
_PATIENCE_S = 600.0
_POLL_S = 0.1

EXPERIMENT = {
    "defaults": [{"override /model": "tiny_llama"}, {"override /workload": "smoke"}],
    "study": {"experiment": "faults", "question": "What becomes of a study under a fault?"},
    "engine": {"allow_unknown": True, "binds_numa": False, "stop_timeout_s": 3},
    "workload": {"num_prompts": 4, "request_rate_per_s": [None], "warmup_prompts": 0},
}


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was seen of one fault.

    Attributes:
        failure: Class in the row; None where the fault ended the study and not a trial.
        line: Message in the row.
        gone_s: Seconds from the fault until no process of its trial, or of its study, lived.
        exits: Exit codes of the commands, in order.
        again: What became of the trial afterwards.
    """

    failure: str | None
    line: str
    gone_s: float | None
    exits: tuple[int, ...]
    again: str


@dataclass
class Study:
    """A study of series, each with its own max_num_seqs, on a machine that shows so many GPUs."""

    folder: Path
    trials: Mapping[int, str]
    devices: int
    overrides: Sequence[str] = ()
    outputs: Path | None = None
    runs: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "meeting").mkdir(exist_ok=True)
        self.outputs = self.outputs or self.folder / "outputs"
        self.study = self.outputs / "faults-cuda"
        series = {
            f"n{number}": {"knobs": {"max_num_seqs": number, **({"FAULT": fault} if fault else {})}}
            for number, fault in self.trials.items()
        }
        experiment = self.folder / "conf" / "experiment" / "faults.yaml"
        experiment.parent.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump({**EXPERIMENT, "space": {"series": series}}, sort_keys=False)
        experiment.write_text(f"# @package _global_\n{text}", encoding="utf-8")
        _write_program(
            self.folder / "tools" / "nvidia-smi",
            "case $* in *index,uuid,name*) ;; *) exit 9;; esac\n"
            f"for i in $(seq 0 {self.devices - 1}); do\n"
            '  echo "$i, GPU-$i, Stand-in, 81920, 00000000:$(printf %02x $i):00.0, 550.1"\ndone\n',
        )
        engine = Path(__file__).with_name("faulty_vllm.py")
        self.python = self.folder / "bin" / "python"
        _write_program(self.python, f'PYTHONPATH="{ROOT}" exec "{sys.executable}" "{engine}" "$@"\n')

    def start(self, *overrides: str) -> subprocess.Popen[bytes]:
        command = [
            *(sys.executable, "-m", "sweeper", "--config-dir", str(self.folder / "conf")),
            *(
                "+experiment=faults",
                "platform=cuda",
                f"engine.python={self.python}",
                f"study.outputs={self.outputs}",
            ),
            *("study.order=as_written", *self.overrides, *overrides),
        ]
        with (self.folder / f"told-{len(self.runs)}.txt").open("wb") as told:
            driver = subprocess.Popen(
                command,
                cwd=self.folder,
                stdout=told,
                stderr=subprocess.STDOUT,
                # As from a terminal, also where this test itself runs in the background, deaf to it.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT),
                    "PATH": f"{self.folder / 'tools'}:{os.environ['PATH']}",
                    FOLDER_MARK: str(self.folder / "meeting"),
                },
            )
        self.runs.append(driver)
        return driver

    def wait_exit(self) -> int:
        """Exit code of the latest run, as a shell shows it."""
        code = self.runs[-1].wait(timeout=_PATIENCE_S)
        return 128 - code if code < 0 else code

    def told(self, run: int = -1) -> str:
        number = run % len(self.runs)
        return (self.folder / f"told-{number}.txt").read_text(encoding="utf-8", errors="replace")

    def meet(self, announced: str, number: int) -> None:
        """Wait until a trial says where it is."""
        path = self.folder / "meeting" / f"{announced}-{number}"
        self.wait(path.exists, f"{announced}-{number}")

    def forget(self, announced: str, number: int) -> None:
        (self.folder / "meeting" / f"{announced}-{number}").unlink(missing_ok=True)

    def let_go(self, number: int) -> None:
        (self.folder / "meeting" / f"go-{number}").touch()

    def heal(self) -> None:
        (self.folder / "meeting" / "healed").touch()

    def wait(self, is_so: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not is_so():
            if time.monotonic() > deadline or self.runs[-1].poll() is not None:
                raise AssertionError(f"never seen: {what}; the driver said:\n{self.told()}")
            time.sleep(_POLL_S)

    def kill_driver(self, number: signal.Signals) -> tuple[float, int]:
        """End the driver by a signal; seconds until nothing that it had started lived, and its exit code."""
        began = time.monotonic()
        self.runs[-1].send_signal(number)
        return self.seconds_until_nobody(since=began), self.wait_exit()

    def seconds_until_nobody(self, *, since: float) -> float:
        """Wait until nothing of the study lives but its driver, which may still draw its report."""
        drivers = {run.pid for run in self.runs}
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            if drivers >= {p.pid for p in process.marked(FOLDER_MARK, str(self.folder / "meeting"))}:
                break
            time.sleep(_POLL_S)
        return time.monotonic() - since

    def start_files(self, number: int) -> dict[str, dict[str, Any]]:
        """Start files of a trial by their names, such as ``engine-1-0`` and ``client-1``."""
        found = {}
        for path in self.study.glob("trials/*/*.start.json"):
            facts = json.loads(path.read_text(encoding="utf-8"))
            of_trial = path.parent.glob("engine-*.command.json")
            if any(f'"--max-num-seqs",\n  "{number}"' in each.read_text() for each in of_trial):
                found[path.name.removesuffix(process.START_FILE_SUFFIX)] = facts
        return found

    def kept(self) -> set[int]:
        """Process ids of what is kept between trials, and of its supervisors, as far as it lives."""
        return kept(self.study)

    def latest_engine(self, number: int) -> dict[str, Any]:
        files = self.start_files(number)
        return files[max(name for name in files if name.startswith("engine-"))]

    def victim(self, number: int, who: str) -> int:
        """Process id of a part of a trial that runs."""
        engine = self.latest_engine(number)
        files = self.start_files(number)
        match who:
            case "supervisor":
                return int(engine["pid"])
            case "doorkeeper":
                return _parent(int(engine["pid"]))
            case "API server":
                return int(engine["program_pid"])
            case "client":
                return int(files[max(name for name in files if name.startswith("client-"))]["program_pid"])
            case "Ray worker":
                return Process.parse(engine["owner"]).pid
            case "raylet":
                return _parent(Process.parse(engine["owner"]).pid)
        below = process.descendants(int(engine["program_pid"]))
        return next(p.pid for p in below if process.title(p.pid).startswith("VLLM::"))

    def rows(self) -> pd.DataFrame:
        return Store(self.study).read()

    def row(self, number: int, state: str) -> pd.Series[Any]:
        """The first row of a trial in this state."""
        rows = self.rows()
        found = rows[(rows["knob.max_num_seqs"] == number) & (rows["state"] == state)]
        assert len(found), f"{number} is never {state}; the driver said:\n{self.told()}"
        return found.sort_values("attempt").iloc[0]

    def attempt(self, number: int, attempt: int) -> pd.Series[Any]:
        rows = self.rows()
        found = rows[(rows["knob.max_num_seqs"] == number) & (rows["attempt"] == attempt)]
        return found.astype(object).where(found.notna(), None).iloc[0]

    def finished(self) -> dict[tuple[str, int], tuple[str, str]]:
        """What is stored of each attempt: how it ended, and its numbers with the time they are from.

        Not the files: a part is written anew, whole, when a later trial brings a column that it lacks.
        """
        if not any(self.study.glob("measurements/*.parquet")):
            return {}
        told = ["request_throughput_per_s", "failure_message", "ended_at"]
        return {
            (row["trial_key"], row["attempt"]): (row["state"], str([row[name] for name in told]))
            for row in self.rows().to_dict("records")
        }

    def check_labels(self) -> None:
        """See that each complete row has the number of the engine that its knobs name, once."""
        rows = self.rows()
        complete = rows[rows["state"] == "complete"]
        assert (complete["knob.max_num_seqs"] == complete["effective.max_num_seqs"]).all()
        assert (complete["knob.max_num_seqs"] == complete["request_throughput_per_s"]).all()
        assert not complete["trial_key"].duplicated().any()
        failed = rows[rows["state"] != "complete"]
        assert failed["request_throughput_per_s"].isna().all()


def _write_program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}", encoding="utf-8")
    path.chmod(0o755)


def _parent(pid: int) -> int:
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat[stat.rindex(")") + 2 :].split()[1])
