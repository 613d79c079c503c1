"""What loads an engine: the contract that every client keeps.

A client is opened before its engine is started, so that a slow import overlaps with the engine's own
start; it takes load points one after another.
"""

from __future__ import annotations

from typing import Protocol

from sweeper.engines import Cancelled, Server
from sweeper.records import LoadPoint, Measurement


class Client(Protocol):
    """One client process or object, warm for the life of its engine."""

    def measure(
        self, server: Server, point: LoadPoint, *, restart: int, repeat: int, cancelled: Cancelled
    ) -> Measurement:
        """Load the server once at this load point.

        Raises:
            EngineError: The client failed, hung past the load time limit, or the engine died meanwhile.
            MeasurementError: Not every request completed.
        """
        ...

    def warm_up(self, server: Server, point: LoadPoint, *, prompts: int, cancelled: Cancelled) -> float:
        """Send some requests whose numbers are thrown away; return the seconds it took."""
        ...

    def close(self) -> None:
        """End the client; safe to call twice."""
        ...
