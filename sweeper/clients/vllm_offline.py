"""Reads vLLM's latency and throughput benchmarks, which measure an engine from inside, without a server.

Latency sends one batch of equal prompts again and again and times each round; throughput hands over
everything at once and times the whole. They answer what the hardware can do; what a user waits for is
the serving benchmark's to say.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from sweeper.clients import plausibility, program
from sweeper.clients.bench_script import find_script
from sweeper.engines import Cancelled, Server
from sweeper.engines.vllm_offline import OfflineServer
from sweeper.errors import EngineError, MeasurementError
from sweeper.kinds import DATASETS
from sweeper.metrics import batch_metrics
from sweeper.records import (
    FailureClass,
    LoadPoint,
    Measurement,
    Placement,
    TrialSpec,
    content_key,
)

# A prompt of random tokens may become some tokens longer or shorter when its text is tokenized again.
_TOKEN_TOLERANCE = 0.1
_RATE_TOLERANCE = 0.01


class OfflineClient:
    """Runs one benchmark process for each load point."""

    def __init__(self, spec: TrialSpec, placement: Placement) -> None:
        """Open one for a trial; nothing is started yet."""
        self._spec = spec
        self._placement = placement

    def measure(
        self, server: Server, point: LoadPoint, *, restart: int, repeat: int, cancelled: Cancelled
    ) -> Measurement:
        """Run the benchmark of this load point, its engine included.

        Raises:
            EngineError: The engine failed, or the run was cancelled or hung past the load time limit, which
                here includes the engine's start.
            MeasurementError: The engine ran with another configuration, or the report is not of this load.
            ConfigError: The benchmark is missing.
        """
        if not isinstance(server, OfflineServer):
            raise EngineError(
                f"offline client: got a server of type {type(server).__name__}; expected the one of the "
                "offline engine. Use the client that belongs to the engine.",
                failure=FailureClass.CLIENT,
            )
        name = f"{self._spec.attempt}-{restart}-{repeat}-{content_key(asdict(point))[:8]}"
        prepared = server.program(point, name=name, scripts=self._script)
        limits = self._spec.engine
        began = time.monotonic()
        started_at = time.time()
        ended = program.run_to_end(
            prepared.command,
            env=prepared.env,
            cwd=prepared.cwd,
            log_path=prepared.log_path,
            note={"trial": self._spec.key, "devices": list(self._placement.devices)},
            limit_s=limits.start_timeout_s + limits.load_timeout_s,
            server=server,
            cancelled=cancelled,
        )
        report = _read(prepared.result)
        if ended.exit_code != 0 or report is None:
            raise server.death(prepared, exit_code=ended.exit_code)
        server.prove(prepared)
        metrics = read_report(report, point, log_path=str(prepared.log_path))
        measured_s = metrics["duration_s"] or 0.0
        return Measurement(
            load_point=point,
            restart=restart,
            repeat=repeat,
            metrics=metrics,
            telemetry={},
            measured_s=measured_s,
            client_overhead_s=time.monotonic() - began - measured_s,
            started_at=started_at,
            ended_at=time.time(),
            raw_path=str(prepared.result),
        )

    def warm_up(self, server: Server, point: LoadPoint, *, prompts: int, cancelled: Cancelled) -> float:
        """Do nothing: each run has an engine of its own, and the latency benchmark warms it itself."""
        return 0.0

    def close(self) -> None:
        """Do nothing; no process outlives its run."""

    def _script(self, name: str) -> Path:
        return find_script(self._spec.client.script, name, release=self._spec.engine.release)


def read_report(
    report: Mapping[str, object], point: LoadPoint, *, log_path: str | None
) -> dict[str, float | None]:
    """Translate a benchmark's JSON to our names.

    Args:
        report: As it was written.
        point: What was sent.
        log_path: For the message.

    Returns:
        For ``latency`` those of ``batch_metrics``, for ``throughput`` the rates.

    Raises:
        MeasurementError: It is not the report of this load point.
    """
    kind = DATASETS[point.dataset]
    assert not kind.needs_server
    assert point.input_len is not None and point.output_len is not None
    outputs = point.num_prompts * point.output_len
    if kind.is_batch:
        latencies = plausibility.numbers(report, "latencies", log_path=log_path)
        if not latencies:
            raise _unreadable("no latencies", log_path)
        mean_s = plausibility.number(report, "avg_latency", log_path=log_path)
        told_s = sum(latencies) / len(latencies)
        if mean_s is not None and not math.isclose(mean_s, told_s, rel_tol=_RATE_TOLERANCE):
            raise _unreadable(f"avg_latency {mean_s:g} and latencies of {told_s:g} on average", log_path)
        return batch_metrics(
            np.array(latencies, np.float64),
            requests=point.num_prompts,
            input_len=point.input_len,
            output_len=point.output_len,
        )
    elapsed_s, tokens, requests = (
        plausibility.number(report, name, log_path=log_path)
        for name in ("elapsed_time", "total_num_tokens", "num_requests")
    )
    if elapsed_s is None or tokens is None or elapsed_s <= 0:
        raise _unreadable("no elapsed_time and total_num_tokens", log_path)
    if requests is None or requests != point.num_prompts:
        raise _unreadable(f"{requests} requests in place of {point.num_prompts}", log_path)
    expected = point.num_prompts * point.input_len + outputs
    if abs(tokens - expected) > _TOKEN_TOLERANCE * expected:
        # Releases differ in which flag sets the lengths; another load must not stand under this one's name.
        raise _unreadable(f"{tokens:g} tokens in place of {expected}", log_path)
    for name, amount in (("requests_per_second", requests), ("tokens_per_second", tokens)):
        rate = plausibility.number(report, name, log_path=log_path)
        if rate is not None and not math.isclose(rate, amount / elapsed_s, rel_tol=_RATE_TOLERANCE):
            raise _unreadable(f"{name} {rate:g} where {amount:g} came in {elapsed_s:g} s", log_path)
    return {
        "completed": requests,
        "failed": 0,
        "duration_s": elapsed_s,
        "request_throughput_per_s": requests / elapsed_s,
        "output_throughput_tok_per_s": outputs / elapsed_s,
        "total_throughput_tok_per_s": tokens / elapsed_s,
        # The answers have their full length: the benchmark ignores ends of text.
        "total_input_tokens": tokens - outputs,
        "total_output_tokens": outputs,
    }


def _unreadable(what: str, log_path: str | None) -> MeasurementError:
    return MeasurementError(
        f"client: the benchmark's report has {what}; expected that of the load point. See its log.",
        failure=FailureClass.CLIENT,
        log_path=log_path,
    )


def _read(path: Path) -> Mapping[str, object] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
