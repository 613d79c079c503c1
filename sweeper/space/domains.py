"""The values that one knob may take: a choice, or a range of numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal

from sweeper.records import Scalar

_ROUNDING = 1e-9
"""Values nearer than this part of a step are one: Optuna adds steps in binary numbers."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A finite domain."""

    values: tuple[Scalar, ...]

    def holds(self, value: Scalar) -> bool:
        """Return whether a value is one of the domain's."""
        return value in self.values

    def own(self, value: Scalar) -> Scalar:
        """Return a value as the domain has it, such as 0 for false; one that it does not hold as it is."""
        return next((known for known in self.values if known == value), value)


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
        count = self.count()
        return None if count is None else tuple(self.value_numbered(number) for number in range(count))

    def value_numbered(self, number: int) -> Scalar:
        """Return a value of an enumerable range by its number, from 0.

        Steps are taken in decimal numbers, as they are written: 0.7 and four steps of 0.05 are 0.9, not
        0.8999999999999999, which rules and people would take for another value.
        """
        step = self._step() or 0
        if self.is_int:
            return int(self.low + number * step)
        return float(Decimal(str(self.low)) + number * Decimal(str(step)))

    def holds(self, value: Scalar) -> bool:
        """Return whether a value is one of the domain's, rounding aside."""
        if isinstance(value, bool | str) or (self.is_int and value != int(value)):
            return False
        return self.low <= value <= self.high if self.count() is None else self._number_of(value) is not None

    def own(self, value: Scalar) -> Scalar:
        """Return a value as the domain has it, whatever rounding it went through; any other as it is."""
        number = None if isinstance(value, bool | str) else self._number_of(value)
        return value if number is None else self.value_numbered(number)

    def _number_of(self, value: float) -> int | None:
        count, step = self.count(), self._step()
        if count is None or step is None:
            return None
        number = round((value - self.low) / step)
        is_held = 0 <= number < count and abs(self.low + number * step - value) < _ROUNDING * step
        return number if is_held else None

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
