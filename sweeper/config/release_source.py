"""Whether the user said which release of vLLM it is, and where: besides what our own experiments say.

An experiment of ours names the release that it was written for, which says nothing about an installation. The
user's own file, or word on the command line, does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from yaml import YAMLError, safe_load

Stated = Literal["command line", "own file"]

_KEY = "engine.release"
_GROUPS = ("experiment", "setting", "engine", "overlay")


def release_stated_by(overrides: Sequence[str], *, config_dir: Path | None = None) -> Stated | None:
    """Describe where the user named ``engine.release``; None where only the product's own files do.

    Args:
        overrides: As on the command line.
        config_dir: The folder of the user's own groups.
    """
    chosen = [tuple(text.lstrip("+").partition("=")[::2]) for text in overrides]
    if any(key == _KEY for key, _ in chosen):
        return "command line"
    files = [
        config_dir / group / f"{name}.yaml"
        for group, name in chosen
        if config_dir is not None and group in _GROUPS
    ]
    return "own file" if any(map(_names_release, files)) else None


def _names_release(path: Path) -> bool:
    try:
        content = safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, YAMLError):
        return False
    if not isinstance(content, dict):
        return False
    # A file of the group engine holds the keys themselves, those of other groups hold them below engine.
    held = content if path.parent.name == "engine" else content.get("engine")
    return isinstance(held, dict) and "release" in held
