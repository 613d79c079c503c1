"""Rows of a table, beside what pandas makes of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.records import records
from analysis.study import Study
from sweeper.records import TrialResult


def is_same(one: Any, other: Any) -> bool:
    """Return whether values are alike, and of one type; what is missing is."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float) and math.isnan(one):
        return math.isnan(other)
    return one is other or bool(list(one) == list(other) if hasattr(one, "__len__") else one == other)


def assert_alike(table: pd.DataFrame) -> None:
    made, expected = records(table), table.to_dict("records")
    assert [list(row) for row in made] == [list(row) for row in expected]
    for one, other in zip(made, expected, strict=True):
        assert [name for name in one if not is_same(one[name], other[name])] == []


def test_rows_of_the_store_are_those_of_pandas(
    trial: Callable[..., TrialResult], study_folder: Callable[..., Path]
) -> None:
    complete = trial(
        knobs={"seqs": 64, "eager": True}, runs=[[{"mean_ttft_ms": 1.5}], [{"mean_ttft_ms": 2.5}]]
    )
    failed = trial(knobs={"frac": 0.9, "dtype": "auto"}, rates=(1.0, None))
    assert_alike(Study.load(study_folder(complete, failed)).every_row)


def test_rows_of_other_tables_are_those_of_pandas() -> None:
    mixed = pd.DataFrame(
        {"number": [1.0, math.nan], "any": [None, {"a": 1}], "text": ["é", None], "whole": [1, 2]}
    )
    assert_alike(mixed)
    assert_alike(mixed.assign(any=[pd.Series([7])[0], pd.NA]))
    assert_alike(mixed.iloc[:0])
