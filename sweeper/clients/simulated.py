"""The client of the simulated engine: sends a load point to the model and reads it with the same metrics.

It takes no time beyond that of computing; ``measured_s`` is the duration that a real run is modelled to have.
"""

from __future__ import annotations

import time
from dataclasses import replace

from sweeper.engines import Cancelled, Server
from sweeper.engines.simulated import Served, SimulatedServer
from sweeper.errors import EngineError, MeasurementError
from sweeper.metrics import summarize
from sweeper.records import FailureClass, LoadPoint, Measurement, TrialSpec
from sweeper.workload import make_workload

_WARM_UP_SEED = 1_000_003
"""Added to the seed of a warm-up: with the prompts of the measured run it would fill the prefix cache with
just what is about to be asked."""


class SimulatedClient:
    """Loads simulated servers.

    The prompts depend on the load point's seed and not on its rate. So on a server that keeps prefixes a
    load point with ``keeps_prefix_cache`` finds the prompts of the one before it cached, as a real benchmark
    run again on a real server does.
    """

    def __init__(self, spec: TrialSpec) -> None:
        """Open one for a trial; all that it needs to know of it comes with server and load point."""

    def measure(
        self, server: Server, point: LoadPoint, *, restart: int, repeat: int, cancelled: Cancelled
    ) -> Measurement:
        """Load the server once at this load point.

        A ShareGPT file is not read: the model needs lengths only, and takes them from a distribution with the
        same statistics.

        Raises:
            EngineError: Cancelled, or the server is not a simulated one, or was stopped.
            MeasurementError: Not every request completed.
            ConfigError: The load point is impossible.
        """
        started_at = time.time()
        began = time.monotonic()
        if not point.keeps_prefix_cache and isinstance(server, SimulatedServer):
            server.forget_prefixes()
        served = self._serve(server, point, seed=point.client_seed, cancelled=cancelled)
        metrics = summarize(served.records)
        if metrics["completed"] != point.num_prompts:
            raise MeasurementError(
                f"simulated client: {metrics['completed']} of {point.num_prompts} requests completed; "
                "expected all. The others are longer than max_model_len: raise it or shorten them.",
                failure=FailureClass.CLIENT,
            )
        return Measurement(
            load_point=point,
            restart=restart,
            repeat=repeat,
            metrics=metrics,
            telemetry={
                "prefix_cache_hit_rate": (
                    served.prefix_hits / served.prefix_queries if served.prefix_queries else None
                ),
                "kv_cache_usage": served.kv_cache_usage,
                "preemptions": float(served.preemptions),
            },
            measured_s=metrics["duration_s"] or 0.0,
            client_overhead_s=time.monotonic() - began,
            started_at=started_at,
            ended_at=time.time(),
        )

    def warm_up(self, server: Server, point: LoadPoint, *, prompts: int, cancelled: Cancelled) -> float:
        """Send some other requests of the load point's kind at once; return the modelled seconds."""
        warm = replace(point, num_prompts=prompts, request_rate_per_s=None)
        served = self._serve(server, warm, seed=point.client_seed + _WARM_UP_SEED, cancelled=cancelled)
        return summarize(served.records)["duration_s"] or 0.0

    def close(self) -> None:
        """Do nothing; there is nothing open."""

    def _serve(self, server: Server, point: LoadPoint, *, seed: int, cancelled: Cancelled) -> Served:
        if not isinstance(server, SimulatedServer):
            raise EngineError(
                f"simulated client: got a server of type {type(server).__name__}; expected a simulated one, "
                "since no request is really sent. Use the client that belongs to the engine.",
                failure=FailureClass.CLIENT,
            )
        workload = make_workload(point, seed=seed)
        _raise_if(cancelled)
        served = server.serve(workload, max_concurrency=point.max_concurrency)
        _raise_if(cancelled)
        return served


def _raise_if(cancelled: Cancelled) -> None:
    if cancelled():
        raise EngineError("stopped on request", failure=FailureClass.INTERRUPTED)
