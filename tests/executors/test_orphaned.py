"""A driver whose parent is process 1, as under nohup, systemd or in a container, survives its raylet."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweeper.executors.private_ray import PrivateRay
from sweeper.executors.ray import RayExecutor
from sweeper.processes import process as processes
from sweeper.records import Placement, TrialSpec
from tests.conftest import ROOT
from tests.executors.test_contract import end_raylets, results

DRIVER = """
import os, pickle, sys, time
from pathlib import Path
from tests.executors import test_orphaned
while os.getppid() == int(sys.argv[3]):
    time.sleep(0.05)
test_orphaned.drive(*pickle.loads(Path(sys.argv[1]).read_bytes()), told=Path(sys.argv[2]))
"""


def drive(spec: TrialSpec, placement: Placement, *, told: Path) -> None:
    """Lose the raylet between two trials, and write how the second one ended."""
    executor = RayExecutor(PrivateRay(devices=8, log_path=told.with_suffix(".ray")))
    end_raylets()
    executor.submit(spec, placement)
    (result,) = results(executor, 1).values()
    executor.close()
    answer = {"parent": os.getppid(), "state": result.state, "message": result.failure_message}
    told.write_text(json.dumps(answer), encoding="utf-8")


@pytest.mark.ray
def test_driver_of_no_parent_starts_ray_again(
    tmp_path: Path, simulated_spec: object, placement: object
) -> None:
    (tmp_path / "given").write_bytes(pickle.dumps((simulated_spec, placement)))
    told = tmp_path / "told.json"
    command = [sys.executable, "-c", DRIVER, str(tmp_path / "given"), str(told)]
    shell = subprocess.run(
        [
            "bash",
            "-c",
            'log=$1; shift; "$@" $$ > "$log" 2>&1 & echo $!',
            "-",
            str(tmp_path / "log"),
            *command,
        ],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "RAY_RAYLET_PID"},
    )
    driver = processes.find(int(shell.stdout))
    while not told.exists() and driver is not None and processes.is_alive(driver):
        time.sleep(0.2)
    assert told.exists(), (tmp_path / "log").read_text(encoding="utf-8")[-2000:]
    answer = json.loads(told.read_text(encoding="utf-8"))
    if answer.pop("parent") != 1:
        pytest.skip("this machine gives orphans to another process than 1")
    assert answer == {"state": "complete", "message": None}
