"""An executor that comes with the first trial, so that a complete study starts no Ray."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from sweeper.config import Settings
    from sweeper.executors import Executor, Ticket
    from sweeper.executors.cluster import Cluster
    from sweeper.records import Placement, TrialResult, TrialSpec
    from sweeper.topology import Node


class DeferredExecutor:
    """Starts the executor with the first trial: a study that is complete needs none."""

    def __init__(
        self,
        settings: Settings,
        nodes: Sequence[Node],
        run_folder: Path,
        console: Console,
        *,
        cluster: Cluster | None = None,
    ) -> None:
        self.name = settings.executor
        self._settings = settings
        self._nodes = nodes
        self._cluster = cluster
        self._run_folder = run_folder
        self._console = console
        self._executor: Executor | None = None

    def __enter__(self) -> DeferredExecutor:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def submit(self, spec: TrialSpec, placement: Placement) -> Ticket:
        """Start a trial."""
        if self._executor is None:
            self._executor = self._start()
        return self._executor.submit(spec, placement)

    def wait(self, timeout_s: float) -> list[tuple[Ticket, TrialResult]]:
        """Give finished trials."""
        if self._executor is None:
            time.sleep(min(timeout_s, 0.05))
            return []
        return self._executor.wait(timeout_s)

    def cancel(self) -> None:
        """Stop running trials."""
        if self._executor is not None:
            self._executor.cancel()

    def lost_nodes(self) -> frozenset[str]:
        """Name the nodes that are gone."""
        return frozenset() if self._executor is None else self._executor.lost_nodes()

    def close(self) -> None:
        """End the executor."""
        if self._executor is not None:
            self._executor.close()

    def _start(self) -> Executor:
        devices = sum(len(node.devices) for node in self._nodes)
        if self._settings.executor == "inline":
            from sweeper.executors.inline import InlineExecutor

            return InlineExecutor(max_parallel=devices)
        from sweeper.executors.ray import RayExecutor

        if self._cluster is not None:
            self._cluster.claim()
            return RayExecutor(self._cluster)
        from sweeper.executors.private_ray import PrivateRay

        log = self._run_folder / "ray.log"
        self._console.print(f"starting Ray (its output: {log})", markup=False, soft_wrap=True)
        return RayExecutor(PrivateRay(devices=devices, log_path=log))
