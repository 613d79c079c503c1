"""What experiments ask and vary, read from their files without composing any: for a list of all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yaml import YAMLError, safe_load

from sweeper.config.composition import TODAY, conf_folder, groups
from sweeper.config.own_files import head_of

_QUESTION = re.compile(r"Question:\s*(.*?)(?=\n\S|\Z)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Listed:
    """An experiment.

    Attributes:
        name: Its name, for ``+experiment=``.
        question: What it answers; empty where its file does not say.
        platform: The platform that it chooses; None leaves that to the machine.
        knobs: Names that it sets or varies.
        has_counterpart: Whether another takes its place on releases that lack its knobs (``conf/today``).
    """

    name: str
    question: str
    platform: str | None
    knobs: frozenset[str]
    has_counterpart: bool


def experiments(config_dir: Path | None = None) -> tuple[Listed, ...]:
    """List every shipped experiment, and those of the user's own folder, by name."""
    roots = [root for root in (config_dir, conf_folder()) if root is not None]
    named = groups(config_dir)
    return tuple(_listed(name, roots, set(named.get(TODAY, ()))) for name in named["experiment"])


def _listed(name: str, roots: list[Path], of_today: set[str]) -> Listed:
    path = next(found for root in roots if (found := root / "experiment" / f"{name}.yaml").is_file())
    files = list(_with_defaults(path, roots, set()))
    asked = _QUESTION.search(head_of(path))
    texts = " ".join(asked[1].split()) if asked else str(_at(files[0], "study").get("question", ""))
    platforms = [chosen for content in files for chosen in _chosen(content, "platform")]
    return Listed(
        name=name,
        question=texts[:1].upper() + texts[1:],
        platform=platforms[0] if platforms else None,
        knobs=frozenset(knob for content in files for knob in _knobs(content)),
        has_counterpart=name in of_today,
    )


def _with_defaults(path: Path, roots: list[Path], seen: set[Path]) -> Iterator[Mapping[str, Any]]:
    """Yield the content of a file, then of those that its list of defaults names, where they are there."""
    if path in seen or not path.is_file():
        return
    seen.add(path)
    try:
        content = safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, YAMLError):
        content = None
    content = content if isinstance(content, dict) else {}
    yield content
    for group, name in _defaults(content):
        folders = [root / group for root in roots] if group else [path.parent]
        for folder in folders:
            yield from _with_defaults(folder / f"{name}.yaml", roots, seen)


def _defaults(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the group (empty: that of the file itself) and the name of each entry of a list of defaults."""
    listed = content.get("defaults")
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, str):
            group, _, name = entry.lstrip("/").rpartition("/")
            yield group, name
        elif isinstance(entry, dict):
            for key, name in entry.items():
                yield str(key).removeprefix("override ").strip().lstrip("/").partition("@")[0], str(name)


def _chosen(content: Mapping[str, Any], group: str) -> Iterator[str]:
    yield from (name for named, name in _defaults(content) if named == group)


def _at(content: Any, key: str) -> Mapping[str, Any]:
    found = content.get(key) if isinstance(content, dict) else None
    return found if isinstance(found, dict) else {}


def _knobs(content: Any) -> Iterator[str]:
    """Yield the names below every ``knobs`` of a file: of all settings, of the space and of each series."""
    if isinstance(content, dict):
        for key, below in content.items():
            if key == "knobs" and isinstance(below, dict):
                yield from map(str, below)
            else:
                yield from _knobs(below)
