"""Predictions of a study moved by its own trials: what was measured over what the model had said of it.

No parameter is fitted. Each metric has a factor, the middle of the ratios of all trials, and each load point
its own departure from it; both count the more the more trials they rest on.
How far off the moved predictions are is worked out by leaving each trial out in turn, beside what is known
of predictions of one and the same stack (``intervals``).

All follows from the numbers alone, in whatever order they came: a study that was killed has the same anchors
when it goes on.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from sweeper.intervals import t_quantile
from sweeper.simulation import intervals

_PRIOR_TRIALS = 4
"""Trials that the known spread is worth beside that of the study's own."""

_SAME, _FAR = 0.0, 100.0
_UNKNOWN = {_SAME: 0.15, _FAR: 0.5}
"""Spreads of metrics that nobody published: of the order of those of throughput and latency."""

_INSIDE = (1 + intervals.LEVEL) / 2

Load = tuple[object, ...]


@dataclass(frozen=True, kw_only=True)
class Number:
    """One measured number beside what the model said of it, before it was moved.

    Attributes:
        trial: Key of the trial.
        load: Identity of the load point, within the study.
        metric: A metric column of the store.
        predicted: By the model, above 0, in the metric's unit.
        measured: The mean over runs and starts, above 0, same unit.
    """

    trial: str
    load: Load
    metric: str
    predicted: float
    measured: float

    @property
    def off(self) -> float:
        """Logarithm of measured over predicted."""
        return math.log(self.measured / self.predicted)


@dataclass(frozen=True, kw_only=True)
class Anchors:
    """What trials of one study say of the model's predictions for its other trials.

    Attributes:
        numbers: Of the trials, at most one for each trial, load point and metric.
    """

    numbers: tuple[Number, ...] = ()

    @cached_property
    def trials(self) -> int:
        """By how many trials predictions are anchored."""
        return len({number.trial for number in self.numbers})

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """Metrics that are anchored, in the order of the numbers."""
        return tuple(dict.fromkeys(number.metric for number in self.numbers))

    def factor(self, metric: str, load: Load | None = None) -> float:
        """Return by what a prediction of the model is multiplied; 1 where nothing is known.

        Args:
            metric: A metric column of the store.
            load: Load point; of one that no trial measured, and of None, the factor is that of all.
        """
        key = (metric, load)
        if key not in self._factors:
            self._factors[key] = math.exp(_shift(metric, self._by_load.get(metric, {}), load))
        return self._factors[key]

    def spread(self, metric: str) -> float | None:
        """Return the standard deviation of the logarithm of an anchored prediction's error.

        It joins the errors of leaving each trial out to those of published numbers of one stack; None where
        no trial has the metric.
        """
        return self._spreads.get(metric)

    def wide(self, metric: str) -> float | None:
        """Return by what factor an anchored prediction is off at most, in four of five cases; above 1.

        None where nothing anchors it.
        """
        spread = self.spread(metric)
        if spread is None:
            return None
        return math.exp(t_quantile(_INSIDE, _PRIOR_TRIALS + self._known(metric) - 1) * spread)

    def without(self, trial: str) -> Anchors:
        """Return the anchors of all other trials."""
        return Anchors(numbers=tuple(number for number in self.numbers if number.trial != trial))

    def _known(self, metric: str) -> int:
        """Count the trials that have a metric."""
        return len({number.trial for number in self.numbers if number.metric == metric})

    @cached_property
    def _factors(self) -> dict[tuple[str, Load | None], float]:
        """Those asked for so far: a search asks for the same few a thousand times."""
        return {}

    @cached_property
    def _by_load(self) -> Mapping[str, Mapping[Load, Sequence[float]]]:
        found: dict[str, dict[Load, list[float]]] = {}
        for number in self.numbers:
            found.setdefault(number.metric, {}).setdefault(number.load, []).append(number.off)
        return found

    @cached_property
    def _spreads(self) -> Mapping[str, float]:
        squares: dict[str, list[float]] = {}
        for trial in dict.fromkeys(number.trial for number in self.numbers):
            others = self.without(trial)
            for number in (each for each in self.numbers if each.trial == trial):
                if others._known(number.metric):
                    left = number.off - math.log(others.factor(number.metric, number.load))
                    squares.setdefault(number.metric, []).append(left**2)
        found = {}
        for metric in self.metrics:
            own = squares.get(metric, [])
            # Load points of one trial err together: they count as one trial.
            trials = self._known(metric) if own else 0
            mean = statistics.fmean(own) if own else 0.0
            known = _PRIOR_TRIALS * _known_spread(metric, _SAME) ** 2
            found[metric] = math.sqrt((known + trials * mean) / (_PRIOR_TRIALS + trials))
        return found


def _shift(metric: str, by_load: Mapping[Load, Sequence[float]], load: Load | None) -> float:
    """Return the logarithm of a metric's factor at a load point.

    The middle of the trials is held to 0 by what is known of unseen stacks, and a load point to that middle
    by what is known of one stack; the less firmly the farther off it lies, since no known error is as large.

    Source:
        The weight n / (n + s**2 / t**2) of a normal mean with noise s under a prior of spread t; the spread
        taken as at least the mean itself is the positive part of James and Stein's estimator (1961).
    """
    if not by_load:
        return 0.0
    own = {each: (statistics.median(values), len(values)) for each, values in by_load.items()}
    middle = statistics.median(value for value, _ in own.values())
    trials = max(count for _, count in own.values())
    noise, far = _known_spread(metric, _SAME), _known_spread(metric, _FAR)
    shift = middle * _weight(trials, noise=noise, spread=max(far, abs(middle)))
    if load in own:
        value, count = own[load]
        departs = value - middle
        shift += departs * _weight(count, noise=noise, spread=max(noise, abs(departs)))
    return shift


def _weight(count: int, *, noise: float, spread: float) -> float:
    return count / (count + (noise / spread) ** 2)


@cache
def _known_spread(metric: str, distance: float) -> float:
    """Return the spread of predictions of published numbers, of stacks as far as this."""
    wide = intervals.factor(metric, distance)
    return _UNKNOWN[distance] if wide is None else math.log(wide) / statistics.NormalDist().inv_cdf(_INSIDE)


def paired(
    trial: str,
    predicted: Mapping[tuple[Load, str], float],
    measured: Mapping[tuple[Load, str], float],
) -> Iterable[Number]:
    """Yield the numbers of a trial that are both predicted and measured.

    Args:
        trial: Its key.
        predicted: Load point and metric to what the model says, above 0.
        measured: The same to what was measured.
    """
    for (load, metric), value in measured.items():
        said = predicted.get((load, metric))
        if said is not None:
            yield Number(trial=trial, load=load, metric=metric, predicted=said, measured=value)
