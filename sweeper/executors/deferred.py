"""An executor that comes with the first trial, so that a complete study starts no Ray."""

from __future__ import annotations

import time
from collections.abc import Callable

from sweeper.executors import Executor, Ticket
from sweeper.records import Placement, TrialResult, TrialSpec


class DeferredExecutor:
    """Starts the executor with the first trial: a study that is complete needs none."""

    def __init__(self, name: str, start: Callable[[], Executor]) -> None:
        """Start nothing yet.

        Args:
            name: Of the executor, as every result records it.
            start: Starts it; called at most once.
        """
        self.name = name
        self._start = start
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
        """Return finished trials."""
        if self._executor is None:
            time.sleep(min(timeout_s, 0.05))
            return []
        return self._executor.wait(timeout_s)

    def cancel(self) -> None:
        """Stop running trials."""
        if self._executor is not None:
            self._executor.cancel()

    def lost_nodes(self) -> frozenset[str]:
        """Return the nodes that are gone."""
        return frozenset() if self._executor is None else self._executor.lost_nodes()

    def close(self) -> None:
        """End the executor."""
        if self._executor is not None:
            self._executor.close()
