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
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweeper.clients import Client, plausibility, steady_state
from sweeper.clients.measuring import Load, MeasuringClient, Reading
from sweeper.clients.short_answers import RequestLengths
from sweeper.clients.single_requests import joined
from sweeper.engines import Cancelled, Server
from sweeper.engines.instances import SplitServer, part_of, together
from sweeper.errors import EngineError, MeasurementError
from sweeper.metrics import summarize
from sweeper.records import FailureClass, LoadPoint, Measurement, Placement, TrialSpec
from sweeper.records.plurals import amount
from sweeper.text import trial_files

_SEED_STEP = 1_000_000_007
"""Between the seeds of neighbouring servers: far apart, so that no load point's seed is another's share."""


class SplitClient(MeasuringClient[Sequence[Measurement]]):
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
        super().__init__(spec, placement)
        self._clients: list[Client] = []
        try:
            for index in range(parts):
                self._clients.append(open_one(*part_of(spec, placement, index=index)))
        except BaseException:
            self.close()
            raise

    def warm_up(self, server: Server, point: LoadPoint, *, prompts: int, cancelled: Cancelled) -> float:
        """Send each server some requests whose numbers are thrown away; return the seconds it took."""
        began = time.monotonic()
        together(
            [
                _warming(client, one, share, prompts=share.num_prompts)
                for client, one, share in zip(
                    self._clients,
                    self._servers(server),
                    warm_up_shares(point, prompts=prompts, parts=len(self._clients)),
                    strict=True,
                )
            ],
            cancelled=cancelled,
        )
        return time.monotonic() - began

    def close(self) -> None:
        """End all clients; safe to call twice."""
        for client in self._clients:
            client.close()

    def _prepare(self, load: Load) -> None:
        """Check that the servers are the clients' own; each client prepares its server itself."""
        self._servers(load.server)

    def _send(self, load: Load) -> Sequence[Measurement]:
        """Load all servers at once, each with its share of the load point."""
        servers = self._servers(load.server)
        shares = split(load.point, parts=len(servers))
        return together(
            [
                _measuring(client, server, share, restart=load.restart, repeat=load.repeat)
                for client, server, share in zip(self._clients, servers, shares, strict=True)
            ],
            cancelled=load.cancelled,
        )

    def _read(self, load: Load, sent: Sequence[Measurement]) -> Reading:
        """Compute the numbers of the whole from the times of all single requests.

        Raises:
            MeasurementError: Their times are not reported.
        """
        reports = [_report(part) for part in sent]
        records = joined(reports)
        return Reading(
            metrics=summarize(records, goodput_bounds_ms=dict(load.point.goodput_ms) or None),
            raw_path=self._write(load, sent),
            telemetry={
                "client_cpu_wait_s": _largest(sent, "client_cpu_wait_s"),
                **steady_state.columns(reports),
                # Large against duration_s: the servers were not loaded at the same time.
                "instances_start_spread_s": start_spread_s(reports),
            },
            peak_kv_cache_usage=_largest(sent, "kv_cache_usage"),
            lengths=RequestLengths(
                inputs=tuple(records.input_tokens.tolist()), outputs=tuple(records.output_tokens.tolist())
            ),
        )

    def _servers(self, server: Server) -> Sequence[Server]:
        if not isinstance(server, SplitServer) or len(server.servers) != len(self._clients):
            raise EngineError(
                f"split client: got a server of type {type(server).__name__}; expected one of "
                f"{len(self._clients)} instances. Use the client that belongs to the engine.",
                failure=FailureClass.CLIENT,
            )
        return server.servers

    def _write(self, load: Load, measured: Sequence[Measurement]) -> Path:
        """Note which files hold the parts of one measurement."""
        parts = {"parts": [part.raw_path for part in measured]}
        return trial_files.write(self._raw(load), json.dumps(parts))


def split(point: LoadPoint, *, parts: int) -> tuple[LoadPoint, ...]:
    """Deal a load point out: prompts and places among the first ones first, the rate evenly.

    Raises:
        MeasurementError: Fewer prompts, or places, than parts.
    """
    scarce = min(point.num_prompts, point.max_concurrency or point.num_prompts)
    if scarce < parts:
        raise MeasurementError(
            f"load point '{point.label}': {amount(point.num_prompts, 'prompt')}, {scarce} at a time, "
            f"for {parts} instances; expected at least one for each. Send more, or use fewer instances.",
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


def warm_up_shares(point: LoadPoint, *, prompts: int, parts: int) -> tuple[LoadPoint, ...]:
    """Deal a warm-up out: as many to each server; by users, to each what its own users send.

    Raises:
        MeasurementError: There are fewer users than parts.
    """
    if not point.warmup_per_user:
        return (replace(point, num_prompts=prompts),) * parts
    return split(replace(point, num_prompts=max(prompts, parts)), parts=parts)


def start_spread_s(reports: Sequence[Mapping[str, Any]]) -> float:
    """Seconds between the first requests of the server that was loaded first and of the one loaded last."""
    firsts = [min(report["start_times"]) for report in reports]
    return float(max(firsts) - min(firsts))


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
    except (OSError, ValueError, RecursionError) as exc:
        plausibility.refuse(f"{path} cannot be read ({exc})", log_path=None)
    return content if isinstance(content, dict) else {}


def _largest(parts: Sequence[Measurement], name: str) -> float | None:
    values = [part.telemetry.get(name) for part in parts]
    return max((value for value in values if value is not None), default=None)
