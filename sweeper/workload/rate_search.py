"""The highest request rate at which a running server keeps its bounds, found by bisection.

A server that keeps a latency bound at one rate keeps it at every lower one, as queueing has it; so of the
rates between two bounds a few probes find the edge. Every probe is a measurement like any other and is kept
as one, at its own rate; the one at the edge also carries the answer. Noise near the edge can move the answer
by a step: repeats show by how much. What lies between two rates of the resolution is not known.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from sweeper.errors import MeasurementError
from sweeper.records import MAX_RATE, FailureClass, LoadPoint, Measurement, RateSearch

Measure = Callable[[LoadPoint], Measurement]


def measurements(point: LoadPoint, measure: Measure) -> tuple[Measurement, ...]:
    """Measure a load point: once, or as often as its search for a rate needs.

    Args:
        point: The load point.
        measure: Loads the running server once, at the rate of the load point that it is given.

    Returns:
        One measurement; of a search all probes in their order, one of which carries ``max_rate_per_s``: the
        highest rate that kept the bounds, or 0 in the probe of the lowest rate where none did.

    Raises:
        EngineError: As ``measure``.
        MeasurementError: A probe does not report a latency that is bounded.
    """
    search = point.rate_search
    if search is None:
        return (measure(point),)
    probed: dict[int, Measurement] = {}

    def keeps(step: int) -> bool:
        probed[step] = measure(replace(point, request_rate_per_s=rate_of(search, step)))
        return _keeps_bounds(search, probed[step])

    edge = highest_step(_steps(search), keeps)
    answer = 0.0 if edge is None else rate_of(search, edge)
    return tuple(
        _with_answer(probe, answer) if step == (edge or 0) else probe for step, probe in probed.items()
    )


def highest_step(steps: int, keeps: Callable[[int], bool]) -> int | None:
    """Find the highest of some steps that keeps a bound, if every lower one keeps it too.

    Args:
        steps: How many there are, at least 1; they are counted from 0.
        keeps: Asked for a step once at most, and for about log2(steps) + 2 of them.

    Returns:
        The step, or None where not even the lowest keeps it.
    """
    if not keeps(0):
        return None
    low, high = 0, steps - 1
    if low == high or keeps(high):
        return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return low


def usual_rates(search: RateSearch) -> tuple[float, ...]:
    """Return the rates that are probed where the answer lies in the middle; others take about as many."""
    steps, probed = _steps(search), list[int]()

    def keeps(step: int) -> bool:
        probed.append(step)
        return step <= steps // 2

    highest_step(steps, keeps)
    return tuple(rate_of(search, step) for step in probed)


def rate_of(search: RateSearch, step: int) -> float:
    """Return the rate of a step, requests per second; rounded, so that 0.1 times 3 is 0.3."""
    return round(search.low + step * search.resolution, 9)


def _steps(search: RateSearch) -> int:
    return math.floor((search.high - search.low) / search.resolution + 1e-9) + 1


def _keeps_bounds(search: RateSearch, probe: Measurement) -> bool:
    return all(_value(probe, metric) <= bound for metric, bound in search.bounds)


def _value(probe: Measurement, metric: str) -> float:
    value = probe.metrics.get(metric)
    if value is None:
        raise MeasurementError(
            f"client: {metric} is not told at {probe.load_point.request_rate_per_s:g} QPS; expected it: "
            "workload.max_rate bounds it. Bound another latency, or send requests that have this one.",
            failure=FailureClass.CLIENT,
        )
    return value


def _with_answer(probe: Measurement, answer: float) -> Measurement:
    return replace(probe, metrics={**probe.metrics, MAX_RATE: answer})
