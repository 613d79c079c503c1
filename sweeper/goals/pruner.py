"""When a trial can no longer matter: then its remaining load points are left out.

A trial is stopped when a constraint is broken already, or when the best that its remaining load points could
still bring leaves it behind a trial that is known. That best is taken generously: a latency of zero, a
throughput as high as the rate at which requests are sent. Where nothing bounds it from above (everything at
once, users of a closed loop, who send as fast as they are answered, tokens per second) the trial goes on. A
margin keeps noise from deciding.

So that this happens early, a trial with such a rule measures the load points first that decide most.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.goals.deciding import counted_points
from sweeper.goals.objectives import is_at, is_worse
from sweeper.records import Constraint, LoadPoint, Measurement, Objective, StopRule
from sweeper.records.metrics import METRICS
from sweeper.records.plurals import percent

_OFFERED = tuple(metric.name for metric in METRICS if metric.is_offered)
"""Metrics that cannot be above the rate at which requests are sent."""

_ARRIVAL_ERRORS = 3.0
"""How many standard errors a run's own mean rate may lie above the rate asked for."""


def decision_order(
    points: Sequence[LoadPoint], objectives: Sequence[Objective], constraints: Sequence[Constraint]
) -> tuple[LoadPoint, ...]:
    """Sort load points, those that decide most first.

    An objective's own load point comes first, then those that a constraint names, then the others; of equals
    the heavier load, which distinguishes settings better: everything at once, then more users, then higher
    rates. A second run stays behind its first.
    """
    wanted = [objective for objective in objectives if _names_load(objective)]
    bounded = [constraint for constraint in constraints if _names_load(constraint)]

    def rank(group: Sequence[LoadPoint]) -> tuple[bool, bool, bool, float]:
        point = group[0]
        return (not _is_named(point, wanted), not _is_named(point, bounded), *_lightness(point))

    return tuple(point for group in sorted(_groups(points), key=rank) for point in group)


def reason_to_stop(
    rule: StopRule, points: Sequence[LoadPoint], measured: Sequence[Measurement], *, gpus: float
) -> str | None:
    """Explain why a trial can no longer matter, by what is measured of it; None while it can.

    Args:
        rule: What it is held against.
        points: All load points of the trial.
        measured: Its measurements so far.
        gpus: GPUs that it holds, a partition as its share.
    """
    for constraint in rule.constraints:
        value = _known(constraint, points, measured, gpus=gpus)
        if value is not None and constraint.violation(value) > rule.margin:
            return f"breaks {constraint.name}: {value:.4g}, and may be {percent(rule.margin)} off at most"
    best = [_best_possible(objective, points, measured, gpus=gpus) for objective in rule.objectives]
    for incumbent in rule.incumbents:
        if is_worse(best, than=incumbent, objectives=rule.objectives, margin=rule.margin):
            return _hopeless_text(rule.objectives, best, incumbent)
    return None


def broken_before(rule: StopRule, known: Mapping[str, Any]) -> str | None:
    """Return which bound a trial breaks before it is loaded, by more than the margin; None where none.

    Args:
        rule: What is kept.
        known: Numbers of the trial as a whole, by metric.
    """
    for constraint in rule.constraints:
        value = known.get(constraint.metric)
        if value is not None and constraint.violation(value) > rule.margin:
            return f"breaks {constraint.name}: {value:.4g}, and may be {percent(rule.margin)} off at most"
    return None


def _names_load(quantity: Objective | Constraint) -> bool:
    return quantity.request_rate_per_s is not None or quantity.max_concurrency is not None


def _is_named(point: LoadPoint, quantities: Sequence[Objective | Constraint]) -> bool:
    return any(
        is_at(one, request_rate_per_s=point.request_rate_per_s, max_concurrency=point.max_concurrency)
        for one in quantities
    )


def _lightness(point: LoadPoint) -> tuple[bool, float]:
    """Return what sorts load points from the heaviest: those without a rate, by users; then by rate."""
    has_rate = point.request_rate_per_s is not None
    heaviness = point.request_rate_per_s if has_rate else point.users
    return has_rate, -math.inf if heaviness is None else -heaviness


def _groups(points: Sequence[LoadPoint]) -> list[list[LoadPoint]]:
    """Join each second run with the run before it, whose prompts it finds in the cache."""
    groups: list[list[LoadPoint]] = []
    for point in points:
        if point.keeps_prefix_cache and groups:
            groups[-1].append(point)
        else:
            groups.append([point])
    return groups


def _known(
    quantity: Objective | Constraint,
    points: Sequence[LoadPoint],
    measured: Sequence[Measurement],
    *,
    gpus: float,
) -> float | None:
    """Return the quantity's value, once each of its load points was measured."""
    means = [_mean(quantity.metric, point, measured) for point in counted_points(quantity, points)]
    known = [mean for mean in means if mean is not None]
    if not known or len(known) < len(means):
        return None
    return statistics.fmean(known) / (1.0 if quantity.per is None else gpus)


def _best_possible(
    objective: Objective, points: Sequence[LoadPoint], measured: Sequence[Measurement], *, gpus: float
) -> float:
    """Bound an objective from its good side, with the best thinkable number where none is measured yet."""
    is_max = objective.is_higher_better
    counted = counted_points(objective, points)
    if not counted:
        return math.inf if is_max else -math.inf
    values = []
    for point in counted:
        mean = _mean(objective.metric, point, measured)
        if mean is None:
            mean = _most(objective.metric, point) if is_max else 0.0
        values.append(mean)
    return statistics.fmean(values) / (1.0 if objective.per is None else gpus)


def _most(metric: str, point: LoadPoint) -> float:
    """Return what a metric cannot be above at a load point; infinity where nothing bounds it.

    Source:
        The sum of n exponential gaps has a relative standard deviation of 1 / sqrt(n), so the requests of one
        run may come that much faster than asked for.
    """
    if point.search is not None and metric == point.search.answer:
        return point.search.high
    if metric not in _OFFERED or point.request_rate_per_s is None:
        return math.inf
    return point.request_rate_per_s * (1 + _ARRIVAL_ERRORS / math.sqrt(point.num_prompts))


def _mean(metric: str, point: LoadPoint, measured: Sequence[Measurement]) -> float | None:
    found: list[Any] = [
        measurement.metrics.get(metric) for measurement in measured if _is_of(measurement, point)
    ]
    known = [float(value) for value in found if value is not None]
    return statistics.fmean(known) if known else None


def _is_of(measurement: Measurement, point: LoadPoint) -> bool:
    """Return whether a run belongs to a load point; the probes of a search are at other loads."""
    if point.search is not None:
        return measurement.load_point.search == point.search
    return measurement.load_point == point


def _hopeless_text(objectives: Sequence[Objective], best: Sequence[float], incumbent: Sequence[float]) -> str:
    parts = [
        f"{objective.name} can come to {value:.4g} at best, {known:.4g} is known"
        for objective, value, known in zip(objectives, best, incumbent, strict=True)
    ]
    return "; ".join(parts)
