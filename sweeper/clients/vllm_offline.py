"""Reads vLLM's latency and throughput benchmarks, which measure an engine from inside, without a server.

Latency sends one batch of equal prompts again and again and times each round; throughput hands over
everything at once and times the whole. They answer what the hardware can do; what a user waits for is
the serving benchmark's to say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sweeper.clients import plausibility, program
from sweeper.clients.bench_report import read_object
from sweeper.clients.bench_script import find_script
from sweeper.clients.measuring import Load, MeasuringClient, Reading
from sweeper.engines import Cancelled, Server
from sweeper.engines.vllm_offline import OfflineServer, Program
from sweeper.errors import EngineError, MeasurementError
from sweeper.kinds import DATASETS
from sweeper.metrics import batch_metrics
from sweeper.records import FailureClass, LoadPoint

# A prompt of random tokens may become some tokens longer or shorter when its text is tokenized again.
_TOKEN_TOLERANCE = 0.1
_RATE_TOLERANCE = 0.01


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What came of one run of a benchmark."""

    program: Program
    report: Mapping[str, object]


class OfflineClient(MeasuringClient[_Run]):
    """Runs one benchmark process for each load point, its engine included."""

    def warm_up(self, server: Server, point: LoadPoint, *, prompts: int, cancelled: Cancelled) -> float:
        """Do nothing: each run has an engine of its own, and the latency benchmark warms it itself."""
        return 0.0

    def _limit_s(self) -> float:
        """Return the seconds that a load may take, which here includes the engine's start."""
        return self._spec.engine.start_timeout_s + self._spec.engine.load_timeout_s

    def _prepare(self, load: Load) -> None:
        _offline(load.server)

    def _send(self, load: Load) -> _Run:
        """Run the benchmark.

        Raises:
            EngineError: The engine failed, or the run was cancelled or hung.
            ConfigError: The benchmark is missing.
        """
        server = _offline(load.server)
        prepared = server.program(load.point, name=load.name, scripts=self._script)
        ended = program.run_to_end(
            prepared.command,
            env=prepared.env,
            cwd=prepared.cwd,
            log_path=prepared.log_path,
            note={"trial": self._spec.key, "devices": list(self._placement.devices)},
            limit_s=load.limit_s,
            launch_s=self._spec.engine.launch_timeout_s,
            server=server,
            cancelled=load.cancelled,
        )
        report = read_object(prepared.result)
        if ended.exit_code != 0 or report is None:
            raise server.death(prepared, exit_code=ended.exit_code)
        return _Run(program=prepared, report=report)

    def _read(self, load: Load, sent: _Run) -> Reading:
        """Read the report.

        Raises:
            MeasurementError: The engine ran with another configuration, or the report is not of this load.
        """
        _offline(load.server).prove(sent.program)
        metrics = read_report(sent.report, load.point, log_path=str(sent.program.log_path))
        return Reading(metrics=metrics, raw_path=sent.program.result)

    def _counted(
        self, load: Load, reading: Reading, before: Mapping[str, float]
    ) -> Mapping[str, float | None]:
        """Return nothing: an engine inside a benchmark shows no counters."""
        return {}

    def _script(self, name: str) -> Path:
        return find_script(self._spec.client.script, name, release=self._spec.engine.release)


def _offline(server: Server) -> OfflineServer:
    if not isinstance(server, OfflineServer):
        raise EngineError(
            f"offline client: got a server of type {type(server).__name__}; expected the one of the "
            "offline engine. Use the client that belongs to the engine.",
            failure=FailureClass.CLIENT,
        )
    return server


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
