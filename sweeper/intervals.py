"""Intervals: Student's quantiles, of a mean, Welch's of a sum, of ratios, of shares and of their difference.

Everything here takes independent values, such as one per engine start. Ratios are taken on the logarithm,
where half and twice are equally far from no change and no interval reaches below zero.

scipy has the same (``scipy.stats``), and was weighed: it adds 113 MB to an installation, and its import
takes 2.2 to 3.0 s (``scipy.special`` alone 0.5 to 0.7 s) where the whole command line may take 0.8 s. What is
needed of it is one quantile, which the closed form below has to within 7e-13 of scipy 1.17.1 for up to 100
degrees of freedom, and to within 2e-6 above. So it is written here, once; a test holds it against the printed
table.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

NORMAL_975 = 1.96
"""The 97.5 % quantile of the normal distribution, as everybody rounds it: half a 95 % range of a reading."""

_NORMAL_975_EXACT = 1.959963984540054
_MOST_EXACT = 100


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean with its 95 % interval; ``low`` and ``high`` are None when there is a single value."""

    mean: float
    low: float | None
    high: float | None
    n: int


@functools.lru_cache(maxsize=1024)
def t_quantile(probability: float, degrees: int) -> float:
    """Return a quantile of Student's t distribution.

    Args:
        probability: Above 0.5 and below 1.
        degrees: Degrees of freedom, a whole number of at least 1.

    Source:
        The distribution for whole degrees in closed form, Abramowitz and Stegun 26.7.3 and 26.7.4, inverted
        by bisection; above 100 degrees the expansion in 1 / degrees of their formula 26.7.5 about the normal
        quantile.
    """
    if degrees > _MOST_EXACT:
        z = statistics.NormalDist().inv_cdf(probability)
        first = (z**3 + z) / 4
        second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
        third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
        return z + first / degrees + second / degrees**2 + third / degrees**3
    wanted = 2 * probability - 1
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < wanted else (low, middle)
    return math.tan(high) * math.sqrt(degrees)


def t_quantile_975(degrees: int) -> float:
    """Return the quantile that a 95 % interval takes, of one degree of freedom where there is none."""
    return t_quantile(0.975, max(1, degrees))


def estimate(values: Sequence[float]) -> Estimate:
    """Return mean and 95 % t-interval of independent values.

    Returns:
        The estimate; a single value has no interval, for one value shows no spread.
    """
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(mean=mean, low=None, high=None, n=1)
    half = t_quantile_975(n - 1) * math.sqrt(variance_of_mean(values))
    return Estimate(mean=mean, low=mean - half, high=mean + half, n=n)


def geometric(values: Sequence[float]) -> Estimate:
    """Return the geometric mean of positive values with its 95 % interval, that of their logarithms."""
    found = estimate([math.log(value) for value in values])
    low, high = (None if bound is None else math.exp(bound) for bound in (found.low, found.high))
    return Estimate(mean=math.exp(found.mean), low=low, high=high, n=found.n)


def normal_interval(values: Sequence[float]) -> Estimate:
    """Return the mean with 1.96 standard errors to either side: the range as a published reading has it."""
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Estimate(mean=mean, low=None, high=None, n=1)
    half = NORMAL_975 * math.sqrt(variance_of_mean(values))
    return Estimate(mean=mean, low=mean - half, high=mean + half, n=len(values))


def variance_of_mean(values: Sequence[float]) -> float:
    """Return the variance of the mean of two or more values: the square of its standard error."""
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values)


def relative_error(found: Estimate) -> float:
    """Return the standard error of a mean over the mean, out of its t-interval."""
    assert found.high is not None
    return (found.high - found.mean) / t_quantile_975(found.n - 1) / found.mean


def welch_half(parts: Sequence[tuple[float, int]], *, probability: float = 0.975) -> float:
    """Return half of the t-interval of a sum of independent means with unequal variances.

    Args:
        parts: Of each mean its variance in the sum, and the number of values it rests on, two or more.
        probability: Quantile that is taken; 0.975 for an interval of 95 %.

    Returns:
        The half width; 0 where no part varies.

    Source:
        Welch (1947); degrees of freedom by Welch and Satterthwaite, rounded down.
    """
    variance = math.fsum(part for part, _ in parts)
    if variance <= 0:
        return 0.0
    degrees = variance**2 / math.fsum(part**2 / (n - 1) for part, n in parts)
    return t_quantile(probability, max(1, int(degrees))) * math.sqrt(variance)


def _within(angle: float, degrees: int) -> float:
    """Return the chance that t lies within +/- tan(angle) * sqrt(degrees)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    term, total = 1.0, 0.0
    if degrees % 2 == 0:
        for k in range(0, degrees, 2):
            total += term
            term *= cosine**2 * (k + 1) / (k + 2)
        return sine * total
    term = cosine
    for k in range(1, degrees, 2):
        total += term
        term *= cosine**2 * (k + 1) / (k + 2)
    return (angle + sine * total) * 2 / math.pi


def wilson(share: float, count: int) -> tuple[float, float]:
    """Return the ends of the 95 % interval of a share, such as of right answers.

    Args:
        share: 0 to 1.
        count: Of how many, at least 1.

    Source:
        Wilson, Journal of the American Statistical Association 22 (1927).
    """
    square = _NORMAL_975_EXACT**2 / count
    middle = (share + square / 2) / (1 + square)
    half = math.sqrt(share * (1 - share) * square + square**2 / 4) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def paired_loss(reference: Sequence[bool], found: Sequence[bool]) -> Estimate:
    """Return by how much a share fell, from two answers to each of the same questions.

    Args:
        reference: Whether each question was answered right before.
        found: Whether it is now, in the same order and as many, at least one.

    Returns:
        Share before less share now, with its 95 % interval; below 0 where it rose.

    Source:
        Newcombe, Statistics in Medicine 17 (1998) 2635-2650, method 10: Wilson's intervals of both shares,
        joined by the correlation of the pairs.
    """
    count = len(found)
    both = sum(one and other for one, other in zip(reference, found, strict=True))
    before, now = sum(reference), sum(found)
    lost, won = before - both, now - both
    shares = before / count, now / count
    (low, high), (low_now, high_now) = (wilson(share, count) for share in shares)
    up, down = (high - shares[0], shares[1] - low_now), (shares[0] - low, high_now - shares[1])
    phi = _paired_correlation(both, lost, won, count - both - lost - won)
    loss = (lost - won) / count
    return Estimate(
        mean=loss,
        low=loss - math.sqrt(max(0.0, down[0] ** 2 - 2 * phi * down[0] * down[1] + down[1] ** 2)),
        high=loss + math.sqrt(max(0.0, up[0] ** 2 - 2 * phi * up[0] * up[1] + up[1] ** 2)),
        n=count,
    )


def _paired_correlation(both: int, first: int, second: int, neither: int) -> float:
    """Return the correlation of pairs, corrected for continuity where it is positive, as Newcombe has it."""
    spread = (both + first) * (second + neither) * (both + second) * (first + neither)
    if not spread:
        return 0.0
    cross = both * neither - first * second
    count = both + first + second + neither
    corrected = max(cross - count / 2, 0.0) if cross > 0 else float(cross)
    return corrected / math.sqrt(spread)
