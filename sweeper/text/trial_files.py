"""Files that a trial leaves in its own folder; one that cannot be written fails the trial and says where.

A full disk or a folder without leave to write is no fault of what is measured: the trial fails as one whose
surroundings are at fault, with the path and the system's reason, and the study goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sweeper.errors import EngineError
from sweeper.records import FailureClass
from sweeper.text.writing import why_not_written


def make_folder(folder: Path) -> Path:
    """Make a folder and those above it, and return it.

    Raises:
        EngineError: It cannot be made.
    """
    with failing_at(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def write(path: Path, text: str) -> Path:
    """Write a text, its folder made where needed, and return its path.

    Raises:
        EngineError: It cannot be written.
    """
    make_folder(path.parent)
    with failing_at(path):
        path.write_text(text, encoding="utf-8")
    return path


def clear(path: Path) -> Path:
    """Make room for a file that a program will write: its folder is there, and nothing of its name.

    Raises:
        EngineError: The folder cannot be made, or what an earlier attempt left cannot be removed.
    """
    make_folder(path.parent)
    with failing_at(path):
        path.unlink(missing_ok=True)
    return path


@contextmanager
def failing_at(path: Path) -> Iterator[None]:
    """Turn what the system says of a file into the failure of the trial that it belongs to.

    Raises:
        EngineError: The block could not write.
    """
    try:
        yield
    except OSError as exc:
        raise EngineError(
            f"{path}: cannot be written ({why_not_written(path, exc)}); expected a writable folder with free "
            "space for the files of a trial. Make room, or allow writing there, and repeat.",
            failure=FailureClass.INFRASTRUCTURE,
        ) from exc
