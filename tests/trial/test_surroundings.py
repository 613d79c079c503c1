"""What a row tells of the machine it was made on: facts where they stand, secrets nowhere."""

from __future__ import annotations

import json
import platform
from pathlib import Path

from sweeper.trial import surroundings


def test_only_variables_that_change_speed_are_kept() -> None:
    environment = {
        "VLLM_USE_V1": "1",
        "NCCL_MIN_NCHANNELS": "112",
        "HSA_NO_SCRATCH_RECLAIM": "1",
        "OMP_NUM_THREADS": "8",
        "HOME": "/home/somebody",
        "HF_TOKEN": "hf_planted",
    }
    assert surroundings.relevant(environment) == {
        "HSA_NO_SCRATCH_RECLAIM": "1",
        "NCCL_MIN_NCHANNELS": "112",
        "OMP_NUM_THREADS": "8",
        "VLLM_USE_V1": "1",
    }


def test_variable_that_may_hold_secret_is_left_out_whatever_it_begins_with() -> None:
    names = ("VLLM_API_KEY", "ROCM_PASSWORD", "NCCL_AUTH", "VLLM_S3_ACCESS_KEY_ID", "TORCH_HUB_URL")
    assert surroundings.relevant(dict.fromkeys(names, "planted")) == {}


def test_containers_are_told_by_their_files_and_by_their_control_group(tmp_path: Path) -> None:
    for name, path, text, told in (
        ("docker", ".dockerenv", "", "docker"),
        ("podman", "run/.containerenv", "", "podman"),
        ("kubernetes", "proc/1/cgroup", "0::/kubepods/besteffort/pod12/34\n", "kubepods"),
        ("bare", "proc/1/cgroup", "0::/init.scope\n", "none"),
    ):
        file = tmp_path / name / path
        file.parent.mkdir(parents=True)
        file.write_text(text)
        assert surroundings.container(tmp_path / name) == told


def test_what_kernel_does_not_tell_is_missing_and_not_zero(tmp_path: Path) -> None:
    told = surroundings.surroundings({}, root=tmp_path)
    assert told == {"container": "none", "environment": "{}"}
    setting = tmp_path / "proc/sys/kernel/numa_balancing"
    setting.parent.mkdir(parents=True)
    setting.write_text("0\n")
    told = surroundings.surroundings({"VLLM_USE_V1": "0"}, root=tmp_path)
    assert told["numa_balancing"] == 0
    assert json.loads(str(told["environment"])) == {"VLLM_USE_V1": "0"}


def test_versions_are_those_of_this_process() -> None:
    told = surroundings.versions()
    assert told["sweeper_python"] == platform.python_version()
    assert told["kernel"] == platform.release()
    assert told["ray"][0].isdigit()
