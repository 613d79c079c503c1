"""Environment variables that not vLLM reads but what it runs on: ROCm, RCCL, PyTorch, Python and others.

They are known by family (``NCCL_``), since no list has them all; those that experiments set are known by
name, so that a name which is one slip away from them is taken for a slip. A variable of no family is read by
nobody as far as is known: a series that sets it would be named after something that does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from sweeper.knobs.tables import table

_FAMILY = "*"


def is_read_by_runtime(name: str) -> bool:
    """Return whether something below vLLM is known to read a variable of this name or family."""
    return name in runtime_variables() or any(name.startswith(family) for family in _families())


@cache
def runtime_variables() -> frozenset[str]:
    """Return the variables that are known by name."""
    return frozenset(row["name"] for row in table("runtime_variables.csv") if not _is_family(row["name"]))


@cache
def _families() -> tuple[str, ...]:
    names = (row["name"] for row in table("runtime_variables.csv"))
    return tuple(name.removesuffix(_FAMILY) for name in names if _is_family(name))


def _is_family(name: str) -> bool:
    return name.endswith(_FAMILY)


def one_slip_from(name: str, known: Iterable[str]) -> str | None:
    """Find a known name that differs by one letter: left out, added, replaced, or two letters swapped.

    ``NCCL_MIN_NCHANNEL`` is one slip from ``NCCL_MIN_NCHANNELS``; ``NCCL_MAX_NCHANNELS`` is two away.
    """
    names = sorted(known)
    return None if name in names else next((other for other in names if _is_one_slip(name, other)), None)


def _is_one_slip(one: str, other: str) -> bool:
    if abs(len(one) - len(other)) > 1:
        return False
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    a, b = one[start:], other[start:]
    is_swap = len(a) > 1 and len(a) == len(b) and a[:2] == b[1::-1] and a[2:] == b[2:]
    return is_swap or a[1:] == b or a == b[1:] or a[1:] == b[1:]
