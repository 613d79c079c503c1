"""The last lines of a failed trial's log, with its secrets masked."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pandas as pd

from sweeper.text import confidential
from sweeper.text.printable import LINES, legible

MOST_LINES = 30
"""Lines of a log that the page shows."""

_MOST_BYTES = 16_384


def last_lines(folder: Path, log_path: object) -> str:
    """Return the last lines of a log.

    Args:
        folder: The study's folder, which the paths of logs are relative to.
        log_path: As a row stores it; None or NaN where there was no log.

    Returns:
        At most ``MOST_LINES`` lines; empty where the log is not there any more.
    """
    if not isinstance(log_path, str) or pd.isna(log_path):
        return ""
    path = folder / log_path
    try:
        with path.open("rb") as file:
            skipped = file.seek(max(0, path.stat().st_size - _MOST_BYTES))
            content = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    if skipped:
        # A secret that the cut divides would not be known for one.
        content = re.sub(r"^\S*", "", content)
    lines = confidential.redacted(content, os.environ).splitlines()[-MOST_LINES:]
    return legible("\n".join(lines), keep=LINES)
