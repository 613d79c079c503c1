"""What is expected of each point: a ranking, and never a result.

Where the expectation comes from is handed in; what is kept of it is how points compare. The numbers behind it
go nowhere: not to the study, the store, or a report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sweeper.search.candidates import Floats, identity
from sweeper.space.space import Point

Estimate = Callable[[Point], Sequence[float] | None]
"""Gives a point one value for each objective that is modelled, larger is better; None where nothing good is
expected."""


class Ranking:
    """Places points among all that can be proposed, by what is expected of them."""

    def __init__(self, estimate: Estimate, pool: Sequence[Point]) -> None:
        """Estimate every point of the pool; this is where the time goes."""
        self._estimate = estimate
        self._known: dict[str, Sequence[float] | None] = {}
        found = [values for point in pool if (values := self._values(point)) is not None]
        # One column for each objective, in ascending order.
        self._sorted = np.sort(np.array(found, dtype=np.float64), axis=0) if found else None

    def scores(self, points: Sequence[Point]) -> Floats:
        """Return each point its place, 0 (worst) to 1 (best); equal expectations have equal places.

        With several objectives it is the mean of the places.
        """
        return np.array([self._score(self._values(point)) for point in points], dtype=np.float64)

    def _values(self, point: Point) -> Sequence[float] | None:
        key = identity(point)
        if key not in self._known:
            self._known[key] = self._estimate(point)
        return self._known[key]

    def _score(self, values: Sequence[float] | None) -> float:
        if values is None or self._sorted is None:
            return 0.0
        columns = self._sorted.T
        places = [
            (np.searchsorted(column, value, "left") + np.searchsorted(column, value, "right")) / 2
            for column, value in zip(columns, values, strict=True)
        ]
        return float(np.mean(places)) / len(self._sorted)
