"""The tables under ``data/``, read once and only when something asks.

A row is column to text, as it stands in the file; what the columns mean is described in the README of data/.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache


@cache
def table(name: str) -> tuple[Mapping[str, str], ...]:
    """Read a table of ``data/``, a mapping from column to text for each row."""
    # Imported here because reading happens once, and importing this module must stay cheap.
    import csv
    from importlib import resources

    text = resources.files("sweeper.knobs").joinpath("data", name).read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


def first_release(text: str) -> str | None:
    """Read the first release of a row; one that starts with ``pre-`` or names the oldest seen is open."""
    return None if text.startswith("pre-") or text.endswith("or earlier") else text
