"""Durations as people read them."""

from __future__ import annotations


def duration_text(seconds: float) -> str:
    """Write a time as people read it: ``45 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"
