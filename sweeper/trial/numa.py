"""Keeps a trial's processes on the NUMA node of its devices.

A GPU is attached to one socket; an engine with threads on the other one pays for every copy and every kernel
launch, and differently in each run, since the kernel moves threads about. So the thread that runs a trial
is bound to the processors of its block's node for as long as the trial lasts, and engine and client, which
are started from it, inherit that. A block on several nodes is left alone: any choice would favour a part.

Memory follows without a policy of its own: Linux gives a page from the node of the processor that first
touches it. A strict policy (``numactl --membind``) would add one thing only, to fail where a node is full.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sweeper.records import Placement, Platform

SYS = Path("/sys")
"""Where the kernel shows its devices."""


def cpus_of(node: int, *, sys: Path = SYS) -> frozenset[int]:
    """Return the processors of a NUMA node; empty when the kernel does not know it."""
    try:
        listed = (sys / f"devices/system/node/node{node}/cpulist").read_text(encoding="ascii")
    except OSError:
        return frozenset()
    return frozenset(cpu for part in listed.strip().split(",") if part for cpu in _span(part))


@contextmanager
def bound(placement: Placement, *, platform: Platform, is_wanted: bool, sys: Path = SYS) -> Iterator[str]:
    """Bind the calling thread, and what it starts, to the NUMA node of a placement for a while.

    Args:
        placement: The block; its ``numa_node`` is None where it lies on several.
        platform: On the CPU the engine has a mask of cores, which is narrower.
        is_wanted: Whether the configuration wants it.
        sys: Where the kernel shows its devices.

    Yields:
        What was done, in words, for the trial's rows: ``node 1``, or why nothing was.
    """
    refusal = _refusal(placement, platform=platform, is_wanted=is_wanted)
    if refusal is not None or placement.numa_node is None:
        yield refusal or ""
        return
    before = os.sched_getaffinity(0)
    cpus = before & cpus_of(placement.numa_node, sys=sys)
    if not cpus:
        yield f"not bound: no processor of node {placement.numa_node} may be used"
        return
    os.sched_setaffinity(0, cpus)
    try:
        yield f"node {placement.numa_node}"
    finally:
        # A processor may have gone offline meanwhile; the trial is over all the same.
        with suppress(OSError):
            os.sched_setaffinity(0, before)


def _refusal(placement: Placement, *, platform: Platform, is_wanted: bool) -> str | None:
    if platform is Platform.CPU:
        return "not bound: the engine has a mask of cores"
    if not is_wanted:
        return "not bound: switched off"
    if placement.numa_node is None:
        return "not bound: the block lies on several nodes, or they are unknown"
    return None


def _span(part: str) -> range:
    low, _, high = part.partition("-")
    return range(int(low), int(high or low) + 1)
