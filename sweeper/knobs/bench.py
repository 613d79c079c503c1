"""The load generator that comes with each release of vLLM, and the flags it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sweeper.knobs.release_order import is_between
from sweeper.knobs.tables import first_release, table


@dataclass(frozen=True, kw_only=True)
class BenchFlag:
    """A flag of ``vllm bench serve`` in one release.

    Attributes:
        name: Such as ``--burstiness``.
        takes: What follows it: ``value``, ``list`` (words), ``none``, or ``bool`` (nothing; it has
            a ``--no-`` twin).
        type: Python's name of the value's type, such as ``int``; empty where the release says none.
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


def client_flag_exists(flag: str, release: str) -> bool:
    """Return whether the serving client of this release takes a flag.

    Args:
        flag: Such as ``--max-concurrency``; only flags of data/vllm_bench_history.csv are known.
        release: Release of vLLM.

    Returns:
        True when the client named by ``bench_client`` has it.
    """
    client = {"script": "benchmark_serving.py", "command": "vllm bench serve"}[bench_client(release)]
    return any(
        _is_in(row, release)
        for row in table("vllm_bench_history.csv")
        if (row["client"], row["kind"], row["item"]) == (client, "flag", flag)
    )


def bench_flag(name: str, release: str) -> BenchFlag | None:
    """Return a flag of ``vllm bench serve`` as a release has it; None where it has none of that name.

    Args:
        name: With its dashes.
        release: Release of vLLM.

    Source:
        The syntax tree of each release's benchmark, in data/bench_serve.csv.
    """
    for row in table("bench_serve.csv"):
        if (row["kind"], row["item"]) == ("flag", name) and _is_in(row, release):
            return BenchFlag(name=name, takes=row["takes"], type=row["type"])
    return None


def bench_releases(item: str) -> tuple[str, str | None] | None:
    """Return the first release whose ``vllm bench serve`` has something, and the first that has it no more.

    Args:
        item: A flag with its dashes, or a dataset as ``--dataset-name`` takes it.

    Returns:
        The two, the second None where it is there still; None where no release has it.
    """
    for row in table("bench_serve.csv"):
        if row["item"] == item:
            return row["version_added"], row["version_removed"] or None
    return None


def _is_in(row: Mapping[str, str], release: str) -> bool:
    return is_between(release, first_release(row["version_added"]), None) and not (
        row["version_removed"] and is_between(release, row["version_removed"], None)
    )
