"""The interpreter of an engine's environment, found where users have it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from sweeper.config import Settings
from sweeper.errors import ConfigError
from sweeper.kinds import ENGINES, VLLM_ENVIRONMENT, EngineKind
from sweeper.records import Platform

CPU_VLLM_FOLDER = Path(".venv-vllm")
"""Where ``python -m sweeper cpu-vllm`` installs the CPU build unless told otherwise."""


def find_engine_python(settings: Settings) -> str:
    """Find the interpreter of the environment that a study's engine lies in.

    Where the engine has none, vLLM's is found, whose benchmark loads it.

    Raises:
        ConfigError: There is none; the message says how to provide one.
    """
    kind = ENGINES[settings.engine.kind]
    if kind.takes_vllm_flags or kind.environment is None:
        return find_python(settings.engine.python, settings.platform)
    return settings.engine.python or find_other_python(kind)


def find_other_python(kind: EngineKind) -> str:
    """Find the interpreter of an engine that is not vLLM, and that ``engine.python`` does not name.

    Looked at in this order: the variable that its declaration names, our own environment, and its command on
    the path.

    Raises:
        ConfigError: None of them is there; the message says how to provide one.
    """
    place = kind.environment
    if place is None:
        raise ConfigError(
            f"engine.kind: is '{kind.name}', which no interpreter runs; expected one that has its own "
            "environment. Leave engine.python out."
        )
    found = os.environ.get(place.variable) or (sys.executable if _has(place.distributions) else None)
    found = found or _python_of_command(shutil.which(place.program))
    if found is not None:
        return found
    raise ConfigError(
        f"engine.python: is not given and no {kind.title} was found (neither by {place.variable}, nor in "
        f"this environment, nor the command '{place.program}'). Name the interpreter of the environment that "
        f"holds {kind.title}: engine.python=/path/to/bin/python"
    )


def find_benchmark_python(platform: Platform, kind: EngineKind) -> str:
    """Find the interpreter of a vLLM whose benchmark loads another engine.

    Raises:
        ConfigError: There is none; the message says how to provide one.
    """
    try:
        return find_python(None, platform)
    except ConfigError as exc:
        raise ConfigError(
            f"client.python: is not given and no vLLM was found, whose benchmark loads {kind.title}; "
            f"expected one beside it. Install it into an environment of its own, and name its interpreter: "
            f"client.python=/path/to/bin/python, or {VLLM_ENVIRONMENT.variable}"
        ) from exc


def find_python(given: str | None, platform: Platform) -> str:
    """Find the interpreter of vLLM's environment.

    Looked at in this order: ``engine.python``, the variable SWEEPER_VLLM_PYTHON, the folder
    ``.venv-vllm`` (on the cpu platform), our own environment, and the ``vllm`` command on the path.

    Raises:
        ConfigError: None of them is there; the message says how to provide one.
    """
    if given:
        return given
    if os.environ.get(VLLM_ENVIRONMENT.variable):
        return os.environ[VLLM_ENVIRONMENT.variable]
    local = CPU_VLLM_FOLDER / "bin" / "python"
    if platform is Platform.CPU and local.exists():
        # Not resolved: a virtual environment's interpreter is a link, and the link is what names it.
        return str(local.absolute())
    if _has(VLLM_ENVIRONMENT.distributions):
        return sys.executable
    beside = _python_of_command(shutil.which(VLLM_ENVIRONMENT.program))
    if beside is not None:
        return beside
    remedy = (
        "Install the CPU build into an environment of its own: python -m sweeper cpu-vllm"
        if platform is Platform.CPU
        else "Name the interpreter of the environment that holds vLLM: engine.python=/path/to/bin/python, "
        "or a container image: engine.image=NAME"
    )
    raise ConfigError(
        f"engine.python: is not given and no vLLM was found (neither {local}, nor in this environment, nor "
        f"the command 'vllm'). {remedy}"
    )


def _has(distributions: Sequence[str]) -> bool:
    for distribution in distributions:
        try:
            metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
        return True
    return False


def _python_of_command(command: str | None) -> str | None:
    """Read the interpreter out of a script's first line."""
    if command is None:
        return None
    with Path(command).open("rb") as script:
        first = script.readline().decode(errors="replace").strip()
    interpreter = first.removeprefix("#!").split()[0] if first.startswith("#!") else ""
    return interpreter if Path(interpreter).name.startswith("python") else None
