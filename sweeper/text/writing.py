"""Files that a person asked for, written whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweeper.errors import AnswerError

# Arrow, and so pandas.read_parquet on the folder, passes over names that start with "_" or ".".
PARTIAL = ".{name}.partial"


def write_answer(path: Path, content: bytes | str) -> Path:
    """Write a file that is made from results (a report, a chart, a table) whole, and return its path.

    Half a character of a text that cannot be written is written by its code.

    Raises:
        AnswerError: It cannot be written; what was there before is untouched.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            # A device or a pipe takes what is written into it; a rename would put a file in its place.
            path.write_bytes(data)
        else:
            write_aside(path.parent, path.name, data)
    except (OSError, ValueError) as exc:  # ValueError: a name with a null character
        raise AnswerError(
            f"{path}: cannot be written ({why_not_written(path, exc)}); expected a file in a writable folder "
            "with free space. Make room, move away what is in its place, or name another, then give the same "
            "command again: stored results are not touched."
        ) from exc
    return path


def write_aside(
    folder: Path, name: str, content: Any, *, before_rename: Callable[[Path], None] = lambda _: None
) -> None:
    """Write a file next to its place and rename it, so that it is there whole or not at all.

    Raises:
        OSError: It cannot be written; nothing of it is left, and what was there before is untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / PARTIAL.format(name=name)
    try:
        partial.write_bytes(content)
        before_rename(partial)
        partial.replace(folder / name)
    except OSError:
        # On a full disk the half that was written takes the room that the next attempt needs.
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def why_not_written(path: Path, exc: OSError | ValueError) -> str:
    """Describe what is in the way; the system's own words name no place where it is a folder above."""
    if path.is_dir():
        return "a folder of that name is there"
    above = next((folder for folder in path.parents if folder.exists() or folder.is_symlink()), None)
    if above is not None and not above.is_dir():
        return f"{above} is no folder"
    return (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
