"""A trial's hold on a server that outlives it, since several settings share its start (``knobs.live``).

The trial sees a server of its own: what it reports is what holds for this trial, and when the trial stops it,
it only lets go. Who holds the server between trials, and ends it, is ``trial.kept``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from sweeper.engines import Cancelled, Server
from sweeper.records import Provenance, TrialSpec

LogParts = tuple[tuple[int, int | None], ...]
"""Parts of a log, each from one byte up to another, or to the end."""


class LiveServer(Server, Protocol):
    """A server that can become other settings while it runs.

    Attributes:
        log_parts: Where in its log its start is, and the trial that it serves now.
    """

    def serve(self, spec: TrialSpec, *, cancelled: Cancelled) -> None:
        """Become the setting of a trial that shares its start, and prove that it is.

        Raises:
            EngineError: It has ended, does not answer, or a stop was asked for.
            MeasurementError: It refuses, or runs as something else than was asked for.
        """
        ...

    @property
    def log_parts(self) -> LogParts: ...  # noqa: D102


class SharedServer:
    """What one trial has of a server that others share."""

    def __init__(self, server: LiveServer, *, start_s: float) -> None:
        """Take a server that serves this trial's setting.

        Args:
            server: Seen to be ready and proven; nobody else uses it before this trial has let go.
            start_s: Seconds that this trial waited for it: for its start, or for the change of its limits.
        """
        self._server = server
        self.base_url = server.base_url
        self.api_key = server.api_key
        self.provenance: Provenance = server.provenance
        self.start_s = start_s
        self.command = server.command
        self.effective = server.effective
        self.versions = server.versions
        self.log_path = server.log_path
        self.log_parts = server.log_parts

    def sanity(self) -> str | None:
        """Ask a greedy question, as ``Server``."""
        return self._server.sanity()

    def check_alive(self) -> None:
        """Return quietly while it lives, as ``Server``."""
        self._server.check_alive()

    def prove_ours(self) -> frozenset[int] | None:
        """Check that it is the engine that was started, as ``Server``."""
        return self._server.prove_ours()

    def pids(self) -> frozenset[int] | None:
        """Return the ids of its processes, as ``Server``."""
        pids = self._server.pids()
        return None if pids is None else frozenset(pids)

    def counters(self) -> Mapping[str, float]:
        """Return its counters now, as ``Server``; they go on from the trial before."""
        return self._server.counters()

    def stop(self) -> float:
        """Let go of it; it runs on."""
        return 0.0
