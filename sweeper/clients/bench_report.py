"""What vLLM's serving benchmark reports, as a command and as a script: read, and translated to our names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from sweeper.clients import plausibility
from sweeper.errors import MeasurementError
from sweeper.records import FailureClass
from sweeper.records.metrics import METRICS
from sweeper.records.plurals import amount

# Names as vLLM's benchmark writes them that we keep, and those that need a unit.
_KEPT = tuple(metric.name for metric in METRICS if metric.reported_as == (metric.name,))
_RENAMED = {
    metric.name: metric.reported_as for metric in METRICS if metric.reported_as not in ((), (metric.name,))
}

_LONGEST_ERROR = 300
_REFUSED = "Bad Request"
"""What vLLM's benchmark keeps of an answer with HTTP status 400."""


def read_object(path: Path) -> dict[str, object] | None:
    """Read the JSON object that a benchmark left; None where there is no file, or it holds something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def read_report(report: Mapping[str, object], *, log_path: str | None = None) -> dict[str, float | None]:
    """Translate the benchmark's JSON to our names; what a release does not report is None.

    Raises:
        MeasurementError: A value that should be a number is not one.
    """

    def told(name: str) -> float | None:
        return plausibility.number(report, name, log_path=log_path)

    metrics = {name: told(name) for name in _KEPT}
    for name, sources in _RENAMED.items():
        values = (told(source) for source in sources)
        metrics[name] = next((value for value in values if value is not None), None)
    if metrics["failed"] is None:
        # Not written before 0.11.1; a request that did not complete has failed.
        wanted, completed = told("num_prompts"), metrics["completed"]
        metrics["failed"] = None if wanted is None or completed is None else wanted - completed
    return metrics


def check_complete(report: Mapping[str, object], *, wanted: int, log_path: str | None) -> None:
    """Check that every request completed; the benchmark itself only warns when all of them failed.

    Raises:
        MeasurementError: Some did not; the message says how many.
    """
    completed, failed, sent = (
        plausibility.number(report, name, log_path=log_path)
        for name in ("completed", "failed", "num_prompts")
    )
    if completed != wanted or failed:
        raise MeasurementError(
            f"client: {_count(completed)} of {amount(wanted, 'request')} completed, {_count(failed)} "
            f"failed; expected all to complete. {_first_error(report)}",
            failure=FailureClass.CLIENT,
            log_path=log_path,
        )
    if sent is not None and sent != wanted:
        plausibility.refuse(f"num_prompts is {sent:g}; expected {wanted}, as asked", log_path=log_path)
    if plausibility.number(report, "duration", log_path=log_path) is None:
        plausibility.refuse("it has no duration; expected seconds", log_path=log_path)


def _first_error(report: Mapping[str, object]) -> str:
    """Describe why the first request failed, as the report says it; else where to look."""
    errors = report.get("errors")
    texts = (str(error).strip() for error in errors) if isinstance(errors, list) else ()
    first = next(filter(None, texts), None)
    if first is None:
        return "See the client's log for the first error."
    last_line = first.splitlines()[-1][:_LONGEST_ERROR]
    refused = (
        ": so a server answers a prompt for which its max_model_len has no room (in earlier releases with "
        "the answer asked for), or what it does not know"
    )
    return f"The first error: {last_line}{refused if last_line == _REFUSED else ''}. See the engine's log."


def _count(number: float | None) -> str:
    return "an unknown number" if number is None else f"{number:g}"
