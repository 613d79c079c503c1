"""From a trial's measured rows to what a search is told: the value of an objective, and numbers to show.

Rows come from a measurement just made or from the store, where a missing value is NaN; both read alike.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.records import Measurement, Objective, TrialSpec


def objective_value(objective: Objective, rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Reduce a trial's rows to one value: the mean over its load point, restarts and repeats.

    Second runs do not count: only some settings have them, and they answer from a warm prefix cache.

    Args:
        objective: Metric and load point; without a load point, all count.
        rows: Metric columns with ``request_rate_per_s``; missing values are None or NaN.

    Returns:
        The mean, or None where the metric was not measured.
    """
    wanted = objective.request_rate_per_s
    found = [
        row.get(objective.metric)
        for row in rows
        if (wanted is None or _number(row.get("request_rate_per_s")) == wanted) and not _is_second(row)
    ]
    numbers = [number for value in found if (number := _number(value)) is not None]
    return statistics.fmean(numbers) if numbers else None


def trial_attributes(spec: TrialSpec, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Give what the dashboard shows beside a trial.

    Args:
        spec: The trial.
        rows: Its metric columns with ``request_rate_per_s``; missing values are None or NaN.

    Returns:
        Key, series, and the mean of each main metric at each load point: plain numbers, so that the
        dashboard's table can be sorted by them.
    """
    found: dict[str, Any] = {"key": spec.key, "series": ", ".join(spec.series) or None}
    for metric in ("request_throughput_per_s", "output_throughput_tok_per_s", "mean_ttft_ms", "mean_tpot_ms"):
        for point in spec.load_points:
            if point.keeps_prefix_cache:
                continue
            rate = point.request_rate_per_s
            matching = [row for row in rows if _number(row.get("request_rate_per_s")) == rate]
            value = objective_value(Objective(metric=metric, direction="maximize"), matching)
            if value is not None:
                found[f"{metric} ({point.label})"] = round(value, 4)
    return found


def measured_row(measurement: Measurement) -> dict[str, Any]:
    """Lay out a measurement as the store does: metric columns, and what tells its load point."""
    return {
        **measurement.metrics,
        "request_rate_per_s": measurement.load_point.request_rate_per_s,
        "keeps_prefix_cache": measurement.load_point.keeps_prefix_cache,
    }


def _is_second(row: Mapping[str, Any]) -> bool:
    return row.get("keeps_prefix_cache") is True


def _number(value: Any) -> float | None:
    # pandas gives NaN for a null cell
    return None if value is None or value != value else float(value)
