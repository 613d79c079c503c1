"""The points of a space that a search can propose, and how far apart two of them are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sweeper.records import Assignment, Scalar, content_key
from sweeper.space.domains import Choice, Domain, Range
from sweeper.space.random_point import draw, value_at
from sweeper.space.space import Point, Space

Floats = NDArray[np.float64]

LARGEST_POOL = 1000
"""Points at most that are looked at as a whole; a larger space is represented by a seeded sample."""

_ABSENT = -1.0
_NEIGHBOUR_VALUES = 4
_DRAWS_PER_POINT = 20


def identity(point: Point) -> str:
    """Return a setting's identity: points of equal assignment are one, unless other series serve them."""
    return content_key([dict(point.assignment), point.series])


def pool(space: Space, rng: np.random.Generator) -> list[Point]:
    """Return the valid points of a space: all of them, or a sample where they are many or not countable."""
    size = space.size()
    if size is not None and size <= LARGEST_POOL:
        return list(_distinct(p for p in space.grid() if is_valid(space, p)))
    found: dict[str, Point] = {}
    for _ in range(LARGEST_POOL * _DRAWS_PER_POINT):
        point = draw(space, rng)
        if is_valid(space, point):
            found.setdefault(identity(point), point)
        if len(found) == LARGEST_POOL:
            break
    return list(found.values())


def is_valid(space: Space, point: Point) -> bool:
    """Return whether a point keeps the rules of its space."""
    return space.broken_rule(point.assignment) is None


def neighbours(space: Space, point: Point) -> Iterator[Point]:
    """Return the points that differ from this one in a single domain, nearest values first.

    Where another value brings further knobs into the space, those have their first values.
    """
    firsts = {name: first_value(domain) for name, domain in space.domains.items()}
    for name, domain in space.domains.items():
        if name not in point.choices:
            continue
        for value in _values_near(domain, point.choices[name]):
            yield space.point({**firsts, **point.choices, name: value})


def first_value(domain: Domain) -> Scalar:
    """Return the first value of a choice, or the smallest of a range."""
    if isinstance(domain, Choice):
        return domain.values[0]
    return int(domain.low) if domain.is_int else domain.low


def _distinct(points: Iterable[Point]) -> Iterator[Point]:
    return iter({identity(point): point for point in points}.values())


def _values_near(domain: Domain, value: Scalar) -> list[Scalar]:
    if isinstance(domain, Choice):
        values: Sequence[Scalar] = domain.values
        at = values.index(value) if value in values else 0
        by_distance = sorted(range(len(values)), key=lambda i: abs(i - at))
        return [values[i] for i in by_distance if values[i] != value]
    here = _share(domain, float(value))
    count = domain.count()
    if count is not None:
        number = round(here * (count - 1))
        near = [number + sign * step for step in range(1, _NEIGHBOUR_VALUES + 1) for sign in (1, -1)]
        return [domain.value_numbered(one) for one in near if 0 <= one < count]
    shares = [here + sign * 0.5**power for power in (6, 4, 3, 2) for sign in (1, -1)]
    found = dict.fromkeys(value_at(domain, share) for share in shares if 0 <= share <= 1)
    return [one for one in found if one != value]


def _share(domain: Range, value: float) -> float:
    low, high = domain.low, domain.high
    if high <= low:
        return 0.0
    if domain.log:
        return float((np.log(value) - np.log(low)) / (np.log(high) - np.log(low)))
    return (value - low) / (high - low)


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Distances between points: numbers by their place in the domain, all else equal or not.

    Attributes:
        names: Domains, and ``series`` where there are any: the coordinates.
        is_number: Whether each is ordered.
    """

    space: Space
    names: tuple[str, ...]
    is_number: tuple[bool, ...]

    @classmethod
    def of(cls, space: Space) -> Geometry:
        """Return the geometry of a space."""
        domains: Mapping[str, Domain] = space.domains
        names = (*(("series",) if space.series else ()), *domains)
        numeric = tuple(name in domains and _is_ordered(domains[name]) for name in names)
        return cls(space=space, names=names, is_number=numeric)

    def coordinates(self, points: Sequence[Point]) -> Floats:
        """Place points, shape (points, coordinates); a knob that a point leaves out is at -1."""
        rows = [[self._coordinate(name, point.choices) for name in self.names] for point in points]
        return np.array(rows, dtype=np.float64).reshape(len(points), len(self.names))

    def distances(self, a: Floats, b: Floats) -> Floats:
        """Return distances by coordinate, each 0 to 1, shape (coordinates, points of a, points of b)."""
        result = np.empty((len(self.names), len(a), len(b)))
        for i, is_number in enumerate(self.is_number):
            left, right = a[:, i][:, None], b[:, i][None, :]
            differs = left != right
            is_measurable = (left != _ABSENT) & (right != _ABSENT)
            result[i] = np.where(is_measurable, np.abs(left - right), differs) if is_number else differs
        return result

    def _coordinate(self, name: str, choices: Assignment) -> float:
        if name not in choices:
            return _ABSENT
        value = choices[name]
        if name == "series":
            return float([s.name for s in self.space.series].index(str(value)))
        domain = self.space.domains[name]
        if isinstance(domain, Range):
            return _share(domain, float(value))
        if value not in domain.values:
            return _ABSENT
        place = domain.values.index(value)
        return place / max(len(domain.values) - 1, 1) if _is_ordered(domain) else float(place)


def _is_ordered(domain: Domain) -> bool:
    if isinstance(domain, Range):
        return True
    are_numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in domain.values)
    return are_numbers and list(domain.values) in (
        sorted(domain.values, key=float),
        sorted(domain.values, key=float, reverse=True),
    )
