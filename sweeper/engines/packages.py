"""Packages beside vLLM in its environment that only some loads need, and the command that installs them."""

from __future__ import annotations

import functools
import shlex
from pathlib import Path

from sweeper.engines.environment import find_interpreter
from sweeper.processes import virtual_environment

_MISSING = """
import importlib.util, sys
print(*(name for name in sys.argv[1:] if importlib.util.find_spec(name) is None))
"""


@functools.cache
def missing(python: str, packages: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of some packages that an interpreter cannot import, without importing them.

    Args:
        python: The interpreter; one that does not run is told elsewhere, and lacks nothing here.
        packages: Names as they are imported.

    Raises:
        ConfigError: There is no such interpreter.
    """
    question = (find_interpreter(python), "-c", _MISSING, *packages)
    said = virtual_environment.output(question).split()
    return tuple(name for name in packages if name in said)


def install_command(python: str, packages: str) -> str:
    """Return what installs packages beside an interpreter: its own pip, or uv where it has none."""
    # An environment that uv made has no pip in it.
    if (Path(python).parent / "pip").exists():
        return f"{shlex.quote(python)} -m pip install {packages}"
    return f"uv pip install --python {shlex.quote(python)} {packages}"
