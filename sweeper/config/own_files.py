"""A user's own files of configuration: what Hydra would misread without saying so.

An experiment is laid over everything, which its directive ``# @package _global_`` says. Hydra takes it from
the first line only; anywhere else it is a comment, the content lands below the key ``experiment``, and what
Hydra says of that names neither file nor cause.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from sweeper.errors import ConfigError

GLOBAL_GROUPS = ("experiment", "today", "setting", "overlay")
"""Groups whose files are laid over the whole configuration."""

_DIRECTIVE = "# @package _global_"
_IS_DIRECTIVE = re.compile(r"^#\s*@package\s+_global_$")
_ANY_DIRECTIVE = re.compile(r"^\s*#\s*@\s*package\b")
_BYTE_ORDER_MARK = "\ufeff"


def check_folder(folder: Path) -> None:
    """Check that ``--config-dir`` is a folder.

    Raises:
        ConfigError: It is a file, or is not there.
    """
    if folder.is_dir():
        return
    what = "a file" if folder.exists() else "not there"
    raise ConfigError(
        f"--config-dir: '{folder}' is {what}; expected a folder. Give the folder that holds experiment/."
    )


def check(folder: Path, group: str, name: str) -> None:
    """Check that Hydra will read a chosen file as it is meant.

    Args:
        folder: The user's own, of ``--config-dir``.
        group: One of the groups of conf/.
        name: The file's, without its ending.

    Raises:
        ConfigError: Its directive is missing, misspelt, or not in the first line.
    """
    path = folder / group / f"{name}.yaml"
    if group not in GLOBAL_GROUPS or not path.is_file():
        return
    wrong = _wrong_directive(path)
    if wrong is not None:
        raise ConfigError(wrong)


def check_all(folder: Path) -> None:
    """Check the same for every file that may have been chosen by another.

    Raises:
        ConfigError: As ``check``.
    """
    for group in GLOBAL_GROUPS:
        for path in sorted((folder / group).glob("*.yaml")):
            check(folder, group, path.stem)


def elsewhere(folder: Path | None, group: str, name: str) -> str:
    """Describe where a file of this name lies that Hydra does not find, for the end of a message."""
    for path, remedy in _places(folder, group, name):
        if path.is_file():
            return f" {path} is there: {remedy}."
    return ""


def head_of(path: Path) -> str:
    """Return the comment that a file begins with, without its directive."""
    words = []
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        if not line.startswith("#"):
            break
        if not _ANY_DIRECTIVE.match(line):
            words.append(line.removeprefix("#").removeprefix(" ").rstrip())
    return "\n".join(words)


def _places(folder: Path | None, group: str, name: str) -> Iterator[tuple[Path, str]]:
    if folder is None:
        for path in (Path(group) / f"{name}.yaml", *sorted(Path().glob(f"*/{group}/{name}.yaml"))):
            yield path, f"name its folder with --config-dir {path.parent.parent}"
        return
    wanted = folder / group / f"{name}.yaml"
    yield wanted.with_suffix(".yml"), "names of files end in .yaml here; rename it"
    remedy = f"give --config-dir {folder.parent}" if folder.name == group else f"move it to {wanted}"
    for ending in (".yaml", ".yml"):
        yield folder / f"{name}{ending}", remedy


def _wrong_directive(path: Path) -> str | None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    if lines and lines[0].startswith(_BYTE_ORDER_MARK):
        return (
            f"{path}, line 1: begins with a byte order mark, behind which Hydra does not find "
            f"'{_DIRECTIVE}'; expected UTF-8 without one. Save it so."
        )
    first = next((number for number, line in enumerate(lines, 1) if line.strip()), None)
    if first is not None and _IS_DIRECTIVE.match(lines[first - 1].strip()):
        return None
    found = next((number for number, line in enumerate(lines, 1) if _ANY_DIRECTIVE.match(line)), None)
    if found is None:
        return (
            f"{path}, line 1: has no '{_DIRECTIVE}'; expected it as the first line of a file that is laid "
            "over the whole configuration. Put it there."
        )
    if found == first:
        return f"{path}, line {found}: is '{lines[found - 1].strip()}'; expected '{_DIRECTIVE}' and no more."
    return (
        f"{path}, line {found}: '{_DIRECTIVE}' stands below line {first}, where Hydra takes it for a "
        "comment; expected it in the first line. Move it there."
    )
