"""What guidellm reports of a load: its times of single requests, read and held against what was asked.

The numbers are computed of these times by the definitions of ``sweeper.metrics``. Not taken over is what it
calls ``time_per_output_token_ms``, which divides the whole request by its tokens, the first one included: it
stands under its own name. Times between single messages are not in its report, so that ours stay unknown.

Source: guidellm 0.8.1, guidellm/schemas (request statistics and their timings).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sweeper.clients import plausibility
from sweeper.errors import MeasurementError
from sweeper.metrics import Floats, RequestRecords
from sweeper.records import FailureClass

_OWN = ("time_per_output_token_ms", "inter_token_latency_ms")
"""What guidellm defines in its own way: reported as ``guidellm.mean_...``."""

_HEAVY = ("request_args", "output", "reasoning_output")
"""Of each request: its body and its answer."""

_LATE_S, _LATE_FRAC = 0.5, 0.2
"""A schedule is not kept where requests are further off it than both."""


def benchmark_of(report: Mapping[str, Any] | None, *, log_path: str | None) -> Mapping[str, Any]:
    """Return the one benchmark of a report.

    Raises:
        MeasurementError: There is none, or there are several.
    """
    found = (report or {}).get("benchmarks")
    if not isinstance(found, list) or len(found) != 1 or not isinstance(found[0], dict):
        plausibility.refuse("it has not one benchmark; expected that of the load point", log_path=log_path)
    return found[0]


def requests_of(
    benchmark: Mapping[str, Any], *, wanted: int, log_path: str | None
) -> list[Mapping[str, Any]]:
    """Return what was written of each request, in the order of sending.

    Raises:
        MeasurementError: Not every request was answered; the message has the first error.
    """
    told = benchmark.get("requests")
    groups = told if isinstance(told, dict) else {}
    done, failed, given_up = (
        list(groups.get(name) or ()) for name in ("successful", "errored", "incomplete")
    )
    if len(done) != wanted or failed or given_up:
        errors = [str((row.get("info") or {}).get("error") or "not told") for row in failed]
        plausibility.refuse_unanswered(
            done=len(done),
            failed=len(failed),
            given_up=len(given_up),
            wanted=wanted,
            first=" ".join(errors[0].split())[:300] if errors else None,
            client="guidellm",
            log_path=log_path,
        )
    return sorted(done, key=lambda row: _time(row, "request_start", log_path))


def records_of(rows: Sequence[Mapping[str, Any]], *, log_path: str | None) -> RequestRecords:
    """Turn what guidellm wrote of each request into records; seconds from the first one sent.

    Raises:
        MeasurementError: A request has no such times, or no such counts.
    """
    sent_s = _times(rows, "request_start", log_path)
    return RequestRecords(
        arrival_s=sent_s - sent_s[0],
        first_token_s=_times(rows, "first_token_iteration", log_path) - sent_s[0],
        last_token_s=_times(rows, "last_token_iteration", log_path) - sent_s[0],
        input_tokens=_counts(rows, "prompt_tokens", log_path),
        output_tokens=_counts(rows, "output_tokens", log_path),
        inter_token_s=np.array([], np.float64),
    )


def latest_s(rows: Sequence[Mapping[str, Any]], *, log_path: str | None) -> float:
    """Return how far requests were off guidellm's own schedule, the first against the last, in seconds."""
    late_s = _times(rows, "request_start", log_path) - _times(
        rows, "targeted_start", log_path, is_signed=True
    )
    return float(late_s.max() - late_s.min())


def check_schedule(rows: Sequence[Mapping[str, Any]], *, log_path: str | None) -> None:
    """Check that requests went out when guidellm meant them to.

    Raises:
        MeasurementError: They did not: another load was measured than was asked for.
    """
    due_s = _times(rows, "targeted_start", log_path, is_signed=True)
    span_s, off_s = float(due_s.max() - due_s.min()), latest_s(rows, log_path=log_path)
    if off_s > max(_LATE_S, _LATE_FRAC * span_s):
        raise MeasurementError(
            f"client: requests were up to {off_s:.2g} s off guidellm's schedule of {span_s:.3g} s; expected "
            "the rate that was asked for. Give it more cores, fewer GUIDELLM__MAX_WORKER_PROCESSES, or a "
            "longer GUIDELLM__SCHEDULER_START_DELAY_NON_DISTRIBUTED (seconds).",
            failure=FailureClass.CLIENT,
            log_path=log_path,
        )


def own_metrics(benchmark: Mapping[str, Any]) -> dict[str, float | None]:
    """Return what guidellm defines in its own way, under its own names; what it does not report is None."""
    found = {}
    for name in _OWN:
        told = ((benchmark.get("metrics") or {}).get(name) or {}).get("successful") or {}
        found[f"guidellm.mean_{name}"] = plausibility.number(told, "mean")
    return found


def without_texts(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report without prompts and answers."""
    return {**report, "benchmarks": [_without_texts(one) for one in report["benchmarks"]]}


def _without_texts(benchmark: Mapping[str, Any]) -> dict[str, Any]:
    groups = {
        name: [{key: value for key, value in row.items() if key not in _HEAVY} for row in rows or ()]
        for name, rows in benchmark["requests"].items()
    }
    return {**benchmark, "requests": groups}


def _times(
    rows: Iterable[Mapping[str, Any]], name: str, log_path: str | None, *, is_signed: bool = False
) -> Floats:
    return np.array([_time(row, name, log_path, is_signed=is_signed) for row in rows], np.float64)


def _time(row: Mapping[str, Any], name: str, log_path: str | None, *, is_signed: bool = False) -> float:
    timings = (row.get("info") or {}).get("timings") or {}
    value: Any = timings.get(name)
    # A time that is due may lie before the zero of guidellm's clock.
    is_before = is_signed and isinstance(value, float) and value < 0
    found = plausibility.number({name: abs(value)} if is_before else timings, name, log_path=log_path)
    if found is None:
        plausibility.refuse(f"a request has no {name}; expected seconds", log_path=log_path)
    return -found if is_before else found


def _counts(
    rows: Iterable[Mapping[str, Any]], name: str, log_path: str | None
) -> np.ndarray[Any, np.dtype[np.int64]]:
    found = [plausibility.number(row, name, log_path=log_path) for row in rows]
    if None in found:
        plausibility.refuse(f"a request has no {name}; expected a count", log_path=log_path)
    return np.array(found, np.float64).astype(np.int64)
