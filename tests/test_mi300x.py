"""The mi300x platform without an MI300X: recorded amd-smi answers, real Ray, real processes.

The engine is the real vLLM, whose CPU build takes no notice of a GPU mask: what is shown is the way from the
node to the child's environment and back into the row, not a speed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from sweeper import cli

RECORDED = Path(__file__).parent / "recorded"

TRIAL = """\
# @package _global_
defaults: [{override /model: tiny_llama}, {override /workload: smoke}]
study: {experiment: mine, question: "Where does a trial run?"}
knobs:
  tensor_parallel_size: 1
  enforce_eager: true
  max_model_len: 512
  VLLM_CPU_KVCACHE_SPACE: 1
  NCCL_MIN_NCHANNELS: 112
space: {knobs: {max_num_seqs: [8, 16]}}
workload: {num_prompts: 4, request_rate_per_s: [null], warmup_prompts: 0}
"""


@pytest.fixture
def node_with_64_partitions(tmp_path: Path) -> dict[str, str]:
    """An environment in which amd-smi answers as on a node in CPX/NPS4."""
    tools = tmp_path / "tools"
    tools.mkdir()
    stub = tools / "amd-smi"
    stub.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, sys\n"
        f"folder = pathlib.Path({str(RECORDED / 'rocm_6.4_cpx_nps4')!r})\n"
        "print((folder / (sys.argv[1] + '.json')).read_text(encoding='utf-8'), end='')\n"
    )
    stub.chmod(0o755)
    # What a batch system may have left behind must not reach the engine.
    return {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "ROCR_VISIBLE_DEVICES": "7"}


def test_the_node_of_64_partitions_is_shown(
    node_with_64_partitions: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", node_with_64_partitions["PATH"])
    assert cli.main(["node"]) == cli.OK
    told = capsys.readouterr().out
    assert "platform: mi300x: amd-smi answered: " in told
    assert "64 x " in told
    assert "CPX/NPS4" in told


def test_a_mode_that_the_node_is_not_in_is_refused_with_the_commands(
    node_with_64_partitions: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", node_with_64_partitions["PATH"])
    monkeypatch.chdir(tmp_path)
    code = cli.main(["+experiment=case2_sched_steps", "platform=mi300x", "platform.partition_mode=SPX"])
    told = capsys.readouterr().err
    assert code == cli.AT_RISK
    assert "is in partition mode CPX; the experiment asks for SPX" in told
    assert "amd-smi set" in told
    assert not (tmp_path / "outputs").exists()


@pytest.mark.vllm
@pytest.mark.ray
@pytest.mark.slow
def test_trials_run_on_partitions_of_their_own_with_exactly_one_mask(
    node_with_64_partitions: dict[str, str], tmp_path: Path, vllm_python: str
) -> None:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "mine.yaml").write_text(TRIAL)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "sweeper", "--config-dir", "mine", "+experiment=mine"),
            *(f"engine.python={vllm_python}", "engine.allow_unknown=true"),
        ],
        cwd=tmp_path,
        env=node_with_64_partitions,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("platform: mi300x: amd-smi answered: ")

    frame = pd.read_parquet(tmp_path / "outputs" / "mine-mi300x" / "measurements")
    assert list(frame["state"]) == ["complete", "complete"]
    assert set(frame["platform"]) == {"mi300x"}
    assert set(frame["partition_mode"]) == {"CPX"}
    assert set(frame["memory_mode"]) == {"NPS4"}
    held = [tuple(devices) for devices in frame["devices"]]
    assert len(set(held)) == 2, "two trials at once hold two partitions"

    for row in frame.to_dict("records"):
        folder = tmp_path / "outputs" / "mine-mi300x" / "trials" / row["trial_key"]
        (written,) = folder.glob("engine-*.command.json")
        environment = json.loads(written.read_text())["environment"]
        masks = {name: value for name, value in environment.items() if name.endswith("_VISIBLE_DEVICES")}
        (device,) = row["devices"]
        assert masks == {"HIP_VISIBLE_DEVICES": str(device)}
        assert row["effective.device_mask"] == f"HIP_VISIBLE_DEVICES={device}", "as the kernel showed it"
        assert environment["NCCL_MIN_NCHANNELS"] == "112"
