"""Where trials run: the contract that every executor keeps.

An executor runs trial bodies somewhere else than the driver's own thread and hands back their results.
It decides nothing: which trial, on which devices and when is the sweep's business.
"""

from __future__ import annotations

from typing import NewType, Protocol

from sweeper.records import Placement, TrialResult, TrialSpec

Ticket = NewType("Ticket", int)
"""Names one submitted trial until its result has been handed back."""


class Executor(Protocol):
    """Runs trials; a worker that dies becomes a failed result, never an exception."""

    name: str

    def submit(self, spec: TrialSpec, placement: Placement) -> Ticket:
        """Start a trial on devices that the caller holds."""
        ...

    def wait(self, timeout_s: float) -> list[tuple[Ticket, TrialResult]]:
        """Return the results that are there, waiting at most so long for a first one."""
        ...

    def cancel(self) -> None:
        """Ask every running trial to stop and clean up; their results still come through ``wait``."""
        ...

    def lost_nodes(self) -> frozenset[str]:
        """Return the nodes that are gone since the start; what ran there ends as failed through ``wait``."""
        ...

    def close(self) -> None:
        """Release everything that the executor holds; safe to call twice."""
        ...
