"""What aiperf reports of a load: its times of single requests, read and held against what was asked.

The numbers are computed of these times by the definitions of ``sweeper.metrics``; what aiperf itself makes of
them stays in its own JSON, under its own names.

Alike are: its ``time_to_first_token`` and ``request_latency`` (from sending to the first and to the last
message that has content), ``inter_chunk_latency`` (our time between tokens), and the server's counts of
tokens; its ``inter_token_latency`` is our time per output token. A message without a text, which a model can
make of half a character, is no content to aiperf; vLLM's benchmark takes the time of the first one, too.

Source: aiperf 0.13.0, aiperf/metrics/types (ttft_metric.py, request_latency_metric.py,
inter_chunk_latency_metric.py, inter_token_latency_metric.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sweeper.clients import plausibility
from sweeper.metrics import RequestRecords
from sweeper.records.text_rows import numbered

SUMMARY = "profile_export_aiperf.json"
RECORDS = "profile_export.jsonl"
"""Names of what aiperf writes: its summary, and a JSON object for each request."""

_LATENCY, _FIRST, _GAPS = "request_latency", "time_to_first_token", "inter_chunk_latency"
_INPUT, _OUTPUT = "input_sequence_length", "output_sequence_length"
_ERROR = " - ERROR - "
_LONGEST = 300
_NO_TEXT = "InvalidInferenceResultError"
_HINT = (
    " (aiperf takes an answer without a text for a failure; a model of random weights may write half "
    "characters alone, which are none: ask for longer answers, or for plain tokens alone by "
    "workload.extra_body.allowed_token_ids)"
)
_OF_A_TOKEN = (_GAPS,)
"""As many numbers as there were messages."""


def read_requests(path: Path, *, log_path: str | None) -> Sequence[Mapping[str, Any]]:
    """Read what aiperf wrote of each request of the measured phase.

    Raises:
        MeasurementError: The file is missing or holds something else.
    """
    try:
        rows = [json.loads(line) for _, line in numbered(path.read_text(encoding="utf-8"))]
        return [row for row in rows if row["metadata"]["benchmark_phase"] == "profiling"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as exc:
        plausibility.refuse(f"{path.name} is not as aiperf writes it ({exc!r})", log_path=log_path)


def why_ended(artifacts: Path) -> str | None:
    """Return what aiperf says first of its failure in its own log; None where it says nothing there."""
    try:
        lines = (artifacts / "logs" / "aiperf.log").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    said = (line.partition(_ERROR)[2] for line in lines if _ERROR in line)
    return next((" ".join(text.split())[:_LONGEST] for text in said), None)


def check_complete(rows: Sequence[Mapping[str, Any]], *, wanted: int, log_path: str | None) -> None:
    """Check that every request was answered.

    Raises:
        MeasurementError: Some were not; the message has the first error.
    """
    errors = [_said(row["error"]) for row in rows if row.get("error")]
    cancelled = sum(bool(row["metadata"].get("was_cancelled")) for row in rows)
    if len(rows) != wanted or errors or cancelled:
        plausibility.refuse_unanswered(
            done=len(rows) - len(errors),
            failed=len(errors),
            given_up=cancelled,
            wanted=wanted,
            first=errors[0] if errors else None,
            client="aiperf",
            log_path=log_path,
        )


def records_of(rows: Sequence[Mapping[str, Any]], *, log_path: str | None) -> RequestRecords:
    """Turn what aiperf wrote of each request into records; seconds from the first one sent.

    Raises:
        MeasurementError: A request has no such times, or no such counts.
    """
    sent_ns = [_whole(row["metadata"], "request_start_ns", log_path) for row in rows]
    sent_s = (np.array(sent_ns, np.int64) - min(sent_ns)) / 1e9

    def column(name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.array([_value(row, name, log_path) for row in rows], np.float64)

    gaps = [gap for row in rows for gap in _list(row, _GAPS, log_path)]
    return RequestRecords(
        arrival_s=sent_s,
        first_token_s=sent_s + column(_FIRST) / 1e3,
        last_token_s=sent_s + column(_LATENCY) / 1e3,
        input_tokens=column(_INPUT).astype(np.int64),
        output_tokens=column(_OUTPUT).astype(np.int64),
        inter_token_s=np.array(gaps, np.float64) / 1e3,
    )


def without_tokens(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was written of a request without what it has for each message."""
    kept = {name: value for name, value in row["metrics"].items() if name not in _OF_A_TOKEN}
    return {**row, "metrics": kept}


def sending_order(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return what was written of the requests in the order in which they were sent; it is by their ends."""
    return sorted(rows, key=lambda row: row["metadata"].get("request_start_ns") or 0)


def _value(row: Mapping[str, Any], name: str, log_path: str | None) -> float:
    told = row["metrics"].get(name)
    found = plausibility.number(told if isinstance(told, dict) else {}, "value", log_path=log_path)
    if found is None:
        plausibility.refuse(f"a request has no {name}; expected a number", log_path=log_path)
    return found


def _list(row: Mapping[str, Any], name: str, log_path: str | None) -> list[float]:
    # An answer in a single message has no times between messages.
    told = row["metrics"].get(name)
    return [] if told is None else plausibility.numbers({name: told.get("value")}, name, log_path=log_path)


def _whole(metadata: Mapping[str, Any], name: str, log_path: str | None) -> int:
    # Nanoseconds since 1970 are larger than any count, and exact only as whole numbers.
    value = metadata.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        plausibility.refuse(f"a request has {name} {value!r}; expected nanoseconds", log_path=log_path)
    return value


def _said(error: object) -> str:
    told = error if isinstance(error, dict) else {"message": error}
    said = " ".join(str(told.get("message")).split())[:_LONGEST]
    return said + (_HINT if told.get("type") == _NO_TEXT else "")
