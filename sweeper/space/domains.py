"""The values that one knob may take: a choice, or a range of numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sweeper.records import Scalar


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A finite domain."""

    values: tuple[Scalar, ...]


@dataclass(frozen=True, kw_only=True)
class Range:
    """A numeric domain.

    Attributes:
        low: Smallest value.
        high: Largest value.
        step: Distance between adjacent values; None is continuous, or 1 for whole numbers.
        log: Search in the logarithm.
        is_int: Whole numbers only.
    """

    low: float
    high: float
    step: float | None = None
    log: bool = False
    is_int: bool = False

    def count(self) -> int | None:
        """Count the domain's values, or None where it is continuous or logarithmic."""
        step = self._step()
        if step is None or self.log:
            return None
        return math.floor((self.high - self.low) / step + 1e-9) + 1

    def values(self) -> tuple[Scalar, ...] | None:
        """Enumerate the domain, or None where it is continuous or logarithmic."""
        count, step = self.count(), self._step()
        if count is None or step is None:
            return None
        found = (self.low + i * step for i in range(count))
        return tuple(int(v) if self.is_int else v for v in found)

    def _step(self) -> float | None:
        return self.step if self.step is not None else (1 if self.is_int else None)


Domain = Choice | Range


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """That of a domain those values are taken which model, devices and release have room for.

    Attributes:
        needs: What the model or the device has to have (``records.kinds.NEEDS``); all of them.
    """

    needs: tuple[str, ...] = ()
