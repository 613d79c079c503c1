"""The load generator that comes with each release of vLLM, and the flags it takes."""

from __future__ import annotations

from typing import Literal

from sweeper.knobs.release_order import is_between
from sweeper.knobs.tables import first_release, table


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
        is_between(release, first_release(row["version_added"]), None)
        and not (row["version_removed"] and is_between(release, row["version_removed"], None))
        for row in table("vllm_bench_history.csv")
        if (row["client"], row["kind"], row["item"]) == (client, "flag", flag)
    )
