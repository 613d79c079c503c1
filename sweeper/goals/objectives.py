"""How objectives and bounds are evaluated: rows that count, values of a row, bounds kept, and dominance.

The search, early stopping and the report all ask here, so that none of them calls best what another refuses.
Rows come from a measurement just made or from the store, where a missing value is NaN; both read alike.
"""

from __future__ import annotations

import math
import numbers
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from sweeper.records import (
    LOAD_COLUMNS,
    SEARCH_SLOS,
    Constraint,
    LoadPoint,
    Measurement,
    Objective,
    Placement,
    TrialResult,
    TrialSpec,
    derived,
    gpus_of_row,
)
from sweeper.records.derived import is_reported_at
from sweeper.records.metrics import METRICS, STEADY_BY_NAME

Key = TypeVar("Key")


def objective_value(
    objective: Objective | Constraint, rows: Sequence[Mapping[str, Any]], *, is_partial: bool = False
) -> float | None:
    """Reduce a trial's rows to one value: the mean over its load point, restarts and repeats.

    Every load point that counts has to have a number: the mean of the others would make a setting look better
    that has none where the load is heaviest.

    Second runs do not count: only some settings have them, and they answer from a warm prefix cache. Nor do
    the probes of a search, at whatever loads it led to; what it found, ``max_rate_per_s`` or ``max_users``,
    does.

    Args:
        objective: Metric, load point and divisor; without a load point, all count that can have the metric.
        rows: Metric columns with ``LOAD_COLUMNS``, ``devices`` and ``partition_mode``, and for what is worked
            out from others ``records.derived.READ_COLUMNS``; missing values are None or NaN.
        is_partial: The trial was stopped early: take the mean of what was measured until then.

    Returns:
        The mean, or None where the metric was not measured at each of the load points.
    """
    worked_out = derived.filled(objective.metric, rows, price_per_gpu_hour=objective.price_per_gpu_hour)
    counted = [
        (load_key(objective, row), row_value(objective, row)) for row in worked_out if counts(objective, row)
    ]
    known = [value for _, value in counted if value is not None]
    measured = {point for point, value in counted if value is not None}
    if not known or (not is_partial and measured != {point for point, _ in counted}):
        return None
    return statistics.fmean(known)


def load_key(quantity: Objective | Constraint, row: Mapping[str, Any]) -> tuple[object, ...]:
    """Return what identifies the load point of a row; the probes of a search are one."""
    if quantity.metric in SEARCH_SLOS:
        return (quantity.metric,)
    return load_of(row)


def load_of(row: Mapping[str, Any]) -> tuple[object, ...]:
    """Return what identifies the load point of a row, whether it was just measured, modelled or stored."""
    return tuple(_plain(row.get(name)) for name in LOAD_COLUMNS)


def answer_of(row: Mapping[str, Any]) -> str | None:
    """Return the metric that a search over loads finds, where a row is one of its probes."""
    return next((name for name, slo in SEARCH_SLOS.items() if isinstance(row.get(slo), str)), None)


def counts(quantity: Objective | Constraint, row: Mapping[str, Any]) -> bool:
    """Return whether a row, as in ``objective_value``, counts for an objective or a bound."""
    return counts_load(
        quantity,
        request_rate_per_s=_number(row.get("request_rate_per_s")),
        max_concurrency=_number(row.get("max_concurrency")),
        dataset=dataset if isinstance(dataset := row.get("dataset"), str) else None,
        keeps_prefix_cache=row.get("keeps_prefix_cache") is True,
        answer=answer_of(row),
    )


def counts_load(
    quantity: Objective | Constraint,
    *,
    request_rate_per_s: float | None,
    max_concurrency: float | None,
    dataset: str | None,
    keeps_prefix_cache: bool,
    answer: str | None,
) -> bool:
    """Return whether what is measured at a load counts for an objective or a bound.

    Args:
        quantity: The objective or bound.
        request_rate_per_s: Of the load; None is no rate.
        max_concurrency: Of the load; None is no limit.
        dataset: What is sent, which decides whether the metric is reported; None where it is not known.
        keeps_prefix_cache: The load is a second run.
        answer: Metric that a search finds, of which it is a probe; None where it is none.
    """
    if keeps_prefix_cache or answer != (quantity.metric if quantity.metric in SEARCH_SLOS else None):
        return False
    if dataset is not None and not is_reported_at(quantity.metric, dataset):
        return False
    return answer is not None or is_at(
        quantity, request_rate_per_s=request_rate_per_s, max_concurrency=max_concurrency
    )


def is_at(
    quantity: Objective | Constraint, *, request_rate_per_s: float | None, max_concurrency: float | None
) -> bool:
    """Return whether a load is the one that a quantity names; one that names none is at every load."""
    return quantity.request_rate_per_s in (None, request_rate_per_s) and quantity.max_concurrency in (
        None,
        max_concurrency,
    )


def row_value(quantity: Objective | Constraint, row: Mapping[str, Any]) -> float | None:
    """Return a row's value of an objective or a bound, divided as it says; None without a finite number."""
    number, gpus = _number(row.get(quantity.metric)), _divisor(quantity.per, row)
    return None if number is None or gpus is None else number / gpus


def beats(values: Sequence[float], others: Sequence[float], *, objectives: Sequence[Objective]) -> bool:
    """Return whether values are at least as good in every objective and better in one (Pareto dominance)."""
    gains = [
        objective.sign * (one - other)
        for objective, one, other in zip(objectives, values, others, strict=True)
    ]
    return all(gain >= 0 for gain in gains) and any(gain > 0 for gain in gains)


def front(values: Mapping[Key, Sequence[float]], *, objectives: Sequence[Objective]) -> list[Key]:
    """Return the keys of the values that no other beats (the Pareto front), in their order."""
    first = set(next(iter(fronts(values, objectives=objectives, most=1)), []))
    return [key for key in values if key in first]


def fronts(
    values: Mapping[Key, Sequence[float]], *, objectives: Sequence[Objective], most: int | None = None
) -> list[list[Key]]:
    """Return the Pareto fronts: each holds what no other beats once those before it are set aside.

    Args:
        values: Of each objective, by key.
        objectives: What is better.
        most: So many fronts are asked for; None asks for all.

    Source:
        Zhang, Tian, Cheng, Jin: An Efficient Approach to Nondominated Sorting (2015), ENS-BS: from best to
        worst only an earlier one can beat a later, and who is beaten in a front is in those before it, too.
    """
    alike: dict[tuple[float, ...], list[Key]] = {}
    for key, told in values.items():
        alike.setdefault(tuple(told), []).append(key)
    ordered = sorted(
        alike,
        key=lambda told: [goal.sign * value for goal, value in zip(objectives, told, strict=True)],
        reverse=True,
    )
    # Of two objectives the last in a front has the most of the second: it beats what any of them beats.
    compared = slice(-1, None) if len(objectives) == 2 else slice(None)
    found: list[list[tuple[float, ...]]] = []
    for told in ordered:
        low, high = 0, len(found)
        while low < high:
            middle = (low + high) // 2
            if any(beats(other, told, objectives=objectives) for other in found[middle][compared]):
                low = middle + 1
            else:
                high = middle
        if low < len(found):
            found[low].append(told)
        elif most is None or len(found) < most:
            found.append([told])
    return [[key for told in one for key in alike[told]] for one in found]


def violations(
    constraints: Sequence[Constraint], rows: Sequence[Mapping[str, Any]]
) -> dict[str, float] | None:
    """Return how far a trial is past each bound, as a share of it; 0 or less keeps it.

    Args:
        constraints: The bounds.
        rows: As in ``objective_value``.

    Returns:
        Share by the constraint's name; None where one of them was not measured, so that it is unknown.
    """
    values = {constraint: objective_value(constraint, rows) for constraint in constraints}
    known = {c.name: c.violation(value) for c, value in values.items() if value is not None}
    return known if len(known) == len(constraints) else None


def is_feasible(violated: Mapping[str, float] | None) -> bool:
    """Return whether every bound is kept, and known to be; takes what ``violations`` returns."""
    return violated is not None and all(share <= 0 for share in violated.values())


def trial_values(
    objectives: Sequence[Objective], rows: Sequence[Mapping[str, Any]]
) -> tuple[float, ...] | None:
    """Return a trial's value of each objective; None where one is missing."""
    values = [objective_value(objective, rows) for objective in objectives]
    known = tuple(value for value in values if value is not None)
    return known if len(known) == len(values) else None


def trial_attributes(spec: TrialSpec, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the dashboard shows next to a trial.

    Args:
        spec: The trial.
        rows: As in ``objective_value``.

    Returns:
        Key, series, and the mean of each main metric at each load point: plain numbers, so that the
        dashboard's table can be sorted by them.
    """
    found: dict[str, Any] = {"key": spec.key, "series": ", ".join(spec.series) or None}
    measured = [
        (point, [row for row in rows if _is_measured_at(point, row)])
        for point in spec.load_points
        if not point.keeps_prefix_cache and point.search is None
    ]
    for metric in (one.name for one in METRICS if one.is_on_dashboard):
        quantity = Objective(metric=metric, direction="maximize")
        for point, mine in measured:
            value = objective_value(quantity, mine)
            if value is not None:
                found[f"{metric} ({point.label})"] = round(value, 4)
    answers = {
        name: objective_value(Objective(metric=name, direction="maximize"), rows) for name in SEARCH_SLOS
    }
    return found | {name: value for name, value in answers.items() if value is not None}


def _is_measured_at(point: LoadPoint, row: Mapping[str, Any]) -> bool:
    """Return whether a row is of a load point, by all that tells it from its siblings and is in the row."""
    return all(_plain(row[name]) == _plain(getattr(point, name)) for name in LOAD_COLUMNS if name in row)


def bound_attributes(violated: Mapping[str, float] | None) -> dict[str, Any]:
    """Return what the dashboard shows of a trial's bounds: it ranks without looking at them itself."""
    if not violated:
        return {}
    broken = [name for name, share in violated.items() if share > 0]
    return {"feasible": not broken, **({"breaks": "; ".join(broken)} if broken else {})}


def measured_rows(result: TrialResult) -> list[dict[str, Any]]:
    """Lay out the measurements of a trial as the store does, with what other metrics are worked out from."""
    spec = result.spec
    of_trial = {
        "trial_key": spec.key,
        "version.vllm": spec.engine.release,
        "platform": str(spec.platform),
        "modelled_device": spec.modelled_device,
        **{f"knob.{name}": value for name, value in spec.assignment.items()},
        "parents": [] if result.placement is None else list(result.placement.parents),
        "engine_start_s": result.phases.get("engine_start_s"),
        "live_trial": result.effective.get("live_trial"),
        **result.accuracy,
    }
    return [
        {
            **measured_row(measurement, result.placement),
            **of_trial,
            "gpu_power_w": measurement.telemetry.get("gpu_power_w"),
            "restart": measurement.restart,
        }
        for measurement in result.measurements
    ]


def measured_row(measurement: Measurement, placement: Placement | None = None) -> dict[str, Any]:
    """Lay out a measurement as the store does: metrics, what identifies its load point, and its devices."""
    return {
        **measurement.metrics,
        **{name: value for name, value in measurement.telemetry.items() if name in STEADY_BY_NAME},
        **{name: getattr(measurement.load_point, name) for name in LOAD_COLUMNS},
        "keeps_prefix_cache": measurement.load_point.keeps_prefix_cache,
        **{slo: getattr(measurement.load_point, slo) for slo in SEARCH_SLOS.values()},
        "devices": [] if placement is None else list(placement.devices),
        "partition_mode": None if placement is None else placement.partition_mode,
        "partitions_per_gpu": None if placement is None else placement.partitions_per_gpu,
    }


def _divisor(per: str | None, row: Mapping[str, Any]) -> float | None:
    if per is None:
        return 1.0
    return None if row.get("devices") is None else gpus_of_row(row) or None


def _plain(value: Any) -> object:
    """Return a cell so that equal load points compare equal, whether they were just measured or stored."""
    return value if isinstance(value, str) else _number(value)


def _number(value: Any) -> float | None:
    # pandas gives NaN or NA for a null cell; infinity is no measurement either.
    if value is None or not isinstance(value, float | int | numbers.Real):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def is_worse(
    values: Sequence[float], *, than: Sequence[float], objectives: Sequence[Objective], margin: float
) -> bool:
    """Return whether values are worse in every objective, and by more than a share of the other's value."""
    return all(
        objective.sign * (other - value) > margin * abs(other)
        for value, other, objective in zip(values, than, objectives, strict=True)
    )
