"""The load generator that comes with each release of vLLM, and the flags it takes.

Source: data/vllm_bench.csv, read from the syntax tree of each release's benchmark.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from sweeper.knobs.release_order import is_between
from sweeper.knobs.tables import first_release, table

_TABLE = "vllm_bench.csv"
_COMMAND = "vllm bench serve"
_CLIENTS: Mapping[str, str] = {"script": "benchmark_serving.py", "command": _COMMAND}


@dataclass(frozen=True, kw_only=True)
class BenchFlag:
    """A flag of vLLM's load generator in one release.

    Attributes:
        name: Such as ``--burstiness``.
        takes: What follows it: ``value``, ``list`` (words), ``none``, or ``bool`` (nothing; it has
            a ``--no-`` twin).
        type: Of the value: ``int``, ``float``, ``str`` or ``json``; empty where nothing follows it, or words.
    """

    name: str
    takes: str
    type: str


def bench_client(release: str) -> Literal["script", "command"]:
    """Return which load generator of vLLM goes with this release.

    Args:
        release: Release of vLLM.

    Returns:
        ``script`` for ``benchmarks/benchmark_serving.py`` of the repository, ``command`` for
        ``vllm bench serve``, which has the ShareGPT dataset from 0.9.1.
    """
    return "command" if is_between(release, "0.9.1", None) else "script"


def bench_name(release: str) -> str:
    """Return what that load generator is called: ``vllm bench serve`` or ``benchmark_serving.py``."""
    return _CLIENTS[bench_client(release)]


def bench_flag(name: str, release: str) -> BenchFlag | None:
    """Return a flag as the load generator of a release has it; None where it has none of that name.

    Args:
        name: With its dashes.
        release: Release of vLLM.
    """
    return next((flag for flag in _flags(release) if flag.name == name), None)


def bench_flags(release: str) -> tuple[str, ...]:
    """Return the names of all flags of a release's load generator, with their dashes."""
    return tuple(flag.name for flag in _flags(release))


def every_bench_flag() -> frozenset[str]:
    """Return the names of all flags that the load generator of any release takes, with their dashes."""
    clients = _CLIENTS.values()
    return frozenset(
        row["item"] for row in table(_TABLE) if row["kind"] == "flag" and row["client"] in clients
    )


def bench_releases(item: str) -> tuple[str, str | None] | None:
    """Return the first release whose ``vllm bench serve`` has something, and the first that has it no more.

    Args:
        item: A flag with its dashes, or a dataset as ``--dataset-name`` takes it.

    Returns:
        The two, the second None where it is there still; None where no release has it.
    """
    for row in table(_TABLE):
        if row["client"] == _COMMAND and row["item"] == item:
            return row["version_added"], row["version_removed"] or None
    return None


def _flags(release: str) -> Iterator[BenchFlag]:
    client = bench_name(release)
    for row in table(_TABLE):
        if (row["client"], row["kind"]) == (client, "flag") and _is_in(row, release):
            yield BenchFlag(name=row["item"], takes=row["takes"], type=row["type"])


def _is_in(row: Mapping[str, str], release: str) -> bool:
    return is_between(release, first_release(row["version_added"]), None) and not (
        row["version_removed"] and is_between(release, row["version_removed"], None)
    )
