"""The validation page: its sums, its order of series, and that it is of the calibration that studies get."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest

from analysis import experiment_tables, validation, validation_chart
from sweeper.calibrate import article
from sweeper.calibrate.figures import FIT, VALIDATION
from sweeper.errors import ConfigError
from sweeper.simulation import calibration

ROOT = Path(__file__).resolve().parents[2]
RATE = "request_throughput_per_s"


def row(
    error: float, *, role: str = VALIDATION, metric: str = RATE, value: float = 10.0
) -> Mapping[str, object]:
    return {
        "experiment": "case8_max_num_seqs" if role == VALIDATION else "case1_chunked_prefill",
        "series": "some",
        "request_rate_per_s": 16.0,
        "metric": metric,
        "published": value,
        "low": None,
        "high": None,
        "predicted": value * (1 + error),
        "error": error,
        "role": role,
        "fitted_parameter": None,
        "counts": metric != "mean_ttft_ms" or value > 2000,
        "identity": f"{role}{metric}{error}",
    }


def test_errors_are_absolute_and_fitted_figures_stay_apart() -> None:
    table = pd.DataFrame(
        [
            row(0.10),
            row(-0.30),
            row(0.01, role=FIT),
            row(0.90, metric="mean_ttft_ms", value=500.0),
            row(0.25, metric="mean_ttft_ms", value=5000.0),
        ]
    )
    # (10 + 30) / 2; the TTFT of half a second takes no part.
    assert validation.mean_errors_pct(table, VALIDATION) == pytest.approx({RATE: 20.0, "mean_ttft_ms": 25.0})
    assert validation.mean_errors_pct(table, FIT) == pytest.approx({RATE: 1.0})


def test_order_of_series_is_right_where_model_repeats_it() -> None:
    figures = article.experiment_figures("case6_kv_cache_dtype", metrics=[RATE])
    at_16 = {f.series: f for f in figures if f.point.request_rate_per_s == 16.0}
    # Published at 16 QPS: default 6.5, tuned with fp8 9.97, tuned 10.48: 5.1 % apart, so three clear pairs.
    said = {"default": 7.0, "tuned_kv_fp8": 9.0, "tuned_kv_auto": 8.0}
    known = pd.DataFrame(
        [
            {**row(0.0), "predicted": said[name], "identity": article.identity(figure)}
            for name, figure in at_16.items()
        ]
    )
    found = validation.pairs(known, experiments=["case6_kv_cache_dtype"])
    assert {frozenset((r["one"], r["other"])): r["is_right"] for r in found.to_dict("records")} == {
        frozenset(("default", "tuned_kv_fp8")): True,
        frozenset(("default", "tuned_kv_auto")): True,
        frozenset(("tuned_kv_fp8", "tuned_kv_auto")): False,
    }


def test_chart_has_panel_per_metric_and_names_what_was_not_fitted(tmp_path: Path) -> None:
    metrics = (RATE, "mean_ttft_ms", "mean_tpot_ms")
    table = pd.DataFrame(
        [row(0.1, role=r, metric=m, value=3000.0) for r in (FIT, VALIDATION) for m in metrics]
    )
    png, svg = validation_chart.write(table, tmp_path, name="mine")
    drawn = svg.read_text(encoding="utf-8")
    for words in (
        "Requests per second",
        "Mean TTFT (s)",
        "Mean TPOT (ms)",
        "calibration mine",
        "Case 8, sequences",
    ):
        assert words in drawn
    assert "Case 7" not in drawn
    assert png.stat().st_size > 10_000


def test_page_in_docs_is_of_calibration_that_studies_get() -> None:
    page = (ROOT / "docs" / "validation.md").read_text(encoding="utf-8")
    shipped = calibration.load()
    assert f"Calibration: `{shipped.name}`" in page
    for name, value in shipped.values.items():
        assert f"`{name}` {value:.4g}" in page, "write the page anew: python -m analysis validation"
    for error in shipped.errors_pct["validation"].values():
        shown = [float(number) for number in re.findall(r"\*\*([\d.]+) %\*\*", page)]
        assert any(abs(error - number) < 0.5 for number in shown)


def test_simulated_figures_of_page_are_exchanged_and_its_words_are_kept() -> None:
    page = (
        "# Case\n\n| simulated, requests/s | 16 QPS |\n|---|---|\n| `a` | 1.00 |\n\n"
        "Mean error of the simulated figures against the published ones: requests/s 4.2 % (of 12\nfigures, "
        "at most 12 %). The order\nis right.\n\nOn a GPU: not run yet.\n"
    )
    assert experiment_tables.renewed(
        page,
        table="| simulated, requests/s | 16 QPS |\n|---|---|\n| `a` | 2.00 |",
        errors="requests/s 3.0 %.",
    ) == (
        "# Case\n\n| simulated, requests/s | 16 QPS |\n|---|---|\n| `a` | 2.00 |\n\n"
        "Mean error of the simulated figures against the published ones: requests/s 3.0 %. The order is "
        "right."
        "\n\nOn a GPU: not run yet.\n"
    )


def test_table_of_experiment_has_row_per_series_and_its_errors_word_per_metric() -> None:
    told = experiment_tables.run("intro_70b")
    lines = experiment_tables.table("intro_70b", told).splitlines()
    assert lines[:2] == ["| simulated, requests/s | 32 QPS |", "|---|---|"]
    assert [line.split("`")[1] for line in lines[2:]] == ["vllm_tp8", "vllm_tp4"]
    said = experiment_tables.errors("intro_70b", told)
    assert re.fullmatch(
        r"requests/s [\d.]+ % \(of 1 figure, at most \d+ %\); "
        r"mean TTFT [\d.]+ % \(of 1 figure, at most \d+ %\)\.",
        said,
    )
    # 13.3 requests/s were published; the error follows from the number in the table.
    shown = float(lines[2].split("|")[2])
    assert float(said.split()[1]) == pytest.approx(100 * abs(shown / 13.3 - 1), abs=0.1)


def test_experiment_without_such_page_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'case9' has no page with simulated figures"):
        experiment_tables.renew(["case9"], root=tmp_path)
