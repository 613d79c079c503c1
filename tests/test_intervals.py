"""Quantiles against the printed tables, and intervals worked out by hand."""

from __future__ import annotations

import math

import pytest

from sweeper import intervals


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    # Table of Student's t, 97.5 %, in any statistics book.
    [(1, 12.7062), (2, 4.3027), (10, 2.2281), (20, 2.0860), (21, 2.0796), (30, 2.0423), (1000, 1.9623)],
)
def test_t_quantiles_are_those_of_printed_table(degrees: int, quantile: float) -> None:
    assert intervals.t_quantile_975(degrees) == pytest.approx(quantile, abs=1e-4)


def test_interval_of_three_values_is_t_interval() -> None:
    # mean 2, deviation sqrt((1 + 0 + 1) / 2) = 1, half = 4.3027 * 1 / sqrt(3) = 2.4842
    number = intervals.estimate([1.0, 2.0, 3.0])

    assert number.mean == 2.0
    assert number.low == pytest.approx(2 - 2.4842, abs=1e-4)
    assert number.high == pytest.approx(2 + 2.4842, abs=1e-4)
    assert number.n == 3


def test_single_value_has_no_interval() -> None:
    assert intervals.estimate([7.0]) == intervals.Estimate(mean=7.0, low=None, high=None, n=1)


@pytest.mark.parametrize(
    ("probability", "degrees", "quantile"),
    # Abramowitz and Stegun, table 26.10.
    [(0.975, 1, 12.706), (0.975, 2, 4.303), (0.975, 5, 2.571), (0.995, 4, 4.604), (0.95, 30, 1.697)],
)
def test_quantiles_are_those_of_printed_table(probability: float, degrees: int, quantile: float) -> None:
    assert intervals.t_quantile(probability, degrees) == pytest.approx(quantile, abs=5e-4)


@pytest.mark.parametrize(
    ("probability", "degrees", "quantile"),
    # Table of Student's t in any statistics book, to its three decimals; both ways of computing meet at 100.
    [
        *((0.95, 1, 6.314), (0.95, 10, 1.812), (0.95, 120, 1.658)),
        *((0.975, 3, 3.182), (0.975, 60, 2.000), (0.975, 100, 1.984), (0.975, 120, 1.980)),
        *((0.99, 2, 6.965), (0.99, 20, 2.528), (0.99, 120, 2.358)),
        *((0.995, 1, 63.657), (0.995, 5, 4.032), (0.995, 100, 2.626), (0.995, 120, 2.617)),
        *((0.9995, 3, 12.924), (0.9995, 30, 3.646), (0.9995, 120, 3.373)),
    ],
)
def test_quantiles_of_printed_table(probability: float, degrees: int, quantile: float) -> None:
    assert intervals.t_quantile(probability, degrees) == pytest.approx(quantile, abs=5.1e-4)


def test_closed_form_meets_expansion() -> None:
    below, above = intervals.t_quantile(0.995, 100), intervals.t_quantile(0.995, 101)
    # The quantile falls by about z (z**2 + 1) / 4 / degrees**2 from one degree to the next: 4.9 / 101**2.
    assert below - above == pytest.approx(4.9e-4, abs=2e-5)


def test_geometric_mean() -> None:
    # Logarithms -1, 0, 1: mean 0, deviation 1, half = 4.3027 / sqrt(3) = 2.4842.
    found = intervals.geometric([math.exp(-1), 1.0, math.e])
    assert found.mean == pytest.approx(1.0)
    assert found.high is not None
    assert math.log(found.high) == pytest.approx(2.4842, abs=1e-4)


def test_welch_of_two_equal_means() -> None:
    # Variances 0.5 and 0.5 of two values each: sum 1, degrees 1 / (0.25 + 0.25) = 2, t = 4.3027.
    assert intervals.welch_half([(0.5, 2), (0.5, 2)]) == pytest.approx(4.3027, abs=1e-4)
    assert intervals.welch_half([(0.0, 2), (0.0, 2)]) == 0.0


def test_range_of_reading() -> None:
    # Mean 2, standard error 1 / sqrt(3), times 1.96.
    found = intervals.normal_interval([1.0, 2.0, 3.0])
    assert found.high == pytest.approx(2 + 1.1316, abs=1e-4)
    assert intervals.normal_interval([4.0]).low is None


@pytest.mark.parametrize(
    ("share", "count", "low", "high"),
    [
        # z^2 = 3.84146. 8 of 10: in the middle (0.8 + 0.192073) / 1.384146 = 0.716740, and to both sides
        # sqrt(0.8 * 0.2 * 0.384146 + 0.384146^2 / 4) / 1.384146 = 0.313616 / 1.384146 = 0.226577.
        (0.8, 10, 0.49016, 0.94332),
        # None of 100: 0 to 3.84146 / 103.84146.
        (0.0, 100, 0.0, 0.036994),
        (1.0, 100, 0.963006, 1.0),
    ],
)
def test_interval_is_wilsons(share: float, count: int, low: float, high: float) -> None:
    assert intervals.wilson(share, count) == pytest.approx((low, high), abs=1e-5)


def test_loss_of_pairs_is_newcombes() -> None:
    # 100 questions: 80 right by both, 10 by the first alone, 3 by the second alone, 7 by neither.
    before = [True] * 90 + [False] * 10
    now = [True] * 80 + [False] * 10 + [True] * 3 + [False] * 7
    found = intervals.paired_loss(before, now)
    assert found.mean == pytest.approx(0.07) and found.n == 100
    # By Wilson 0.90 is in 0.825634 to 0.944771 and 0.83 in 0.744520 to 0.891064. The correlation is
    # (80 * 7 - 10 * 3 - 50) / sqrt(90 * 10 * 83 * 17) = 480 / 1126.90 = 0.425948. Then
    # sqrt(0.044771^2 - 2 * 0.425948 * 0.044771 * 0.085480 + 0.085480^2) = 0.077788 upwards, and
    # sqrt(0.074366^2 - 2 * 0.425948 * 0.074366 * 0.061064 + 0.061064^2) = 0.073420 downwards.
    assert found.high == pytest.approx(0.07 + 0.077788, abs=1e-5)
    assert found.low == pytest.approx(0.07 - 0.073420, abs=1e-5)


def test_same_answers_lose_nothing_and_more_questions_say_so_more_surely() -> None:
    few, many = ([True] * n + [False] * (n // 9) for n in (9, 900))
    assert intervals.paired_loss(few, few).mean == 0.0 == intervals.paired_loss(many, many).mean
    assert 0 <= intervals.paired_loss(many, many).high < intervals.paired_loss(few, few).high
    fell = [not right for right in many]
    assert intervals.paired_loss(many, fell).low > 0.7
