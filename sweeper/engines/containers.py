"""The command that runs a program in a container: devices, mounts, variables and labels.

Deciding only: nothing here asks a runtime or starts anything (``images``, ``launched``). Any engine that is
launched as a process can run so; what it is given inside is what it is given outside, with these differences:

* only the devices of the trial's block are shown to it, so that it counts them from 0 and its mask does, too
  (Apptainer shows all of them, so that there the mask alone chooses);
* variables are passed by name, and only those that we set or that an engine is known to read: the rest of our
  surroundings (PATH, library paths, homes) would point at folders that the image does not have;
* what it reads and writes of this machine is mounted at the same path.

Source:
    Devices, groups, network, ipc, SYS_PTRACE and seccomp: "vLLM inference" and "Running ROCm Docker
    containers" of AMD's ROCm documentation; one GPU of several: "GPU isolation techniques" there. SYS_NICE
    for the CPU build: "Installation, CPU" of vLLM's documentation. NVIDIA: --gpus of Docker's reference,
    names for podman (CDI) of NVIDIA's Container Toolkit.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeper.processes import containers, masks
from sweeper.processes import process as processes
from sweeper.processes.containers import Container
from sweeper.records import ContainerSpec, Platform
from sweeper.topology.shown_devices import ShownDevices

APPTAINER = "apptainer"
"""The runtime without containers to be named: it runs an image's program as a child of ours."""
DOCKER, PODMAN = "docker", "podman"
RUNTIMES = (DOCKER, PODMAN, APPTAINER)
"""What runs images, in the order in which they are looked for."""

# Of our own surroundings, what an engine or what it runs on is known to read, paths of this machine left out.
_PASSED = re.compile(
    r"^(VLLM|HF|HUGGING_FACE|TRANSFORMERS|TOKENIZERS|NCCL|RCCL|GLOO|HSA|AITER|SGLANG|SGL)_|_proxy$|_PROXY$"
)
_IS_PATH = re.compile(r"_(PATH|ROOT|DIR|HOME|LIBRARY|CONFIG|FILE|CACHE)$")
# What our own variables say of this machine's programs.
_OURS = frozenset({"PATH", "TMPDIR", "LD_LIBRARY_PATH", "HOME", containers.MARK, masks.EXPECTED})
# What we set for every program, so that it is passed where it cannot be told from our surroundings.
_ALWAYS = frozenset(
    {
        *(processes.TRIAL_MARK, processes.OUTPUTS_MARK, processes.OWNER_MARK),
        *("DO_NOT_TRACK", "PYTHONUNBUFFERED", "OPENAI_API_KEY"),
    }
)
# Where podman looks for its helpers (helper_binaries_dir of containers.conf), besides PATH.
_HELPERS = ("/usr/libexec/podman", "/usr/local/libexec/podman", "/usr/lib/podman", "/usr/local/lib/podman")
_HUB = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")


@dataclass(frozen=True, kw_only=True)
class Inside:
    """A program that runs in a container: what this machine executes for it, and with what environment.

    Attributes:
        command: The whole command, without secrets.
        environment: Of the runtime's client, which passes on the variables that the command names.
        container: Which container it is; None where the runtime makes none.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    container: Container | None


def name_of(runtime: str) -> str:
    """Return which of `RUNTIMES` a program is, by its name; docker for any that is called otherwise."""
    name = Path(runtime).name
    return next((known for known in (APPTAINER, PODMAN) if name.startswith((known, "singularity"))), DOCKER)


def run(
    spec: ContainerSpec,
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    surroundings: Mapping[str, str],
    folder: Path,
    writable: Sequence[str] = (),
    devices: ShownDevices | None = None,
    start: str | None = None,
) -> Inside:
    """Return what runs a program in a container.

    Args:
        spec: Image, runtime and further arguments.
        command: Program inside the image, and its arguments, without secrets.
        environment: What it would be given as a process of this machine.
        surroundings: Our own environment, which that one was made from.
        folder: Its working directory, which it may write.
        writable: Further folders of this machine that it may write.
        devices: What it computes on; None for a program that needs none.
        start: Name and label of the container; drawn unless given.
    """
    runtime = str(spec.runtime)
    kind = name_of(runtime)
    given = _with_hub(environment if devices is None or kind == APPTAINER else _rebased(environment, devices))
    names = passed(given, surroundings=surroundings)
    own_paths = _own_paths(given, surroundings) if "PYTHONPATH" in names else []
    if own_paths:
        given["PYTHONPATH"] = os.pathsep.join((*own_paths, *spec.python_path))
    mounts = _mounts(spec, given, folder=folder, writable=writable, read=own_paths)
    if kind == APPTAINER:
        words = _apptainer(spec, mounts, folder=folder, devices=devices)
        return Inside(command=(*words, *command), environment=given | _inner(given, names), container=None)
    container = Container(runtime=runtime, start=start) if start else drawn(spec)
    words = (
        *(runtime, "run", "--rm", *_init(kind), "--name", container.start),
        *_labels(container, given),
        *("--network", "host", "--ipc", "host"),
        *_device_words(devices, kind),
        *_processors(),
        *(word for path, mode in mounts for word in ("--volume", f"{path}:{path}:{mode}")),
        *("--workdir", str(folder)),
        *(word for name in names for word in ("--env", name)),
        *spec.arguments,
        *("--entrypoint", command[0], str(spec.image)),
    )
    given |= {containers.MARK: str(container)}
    return Inside(command=(*words, *command[1:]), environment=given, container=container)


def drawn(spec: ContainerSpec) -> Container:
    """Return a container of a name and label that no other has; nothing is started."""
    return Container(runtime=str(spec.runtime), start=f"sweeper-{secrets.token_hex(8)}")


def mark(spec: ContainerSpec | None) -> dict[str, str]:
    """Return the variable by which whoever watches over a program knows the container that it will run."""
    if spec is None or name_of(str(spec.runtime)) == APPTAINER:
        return {}
    return {containers.MARK: str(drawn(spec))}


def passed(environment: Mapping[str, str], *, surroundings: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the variables that a program is given inside, sorted.

    Args:
        environment: What it would be given outside.
        surroundings: Our own environment: what differs from it was set for this program.
    """

    def is_passed(name: str) -> bool:
        if name in _OURS:
            return False
        if name == "PYTHONPATH":
            return bool(_own_paths(environment, surroundings))
        is_ours = environment[name] != surroundings.get(name) or name in _ALWAYS
        return is_ours or name in _HUB or bool(_PASSED.search(name) and not _IS_PATH.search(name))

    return tuple(sorted(filter(is_passed, environment)))


def _own_paths(environment: Mapping[str, str], surroundings: Mapping[str, str]) -> list[str]:
    """Return what we put on PYTHONPATH: what else is there belongs to interpreters of this machine."""
    others = surroundings.get("PYTHONPATH", "").split(os.pathsep)
    own = (path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path not in others)
    return list(filter(None, own))


def _rebased(environment: Mapping[str, str], devices: ShownDevices) -> dict[str, str]:
    """Count the devices of a mask from 0, as a container does that is shown no others."""
    inside = ",".join(str(place) for place in range(len(devices.indices)))
    kept = {name: inside if masks.is_mask(name) else value for name, value in environment.items()}
    name, found, _ = kept.get(masks.EXPECTED, "").partition("=")
    return {**kept, masks.EXPECTED: f"{name}={inside}"} if found and masks.is_mask(name) else kept


def _with_hub(environment: Mapping[str, str]) -> dict[str, str]:
    """Name the folder of the hub's client: inside, the home is another one."""
    home = environment.get("HOME")
    if "HF_HOME" in environment or not home:
        return dict(environment)
    return {
        **environment,
        "HF_HOME": str(Path(environment.get("XDG_CACHE_HOME", f"{home}/.cache"), "huggingface")),
    }


def hub_folder(environment: Mapping[str, str]) -> str | None:
    """Return where the hub's client keeps what it fetches; None where there is no home."""
    return _with_hub(environment).get("HF_HOME")


def _mounts(
    spec: ContainerSpec,
    environment: Mapping[str, str],
    *,
    folder: Path,
    writable: Sequence[str],
    read: Sequence[str],
) -> list[tuple[str, str]]:
    """Return the folders to be mounted, with ``rw`` or ``ro`` each; none that lies in another of its kind."""
    hub = (environment[name] for name in _HUB if name in environment)
    written = _outermost([str(folder), *writable, *(path for path in hub if Path(path).is_dir())])
    others = [path for path in (*spec.mounts, *read) if Path(path).exists() and not _lies_in(path, written)]
    return [*((path, "rw") for path in written), *((path, "ro") for path in _outermost(others))]


def _outermost(paths: Sequence[str]) -> list[str]:
    found: list[str] = []
    for path in sorted(set(paths)):
        if not _lies_in(path, found):
            found.append(path)
    return found


def _lies_in(path: str, folders: Sequence[str]) -> bool:
    return any(Path(path).is_relative_to(folder) for folder in folders)


def _init(kind: str) -> list[str]:
    """Let a small program be the first process inside, where the runtime has one.

    The kernel keeps from a first process every signal that it does not handle, so that an engine which still
    imports could not be asked to end. Docker brings one along; podman takes catatonit, a package of its own.
    """
    has_one = kind != PODMAN or any(shutil.which("catatonit", path=path) for path in (None, *_HELPERS))
    return ["--init"] if has_one else []


def _labels(container: Container, environment: Mapping[str, str]) -> list[str]:
    labels = {
        containers.START_LABEL: container.start,
        containers.OUTPUTS_LABEL: environment.get(processes.OUTPUTS_MARK, ""),
        containers.TRIAL_LABEL: environment.get(processes.TRIAL_MARK, ""),
        containers.OWNER_LABEL: environment.get(processes.OWNER_MARK, str(processes.current())),
        containers.BOOT_LABEL: processes.boot_id(),
    }
    return [word for name, value in labels.items() if value for word in ("--label", f"{name}={value}")]


def _device_words(devices: ShownDevices | None, kind: str) -> list[str]:
    if devices is None:
        return []
    if devices.platform is Platform.CPU:
        # The CPU build binds threads and memory.
        return ["--cap-add", "SYS_NICE", "--security-opt", "seccomp=unconfined"]
    if not devices.indices:
        return []
    if devices.platform is Platform.CUDA:
        if kind == PODMAN:
            return [word for index in devices.indices for word in ("--device", f"nvidia.com/gpu={index}")]
        # The quotes are for the runtime, which splits the value at its commas.
        return ["--gpus", f'"device={",".join(map(str, devices.indices))}"']
    return [
        *("--device", "/dev/kfd"),
        *(word for node in devices.nodes for word in ("--device", node)),
        *(word for group in devices.groups for word in ("--group-add", group)),
        *("--cap-add", "SYS_PTRACE", "--security-opt", "seccomp=unconfined"),
    ]


def _processors() -> list[str]:
    """Bind the container as we are bound: it does not inherit that from the program that asks for it."""
    ours = os.sched_getaffinity(0)
    if len(ours) >= (os.cpu_count() or 1):
        return []
    return ["--cpuset-cpus", ",".join(str(cpu) for cpu in sorted(ours))]


def _apptainer(
    spec: ContainerSpec, mounts: Sequence[tuple[str, str]], *, folder: Path, devices: ShownDevices | None
) -> tuple[str, ...]:
    flags = {Platform.MI300X: ["--rocm"], Platform.CUDA: ["--nv"]}
    return (
        *(str(spec.runtime), "exec", "--cleanenv", "--no-home"),
        *([] if devices is None else flags.get(devices.platform, [])),
        *(word for path, mode in mounts for word in ("--bind", f"{path}:{path}:{mode}")),
        *("--pwd", str(folder)),
        *spec.arguments,
        str(spec.image),
    )


def _inner(environment: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """Write variables as Apptainer takes them from its environment, so that no command line has a value."""
    return {f"APPTAINERENV_{name}": environment[name] for name in names}
