"""The examples for schedulers and containers: what they start is a study, with paths that all parts have.

Slurm, KubeRay and the host's docker are not here. So each script runs with stand-ins for them that write down
what they were asked, and the sweep among those words is composed and checked as the program does it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeper import config
from sweeper.config.settings import Settings
from sweeper.records import Platform
from tests.conftest import ROOT

EXAMPLES = ROOT / "examples"
VLLM = "/shared/vllm/bin/python"


def asked(script: str, folder: Path, *words: str, surroundings: dict[str, str] | None = None) -> list[str]:
    """Return the words of the one command that a script ends in, asked of a stand-in."""
    tools, seen = folder / "tools", folder / "asked.json"
    tools.mkdir()
    program = (
        f"#!{sys.executable}\nimport json, pathlib, sys\n"
        f"pathlib.Path({str(seen)!r}).write_text(json.dumps(sys.argv))\n"
    )
    for name in ("srun", "docker"):
        (tools / name).write_text(program, encoding="utf-8")
    (tools / "scontrol").write_text("#!/bin/sh\nprintf 'first\\nsecond\\n'\n", encoding="utf-8")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    environment = {"PATH": f"{tools}:/usr/bin:/bin", "HOME": str(folder), **(surroundings or {})}
    done = subprocess.run(
        ["bash", str(EXAMPLES / script), *words], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(seen.read_text(encoding="utf-8"))
    return [Path(found[0]).name, *found[1:]]


def sweep_of(words: list[str]) -> Settings:
    """Return what a sweep would do whose words follow ``-m sweeper``."""
    composed = config.compose_run(words[words.index("sweeper") + 1 :])
    return config.settings(composed, platform=Platform.MI300X)


def options(script: str) -> dict[str, str]:
    text = (EXAMPLES / script).read_text(encoding="utf-8")
    return dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", text, re.MULTILINE))


def test_slurm_job_on_one_node_is_a_study_of_that_node(tmp_path: Path) -> None:
    words = asked("slurm/one_node.sh", tmp_path, surroundings={"SWEEPER_VLLM_PYTHON": VLLM})
    assert words[:2] == ["srun", "--ntasks=1"]
    sweep = sweep_of(words)
    assert sweep.address == "local"
    assert f"engine.python={VLLM}" in words
    assert f"study.outputs={tmp_path / 'outputs'}" in words
    assert options("slurm/one_node.sh")["nodes"] == "1"


def test_slurm_job_takes_another_study(tmp_path: Path) -> None:
    surroundings = {"SWEEPER_VLLM_PYTHON": VLLM, "SWEEPER_OUTPUTS": "/shared/outputs"}
    another = ("+experiment=serving_random", "platform=mi300x")
    words = asked("slurm/one_node.sh", tmp_path, *another, surroundings=surroundings)
    assert "+experiment=tune" not in words
    assert "study.outputs=/shared/outputs" in words
    sweep_of(words)


def test_slurm_job_without_vllm_says_what_to_name(tmp_path: Path) -> None:
    script = EXAMPLES / "slurm" / "one_node.sh"
    done = subprocess.run(
        ["bash", str(script)], cwd=tmp_path, env={"PATH": os.defpath}, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "SWEEPER_VLLM_PYTHON: name the interpreter that has vLLM" in done.stderr


def test_slurm_job_on_several_nodes_joins_the_cluster_that_it_starts(tmp_path: Path) -> None:
    surroundings = {
        "SWEEPER_VLLM_PYTHON": VLLM,
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "node[1-2]",
    }
    words = asked("slurm/several_nodes.sh", tmp_path, surroundings=surroundings)
    assert "--nodes=2" in words and "--ntasks-per-node=1" in words
    ray = words[words.index("ray") : words.index("--")]
    assert ray == ["ray", "symmetric-run", "--address", "first:6379", "--min-nodes", "2"]
    assert sweep_of(words).address == "first:6379"


def test_words_for_ray_are_those_of_its_own_command(tmp_path: Path) -> None:
    from ray.scripts.symmetric_run import symmetric_run

    surroundings = {"SWEEPER_VLLM_PYTHON": VLLM, "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "x"}
    words = asked("slurm/several_nodes.sh", tmp_path, surroundings=surroundings)
    own = {option for parameter in symmetric_run.params for option in parameter.opts}
    given = {
        word for word in words[words.index("symmetric-run") : words.index("--")] if word.startswith("--")
    }
    assert given == {"--address", "--min-nodes"}
    assert given <= own


def test_container_keeps_results_on_the_node(tmp_path: Path) -> None:
    study = ("+experiment=tune", "model=llama_3_1_70b_instruct", "platform=mi300x")
    words = asked("docker/run.sh", tmp_path, *study)
    assert words[:2] == ["docker", "run"]
    assert f"{tmp_path / 'outputs'}:/work/outputs" in words
    image = words.index("sweeper")
    assert tuple(words[image + 1 :]) == study
    sweep_of(words)
    # The image's folder, below which a study writes unless told otherwise.
    assert "WORKDIR /work\n" in (EXAMPLES / "docker" / "Dockerfile").read_text(encoding="utf-8")


def test_container_that_starts_containers_has_its_folders_at_the_nodes_paths(tmp_path: Path) -> None:
    study = (
        "engine.image=rocm/vllm:TAG",
        "+experiment=tune",
        "model=llama_3_1_70b_instruct",
        "platform=mi300x",
    )
    words = asked("docker/engine_images.sh", tmp_path, *study)
    mounts = [after for word, after in pairwise(words) if word == "--volume"]
    assert all(mount.split(":")[0] == mount.split(":")[1] for mount in mounts)
    assert f"{tmp_path}:{tmp_path}" in mounts
    assert words[words.index("--workdir") + 1] == str(tmp_path)
    assert words[words.index("--network") :][:2] == ["--network", "host"]
    assert words[words.index("--pid") :][:2] == ["--pid", "host"]
    sweep_of(words)


def test_image_has_what_the_package_is_made_of() -> None:
    text = (EXAMPLES / "docker" / "Dockerfile").read_text(encoding="utf-8")
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", text, re.MULTILINE)
    named = {name for line in copied for name in line.split()}
    assert {"pyproject.toml", "README.md", "LICENSE", "sweeper", "analysis", "conf", "experiments"} == named
    assert all((ROOT / name).exists() for name in named)


def pods(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(
        (EXAMPLES / "kubernetes" / "rayjob.yaml").read_text(encoding="utf-8")
    )
    return found


def test_ray_job_is_a_study_on_the_cluster_that_it_gets(job: dict[str, Any]) -> None:
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    words = job["spec"]["entrypoint"].split()
    assert words[:3] == ["python", "-m", "sweeper"]
    sweep = sweep_of(words)
    assert sweep.address == "auto"
    assert not any(word.startswith("engine.image=") for word in words), "pods start no containers"


def test_pods_of_ray_job_share_image_and_folders(job: dict[str, Any]) -> None:
    from importlib.metadata import version

    assert job["spec"]["rayClusterSpec"]["rayVersion"] == version("ray")
    containers = [container for pod in pods(job) for container in pod["containers"]]
    assert len({container["image"] for container in containers}) == 1
    places = [{mount["mountPath"] for mount in container["volumeMounts"]} for container in containers]
    assert all(place == places[0] for place in places)
    words = job["spec"]["entrypoint"].split()
    paths = [word.split("=", 1)[1] for word in words if word.startswith(("study.outputs=", "model.path="))]
    assert len(paths) == 2
    assert all(any(path.startswith(f"{place}/") for place in places[0]) for path in paths)
    for pod in pods(job):
        (container,) = pod["containers"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_only_workers_of_ray_job_take_gpus(job: dict[str, Any]) -> None:
    head, *workers = [pod["containers"][0]["resources"]["limits"] for pod in pods(job)]
    assert "amd.com/gpu" not in head
    assert [limits["amd.com/gpu"] for limits in workers] == [8]
