"""Figures that others published for the same question, each with source and method of reading.

``experiments/<experiment>/published.csv`` holds one value per series, metric and load point. A value
that was printed has no range; one that was read off a chart has the range of that reading.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd

from sweeper.errors import StoreError
from sweeper.records.goal import load_text

COLUMNS = (
    "series",
    "metric",
    "request_rate_per_s",
    "value",
    "low",
    "high",
    "method",
    "system",
    "model",
    "source",
)
"""Columns that a ``published.csv`` must have; metrics are named as in ``sweeper.store``."""

LOAD_COLUMNS = ("request_rate_per_s", "max_concurrency", "num_prompts", "input_len")
"""What tells the load points of a published series apart; a file has the last two where they vary, and
``max_concurrency`` where users of a closed loop, or a limit, were published."""


def experiments_folder() -> Path:
    """Return the folder of experiments: inside the package when installed, next to it in a checkout."""
    package = Path(__file__).parent
    installed = package / "experiments"
    return installed if installed.is_dir() else package.parent / "experiments"


def load(experiment: str | None, *, root: Path | None = None) -> pd.DataFrame:
    """Read what was published for an experiment.

    Args:
        experiment: Name of the experiment, or None where a study has none.
        root: Folder of experiments; None takes the one of this installation.

    Returns:
        At least the columns of ``COLUMNS``; without rows when nothing was published.

    Raises:
        StoreError: The file is no table, lacks a column, has a text for a number, or gives a configuration
            twice.
    """
    path = (root or experiments_folder()) / (experiment or "") / "published.csv"
    if experiment is None or not path.is_file():
        return pd.DataFrame({name: pd.Series(dtype="float64") for name in COLUMNS})
    try:
        frame = pd.read_csv(path)
    except (ValueError, OSError) as exc:
        raise StoreError(
            f"{path}: cannot be read ({exc}); expected a table with the columns {list(COLUMNS)}. Correct it."
        ) from exc
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise StoreError(f"{path}: lacks {missing}; expected the columns {list(COLUMNS)}. Add them.")
    # A file from before there were users says nothing of them: its loads had none.
    frame = frame if "max_concurrency" in frame.columns else frame.assign(max_concurrency=float("nan"))
    for name in ("value", "low", "high", "request_rate_per_s", "max_concurrency"):
        wrong = frame[name][pd.to_numeric(frame[name], errors="coerce").isna() & frame[name].notna()]
        if not wrong.empty:
            raise StoreError(f"{path}: '{name}' holds '{wrong.iloc[0]}'; expected a number. Correct the row.")
    keys = [name for name in ("series", "metric", *LOAD_COLUMNS) if name in frame.columns]
    twice = frame[frame.duplicated(keys)]
    if not twice.empty:
        row = twice.iloc[0]
        raise StoreError(
            f"{path}: gives {row['metric']} of series '{row['series']}' {_load_text(row)} twice; expected "
            "one value. Remove one."
        )
    return frame


def _load_text(row: pd.Series[Any]) -> str:
    rate, most = (None if pd.isna(row[name]) else row[name] for name in LOAD_COLUMNS[:2])
    return load_text(request_rate_per_s=rate, max_concurrency=None if most is None else int(most)) or (
        "all at once"
    )


def is_same_model(one: str | None, other: str | None) -> bool:
    """Whether two names mean the same model, on whatever host: numbers of other models do not compare."""
    return one is not None and other is not None and _bare(one) == _bare(other)


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.rstrip("/").rsplit("/", maxsplit=1)[-1].lower()).removeprefix("meta")
