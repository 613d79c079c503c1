"""What a running trial is doing now, for the person who waits: one line in the trial's own folder.

A trial runs in a worker, perhaps on another machine; its folder is what worker and driver share. The line is
news and nothing else: it is not stored with the result, and a trial does without it where it cannot be
written.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

_FILE = "stage.txt"


def announce(folder: Path, stage: str) -> None:
    """Write what the trial in this folder begins to do."""
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / f".{_FILE}"
        aside.write_text(stage, encoding="utf-8")
        aside.replace(folder / _FILE)


def read(folder: Path) -> str:
    """Return what the trial in this folder does; an empty text where nothing is known."""
    try:
        return (folder / _FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def forget(folder: Path) -> None:
    """Take the line away once the trial has ended."""
    with contextlib.suppress(OSError):
        (folder / _FILE).unlink(missing_ok=True)
