"""The client of the simulated engine: sends a load point to the model and reads it with the same metrics.

It takes no time beyond that of computing; ``measured_s`` is the duration that a real run is modelled to have.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from sweeper.clients import steady_state, warm_up_point
from sweeper.engines import Cancelled, Server
from sweeper.engines.simulated import Served, SimulatedServer
from sweeper.errors import EngineError, MeasurementError, Stopped
from sweeper.kinds import CLIENTS, DATASETS
from sweeper.metrics import batch_metrics, duration_s, summarize
from sweeper.records import (
    MEASURED_ITERATIONS,
    FailureClass,
    LoadPoint,
    Measurement,
    Placement,
    TrialSpec,
)
from sweeper.records.metrics import Benchmark, reported_by
from sweeper.records.plurals import amount
from sweeper.simulation.front_end import SERVED
from sweeper.workload.requests import Workload, make_workload


class SimulatedClient:
    """Loads simulated servers.

    The prompts depend on the load point's seed and not on its rate. So on a server that keeps prefixes a
    load point with ``keeps_prefix_cache`` finds the prompts of the one before it cached, as a real benchmark
    run again on a real server does.
    """

    def __init__(self, spec: TrialSpec) -> None:
        """Open one for a trial."""
        self._spec = spec

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
        if DATASETS[point.dataset].is_batch and self._keeps_batches:
            # The benchmark's iterations before it measures: what they compute is found again.
            self.serve(server, point, seed=point.client_seed, cancelled=cancelled)
        served = self.serve(server, point, seed=point.client_seed, cancelled=cancelled)
        metrics = summarize(served.records, goodput_bounds_ms=dict(point.goodput_ms) or None)
        if not DATASETS[point.dataset].needs_server:
            metrics = self._offline_metrics(server, point, metrics, cancelled)
        if metrics["completed"] != point.num_prompts:
            raise MeasurementError(
                f"simulated client: {metrics['completed']} of {amount(point.num_prompts, 'request')} "
                "completed; expected all. The others are longer than max_model_len, the longest with "
                f"{amount(self._longest(point), 'token', ',')} of prompt and answer: raise it or "
                "shorten them.",
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
                **(steady_state.of_records(served.records) if DATASETS[point.dataset].needs_server else {}),
            },
            measured_s=metrics["duration_s"] or 0.0,
            client_overhead_s=time.monotonic() - began,
            started_at=started_at,
            ended_at=time.time(),
        )

    def warm_up(self, server: Server, point: LoadPoint, *, prompts: int, cancelled: Cancelled) -> float:
        """Send some other requests of the load point's kind at once; return the modelled seconds."""
        warm = warm_up_point(point, prompts=prompts)
        served = self.serve(server, warm, seed=warm.client_seed, cancelled=cancelled)
        return duration_s(served.records) or 0.0

    def close(self) -> None:
        """Do nothing; there is nothing open."""

    @property
    def _keeps_batches(self) -> bool:
        """Whether a batch finds its prompts of the iteration before; the benchmark has to be asked for it."""
        return bool(self._spec.assignment.get("enable_prefix_caching"))

    def _offline_metrics(
        self, server: Server, point: LoadPoint, metrics: Mapping[str, float | None], cancelled: Cancelled
    ) -> dict[str, float | None]:
        """Keep what vLLM's offline benchmarks report: they have no data on single requests."""
        if not DATASETS[point.dataset].is_batch:
            return {name: metrics[name] for name in reported_by(Benchmark.THROUGHPUT)}
        assert point.input_len is not None and point.output_len is not None
        latencies_s = [metrics["duration_s"] or 0.0]
        while len(latencies_s) < MEASURED_ITERATIONS:
            # The same batch once more. The benchmark leaves prefix caching off unless it is asked for.
            if isinstance(server, SimulatedServer) and not self._keeps_batches:
                server.forget_prefixes()
            served = self.serve(server, point, seed=point.client_seed, cancelled=cancelled)
            latencies_s.append(duration_s(served.records) or 0.0)
        return batch_metrics(
            np.array(latencies_s),
            requests=point.num_prompts,
            input_len=point.input_len,
            output_len=point.output_len,
        )

    def serve(self, server: Server, point: LoadPoint, *, seed: int, cancelled: Cancelled) -> Served:
        """Send a load point's requests once; return what the client saw.

        Raises:
            EngineError: Cancelled, or the server is not a simulated one, or was stopped.
        """
        if not isinstance(server, SimulatedServer):
            raise EngineError(
                f"simulated client: got a server of type {type(server).__name__}; expected a simulated one, "
                "since no request is really sent. Use the client that belongs to the engine.",
                failure=FailureClass.CLIENT,
            )
        workload = self._workload(point, seed=seed)
        _raise_if(cancelled)
        front_end = SERVED if DATASETS[point.dataset].needs_server else None
        served = server.serve(workload, max_concurrency=point.max_concurrency, front_end=front_end)
        _raise_if(cancelled)
        return served

    def _longest(self, point: LoadPoint) -> int:
        """Return the tokens of the longest request, prompt and answer together."""
        sent = self._workload(point, seed=point.client_seed)
        return int((sent.input_tokens + sent.output_tokens).max())

    def _workload(self, point: LoadPoint, *, seed: int) -> Workload:
        if not DATASETS[point.dataset].needs_server:
            # All at once, of fixed lengths: what is said of arrivals is for clients with a server.
            point = replace(
                point, dataset="random", request_rate_per_s=None, max_concurrency=None, range_ratio=0.0
            )
        workload = make_workload(point, seed=seed)
        if CLIENTS[self._spec.client.kind].needs_rate and point.request_rate_per_s is not None:
            return replace(workload, arrival_s=np.arange(workload.requests) / point.request_rate_per_s)
        return workload


def open_client(spec: TrialSpec, placement: Placement) -> SimulatedClient:
    """Open the client of a trial; the model needs no devices."""
    return SimulatedClient(spec)


def _raise_if(cancelled: Cancelled) -> None:
    if cancelled():
        raise Stopped
