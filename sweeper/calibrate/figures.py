"""A figure: one number of one run that was published or measured, and the model's value for it.

The model is run as a study runs it, by the simulated engine and client, at the load points that are asked
about and no others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sweeper.calibrate.replay import Recording, recording
from sweeper.clients.simulated import SimulatedClient
from sweeper.engines import never_cancelled
from sweeper.engines.simulated import SimulatedEngine
from sweeper.intervals import NORMAL_975
from sweeper.metrics import summarize
from sweeper.records import LoadPoint, Placement, TrialSpec
from sweeper.records.metrics import METRICS
from sweeper.simulation.calibration import Calibration
from sweeper.simulation.stacks import parameters_of

FIT = "fit"
"""Role of a figure that parameters were fitted to."""

VALIDATION = "validation"
"""Role of a figure that nothing was fitted to."""

_WEIGHTS = {metric.name: metric.fit.weight for metric in METRICS if metric.fit is not None}
_SHORT_TTFT_MS = 2500.0
_SHORT_TTFT_FACTOR = 0.3

_TYPICAL_ERROR = 0.05
"""Relative error of the model itself. A reading that is as uncertain as that counts 0.7 times."""

_RANGE_SIGMAS = 2 * NORMAL_975
"""Standard deviations in a range of 95 %, from end to end."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number, and the run that it came from.

    Attributes:
        experiment: Experiment or study that holds it.
        series: Name of the setting there.
        metric: A metric column of the store.
        value: The number, in the metric's unit.
        low: Lower end of its 95 % range; None where the number is exact.
        high: Upper end.
        point: What was sent.
        spec: The trial that reproduces the run on the model.
        placement: The block of devices that it holds.
        role: ``FIT`` or ``VALIDATION``.
        parameter: The single parameter that was fitted to it; None for those fitted together, or none.
        platform: Where it was measured; None where it was published.
        remark: Why it is left out of the fit although it belongs to the fitted runs; empty for all others.
        until_s: Its client counts what was answered so many seconds after its first request; None counts all.
    """

    experiment: str
    series: str
    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    point: LoadPoint
    spec: TrialSpec
    placement: Placement
    role: str = FIT
    parameter: str | None = None
    platform: str | None = None
    remark: str = ""
    until_s: float | None = None

    @property
    def weight(self) -> float:
        """How much its relative error counts: by metric, and less the wider the range of its reading.

        A short TTFT is a fraction of a second on a chart of half a minute, and of a run that barely queues:
        both the reading and the seed move it more than the parameters do.
        """
        weight = _WEIGHTS[self.metric]
        if self.metric == "mean_ttft_ms" and self.value < _SHORT_TTFT_MS:
            weight *= _SHORT_TTFT_FACTOR
        if self.low is None or self.high is None:
            return weight
        sigma = (self.high - self.low) / _RANGE_SIGMAS / self.value
        return weight / math.hypot(1.0, sigma / _TYPICAL_ERROR)


def predict(
    figures: Sequence[Figure], values: Mapping[str, float], *, seed: int | None = None
) -> list[float]:
    """Return what the model says of each figure.

    Args:
        figures: Of any number of trials; each is run once for each time until which its client counts.
        values: Parameters that differ from the default calibration.
        seed: Of arrivals and lengths; None takes that of the load points.

    Returns:
        A number for each figure, in its metric's unit.

    Raises:
        EngineError: A run cannot be represented by the model.
        ConfigError: A parameter is unknown or out of range.
    """
    wanted: dict[tuple[str, float | None], tuple[Figure, set[LoadPoint]]] = {}
    replayed: dict[tuple[str, LoadPoint], Recording] = {}
    for figure in figures:
        found = _calibrated(figure, values)
        recorded = None
        if not found.run_noise and not found.restart_noise:
            recorded = recording(figure.spec, figure.placement, figure.point)
        if recorded is not None:
            replayed[figure.spec.key, figure.point] = recorded
            continue
        wanted.setdefault((figure.spec.key, figure.until_s), (figure, set()))[1].add(figure.point)
    told = {
        key: _run(figure, _with_first_runs(figure.spec.load_points, points), values, seed)
        for key, (figure, points) in wanted.items()
    }

    def value(figure: Figure) -> float:
        recorded = replayed.get((figure.spec.key, figure.point))
        if recorded is not None:
            return recorded.told(_calibrated(figure, values), figure.metric)
        return float(told[figure.spec.key, figure.until_s][figure.point][figure.metric] or 0.0)

    return [value(figure) for figure in figures]


def _calibrated(figure: Figure, values: Mapping[str, float]) -> Calibration:
    if len(values) == len(Calibration.__dataclass_fields__):
        return Calibration(**values)
    return parameters_of(replace(figure.spec, calibration=values))


def relative_errors(figures: Sequence[Figure], predicted: Iterable[float]) -> list[float]:
    """Return predicted / figure - 1 for each."""
    return [value / figure.value - 1 for figure, value in zip(figures, predicted, strict=True)]


def _with_first_runs(points: Sequence[LoadPoint], wanted: set[LoadPoint]) -> list[LoadPoint]:
    """Keep what is wanted, and what a second run needs to have gone before it, in the trial's order."""
    kept: list[LoadPoint] = []
    for place, point in enumerate(points):
        follows = place + 1 < len(points) and points[place + 1].keeps_prefix_cache
        if point in wanted or (follows and points[place + 1] in wanted):
            kept.append(point)
    return kept


def _run(
    figure: Figure, points: Sequence[LoadPoint], values: Mapping[str, float], seed: int | None
) -> dict[LoadPoint, Mapping[str, float | None]]:
    """Return what is measured at each load point of the figure's trial."""
    spec = replace(figure.spec, calibration=values)
    server = SimulatedEngine().start(spec, figure.placement, restart=0, cancelled=never_cancelled)
    client = SimulatedClient(spec)

    def measured(point: LoadPoint) -> Mapping[str, float | None]:
        if figure.until_s is not None:
            served = client.serve(server, point, seed=point.client_seed, cancelled=never_cancelled)
            return summarize(served.records.answered_within(figure.until_s))
        return client.measure(server, point, restart=0, repeat=0, cancelled=never_cancelled).metrics

    return {point: measured(point if seed is None else replace(point, client_seed=seed)) for point in points}
