"""What a container is given, which runtime runs it and which image it is: decided without one."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.engines import containers, images
from sweeper.errors import ConfigError
from sweeper.processes import containers as started
from sweeper.processes import orphans, process
from sweeper.processes.supervisor import Supervised
from sweeper.records import ContainerSpec, Platform, TrialSpec
from sweeper.topology.amd_smi import render_files
from sweeper.topology.probes import Answer
from sweeper.topology.shown_devices import ShownDevices
from tests import container_commands
from tests.container_commands import BLOCKS, words_of
from tests.standin_server import make_spec

GPUS = ShownDevices(platform=Platform.CUDA, indices=(2, 3))


def run(
    folder: Path, environment: dict[str, str], surroundings: dict[str, str], **changes: object
) -> containers.Inside:
    fields: dict[str, object] = {"image": "localhost/vllm:1", "runtime": "docker", "digest": "sha256:0"}
    devices = changes.pop("devices", GPUS)
    return containers.run(
        ContainerSpec(**{**fields, **changes}),  # type: ignore[arg-type]
        ["python3", "-m", "server"],
        environment=environment,
        surroundings=surroundings,
        folder=folder,
        devices=devices,  # type: ignore[arg-type]
    )


def test_page_shows_the_commands_as_they_are() -> None:
    text = container_commands.PAGE.read_text(encoding="utf-8")
    assert container_commands.table() in text, "write it anew: python -m tests.container_commands"


def test_partition_is_shown_its_own_render_node_and_counted_from_0(tmp_path: Path) -> None:
    """Eight render nodes a GPU, from 128: device 9 in CPX is the second partition of the second GPU."""
    words = list(words_of("docker", BLOCKS[2], tmp_path))
    shown = [words[place + 1] for place, word in enumerate(words) if word == "--device"]
    assert shown == ["/dev/kfd", "/dev/dri/renderD137"]
    # In SPX a GPU uses the first of its eight: device 4 is 128 + 4 * 8.
    four = list(words_of("podman", BLOCKS[1], tmp_path))
    assert [w for w in four if w.startswith("/dev/dri")] == [
        f"/dev/dri/renderD{n}" for n in (160, 168, 176, 184)
    ]
    # The options of AMD's own command for vLLM (address in docs/containers.md).
    for option in ("--network host", "--ipc host", "--group-add video", "--cap-add SYS_PTRACE"):
        assert option in " ".join(words) and option in " ".join(four)
    assert "--security-opt seccomp=unconfined" in " ".join(words)


def test_variables_are_passed_by_name_and_paths_of_this_machine_are_not(tmp_path: Path) -> None:
    around = {
        **{"PATH": "/usr/bin", "HOME": str(tmp_path), "LD_LIBRARY_PATH": "/opt/lib", "PYTHONPATH": "/ours"},
        **{"HF_TOKEN": "secret", "NCCL_DEBUG": "INFO", "VLLM_CONFIG_ROOT": "/etc/vllm", "EDITOR": "vi"},
    }
    given = {**around, "MY_KNOB": "7", "VLLM_API_KEY": "key", "PYTHONPATH": f"{tmp_path}:/ours"}
    inside = run(tmp_path, given, around)
    words = list(inside.command)
    names = [words[place + 1] for place, word in enumerate(words) if word == "--env"]
    assert names == ["HF_HOME", "HF_TOKEN", "MY_KNOB", "NCCL_DEBUG", "PYTHONPATH", "VLLM_API_KEY"]
    assert inside.environment["PYTHONPATH"] == str(tmp_path)
    assert not any("secret" in word or word == "key" for word in words)


@pytest.mark.parametrize(
    ("runtime", "shown"),
    [
        ("docker", ["--gpus", '"device=2,3"']),
        ("/usr/bin/podman", ["--device", "nvidia.com/gpu=2", "--device", "nvidia.com/gpu=3"]),
    ],
)
def test_gpus_of_nvidia_are_shown_and_counted_from_0(tmp_path: Path, runtime: str, shown: list[str]) -> None:
    given = {"CUDA_VISIBLE_DEVICES": "2,3", "SWEEPER_DEVICE_MASK": "CUDA_VISIBLE_DEVICES=2,3"}
    inside = run(tmp_path, given, {}, runtime=runtime)
    assert " ".join(shown) in " ".join(inside.command)
    assert inside.environment["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert inside.environment["SWEEPER_DEVICE_MASK"] == "CUDA_VISIBLE_DEVICES=0,1"


def test_apptainer_shows_all_devices_and_takes_variables_from_its_own(tmp_path: Path) -> None:
    given = {"HIP_VISIBLE_DEVICES": "2,3", "VLLM_API_KEY": "key"}
    amd = replace(GPUS, platform=Platform.MI300X)
    inside = run(tmp_path, given, {}, runtime="apptainer", image="vllm.sif", devices=amd)
    assert inside.command[:4] == ("apptainer", "exec", "--cleanenv", "--no-home")
    assert inside.command[4] == "--rocm" and inside.command[-4:] == ("vllm.sif", "python3", "-m", "server")
    assert inside.environment["APPTAINERENV_HIP_VISIBLE_DEVICES"] == "2,3"
    assert inside.environment["APPTAINERENV_VLLM_API_KEY"] == "key"
    assert inside.container is None and "key" not in inside.command


def test_render_node_is_told_by_amd_smi_or_else_counted_by_the_kernel(tmp_path: Path) -> None:
    rows = [
        {"gpu": 0, "hip_id": 1, "render": "renderD136"},
        {"gpu": 1, "hip_id": 0, "render": "renderD128"},
    ]
    told = render_files(lambda _: Answer(exit_status=0, stdout=json.dumps(rows)), root=tmp_path)
    assert told == {0: "/dev/dri/renderD128", 1: "/dev/dri/renderD136"}

    # The first node is a processor, the tenth comes after the second.
    for node, minor in ((0, 0), (2, 128), (10, 136)):
        folder = tmp_path / "sys/class/kfd/kfd/topology/nodes" / str(node)
        folder.mkdir(parents=True)
        (folder / "properties").write_text(f"simd_count 4\ndrm_render_minor {minor}\n")
    old = [{"gpu": 0}, {"gpu": 1}]
    counted = render_files(lambda _: Answer(exit_status=0, stdout=json.dumps(old)), root=tmp_path)
    assert counted == {0: "/dev/dri/renderD128", 1: "/dev/dri/renderD136"}

    # Of a device that this container is not given, the kernel lets nobody read the file, root neither.
    (tmp_path / "sys/class/kfd/kfd/topology/nodes/1/properties").mkdir(parents=True)
    assert render_files(lambda _: Answer(exit_status=0, stdout=json.dumps(old)), root=tmp_path) == counted


# Runtimes


def program(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_runtime_that_does_not_run_is_told_from_one_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images.why_unusable.cache_clear()
    program(tmp_path / "docker", 'echo "Cannot connect to the Docker daemon at unix:///x." >&2; exit 1')
    monkeypatch.setenv("PATH", f"{tmp_path}")
    with pytest.raises(ConfigError) as told:
        images.find_runtime(None)
    assert str(told.value).startswith(
        "engine.image: docker is installed and not running (Cannot connect to the Docker daemon at "
        "unix:///x.); podman is not installed; apptainer is not installed; expected one that runs."
    )
    with pytest.raises(ConfigError, match=r"engine.container_runtime: podman is not installed; expected one"):
        images.find_runtime("podman")
    program(tmp_path / "podman", "exit 0")
    images.why_unusable.cache_clear()
    assert images.find_runtime(None) == "podman"
    images.why_unusable.cache_clear()


def test_digest_is_that_of_the_registry_and_else_the_images_own() -> None:
    local = [{"Id": "ab" * 32, "RepoDigests": []}]
    assert images.read_digest(json.dumps(local)) == "sha256:" + "ab" * 32
    pulled = [{"Id": "sha256:" + "ab" * 32, "RepoDigests": ["rocm/vllm@sha256:" + "cd" * 32]}]
    assert images.read_digest(json.dumps(pulled)) == "sha256:" + "cd" * 32
    assert images.read_digest("not what inspect prints") is None


def test_path_of_the_image_stays_behind_ours_and_is_not_mounted(tmp_path: Path) -> None:
    told = [{"Id": "ab" * 32, "Config": {"Env": ["A=b=c", f"PYTHONPATH=/opt/aiter::{tmp_path}/sub"]}}]
    found = images.read_python_path(json.dumps(told))
    assert found == ("/opt/aiter", f"{tmp_path}/sub")
    assert images.read_python_path(json.dumps([{"Config": {"Env": None}}])) == ()
    assert images.read_python_path("not what inspect prints") == ()
    (tmp_path / "sub").mkdir()
    (tmp_path / "ours").mkdir()
    around = {"PATH": "/usr/bin", "HOME": str(tmp_path)}
    inside = run(tmp_path / "trial", {**around, "PYTHONPATH": f"{tmp_path}/ours"}, around, python_path=found)
    assert inside.environment["PYTHONPATH"] == f"{tmp_path}/ours:/opt/aiter:{tmp_path}/sub"
    assert f"{tmp_path}/ours:{tmp_path}/ours:ro" in inside.command
    assert not any(word.startswith(f"{tmp_path}/sub:") for word in inside.command)
    # Where we put nothing there, the image keeps its own.
    alone = run(tmp_path / "trial", around, around, python_path=found)
    assert "PYTHONPATH" not in alone.command and "PYTHONPATH" not in alone.environment


def test_image_of_apptainer_is_known_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "a.sif").write_bytes(b"abc")
    # The digest of "abc" is the example of FIPS 180-2, appendix B.1.
    assert images.digest_of(str(tmp_path / "a.sif"), "apptainer", may_pull=False) == (
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    with pytest.raises(ConfigError, match=r"Make one: apptainer pull vllm.sif docker://rocm/vllm:1"):
        images.digest_of("docker://rocm/vllm:1", "apptainer", may_pull=False)


# Identity


def in_image(spec: TrialSpec, image: str, digest: str) -> TrialSpec:
    container = ContainerSpec(image=image, runtime="docker", digest=digest)
    return replace(spec, engine=replace(spec.engine, container=container))


def test_image_is_its_content_and_not_its_name(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, "python")
    one, two = in_image(spec, "a:1", "sha256:1"), in_image(spec, "a:1", "sha256:2")
    assert len({spec.key, one.key, two.key}) == 3
    by_knob = replace(one, assignment={**spec.assignment, "image": "a:latest"})
    assert by_knob.key == one.key == in_image(spec, "b:1", "sha256:1").key


# The daemon is gone


def test_container_that_cannot_be_asked_about_is_looked_for_by_the_next_start(tmp_path: Path) -> None:
    """No end is written down of what nobody saw end; the next start asks again, and finds it."""
    outputs = tmp_path / "outputs"
    trial = outputs / "study" / "trials" / "0123456789abcdef"
    trial.mkdir(parents=True)
    gone = tmp_path / "gone"
    labels = {
        **{started.START_LABEL: "sweeper-1", started.OUTPUTS_LABEL: str(outputs), started.TRIAL_LABEL: "t"},
        **{started.OWNER_LABEL: "999999999:1", started.BOOT_LABEL: process.boot_id()},
    }
    content = json.dumps([{"Config": {"Labels": labels}, "State": {"Pid": 0}}])
    runtime = program(
        tmp_path / "docker",
        f'test -e "{gone}" && exit 1\n'
        f"case $1 in ps) test -e \"{tmp_path}/removed\" || echo abc;; container) echo '{content}';; "
        f'rm) touch "{tmp_path}/removed";; esac',
    )
    gone.touch()
    mark = {started.MARK: str(started.Container(runtime=str(runtime), start="sweeper-1"))}
    with Supervised.start(
        [sys.executable, "-c", ""],
        env=mark,
        cwd=trial,
        log_path=trial / "engine.log",
        start_file=trial / f"engine{process.START_FILE_SUFFIX}",
        grace_s=0.2,
    ) as supervised:
        while supervised.poll() is None:
            time.sleep(0.05)
    start_file = trial / f"engine{process.START_FILE_SUFFIX}"
    launch = orphans.read_start_file(start_file)
    assert launch is not None and launch.container is not None
    # Its owner is this very process, which lives: the container is still its business.
    assert orphans.end_abandoned_containers(outputs) == []
    content_of = json.loads(start_file.read_text())
    start_file.write_text(json.dumps({**content_of, "owner": "999999999:1"}))
    assert orphans.end_abandoned_containers(outputs) == []
    gone.unlink()
    (ended,) = orphans.end_abandoned_containers(outputs)
    assert (ended.container.start, ended.trial) == ("sweeper-1", "t")
    assert orphans.end_abandoned_containers(outputs) == []
