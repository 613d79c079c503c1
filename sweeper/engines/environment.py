"""What an engine finds around it: its interpreter, its variables, its one device mask.

Deciding only, besides looking into an interpreter's environment; nothing here starts an engine.
"""

from __future__ import annotations

import os
import platform as host
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from sweeper import knobs
from sweeper.engines import containers
from sweeper.errors import ConfigError
from sweeper.processes import masks, process
from sweeper.processes.process import Process
from sweeper.records import MASK_VARIABLES, EngineSpec, Platform, TrialSpec
from sweeper.text import confidential

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
