"""Which experts the tokens of a step reach: how many of them, and how unevenly over devices.

A router sends each token to ``per_token`` experts of ``count``. How popular the experts are follows Zipf's
law: the i-th most popular one weighs 1 / i ** skew, and is chosen by a token with a probability in
proportion, at most 1. A skew of 0 makes all equally popular, which is what their training aims at (Switch
Transformers, arXiv:2101.03961, section 2.2; DeepSeek-V3, arXiv:2412.19437, section 2.1.2). Tokens are taken
to choose independently of each other.

Left out: tokens of one request that prefer the same experts, and the redundant experts of vLLM's load
balancer (EPLB).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Routing:
    """How tokens choose among experts.

    Attributes:
        count: Experts.
        per_token: Those that one token is sent to.
        skew: Exponent of Zipf's law; 0 is uniform.
    """

    count: int
    per_token: int
    skew: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one device has to do with the experts of a layer.

    Attributes:
        experts: Distinct experts whose weights it reads.
        rows: Pairs of a token and an expert that it computes.
    """

    experts: float
    rows: float


@lru_cache(maxsize=64)
def chances(routing: Routing) -> Floats:
    """Return each expert's probability to be chosen by a token, shape (count,); they add up to per_token."""
    weights = np.arange(1, routing.count + 1, dtype=np.float64) ** -routing.skew
    found = np.zeros(routing.count)
    chosen = min(routing.per_token, routing.count)
    # An expert that every token takes leaves one choice fewer for the rest.
    certain = 0
    while certain < chosen:
        rest = weights[certain:] * (chosen - certain) / weights[certain:].sum()
        if rest[0] <= 1:
            found[certain:] = rest
            return found
        found[certain] = 1.0
        certain += 1
    return found


@lru_cache(maxsize=65536)
def touched(routing: Routing, tokens: int) -> float:
    """Return the expected number of distinct experts that so many tokens are sent to."""
    return float(_reached(routing, tokens).sum())


@lru_cache(maxsize=65536)
def busiest(routing: Routing, tokens: int, *, ranks: int) -> Share:
    """Return the share of the busiest of several devices that have whole experts.

    Each has as many experts, which ones is by chance. What falls on one device then scatters around the mean:
    by the tokens' choices, and by which experts it has. The largest of n such numbers is taken to be
    sqrt(2 ln n) standard deviations above the mean, and never more than there is.

    Source:
        Expected maximum of n normal variables: Boucheron, Lugosi and Massart, Concentration Inequalities
        (2013), section 2.5. Experts by device: vLLM 0.32.0, ExpertPlacementStrategy "linear".
    """
    here = math.ceil(routing.count / ranks)
    reached = _reached(routing, tokens)
    experts = _largest(reached, reached * (1 - reached), ranks=ranks, most=float(here))
    chance = chances(routing)
    rows = _largest(
        tokens * chance,
        tokens * chance * (1 - chance),
        ranks=ranks,
        most=float(tokens * min(routing.per_token, here)),
    )
    return Share(experts=min(experts, rows), rows=rows)


def _reached(routing: Routing, tokens: int) -> Floats:
    """Return the probability of each expert to be reached by any of the tokens."""
    return np.asarray(1 - (1 - chances(routing)) ** tokens, np.float64)


def _largest(means: Floats, variances: Floats, *, ranks: int, most: float) -> float:
    """Return the expected largest sum over the experts of one of several devices."""
    count = len(means)
    each = count / ranks
    mean = float(means.sum()) / ranks
    # Sampling without replacement: the variance of a sum of ``each`` of ``count`` numbers.
    by_place = each * (1 - each / count) * float(means.var()) * count / max(1, count - 1)
    deviation = math.sqrt(float(variances.sum()) / ranks + max(0.0, by_place))
    return max(mean, min(most, mean + math.sqrt(2 * math.log(ranks)) * deviation))
