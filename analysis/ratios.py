"""Ratios of means, with the interval that restarts allow: how much faster, and how sure is that.

Everything happens in logarithms, where "twice as fast" and "half as fast" are equally far from "equal".
Independent restarts on all sides give a Welch-type interval. One start shows no spread: a
ratio that rests on one measured start has no interval at all, and so no verdict. What a model computes and
published ones are the same whenever they are looked at; they get a stated margin, and say so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sweeper.intervals import Estimate, relative_error, welch_half

NOISE = 0.02
"""Margin of a ratio of two modelled or published numbers; changes below it are not called changes.

Chosen, not measured: it stands for what such numbers are worth, and is no interval of anything.
"""


class Basis(StrEnum):
    """What an interval rests on."""

    RESTARTS = "restarts"
    SINGLE_START = "single start"
    READING = "one published value"


class Verdict(StrEnum):
    """What an interval says about an expectation."""

    HOLDS = "holds"
    FAILS = "does not hold"
    INCONCLUSIVE = "inconclusive"
    NO_DATA = "no data"


@dataclass(frozen=True, kw_only=True)
class Factor:
    """One mean in a ratio.

    Attributes:
        estimate: The mean over restarts.
        power: 1 above the line, -1 below it; other whole numbers where it occurs more than once.
        reading: Relative half-width of the range within which a published value was read; 0 if printed.
        is_published: Somebody else's number, of which no spread is known.
        is_measured: Our own number from a machine: a further start of it would give another one.
    """

    estimate: Estimate
    power: int
    reading: float = 0.0
    is_published: bool = False
    is_measured: bool = False


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A product of powers of means, with its 95 % interval and what that rests on.

    ``low`` and ``high`` are NaN where there is no interval: a measured mean rests on a single start.
    """

    value: float
    low: float
    high: float
    basis: Basis

    @property
    def has_interval(self) -> bool:
        """Whether anything can be said about how sure the value is."""
        return not math.isnan(self.low)


def ratio(factors: Sequence[Factor]) -> Ratio:
    """Multiply means by their powers and give the interval.

    Args:
        factors: The means; each is independent of the others. A mean that is not positive is allowed
            only as the sole factor, with power 1.

    Returns:
        The ratio. With two or more starts on every side, and some spread among them, a t-interval of the
        logarithm with Welch's degrees of freedom. None where a measured mean rests on a single start.
        Otherwise ``NOISE`` for a ratio of two, more for more.

    Source:
        Variance of a logarithm by the delta method, (s / mean)**2 / n; degrees of freedom by Welch and
        Satterthwaite, as in Welch (1947), rounded down.
    """
    if any(factor.estimate.mean <= 0 for factor in factors):
        only = factors[0].estimate.mean
        bound = math.nan if _is_of_one_measured_start(factors) else only
        return Ratio(value=only, low=bound, high=bound, basis=_basis(factors))
    logarithm = math.fsum(factor.power * math.log(factor.estimate.mean) for factor in factors)
    half = math.nan if _is_of_one_measured_start(factors) else _half_width(factors)
    return Ratio(
        value=math.exp(logarithm),
        low=math.exp(logarithm - half),
        high=math.exp(logarithm + half),
        basis=_basis(factors),
    )


def judge(found: Ratio, *, low: float | None, high: float | None) -> Verdict:
    """Judge whether a ratio lies between two bounds, as far as its interval shows; None leaves a side open.

    Without an interval nothing is settled: the verdict is inconclusive.
    """
    floor = -math.inf if low is None else low
    ceiling = math.inf if high is None else high
    if floor < found.low and found.high < ceiling:
        return Verdict.HOLDS
    if found.high < floor or ceiling < found.low:
        return Verdict.FAILS
    return Verdict.INCONCLUSIVE


def combine(verdicts: Sequence[Verdict]) -> Verdict:
    """Judge a claim about every load point: one that fails is enough against it."""
    if not verdicts:
        return Verdict.NO_DATA
    for worst in (Verdict.FAILS, Verdict.INCONCLUSIVE):
        if worst in verdicts:
            return worst
    return Verdict.HOLDS


def _has_spread(factor: Factor) -> bool:
    """Whether restarts say how much this mean varies; identical ones, as a model gives, do not."""
    return factor.estimate.n > 1 and relative_error(factor.estimate) > 0


def _is_of_one_measured_start(factors: Sequence[Factor]) -> bool:
    return any(factor.is_measured and factor.estimate.n == 1 for factor in factors)


def _basis(factors: Sequence[Factor]) -> Basis:
    if all(_has_spread(factor) for factor in factors):
        return Basis.RESTARTS
    return Basis.READING if any(factor.is_published for factor in factors) else Basis.SINGLE_START


def _half_width(factors: Sequence[Factor]) -> float:
    if all(_has_spread(factor) for factor in factors):
        return welch_half(
            [((factor.power * relative_error(factor.estimate)) ** 2, factor.estimate.n) for factor in factors]
        )
    # NOISE belongs to a ratio of two, so each of its numbers has NOISE / sqrt(2).
    return math.sqrt(math.fsum(factor.power**2 * (NOISE**2 / 2 + factor.reading**2) for factor in factors))
