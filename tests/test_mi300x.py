"""The mi300x platform without an MI300X: recorded amd-smi answers, real Ray, real processes.

The engine is the real vLLM, whose CPU build takes no notice of a GPU mask: what is shown is the way from the
node to the child's environment and back into the row, not a speed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from sweeper import cli
from tests.standin_server import write_interpreter
from tests.topology.amd_smi_outputs import MI300A, MI308X, MI325X, Gpu, install, outputs

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


def write_amd_smi(tools: Path, recorded: str, *, busy: Sequence[int] = ()) -> None:
    """Put an amd-smi into a folder that answers as recorded; process 1 computes on the busy devices."""
    tools.mkdir()
    stub = tools / "amd-smi"
    stub.write_text(
        f"#!{sys.executable}\n"
        "import json, pathlib, sys\n"
        f"folder, busy = pathlib.Path({str(RECORDED / recorded)!r}), {list(busy)!r}\n"
        "if sys.argv[1] == 'process':\n"
        "    gpu = int(sys.argv[3])\n"
        "    process = {'process_info': {'pid': 1, 'mem_usage': {'value': 2 ** 33, 'unit': 'B'}}}\n"
        "    print(json.dumps([{'gpu': gpu, 'process_list': [process] if gpu in busy else []}]))\n"
        "else:\n"
        "    print((folder / (sys.argv[1] + '.json')).read_text(encoding='utf-8'), end='')\n"
    )
    stub.chmod(0o755)


@pytest.fixture
def node_with_64_partitions(tmp_path: Path) -> dict[str, str]:
    """An environment in which amd-smi answers as on a node in CPX/NPS4, and a batch system granted four."""
    tools = tmp_path / "tools"
    write_amd_smi(tools, "rocm_6.4_cpx_nps4")
    # What a batch system wrote must not reach the engine beside the engine's own mask.
    return {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "ROCR_VISIBLE_DEVICES": "12,13,14,15"}


def test_node_of_64_partitions_is_shown(
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


def test_mode_that_node_is_not_in_is_refused_with_commands(
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
    assert set().union(*held) <= {12, 13, 14, 15}, "those that were granted"

    for row in frame.to_dict("records"):
        folder = tmp_path / "outputs" / "mine-mi300x" / "trials" / row["trial_key"]
        (written,) = folder.glob("engine-*.command.json")
        environment = json.loads(written.read_text())["environment"]
        masks = {name: value for name, value in environment.items() if name.endswith("_VISIBLE_DEVICES")}
        (device,) = row["devices"]
        assert masks == {"HIP_VISIBLE_DEVICES": str(device)}
        assert row["effective.device_mask"] == f"HIP_VISIBLE_DEVICES={device}", "as the kernel showed it"
        assert environment["NCCL_MIN_NCHANNELS"] == "112"


class Node:
    """A machine as a node of MI300X, with a stand-in for vLLM's environment."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (folder / "mine" / "experiment").mkdir(parents=True)
        (folder / "mine" / "experiment" / "mine.yaml").write_text(TRIAL, encoding="utf-8")
        self._folder = folder
        self._python = write_interpreter(folder / "venv")
        self._capsys = capsys

    def sweep(self, *overrides: str) -> tuple[int, str]:
        """Run the command; give its exit code and what it printed."""
        code = cli.main(
            [
                *("--config-dir", "mine", "+experiment=mine", "platform=mi300x", "executor=inline"),
                *(f"engine.python={self._python}", "engine.allow_unknown=true", *overrides),
            ]
        )
        told = self._capsys.readouterr()
        return code, told.out + told.err

    def rows(self) -> list[dict[str, object]]:
        frame = pd.read_parquet(self._folder / "outputs" / "mine-mi300x" / "measurements")
        return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Node:
    monkeypatch.setenv("PATH", f"{tmp_path / 'tools'}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return Node(tmp_path, capsys)


@pytest.mark.parametrize(
    ("variables", "restriction", "placement"),
    [
        (
            {"HIP_VISIBLE_DEVICES": "4,5,6,7"},
            "only devices 4-7 of the node's 8 (HIP_VISIBLE_DEVICES=4,5,6,7)",
            "room for 4 side by side (4, 5, 6, 7)",
        ),
        (
            {"ROCR_VISIBLE_DEVICES": "2,3", "SLURM_JOB_GPUS": "2,3"},
            "only devices 2-3 of the node's 8 (ROCR_VISIBLE_DEVICES=2,3)",
            "room for 2 side by side (2, 3)",
        ),
        (
            {"SLURM_JOB_GPUS": "6"},
            "only device 6 of the node's 8 (SLURM_JOB_GPUS=6)",
            "one at a time (6)",
        ),
    ],
)
def test_plan_keeps_to_devices_that_surroundings_grant(
    node: Node,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    restriction: str,
    placement: str,
) -> None:
    write_amd_smi(tmp_path / "tools", "rocm_6.2_spx")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code, told = node.sweep("plan=true")
    assert code == cli.OK
    first_lines, _, plan = told.partition("plan of mine-mi300x")
    assert f"192 GiB each; {restriction}" in first_lines
    assert " ".join(restriction.split()) in " ".join(plan.split())
    assert placement in " ".join(plan.split())


@pytest.mark.parametrize("value", ["", "4,5,6,8", "MIG-0", "-1"])
def test_mask_that_says_nothing_clear_is_refused_before_anything_is_made(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    write_amd_smi(tmp_path / "tools", "rocm_6.2_spx")
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", value)
    code, told = node.sweep()
    assert code == cli.MISTAKE
    assert "error: HIP_VISIBLE_DEVICES" in told
    assert not (tmp_path / "outputs").exists()


def test_trials_run_on_granted_gpus_beside_somebody_elses(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # GPUs 0 to 3 are a colleague's: whoever is placed there waits for them to be free, and fails.
    write_amd_smi(tmp_path / "tools", "rocm_6.2_spx", busy=(0, 1, 2, 3))
    monkeypatch.setenv("ROCR_VISIBLE_DEVICES", "4,5,6,7")
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "2,3")
    code, told = node.sweep("engine.free_timeout_s=1")
    assert code == cli.OK, told
    rows = node.rows()
    assert {tuple(row["devices"]) for row in rows} == {(6,), (7,)}  # type: ignore[arg-type]
    masks = {str(row["effective.device_mask"]) for row in rows}
    assert masks == {"HIP_VISIBLE_DEVICES=6", "HIP_VISIBLE_DEVICES=7"}, "one mask, as the kernel showed it"
    assert {(row["device_name"], row["partitions_per_gpu"]) for row in rows} == {("AMD Instinct MI300X", 1)}


def test_half_gpu_in_partitions_is_chosen_by_key(node: Node, tmp_path: Path) -> None:
    # The second half of GPU 1; whatever else runs on the node is nobody's business here.
    write_amd_smi(tmp_path / "tools", "rocm_6.4_cpx_nps4", busy=(*range(12), *range(16, 64)))
    code, told = node.sweep(
        "platform.device_ids=12-15", "knobs.tensor_parallel_size=2", "engine.free_timeout_s=1"
    )
    assert code == cli.OK, told
    assert "only devices 12-15 of the node's 64 (platform.device_ids)" in told
    rows = node.rows()
    assert {tuple(row["devices"]) for row in rows} == {(12, 13), (14, 15)}  # type: ignore[arg-type]
    assert {str(row["effective.device_mask"]) for row in rows} == {
        "HIP_VISIBLE_DEVICES=12,13",
        "HIP_VISIBLE_DEVICES=14,15",
    }


def test_devices_that_are_granted_to_somebody_else_are_refused(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_amd_smi(tmp_path / "tools", "rocm_6.2_spx")
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "4,5,6,7")
    code, told = node.sweep("platform.device_ids=[2,3]")
    assert code == cli.MISTAKE
    assert "platform.device_ids: names devices 2-3, and HIP_VISIBLE_DEVICES=4,5,6,7 leaves only 4-7" in told


@pytest.mark.parametrize(
    ("gpu", "told", "basis"),
    [
        (
            MI308X,
            "These are not MI300X, which the platform and its recommendations are named for; nothing models",
            "basis: assumed",
        ),
        (
            MI325X,
            "predictions are the MI300X's, with the peaks of AMD Instinct MI325X and unproven",
            "basis: modelled from the peaks of AMD Instinct MI325X",
        ),
    ],
)
def test_kin_of_mi300x_are_named_and_not_predicted_as_one(
    node: Node, tmp_path: Path, gpu: Gpu, told: str, basis: str
) -> None:
    install(tmp_path / "tools", outputs("SPX", "NPS1", of=gpu))
    code, printed = node.sweep("plan=true")
    assert code == cli.OK
    assert f"8 x {gpu.name} (SPX/NPS1)" in printed
    assert told in printed
    assert basis in " ".join(printed.split())


def test_apu_in_three_partitions_can_be_planned(node: Node, tmp_path: Path) -> None:
    # TPX is no mode of an MI300X, whose model therefore says nothing.
    install(tmp_path / "tools", outputs("TPX", "NPS1", of=MI300A))
    code, printed = node.sweep("plan=true", "knobs.tensor_parallel_size=2")
    assert code == cli.OK
    assert "24 x AMD Instinct MI300A (TPX/NPS1), 42.67 GiB each" in printed
    # Two of the three partitions of each GPU.
    assert "2 devices a trial, room for 8 side by side (0-1, 3-4, 6-7, 9-10, ...)" in " ".join(
        printed.split()
    )


@pytest.mark.ray
def test_rays_own_processes_get_none_of_our_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Ray would end with "Please use HIP_VISIBLE_DEVICES instead of ROCR_VISIBLE_DEVICES" on an AMD node.
    from sweeper.executors.private_ray import PrivateRay
    from sweeper.processes import process as processes

    monkeypatch.setenv("ROCR_VISIBLE_DEVICES", "4,5")
    ray = PrivateRay(devices=1, log_path=tmp_path / "ray.log")
    try:
        started = [processes.environment(process.pid) for process in processes.descendants(os.getpid())]
        assert os.environ["ROCR_VISIBLE_DEVICES"] == "4,5"
    finally:
        ray.close()
    assert any("RAY_USAGE_STATS_ENABLED" in environment for environment in started)
    assert not any("ROCR_VISIBLE_DEVICES" in environment for environment in started)
