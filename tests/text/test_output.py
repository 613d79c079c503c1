"""Answers for programs: JSON whatever standard output can write."""

from __future__ import annotations

import io
import json
import math
import sys

import pytest

from sweeper.text.output import Stream, json_answer


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_answer_is_json_in_utf_8_whatever_standard_output_writes(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    stream = Stream("stdout")
    stream.write(json_answer({"Größe \U0001f680": "≥ 1"}))
    stream.flush()
    assert json.loads(written.getvalue()) == {"Größe \U0001f680": "≥ 1"}


def test_what_is_no_number_is_null() -> None:
    content = {"a": [1.5, math.nan, (math.inf,)], "b": {"c": -math.inf, "d": True}}
    assert json.loads(json_answer(content)) == {"a": [1.5, None, [None]], "b": {"c": None, "d": True}}
