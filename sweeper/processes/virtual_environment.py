"""Makes environments of their own for programs that are not ours, and installs packages into them.

What is installed, and how it is told apart from what lies there already, is known by the caller.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterable, Sequence
from pathlib import Path

from sweeper.errors import ConfigError

INSTALLERS = ("auto", "uv", "pip")
"""What installs: ``auto`` takes uv where there is one."""

_TIMEOUT_S = 3600.0
_QUESTION_TIMEOUT_S = 120.0


def find_uv() -> str | None:
    """Path of uv: next to this interpreter, else on PATH."""
    beside = Path(sys.executable).parent / "uv"
    return str(beside) if beside.is_file() else shutil.which("uv")


def chosen_uv(installer: str, *, uv: str | None) -> str | None:
    """Return the uv that is to install; None where pip is.

    Args:
        installer: One of ``INSTALLERS``.
        uv: Path of the uv that was found; None without one.

    Raises:
        ConfigError: There is no such installer, or uv is asked for and not here.
    """
    if installer not in INSTALLERS:
        raise ConfigError(f"installer: '{installer}'; expected auto, uv or pip. Choose one of them.")
    if installer == "uv" and uv is None:
        raise ConfigError(
            "installer: uv is not installed; expected it beside this interpreter or on PATH. "
            "Install it ('pip install uv'), or use the installer pip."
        )
    return None if installer == "pip" else uv


def make(folder: Path, *, with_pip: bool) -> None:
    """Make an environment.

    Raises:
        ConfigError: None can be made there.
    """
    try:
        venv.EnvBuilder(with_pip=with_pip, symlinks=True).create(folder)
    except (OSError, subprocess.SubprocessError) as exc:
        raise ConfigError(
            f"{folder}: no environment can be made there ({exc}); expected a writable folder and Python's "
            "venv module. Choose another folder, or install python3-venv."
        ) from exc


def find_links() -> str | None:
    """Where pip is set to look for wheels besides the index, or None."""
    named = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS")
    return (
        named or output((sys.executable, "-m", "pip", "config", "get", "global.find-links")).strip() or None
    )


def output(command: Sequence[str]) -> str:
    """What a command prints; empty when it fails, which a question's answer may be."""
    try:
        return subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_QUESTION_TIMEOUT_S,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def run(command: Iterable[str], *, of: str, size: str) -> None:
    """Run one step of an installation.

    Args:
        command: Program and arguments.
        of: Our command that installs, for messages.
        size: What it takes on disk, such as ``3 GB``.

    Raises:
        ConfigError: It failed; the message has the line of what it wrote that says why.
    """
    words = list(command)
    try:
        done = subprocess.run(
            words, capture_output=True, encoding="utf-8", errors="replace", timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.SubprocessError) as exc:
        raise ConfigError(f"{of}: {words[0]} did not run: {exc}. Try the other installer.") from exc
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        errors = [line for line in said if "error" in line.lower()] or said[-1:] or ["nothing"]
        raise ConfigError(
            f"{of}: '{' '.join(words[:4])} ...' ended with code {done.returncode}: {errors[0].strip()}. "
            f"Look at network, package index and disk ({size}), or try the other installer."
        )
