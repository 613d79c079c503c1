"""Tables of named series in a terminal: load points go on in a further table before a number is cut."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from analysis.study import Study
from sweeper.cli.outcome import show_tables
from sweeper.records import LoadPoint, TrialResult

RATES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 1000.0)


@pytest.mark.parametrize("width", [40, 80, 160])
def test_no_number_of_many_load_points_is_cut(
    trial: Callable[..., TrialResult], study_folder: Callable[..., Path], width: int
) -> None:
    def runs_at(point: LoadPoint) -> list[list[dict[str, float]]]:
        return [[{"request_throughput_per_s": 10_000 + (point.request_rate_per_s or 0)}]]

    name = "Chunked prefill of two thousand and forty-eight tokens"
    study = Study.load(study_folder(trial(series=(name,), rates=RATES, runs_at=runs_at)))
    out = io.StringIO()
    show_tables(study, Console(file=out, width=width))
    told = out.getvalue()
    for rate in RATES:
        assert re.search(rf"(?<![\d,]){10_000 + rate:,.0f}(?![\d,])", told), rate
        assert f"{rate:g} QPS" in told
    assert "\N{HORIZONTAL ELLIPSIS}" not in told
    assert max(map(len, told.splitlines())) <= width
