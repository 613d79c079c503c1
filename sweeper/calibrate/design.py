"""Which few numbers of a stack tell most of its others, chosen before any of them is known.

Slopes say how each number moves with each parameter of the model. With how far parameters usually lie from
the nearest stack, these give what numbers have in common, and so what is left open of one by others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from sweeper.calibrate.fitting import Floats

SPREAD = 0.4
"""Standard deviation of a parameter's logarithm from stack to stack: in the middle of those that the shipped
stacks were fitted to."""

_OFF = 1 / 15
"""Standard deviation of the logarithm that a fitted model leaves off, of a number that counts fully."""

_GAIN = 1e-9
"""Part of what is left open that an exchange has to save, so that rounding makes none."""


class Design:
    """Chooses which numbers to measure.

    Source:
        Bayesian A-optimal design (Chaloner and Verdinelli, Statistical Science 10, 1995), by exchanging one
        number for another while that helps (Fedorov, Theory of Optimal Experiments, 1972).
    """

    def __init__(self, slopes: Floats, spreads: Floats, counts: Floats, kinds: Sequence[str]) -> None:
        """Take what is known of the numbers.

        Args:
            slopes: Of the logarithm of each number by that of each parameter, shape (numbers, parameters).
            spreads: Standard deviation of the logarithm of each parameter, shape (parameters,).
            counts: How much an error of each number counts, 1 fully, shape (numbers,).
            kinds: What each number is of, such as TTFT.
        """
        moved = slopes * spreads
        self._common = moved @ moved.T
        self._counts = counts
        self._kinds = kinds
        self._of_kind = Counter(kinds)

    def left_open(self, known: Sequence[int]) -> Floats:
        """Return the standard deviation of each number's logarithm when some are known, shape (numbers,)."""
        chosen = list(known)
        own = np.diag(self._common)
        shared = self._common[:, chosen]
        told = shared[chosen] + np.diag((_OFF / self._counts[chosen]) ** 2)
        explained = (shared * np.linalg.solve(told, shared.T).T).sum(axis=1)
        left: Floats = np.sqrt(np.maximum(own - explained, 0.0))
        return left

    def choose(
        self, most: int, *, known: Sequence[int] = (), runs: Sequence[Sequence[int]] | None = None
    ) -> list[int]:
        """Choose the numbers that leave least open of all others.

        Of single numbers one of each kind stays to be predicted, where there are two: what is left off there
        is how good the rest is. Runs are chosen whatever they hold.

        Args:
            most: How many at most.
            known: Numbers that were measured before.
            runs: Numbers that are measured together, so that a run is chosen and not a number; None is each
                number for itself.

        Returns:
            Places of the numbers, or of the runs, without those known.
        """
        together = [[place] for place in range(len(self._kinds))] if runs is None else runs

        def places(chosen: Sequence[int]) -> list[int]:
            return [*known, *(place for run in chosen for place in together[run])]

        def allowed(chosen: Sequence[int]) -> list[int]:
            if runs is None:
                return self._spared(places(chosen))
            return [run for run in range(len(runs)) if run not in chosen]

        def cost(chosen: Sequence[int]) -> float:
            return self._cost(places(chosen))

        chosen: list[int] = []
        while len(chosen) < most and (found := allowed(chosen)):
            chosen = min(([*chosen, run] for run in found), key=cost)
        return _exchanged(chosen, allowed, cost)

    def _spared(self, taken: Sequence[int]) -> list[int]:
        """Return the numbers that may be taken too, so that one of their kind is left."""
        left = self._of_kind - Counter(self._kinds[place] for place in taken)
        return [
            place
            for place, kind in enumerate(self._kinds)
            if place not in taken and (left[kind] > 1 or self._of_kind[kind] == 1)
        ]

    def _cost(self, taken: Sequence[int]) -> float:
        """Return what is left open of all other numbers together, each as much as it counts."""
        others = np.setdiff1d(np.arange(len(self._kinds)), taken)
        return float(self._counts[others] @ self.left_open(taken)[others])


def _exchanged(
    chosen: list[int],
    allowed: Callable[[Sequence[int]], list[int]],
    cost: Callable[[Sequence[int]], float],
) -> list[int]:
    """Exchange one choice for another, by turns, until no exchange leaves less open."""
    place = unchanged = 0
    while unchanged < len(chosen):
        before, after = chosen[:place], chosen[place + 1 :]
        best = min(([*before, other, *after] for other in allowed([*before, *after])), key=cost)
        if cost(best) < cost(chosen) * (1 - _GAIN):
            chosen, unchanged = best, 0
        else:
            unchanged += 1
        place = (place + 1) % len(chosen)
    return chosen
