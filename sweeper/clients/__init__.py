"""What loads an engine: the contract that every client keeps.

A client is opened before its engine is started, so that a slow import overlaps with the engine's own
start; it takes load points one after another.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from sweeper.engines import Cancelled, Server
from sweeper.kinds import DATASETS
from sweeper.records import LoadPoint, Measurement

_WARM_UP_SEED = 1_000_003


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


def warm_up_point(point: LoadPoint, *, prompts: int) -> LoadPoint:
    """Return what a warm-up sends: other requests of the load point's kind, all at once.

    Their seed is another one: with the prompts of the measured run they would fill the prefix cache with
    just what is about to be asked.
    """
    dataset = DATASETS[point.dataset].without_times or point.dataset
    declared = DATASETS[dataset].options
    return replace(
        point,
        dataset=dataset,
        options=tuple((name, value) for name, value in point.options if name in declared),
        num_prompts=_whole_rounds(prompts, point),
        request_rate_per_s=None,
        ramp=None,
        burstiness=LoadPoint.burstiness,
        # numpy takes seeds below 2**32.
        client_seed=(point.client_seed + _WARM_UP_SEED) % 2**32,
    )


def _whole_rounds(prompts: int, point: LoadPoint) -> int:
    """Round up to what shared prefixes can be sent with: each is sent equally often, and at least once."""
    prefixes = point.option("num_prefixes")
    if not isinstance(prefixes, int) or isinstance(prefixes, bool):
        return prompts
    return -(-prompts // prefixes) * prefixes
