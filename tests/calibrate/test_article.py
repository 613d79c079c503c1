"""Which published figures are fitted, and which the model is judged by."""

from __future__ import annotations

from collections import Counter

import pytest

from sweeper.calibrate import article
from sweeper.calibrate.figures import FIT, VALIDATION, Figure


@pytest.fixture(scope="module")
def figures() -> list[Figure]:
    return article.article_figures()


def test_cases_1_to_3_are_fitted_and_all_else_is_not(figures: list[Figure]) -> None:
    for figure in figures:
        if figure.parameter is None:
            assert (figure.role == FIT) == (figure.experiment in article.FITTED), figure


def test_each_single_effect_is_fitted_at_1000_requests_per_second_and_judged_at_others(
    figures: list[Figure],
) -> None:
    by_parameter = {
        parameter: {(f.experiment, f.point.request_rate_per_s) for f in figures if f.parameter == parameter}
        for parameter in ("capture_s", "channels_frac", "fp8_kv_frac", "fp8_gemm_frac")
    }
    assert by_parameter == {
        "capture_s": {("case4_capture_len", 1000.0)},
        "channels_frac": {("case5_amd_env", 1000.0)},
        "fp8_kv_frac": {("case6_kv_cache_dtype", 1000.0)},
        "fp8_gemm_frac": {("intro_405b", 1000.0)},
    }
    others = {
        f.point.request_rate_per_s
        for f in figures
        if f.experiment == "case6_kv_cache_dtype" and not f.parameter
    }
    assert others == {16.0, 32.0}
    assert {f.parameter for f in figures if f.series == "vllm_default"} == {None}


def test_configuration_that_recurs_counts_once_and_where_it_is_fitted(figures: list[Figure]) -> None:
    defaults = [f for f in figures if f.series == "default"]
    assert {f.experiment for f in defaults} == {"case1_chunked_prefill"}
    # 3 rates of 3 metrics.
    assert len(defaults) == 9
    # 10 steps of Case 2 are 8192 of Case 4.
    assert not [f for f in figures if f.series == "capture_8192"]
    counts = Counter(article.identity(f) for f in figures)
    assert max(counts.values()) == 1
    # 11 settings of Cases 1 to 3 at 3 rates, and 7 of the others with the introduction's two at their rates.
    assert sum(f.role == FIT and not f.parameter for f in figures) == 11 * 3 * 3
    assert {f.role for f in figures} == {FIT, VALIDATION}


def test_default_at_16_is_passed_over_with_its_reason(figures: list[Figure]) -> None:
    left_out = [f for f in figures if f.remark]
    assert {(f.series, f.point.request_rate_per_s) for f in left_out} == {("default", 16.0)}
    assert "cold first run" in left_out[0].remark


def test_readings_keep_their_range_and_printed_numbers_have_none(figures: list[Figure]) -> None:
    printed = [f for f in figures if f.metric == "request_throughput_per_s" and f.series == "default"]
    assert [f.low for f in printed] == [None] * 3
    read = next(f for f in figures if f.metric == "mean_ttft_ms" and f.series == "chunk_2048")
    assert read.low is not None and read.high is not None
    assert read.low < read.value < read.high
