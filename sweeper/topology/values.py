"""Single values as tools and the kernel write them; what they do not know, in any spelling, is None."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def word(value: object) -> str | None:
    """Return a text that says something; amd-smi writes N/A for what it does not know."""
    text = value.strip() if isinstance(value, str) else ""
    return None if text.upper() in ("", "N/A", "NONE", "UNKNOWN") else text


def integer(value: object) -> int | None:
    """Return a count or number; amd-smi writes it bare or as text, and all bits set for unknown."""
    text = str(value).strip()
    if isinstance(value, bool) or not re.fullmatch(r"\d+", text):
        return None
    number = int(text)
    return None if number in (2**16 - 1, 2**32 - 1, 2**64 - 1) else number


node_number = integer  # -1, no NUMA node, is no count and thus None


def section(row: Mapping[str, object], name: str) -> Mapping[str, object]:
    """Return a part of amd-smi's row; empty where it is N/A or missing."""
    found = row.get(name)
    return found if isinstance(found, Mapping) else {}


def quantity(told: object) -> float | None:
    """Return a number of a tool, bare, as text or with its unit; None for N/A."""
    value = told.get("value") if isinstance(told, Mapping) else told
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(str(value).split()[0])
    except (ValueError, IndexError):
        return None


def gib(size: object) -> float | None:
    """Return a size of memory; amd-smi's MB are MiB (196592 MB is 191.98 GiB of an MI300X)."""
    value, unit = (size.get("value"), size.get("unit")) if isinstance(size, dict) else (size, "MB")
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", str(value).strip())
    if match is None:
        return None
    per_gib = {"B": 2**30, "KB": 2**20, "MB": 2**10, "MIB": 2**10, "GB": 1, "GIB": 1}
    scale = per_gib.get((match[2] or str(unit)).upper())
    return None if scale is None else float(match[1]) / scale


def first(*values: T | None) -> T | None:
    """Return the first value that is known."""
    return next((value for value in values if value is not None), None)
