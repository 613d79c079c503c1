"""Binding to a NUMA node: a folder stands for /sys, the affinity is the kernel's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from sweeper.records import Placement, Platform
from sweeper.trial import numa

ASK = [sys.executable, "-c", "import os; print(sorted(os.sched_getaffinity(0)))"]


@pytest.fixture(autouse=True)
def affinity() -> Iterator[set[int]]:
    before = os.sched_getaffinity(0)
    yield before
    assert os.sched_getaffinity(0) == before, "the thread is free again afterwards"


def make_node(root: Path, number: int, cpulist: str) -> None:
    folder = root / f"devices/system/node/node{number}"
    folder.mkdir(parents=True)
    (folder / "cpulist").write_text(f"{cpulist}\n")


def block(numa_node: int | None) -> Placement:
    return Placement(node="n", devices=(4,), parents=(4,), numa_node=numa_node)


def bind(
    root: Path, placement: Placement, *, platform: Platform = Platform.MI300X, is_wanted: bool = True
) -> AbstractContextManager[str]:
    return numa.bound(placement, platform=platform, is_wanted=is_wanted, sys=root)


def test_ranges_and_single_processors_of_node_are_read(tmp_path: Path) -> None:
    make_node(tmp_path, 1, "48-50,144")
    make_node(tmp_path, 2, "")
    assert numa.cpus_of(1, sys=tmp_path) == {48, 49, 50, 144}
    assert numa.cpus_of(2, sys=tmp_path) == frozenset(), "a node of memory alone"
    assert numa.cpus_of(3, sys=tmp_path) == frozenset()


def test_what_is_started_meanwhile_runs_on_node(tmp_path: Path, affinity: set[int]) -> None:
    cpu = max(affinity)
    # Processors beyond those that we may use are left out.
    make_node(tmp_path, 1, f"{cpu},4000-4003")
    with bind(tmp_path, block(1)) as told:
        assert told == "node 1"
        child = subprocess.run(ASK, capture_output=True, text=True, check=True)
    assert child.stdout == f"[{cpu}]\n"


def test_it_is_free_again_after_error(tmp_path: Path, affinity: set[int]) -> None:
    make_node(tmp_path, 0, str(min(affinity)))
    with pytest.raises(ZeroDivisionError), bind(tmp_path, block(0)):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("placement", "platform", "is_wanted", "told"),
    [
        (
            block(None),
            Platform.MI300X,
            True,
            "not bound: the block lies on several nodes, or they are unknown",
        ),
        (block(0), Platform.MI300X, False, "not bound: switched off"),
        (block(0), Platform.CPU, True, "not bound: the engine has a mask of cores"),
        (block(7), Platform.MI300X, True, "not bound: no processor of node 7 may be used"),
    ],
    ids=["several nodes", "switched off", "cpu", "unknown node"],
)
def test_otherwise_it_is_left_alone_and_says_why(
    tmp_path: Path,
    affinity: set[int],
    placement: Placement,
    platform: Platform,
    is_wanted: bool,
    told: str,
) -> None:
    make_node(tmp_path, 0, str(min(affinity)))
    with bind(tmp_path, placement, platform=platform, is_wanted=is_wanted) as said:
        assert os.sched_getaffinity(0) == affinity
    assert said == told
