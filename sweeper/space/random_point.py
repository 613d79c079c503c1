"""Random points of a space, each domain drawn by itself, and the values of a range that they come from."""

from __future__ import annotations

import numpy as np

from sweeper.records import Scalar
from sweeper.space.domains import Choice, Domain, Range
from sweeper.space.space import Point, Space


def draw(space: Space, rng: np.random.Generator) -> Point:
    """Draw a point, each domain by itself; it may break a rule."""
    choices: dict[str, Scalar] = {}
    if space.series:
        choices["series"] = space.series[int(rng.integers(len(space.series)))].name
    for name, domain in space.domains.items():
        choices[name] = _draw_value(domain, rng)
    return space.point(choices)


def _draw_value(domain: Domain, rng: np.random.Generator) -> Scalar:
    if isinstance(domain, Choice):
        return domain.values[int(rng.integers(len(domain.values)))]
    return value_at(domain, float(rng.random()))


def value_at(domain: Range, share: float) -> Scalar:
    """Return the value of a range at a share of its width, 0 to 1, on its grid where it has one."""
    count = domain.count()
    if count is not None:
        return domain.value_numbered(min(int(share * count), count - 1))
    if domain.log:
        value = float(np.exp(np.log(domain.low) + share * (np.log(domain.high) - np.log(domain.low))))
        # Logarithm and back can end just outside.
        value = min(max(value, domain.low), domain.high)
    else:
        value = domain.low + share * (domain.high - domain.low)
    return round(value) if domain.is_int else value
