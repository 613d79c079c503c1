"""Numbers as people read them."""

from __future__ import annotations


def number_text(value: float) -> str:
    """Write a number as short as its reader needs it: 11,376 or 145 or 10.57 or 0.0042."""
    size = abs(value)
    if size >= 1e12:
        return f"{value:.3g}"
    if size >= 99.95:
        return f"{value:,.0f}"
    if size >= 0.1 or size == 0:
        return f"{value:.2f}"
    return f"{value:.2g}"
