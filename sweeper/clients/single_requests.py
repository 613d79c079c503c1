"""The times of single requests, as vLLM's benchmark reports them (``--save-detailed``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sweeper.clients import plausibility
from sweeper.errors import MeasurementError
from sweeper.metrics import RequestRecords
from sweeper.records import FailureClass

_DETAILS = ("start_times", "ttfts", "itls", "latencies", "input_lens", "output_lens")
"""Of each request, in the benchmark's JSON with ``--save-detailed``: seconds on the machine's monotonic
clock, seconds, and tokens. Source: vllm/benchmarks/serve.py of 0.32.0."""

_HEAVY = ("itls", "generated_texts")
"""As many numbers as there were tokens, and the answers themselves."""


def has_times(report: Mapping[str, Any]) -> bool:
    """Whether a report has all that is known of single requests, as it has from 0.30.0 on."""
    return all(isinstance(report.get(name), list) for name in _DETAILS)


def without_tokens(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report without what it has for each token: answers, and gaps between them."""
    return {name: value for name, value in report.items() if name not in _HEAVY}


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


def _column(reports: Sequence[Mapping[str, Any]], name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([value for report in reports for value in report[name]], dtype=np.float64)
