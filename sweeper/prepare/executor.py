"""The executor that a study's settings ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.executors import Executor

if TYPE_CHECKING:
    from sweeper.config import Settings
    from sweeper.executors.cluster import Cluster
    from sweeper.topology import Node


def start_executor(
    settings: Settings,
    nodes: Sequence[Node],
    *,
    run_folder: Path,
    cluster: Cluster | None,
    say: Callable[[str], object],
) -> Executor:
    """Start what runs trials: this process, a Ray of the study's own, or a cluster that was joined.

    Args:
        settings: Of the study.
        nodes: Whose devices trials are placed on.
        run_folder: Where a Ray of its own writes its output.
        cluster: The cluster that was joined, if one was.
        say: Takes a line for the person who waits.
    """
    devices = sum(len(node.devices) for node in nodes)
    is_alone = settings.isolation == "exclusive"
    if settings.executor == "inline":
        from sweeper.executors.inline import InlineExecutor

        return InlineExecutor(max_parallel=devices, is_alone=is_alone)
    from sweeper.executors.ray import RayExecutor

    if cluster is not None:
        cluster.claim()
        return RayExecutor(cluster, is_alone=is_alone)
    from sweeper.executors.private_ray import PrivateRay

    log = run_folder / "ray.log"
    say(f"starting Ray (its output: {log})")
    return RayExecutor(PrivateRay(devices=devices, log_path=log), is_alone=is_alone)
