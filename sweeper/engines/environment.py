"""What an engine finds around it: its interpreter, its variables, its one device mask.

Deciding only, besides looking into an interpreter's environment; nothing here starts an engine.
"""

from __future__ import annotations

import json
import os
import platform as host
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from sweeper import knobs
from sweeper.engines import containers
from sweeper.errors import ConfigError, MeasurementError
from sweeper.processes import masks, process
from sweeper.processes.process import Process
from sweeper.records import MASK_VARIABLES, EngineSpec, FailureClass, Platform, TrialSpec
from sweeper.text import confidential

_PROBE_TIMEOUT_S = 60.0
_PROBE = """
import importlib.metadata as metadata, json, platform
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
found = {name: version(name) for name in NAMES}
try:
    # Of the image, where this is one's interpreter.
    with open("/opt/rocm/.info/version", encoding="utf-8") as told:
        found["rocm"] = told.readline().strip() or None
except OSError:
    pass
print(json.dumps({"python": platform.python_version(), **found}))
"""

# Variables of our own surroundings that would mislead the engine: another mask, Ray's, our interpreter.
_DROPPED = re.compile(r"^RAY_|^PYTHONHOME$|^VIRTUAL_ENV$|^VLLM_API_KEY$|^OPENAI_API_KEY$")

IMAGE_FILE = "image.json"
"""Lies beside an interpreter that is an image's (``images``), and describes the container."""

# /opt/rocm and amdgpu tell their releases here; both are absent on other machines.
_ROCM_FILE = Path("/opt/rocm/.info/version")
# What the amdgpu driver tells of each device.
_KFD = Path("/sys/class/kfd/kfd/topology/nodes")
_TARGET = re.compile(r"^gfx_target_version (\d+)$", re.MULTILINE)
_DRIVER_FILES = (Path("/sys/module/amdgpu/version"), Path("/sys/module/nvidia/version"))


def find_interpreter(python: str, *, key: str = "engine.python") -> str:
    """Absolute path of an interpreter; symbolic links are kept, for they are what makes a venv.

    Args:
        python: A path, or a name on PATH.
        key: What names it, for the message.

    Raises:
        ConfigError: There is none.
    """
    found = shutil.which(python)
    if found is None:
        what = "the engine" if key == "engine.python" else "it"
        raise ConfigError(
            f"{key}: there is no interpreter {python}; expected a path or a name on PATH. "
            f"Name the interpreter of the environment that {what} is installed in."
        )
    return os.path.abspath(found)  # noqa: PTH100 - Path.resolve would leave the venv


def interpreter_of(engine: EngineSpec, *, title: str, instead: str = "") -> str:
    """Return the interpreter of an engine's own environment, as a trial names it.

    Args:
        engine: As the trial has it.
        title: What lies in that environment.
        instead: Words for what else could be done, for the message.

    Raises:
        ConfigError: It names none.
    """
    if engine.python is None:
        raise ConfigError(
            f"engine.python: it is empty; expected the interpreter of {title}'s environment. "
            f"Set engine.python=PATH{instead}."
        )
    return engine.python


def installed(python: str, names: Sequence[str], *, title: str) -> dict[str, str]:
    """Return the versions of Python and of distributions that an interpreter has; importing none of them.

    In the interpreter of an image the ROCm that the image holds is among them, by ``rocm``.

    Args:
        python: The interpreter.
        names: Distributions to look for; those that are not there are left out.
        title: What is to lie in its environment, for messages.

    Raises:
        ConfigError: There is no such interpreter, or it does not run.
    """
    path = find_interpreter(python)
    try:
        answer = subprocess.run(
            [path, "-c", _PROBE.replace("NAMES", repr(tuple(names)))],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_PROBE_TIMEOUT_S,
            check=True,
        )
        found: dict[str, str | None] = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as exc:
        raise ConfigError(
            f"engine.python: {python} does not run a short program ({_why(exc)}); expected a working Python. "
            f"Name the interpreter of the environment that {title} is installed in."
        ) from exc
    return {name: version for name, version in found.items() if version}


def _why(error: Exception) -> str:
    """Return what a program said last before it failed, or what kept it from running."""
    said = getattr(error, "stderr", None)
    lines = said.strip().splitlines() if isinstance(said, str) else []
    return lines[-1] if lines else str(error)


def check_release(engine: EngineSpec, found: str, *, title: str) -> None:
    """Check that an environment still holds the release that a study was planned with.

    Raises:
        MeasurementError: It holds another.
    """
    if found != engine.version:
        raise MeasurementError(
            f"engine: {engine.python} has {title} {found}; expected {engine.version}, "
            "which was found when the study was planned. Do not change the environment while a study runs.",
            failure=FailureClass.WRONG_ENGINE,
        )


def client_environment(
    spec: TrialSpec,
    *,
    surroundings: Mapping[str, str],
    python: str,
    owner: Process,
    stub: Path | None,
) -> dict[str, str]:
    """The environment of a program in the engine's environment that needs no device: a load generator."""
    kept = {
        name: value
        for name, value in surroundings.items()
        if not (_DROPPED.search(name) or masks.is_mask(name) or name == masks.EXPECTED)
    }
    paths = [str(stub)] if stub else []
    paths += [kept["PYTHONPATH"]] if kept.get("PYTHONPATH") else []
    shared = knobs.client_variables(spec.assignment, release=spec.engine.release)
    offline = {"HF_HUB_OFFLINE": "1"} if Path(spec.model.path).is_dir() else {}
    return {
        **kept,
        **offline,
        **shared,
        **({"PYTHONPATH": os.pathsep.join(paths)} if paths else {}),
        # Tools that come with the environment (ninja) are looked up on PATH.
        "PATH": os.pathsep.join([str(Path(python).parent), kept.get("PATH", os.defpath)]),
        # A proxy for the outside world must not stand between client and server.
        "NO_PROXY": _with_loopback(kept.get("NO_PROXY")),
        "no_proxy": _with_loopback(kept.get("no_proxy")),
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONUNBUFFERED": "1",
        process.TRIAL_MARK: trial_key(spec),
        process.OUTPUTS_MARK: str(outputs_folder(spec)),
        process.OWNER_MARK: str(owner),
        **(containers.mark(spec.engine.container) if is_of_image(python, spec.engine) else {}),
    }


def is_of_image(python: str, engine: EngineSpec) -> bool:
    """Return whether an interpreter is that of an image, and runs in a container of its own."""
    return engine.container is not None and Path(python).with_name(IMAGE_FILE).exists()


def device_mask(platform: Platform, devices: Sequence[int]) -> dict[str, str]:
    """The one mask that shows these devices and no others.

    Source:
        HIP takes HIP_VISIBLE_DEVICES where it is set, and CUDA_VISIBLE_DEVICES only else (rocdevice.cpp of
        ROCm's clr), so early vLLM, which fills in the second for itself, changes nothing; current vLLM
        copies the first into the second, and refuses to start when they differ (vllm/platforms/rocm.py).
        ROCR_VISIBLE_DEVICES filters before HIP counts; with absolute indices in both, devices vanish, so it
        is never set. vLLM uses the numbers as indices into what amdsmi lists, so they are node-absolute.
    """
    name = MASK_VARIABLES[platform]
    # The mask of the CPU build shares cores out to ranks: ``core_binding``.
    if name is None or platform is Platform.CPU:
        return {}
    return {name: ",".join(str(device) for device in sorted(devices))}


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment as it may be stored: without variables that hold secrets, or secrets in others."""
    return {
        name: confidential.redacted(value, environment)
        for name, value in sorted(environment.items())
        if not confidential.may_hold_secret(name)
    }


def outputs_folder(spec: TrialSpec) -> Path:
    """The folder of all studies, above ``<study>/trials/<key>``."""
    return (_trial_folder(spec) or Path(spec.folder).resolve()).parents[2]


def kept_folder(spec: TrialSpec) -> Path:
    """Folder of what is kept warm for the trials of a study: ``<study>/kept``."""
    return (_trial_folder(spec) or Path(spec.folder).resolve()).parents[1] / "kept"


def trial_key(spec: TrialSpec) -> str:
    """The key of a trial, also for one of its instances, which has fewer knobs and a folder below it."""
    folder = _trial_folder(spec)
    return spec.key if folder is None or folder == Path(spec.folder).resolve() else folder.name


def _trial_folder(spec: TrialSpec) -> Path | None:
    folder = Path(spec.folder).resolve()
    return next((path for path in (folder, *folder.parents) if path.parent.name == "trials"), None)


def machine_versions() -> dict[str, str]:
    """Versions below every engine: ``kernel``, ``rocm``, ``driver`` and ``gfx_target``, as far as known."""
    driver = next((text for path in _DRIVER_FILES if (text := _first_line(path))), None)
    found = {
        "kernel": host.release(),
        "rocm": _first_line(_ROCM_FILE),
        "driver": driver,
        "gfx_target": gfx_target(),
    }
    return {name: version for name, version in found.items() if version}


def gfx_target(kfd: Path = _KFD) -> str | None:
    """Return the instruction set of the GPUs that the kernel shows, such as ``gfx942``; None without any.

    Args:
        kfd: Folder of the nodes of the amdgpu driver; a processor is one too, with a target of 0.

    Source:
        ROCm's thunk, ``topology.c``: ``gfx_target_version`` is major * 10000 + minor * 100 + stepping, each
        two digits; the name writes the stepping as a hexadecimal digit.
    """
    texts = (_text(path) for path in sorted(kfd.glob("*/properties")))
    found = {int(match[1]) for text in texts if (match := _TARGET.search(text))} - {0}
    named = [f"gfx{code // 10000}{code // 100 % 100:x}{code % 100:x}" for code in sorted(found)]
    return ", ".join(named) or None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _first_line(path: Path) -> str | None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return lines[0].strip() if lines else None


def _with_loopback(hosts: str | None) -> str:
    return ",".join(filter(None, (hosts, "127.0.0.1", "localhost")))
