"""Which numbers above 0 somebody can mean: sums and quotients of others are no numbers any more."""

from __future__ import annotations

SMALLEST = 1e-9
"""One request in thirty years, a nanosecond, a billionth of any currency."""

LARGEST = 1e12


def is_meant(value: float) -> bool:
    """Return whether a number lies between the two; false also of what is no number."""
    return SMALLEST <= value <= LARGEST
