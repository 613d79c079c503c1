"""Plain data, which JSON can hold."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

Plain = dict[str, Any]
"""What JSON can hold: texts, numbers, None, and lists and objects of them."""


def number(value: Any) -> float | None:
    """Return a number, or None where it is missing or infinite: JSON has neither."""
    return None if value is None or pd.isna(value) or math.isinf(value) else float(value)
