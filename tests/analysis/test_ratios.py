"""How much faster, and how sure: intervals worked out by hand."""

from __future__ import annotations

import math

import pytest

from analysis.ratios import NOISE, Basis, Factor, Ratio, Verdict, combine, judge, ratio
from sweeper.intervals import Estimate, estimate


def single(mean: float, power: int = 1, **more: object) -> Factor:
    return Factor(estimate=Estimate(mean=mean, low=None, high=None, n=1), power=power, **more)  # type: ignore[arg-type]


def test_ratio_of_single_starts_has_stated_margin_and_says_so() -> None:
    found = ratio([single(11.0), single(10.0, -1)])

    assert found.value == pytest.approx(1.1)
    # 2 % on a logarithmic scale: 1.1 * exp(-0.02) and 1.1 * exp(0.02).
    assert (found.low, found.high) == (pytest.approx(1.0782, abs=1e-4), pytest.approx(1.1222, abs=1e-4))
    assert found.basis is Basis.SINGLE_START


def test_one_measured_start_leaves_ratio_without_interval() -> None:
    restarts = estimate([9.9, 10.0, 10.1])

    found = ratio([single(11.0, is_measured=True), Factor(estimate=restarts, power=-1, is_measured=True)])

    assert found.value == pytest.approx(1.1)
    assert not found.has_interval
    assert judge(found, low=1.0, high=None) is Verdict.INCONCLUSIVE
    assert not ratio([single(0.0, is_measured=True)]).has_interval


def test_more_numbers_in_ratio_widen_its_margin() -> None:
    # a * b / c**2: NOISE / sqrt(2) on each, times sqrt(1 + 1 + 4), is NOISE * sqrt(3) = 0.0346.
    found = ratio([single(12.0), single(8.0), single(10.0, -2)])

    assert found.value == pytest.approx(0.96)
    assert math.log(found.high / found.value) == pytest.approx(0.0346, abs=1e-4)


def test_restarts_on_both_sides_give_welchs_interval() -> None:
    # One: mean 10, deviation 1, n 2, relative variance (1 / 10)**2 / 2 = 0.005 (9.2929 and 10.7071).
    # Other: the same. Sum 0.01, so the error is 0.1. Degrees: 0.01**2 / (2 * 0.005**2 / 1) = 2, t = 4.3027.
    values = [10 - math.sqrt(0.5), 10 + math.sqrt(0.5)]
    both = estimate(values)

    found = ratio([Factor(estimate=both, power=1), Factor(estimate=both, power=-1)])

    assert found.value == pytest.approx(1.0)
    assert math.log(found.high) == pytest.approx(4.3027 * 0.1, rel=1e-3)
    assert math.log(found.low) == pytest.approx(-4.3027 * 0.1, rel=1e-3)
    assert found.basis is Basis.RESTARTS


def test_identical_restarts_of_model_tell_nothing_of_spread() -> None:
    same = estimate([10.0, 10.0, 10.0])

    found = ratio([Factor(estimate=same, power=1), Factor(estimate=same, power=-1)])

    assert found.basis is Basis.SINGLE_START
    assert math.log(found.high) == pytest.approx(NOISE)


def test_uncertainty_of_reading_chart_is_added() -> None:
    # Read to 3 %: sqrt(0.02**2 / 2 + 0.03**2 + 0.02**2 / 2) = sqrt(0.0013) = 0.03606.
    found = ratio([single(1.0, reading=0.03, is_published=True), single(1.0, -1, is_published=True)])

    assert math.log(found.high) == pytest.approx(0.03606, abs=1e-5)
    assert found.basis is Basis.READING


def test_rate_of_zero_is_value() -> None:
    found = ratio([single(0.0)])

    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.0, None, Verdict.HOLDS),
        (None, 1.0, Verdict.FAILS),
        (1.0, 2.0, Verdict.HOLDS),
        (1.1, None, Verdict.INCONCLUSIVE),
        (1.3, None, Verdict.FAILS),
        (None, 1.1, Verdict.INCONCLUSIVE),
    ],
)
def test_expectation_is_met_only_by_whole_interval(
    low: float | None, high: float | None, verdict: Verdict
) -> None:
    found = Ratio(value=1.1, low=1.05, high=1.15, basis=Basis.RESTARTS)

    assert judge(found, low=low, high=high) is verdict


def test_one_load_point_against_claim_is_enough() -> None:
    holds, fails, open_ = Verdict.HOLDS, Verdict.FAILS, Verdict.INCONCLUSIVE

    assert combine([holds, holds]) is holds
    assert combine([holds, open_]) is open_
    assert combine([open_, fails, holds]) is fails
    assert combine([]) is Verdict.NO_DATA
