"""The heaviest load at which a running server keeps its bounds, found by bisection over rates or users.

A server that keeps a latency bound at one rate keeps it at every lower one, as queueing has it, and so it is
with users of a closed loop; so of the loads between two bounds a few probes find the edge. Every probe is a
measurement like any other and is kept as one, at its own load; the one at the edge also carries the answer.
Noise near the edge can move the answer by a step: repeats show by how much. What lies between two loads of
the resolution is not known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sweeper.errors import MeasurementError
from sweeper.records import FailureClass, LoadPoint, Measurement, RateSearch, UserSearch
from sweeper.records.metrics import STEADY_LATENCIES

Measure = Callable[[LoadPoint], Measurement]
Search = RateSearch | UserSearch


def measurements(point: LoadPoint, measure: Measure) -> tuple[Measurement, ...]:
    """Measure a load point: once, or as often as its search needs.

    Args:
        point: The load point.
        measure: Loads the running server once, as the load point says that it is given.

    Returns:
        One measurement; of a search all probes in their order, one of which carries the metric that answers
        it: the heaviest load that kept the bounds, or 0 in the probe of the lightest where none did.

    Raises:
        EngineError: As ``measure``.
        MeasurementError: A probe does not report a latency that is bounded.
    """
    search = point.search
    if search is None:
        return (measure(point),)
    probed: dict[int, Measurement] = {}

    def keeps(step: int) -> bool:
        probed[step] = measure(probe_of(point, search, step))
        return _keeps_bounds(search, probed[step])

    edge = highest_step(search.steps, keeps)
    answer = 0 if edge is None else search.value(edge)
    return tuple(
        _with_answer(probe, search.answer, answer) if step == (edge or 0) else probe
        for step, probe in probed.items()
    )


def probe_of(point: LoadPoint, search: Search, step: int) -> LoadPoint:
    """Return the load point of one step of a search; it keeps the search, which tells it is a probe."""
    return replace(point, **search.load(step))


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


def usual_probes(point: LoadPoint) -> tuple[LoadPoint, ...]:
    """Return the probes of a search whose answer lies in the middle, as others take about as many.

    A load point that does not search is its own only probe.
    """
    search = point.search
    if search is None:
        return (point,)
    probed = list[int]()

    def keeps(step: int) -> bool:
        probed.append(step)
        return step <= search.steps // 2

    highest_step(search.steps, keeps)
    return tuple(probe_of(point, search, step) for step in probed)


def _keeps_bounds(search: Search, probe: Measurement) -> bool:
    return all(_value(search, probe, metric) <= bound for metric, bound in search.bounds)


def _value(search: Search, probe: Measurement, metric: str) -> float:
    # The steady part's numbers are seen beside those that the client reports.
    value = {**probe.telemetry, **probe.metrics}.get(metric)
    if value is None:
        more = ", and enough of them for a steady part" if metric in STEADY_LATENCIES else ""
        raise MeasurementError(
            f"client: {metric} is not told at {_load_text(probe.load_point)}; expected it: {search.key} "
            f"bounds it. Bound another latency, or send requests that have this one{more}.",
            failure=FailureClass.CLIENT,
        )
    return value


def _load_text(probe: LoadPoint) -> str:
    return replace(probe, rate_search=None, user_search=None).label


def _with_answer(probe: Measurement, metric: str, answer: float) -> Measurement:
    return replace(probe, metrics={**probe.metrics, metric: answer})
