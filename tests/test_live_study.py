"""A study whose settings share a start, as its user runs it; and its driver killed on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sweeper.processes import process as processes
from tests.standin_server import write_interpreter
from tests.test_chaos import write_gpus

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = 6


class LiveStudy:
    def __init__(self, folder: Path, *, executor: str = "inline") -> None:
        self.folder, self.executor = folder, executor
        self.outputs = folder / "outputs"
        self.python = write_interpreter(folder / "bin")
        write_gpus(folder / "tools")

    def start(self, *overrides: str) -> subprocess.Popen[str]:
        words = [
            *(
                "platform=cuda",
                "platform.devices=1",
                "model=tiny_llama",
                "workload=random",
                f"executor={self.executor}",
            ),
            *("study.name=live", f"study.outputs={self.outputs}", "engine.live=auto"),
            *("workload.num_prompts=4", "workload.input_len=8", "workload.output_len=4"),
            f"space.knobs.max_num_seqs=[{','.join(map(str, range(1, SETTINGS + 1)))}]",
            *(f"engine.python={self.python}", "engine.allow_unknown=true", "engine.binds_numa=false"),
            "engine.stop_timeout_s=2",
        ]
        return subprocess.Popen(
            [sys.executable, "-m", "sweeper", *words, *overrides],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "PATH": f"{self.folder / 'tools'}:{os.environ['PATH']}",
            },
        )

    def run(self, *overrides: str) -> str:
        driver = self.start(*overrides)
        told, _ = driver.communicate(timeout=600)
        assert driver.returncode == 0, told
        return told

    def parts(self) -> list[Path]:
        return list(self.outputs.glob("live/measurements/[!.]*.parquet"))

    def rows(self) -> pd.DataFrame:
        return pd.concat([pd.read_parquet(path) for path in self.parts()], ignore_index=True)

    def processes(self) -> list[Any]:
        return processes.marked(processes.OUTPUTS_MARK, str(self.outputs))


def wait(until: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 300
    while not until():
        assert time.monotonic() < deadline, f"never seen: {what}"
        time.sleep(0.05)


@pytest.fixture(params=["inline", pytest.param("ray", marks=pytest.mark.ray)])
def study(request: pytest.FixtureRequest, tmp_path: Path) -> LiveStudy:
    return LiveStudy(tmp_path, executor=request.param)


def test_killed_driver_leaves_no_engine_and_study_goes_on_as_it_began(study: LiveStudy) -> None:
    driver = study.start()
    wait(lambda: len(study.parts()) >= 2, "two trials")
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    wait(lambda: not study.processes(), "the end of all that was started")
    before = len(study.parts())
    assert 2 <= before < SETTINGS
    told = study.run()
    assert f"{SETTINGS} settings on one start with max_num_seqs {SETTINGS}" in told
    rows = study.rows()
    assert sorted(rows["knob.max_num_seqs"]) == sorted(rows["effective.max_num_seqs"])
    assert len(rows) == SETTINGS and set(rows["state"]) == {"complete"}
    assert rows["started_with"].nunique() == 1
    # Each of the two drivers made one start, and all else went on it.
    assert (rows["live_trial"] == 0).sum() == 2
    assert len(list(study.outputs.glob("live/trials/*/engine-*.log"))) == 2
    assert study.processes() == []
    report = (study.outputs / "live" / "report.md").read_text()
    assert "all settings on 2 shared starts with long_prefill_token_threshold 0, max_num_batched" in report


def test_fresh_starts_are_measured_after_all_when_asked_for(study: LiveStudy) -> None:
    settings = "space.knobs.max_num_seqs=[1,2,3]"
    study.run(settings)
    assert study.rows()["live_trial"].notna().sum() == 3
    study.run("engine.live=false", "space.knobs.max_num_seqs=[1,2]")
    rows = study.rows()
    assert len(rows) == 3 + 2
    fresh = rows[rows["live_trial"].isna()]
    assert sorted(fresh["knob.max_num_seqs"]) == [1, 2]
    assert fresh["started_with"].isna().all() and fresh["set_live"].isna().all()
    # And are not measured again on a shared start: theirs is the better row.
    study.run(settings)
    assert len(study.rows()) == 3 + 2


def test_search_stays_with_its_start_and_finalists_have_their_own(tmp_path: Path) -> None:
    study = LiveStudy(tmp_path)
    told = study.run(
        *("search=tpe", "search.trials=5", "search.finalists=1", "search.final_repeats=1"),
        *("space.knobs.max_num_seqs=[2,4,8,16,32,64]", "space.knobs.enforce_eager=[true,false]"),
    )
    assert "live: settings that differ in max_num_seqs alone share a start at the largest of each" in told
    rows = study.rows()
    searched, finals = rows[rows["role"].isna()], rows[rows["role"].notna()]
    assert len(searched) == 5
    # A start is expected to take a minute and a load of four short requests next to nothing.
    assert sorted(searched["live_trial"]) == [0, 1, 2, 3, 4]
    assert searched["knob.enforce_eager"].nunique() == 1
    assert set(searched["started_with"]) == {
        "long_prefill_token_threshold 0, max_num_batched_tokens 2048, max_num_seqs 64"
    }
    assert set(finals["role"]) == {"default", "finalist"}
    assert finals["live_trial"].isna().all()
    assert study.processes() == []
