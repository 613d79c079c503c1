"""What serves: the contract that every engine keeps, stated once.

An *engine* turns a trial into a running *server*; a server can be asked what it is, whether it lives,
and what it has counted, and it can be stopped. Nothing here knows how it is loaded (``clients``) or
where it runs (``executors``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import Protocol

from sweeper.records import Placement, Provenance, Scalar, TrialSpec

Cancelled = Callable[[], bool]
"""Polled by everything that waits; true means stop now and clean up."""


def never_cancelled() -> bool:
    """Return False: a ``Cancelled`` for what nobody stops, such as a model's run of a second."""
    return False


class Server(Protocol):
    """One running engine, seen to be ours and ready.

    Attributes:
        base_url: Where it answers, such as ``http://127.0.0.1:41234``; empty for a simulated one.
        api_key: Random key that the server asks for; never written to a row, command or log.
        provenance: Whether its numbers are measured or simulated.
        start_s: Seconds from launch to ready.
        command: The command line without secrets, to be stored and repeated.
        effective: Configuration as the engine reports it, by knob name.
        versions: Of the engine and what it runs on.
        log_path: Where its output goes, or None.
    """

    base_url: str
    api_key: str
    provenance: Provenance
    start_s: float
    command: tuple[str, ...]
    effective: Mapping[str, Scalar]
    versions: Mapping[str, str]
    log_path: str | None

    def sanity(self) -> str | None:
        """Ask a greedy question and return the text of the answer; None where there is no server to ask.

        Raises:
            MeasurementError: No answer, an empty one, or not within the sanity time limit.
        """
        ...

    def check_alive(self) -> None:
        """Return quietly while the engine lives.

        Raises:
            EngineError: It has ended; class and message come from its own last lines.
        """
        ...

    def prove_ours(self) -> frozenset[int] | None:
        """Check that what answers is still the very engine that was started, or attached to.

        Returns:
            Ids of all its processes; None where they cannot be seen.

        Raises:
            EngineError: Nobody listens any more.
            MeasurementError: Another process answers in its place, or it was started anew.
        """
        ...

    def pids(self) -> Set[int] | None:
        """Return the ids of all processes of the engine that live now; None where they cannot be seen."""
        ...

    def counters(self) -> Mapping[str, float]:
        """Return the engine's counters now (cache queries and hits, preemptions, KV use), for telemetry."""
        ...

    def stop(self) -> float:
        """End the engine and all of its processes; return the seconds it took. Safe to call twice."""
        ...


class Engine(Protocol):
    """Something that can start servers."""

    def start(self, spec: TrialSpec, placement: Placement, *, restart: int, cancelled: Cancelled) -> Server:
        """Start a server on the placement's devices and wait until it is ready and proven ours.

        Raises:
            EngineError: It did not come up; nothing of it is left running.
        """
        ...
