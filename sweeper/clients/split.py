"""Loads several servers as one service: the stream of requests is split between them by seed.

Each server gets its own warm benchmark process. Arrivals at a rate are Poisson, and a Poisson stream that
is dealt out at random is a Poisson stream at every receiver; so each benchmark sends its share of the
prompts at its share of the rate, drawn from a seed of its own. From the times of all single requests the
numbers are computed anew, by the same definitions: a mean of percentiles would be no percentile.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from sweeper.clients import Client, plausibility
from sweeper.engines import Cancelled, Server
from sweeper.engines.instances import SplitServer, part_of, together
from sweeper.errors import EngineError, MeasurementError
from sweeper.metrics import RequestRecords, summarize
from sweeper.records import FailureClass, LoadPoint, Measurement, Placement, TrialSpec, content_key

_SEED_STEP = 1_000_000_007
"""Between the seeds of neighbouring servers: far apart, so that no load point's seed is another's share."""

_DETAILS = ("start_times", "ttfts", "itls", "latencies", "input_lens", "output_lens")
"""Of each request, in the benchmark's JSON with ``--save-detailed``: seconds on the machine's monotonic
clock, seconds, and tokens. Source: vllm/benchmarks/serve.py of 0.32.0."""


class SplitClient:
    """One client for each instance of a trial, driven as one."""

    def __init__(
        self, spec: TrialSpec, placement: Placement, *, parts: int, open_one: Callable[..., Client]
    ) -> None:
        """Open the clients.

        Args:
            spec: The trial.
            placement: Its devices, to be shared out.
            parts: How many instances there are.
            open_one: Opens the client of one instance, from its own trial and placement.
        """
        self._spec = spec
        self._clients: list[Client] = []
        try:
            for index in range(parts):
                self._clients.append(open_one(*part_of(spec, placement, index=index)))
        except BaseException:
            self.close()
            raise

    def measure(
        self, server: Server, point: LoadPoint, *, restart: int, repeat: int, cancelled: Cancelled
    ) -> Measurement:
        """Load all servers at once, each with its share of this load point.

        Raises:
            EngineError: A client failed, hung past the load time limit, or an engine died meanwhile.
            MeasurementError: Not every request completed, or their times are not told.
        """
        servers = self._servers(server)
        shares = split(point, parts=len(servers))
        before = server.counters()
        began, started_at = time.monotonic(), time.time()
        measured = together(
            [
                _measuring(client, one, share, restart=restart, repeat=repeat)
                for client, one, share in zip(self._clients, servers, shares, strict=True)
            ],
            cancelled=cancelled,
        )
        ended_at = time.time()
        reports = [_report(part) for part in measured]
        metrics = summarize(joined(reports), goodput_bounds_ms=dict(point.goodput_ms) or None)
        measured_s = metrics["duration_s"] or 0.0
        return Measurement(
            load_point=point,
            restart=restart,
            repeat=repeat,
            metrics=metrics,
            telemetry={
                **_telemetry(before, server.counters(), measured),
                # Large against duration_s: the servers were not loaded at the same time.
                "instances_start_spread_s": start_spread_s(reports),
            },
            measured_s=measured_s,
            client_overhead_s=time.monotonic() - began - measured_s,
            started_at=started_at,
            ended_at=ended_at,
            raw_path=self._write(point, measured, restart=restart, repeat=repeat),
        )

    def warm_up(self, server: Server, point: LoadPoint, *, prompts: int, cancelled: Cancelled) -> float:
        """Send each server some requests whose numbers are thrown away; return the seconds it took."""
        began = time.monotonic()
        together(
            [
                _warming(client, one, point, prompts=prompts)
                for client, one in zip(self._clients, self._servers(server), strict=True)
            ],
            cancelled=cancelled,
        )
        return time.monotonic() - began

    def close(self) -> None:
        """End all clients; safe to call twice."""
        for client in self._clients:
            client.close()

    def _servers(self, server: Server) -> Sequence[Server]:
        if not isinstance(server, SplitServer) or len(server.servers) != len(self._clients):
            raise EngineError(
                f"split client: got a server of type {type(server).__name__}; expected one of "
                f"{len(self._clients)} instances. Use the client that belongs to the engine.",
                failure=FailureClass.CLIENT,
            )
        return server.servers

    def _write(self, point: LoadPoint, measured: Sequence[Measurement], *, restart: int, repeat: int) -> str:
        """Note which files hold the parts of one measurement."""
        name = f"{self._spec.attempt}-{restart}-{repeat}-{content_key(asdict(point))[:8]}.json"
        path = Path(self._spec.folder).resolve() / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"parts": [part.raw_path for part in measured]}), encoding="utf-8")
        return str(path)


def split(point: LoadPoint, *, parts: int) -> tuple[LoadPoint, ...]:
    """Deal a load point out: prompts and places among the first ones first, the rate evenly.

    Raises:
        MeasurementError: Fewer prompts, or places, than parts.
    """
    scarce = min(point.num_prompts, point.max_concurrency or point.num_prompts)
    if scarce < parts:
        raise MeasurementError(
            f"load point '{point.label}': {point.num_prompts} prompts, {scarce} at a time, for {parts} "
            "instances; expected at least one for each. Send more, or use fewer instances.",
            failure=FailureClass.CLIENT,
        )
    rate = point.request_rate_per_s
    return tuple(
        replace(
            point,
            num_prompts=_share(point.num_prompts, index, parts),
            max_concurrency=None
            if point.max_concurrency is None
            else _share(point.max_concurrency, index, parts),
            request_rate_per_s=None if rate is None else rate / parts,
            # The first keeps the seed; numpy takes seeds below 2**32.
            client_seed=(point.client_seed + index * _SEED_STEP) % 2**32,
        )
        for index in range(parts)
    )


def joined(reports: Sequence[Mapping[str, Any]]) -> RequestRecords:
    """Put the requests of several reports on one clock.

    Args:
        reports: The benchmark's JSON of each server, with the times of single requests.

    Raises:
        MeasurementError: A report has no such times.
    """
    for report in reports:
        plausibility.check_single_requests(report)
        missing = [name for name in _DETAILS if not isinstance(report.get(name), list)]
        if missing:
            raise MeasurementError(
                f"client: its report has no {', '.join(missing)}; expected the times of single requests, "
                "from which the numbers of several instances are computed. Use a vLLM whose benchmark has "
                "--save-detailed with start times (client.python=...), or engine.instances_by=data_parallel.",
                failure=FailureClass.CLIENT,
            )
    arrival = _column(reports, "start_times")
    gaps = [gap for report in reports for request in report["itls"] for gap in request]
    return RequestRecords(
        arrival_s=arrival,
        first_token_s=arrival + _column(reports, "ttfts"),
        last_token_s=arrival + _column(reports, "latencies"),
        input_tokens=_column(reports, "input_lens").astype(np.int64),
        output_tokens=_column(reports, "output_lens").astype(np.int64),
        inter_token_s=np.array(gaps, dtype=np.float64),
    )


def start_spread_s(reports: Sequence[Mapping[str, Any]]) -> float:
    """Seconds between the first requests of the server that was loaded first and of the one loaded last."""
    firsts = [min(report["start_times"]) for report in reports]
    return float(max(firsts) - min(firsts))


def _column(reports: Sequence[Mapping[str, Any]], name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([value for report in reports for value in report[name]], dtype=np.float64)


def _share(whole: int, index: int, parts: int) -> int:
    return whole // parts + (index < whole % parts)


def _measuring(
    client: Client, server: Server, point: LoadPoint, *, restart: int, repeat: int
) -> Callable[[Cancelled], Measurement]:
    return lambda cancelled: client.measure(
        server, point, restart=restart, repeat=repeat, cancelled=cancelled
    )


def _warming(
    client: Client, server: Server, point: LoadPoint, *, prompts: int
) -> Callable[[Cancelled], float]:
    return lambda cancelled: client.warm_up(server, point, prompts=prompts, cancelled=cancelled)


def _report(measurement: Measurement) -> Mapping[str, Any]:
    path = measurement.raw_path
    try:
        content = {} if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        plausibility.refuse(f"{path} cannot be read ({exc})", log_path=None)
    return content if isinstance(content, dict) else {}


def _telemetry(
    before: Mapping[str, float], after: Mapping[str, float], parts: Sequence[Measurement]
) -> dict[str, float | None]:
    queries, hits, preemptions = (
        after[name] - before[name] if name in before and name in after else None
        for name in ("prefix_cache_queries", "prefix_cache_hits", "preemptions")
    )
    usages = [part.telemetry.get("kv_cache_usage") for part in parts]
    waits = [part.telemetry.get("client_cpu_wait_s") for part in parts]
    return {
        "prefix_cache_hit_rate": hits / queries if queries and hits is not None else None,
        "preemptions": preemptions,
        "kv_cache_usage": max((usage for usage in usages if usage is not None), default=None),
        "client_cpu_wait_s": max((waited for waited in waits if waited is not None), default=None),
    }
