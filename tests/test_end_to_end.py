"""The main job on the real vLLM: measured, killed in the middle, gone on with, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from sweeper.processes import process as processes
from sweeper.processes.orphans import find_orphans

STUDY = Path("outputs/cpu_smoke-cpu")


def started(folder: Path, vllm_python: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "sweeper", "+experiment=cpu_smoke"],
        cwd=folder,
        env={**os.environ, "SWEEPER_VLLM_PYTHON": vllm_python},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def parts(folder: Path) -> dict[str, int]:
    found = (folder / STUDY / "measurements").glob("*.parquet")
    return {path.name: path.stat().st_mtime_ns for path in found}


def left_behind(folder: Path) -> list[str]:
    """Command lines of live processes that name the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in text and path.parent.name != str(os.getpid()):
            found.append(text)
    return found


def orphans(folder: Path) -> list[str]:
    """Engine processes without an owner; they name themselves, so their command lines do not tell."""
    return [processes.title(process.pid) or str(process) for process in find_orphans(folder / "outputs")]


@pytest.mark.vllm
@pytest.mark.ray
@pytest.mark.slow
def test_cpu_smoke_is_measured_killed_and_completed(tmp_path: Path, vllm_python: str) -> None:
    driver = started(tmp_path, vllm_python)
    deadline = time.monotonic() + 900
    while not parts(tmp_path) and time.monotonic() < deadline and driver.poll() is None:
        time.sleep(0.5)
    kept = parts(tmp_path)
    assert kept, driver.stdout.read() if driver.stdout and driver.poll() is not None else "no trial finished"
    time.sleep(3)  # the next trial's engine is on its way up
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    kept = parts(tmp_path)
    assert len(kept) < 4

    deadline = time.monotonic() + 60
    while (left_behind(tmp_path) or orphans(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert left_behind(tmp_path) == []
    assert orphans(tmp_path) == []

    second = started(tmp_path, vllm_python)
    told, _ = second.communicate(timeout=1200)
    assert second.returncode == 0, told
    assert f"started now: {4 - len(kept)}" in told
    assert {name: stamp for name, stamp in parts(tmp_path).items() if name in kept} == kept

    frame = pd.read_parquet(tmp_path / STUDY / "measurements")
    assert len(frame) == 8
    assert set(frame["provenance"]) == {"measured"}
    assert set(frame["state"]) == {"complete"}
    assert (frame["completed"] == 24).all()
    assert (frame["failed"] == 0).all()
    # 24 requests of 16 output tokens each
    assert (frame["total_output_tokens"] == 24 * 16).all()
    for knob in ("max_num_seqs", "max_num_batched_tokens", "max_model_len", "enable_prefix_caching"):
        assert (frame[f"knob.{knob}"] == frame[f"effective.{knob}"]).all()
    assert frame.groupby(["knob.max_num_seqs", "knob.max_num_batched_tokens"]).size().to_dict() == {
        (4, 256): 2,
        (4, 1024): 2,
        (32, 256): 2,
        (32, 1024): 2,
    }
    assert left_behind(tmp_path) == []

    third = started(tmp_path, vllm_python)
    told, _ = third.communicate(timeout=300)
    assert third.returncode == 0, told
    assert "started now: 0" in told
