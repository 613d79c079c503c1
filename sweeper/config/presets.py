"""The models of conf/model by the id that they have on the hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yaml import YAMLError, safe_load

DESCRIBES = ("config", "shape", "dtype")
"""Keys of a model that describe it."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A file of conf/model.

    Attributes:
        choice: Its name, as in ``model=NAME``.
        content: Its keys.
    """

    choice: str
    content: Mapping[str, Any]

    @property
    def description(self) -> dict[str, Any]:
        """What it says of the model besides its name and place."""
        return {key: self.content[key] for key in DESCRIBES if self.content.get(key)}


def of_id(name: str, folders: Sequence[Path]) -> Iterator[Preset]:
    """Yield the presets that are served under a name or path.

    Args:
        name: An id of the hub.
        folders: Those that hold ``model/``, the shipped one first.
    """
    for folder in folders:
        for path in sorted((folder / "model").glob("*.yaml")):
            content = _content(path, holds=name)
            if name in (content.get("name"), content.get("path")):
                yield Preset(choice=path.stem, content=content)


def _content(path: Path, *, holds: str) -> Mapping[str, Any]:
    """Return the keys of a file; empty where it does not hold a text, or cannot be read, as others say."""
    try:
        text = path.read_text(encoding="utf-8")
        content = safe_load(text) if holds in text else None
    except (OSError, ValueError, RecursionError, YAMLError):
        return {}
    return content if isinstance(content, dict) else {}
