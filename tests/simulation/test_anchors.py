"""What trials say of the model's predictions for others: by how much, and how sure."""

from __future__ import annotations

import math
import random

import pytest

from sweeper.simulation import intervals
from sweeper.simulation.anchors import Anchors, Number

TPS, TTFT = "output_throughput_tok_per_s", "mean_ttft_ms"
LIGHT, HEAVY = (4.0,), (None,)


def number(trial: int, off: float, *, metric: str = TPS, load: tuple[object, ...] = LIGHT) -> Number:
    return Number(trial=str(trial), load=load, metric=metric, predicted=100.0, measured=100.0 * off)


def anchors(*numbers: Number) -> Anchors:
    return Anchors(numbers=numbers)


def test_without_trials_model_is_taken_at_its_word() -> None:
    assert Anchors().factor(TPS, LIGHT) == 1.0
    assert Anchors().wide(TPS) is None


def test_one_trial_moves_prediction_most_of_the_way_and_more_trials_all_of_it() -> None:
    moved = [anchors(*(number(trial, 0.8) for trial in range(count))).factor(TPS) for count in (1, 2, 4, 32)]
    assert moved == sorted(moved, reverse=True)
    assert 0.8 < moved[-1] < 0.802 < moved[0] < 0.9


def test_error_larger_than_any_known_one_is_believed_at_once() -> None:
    # A CPU is ten or a hundred times off: a third of that left would make the prediction worthless.
    assert anchors(number(1, 0.02)).factor(TPS) == pytest.approx(0.02, rel=0.02)


def test_one_odd_trial_moves_little() -> None:
    alike = [number(trial, 0.8) for trial in range(6)]
    assert anchors(*alike, number(6, 0.2)).factor(TPS) == pytest.approx(anchors(*alike).factor(TPS), rel=0.01)


def test_load_point_that_departs_has_factor_of_its_own() -> None:
    found = anchors(
        *(number(trial, 0.9, load=LIGHT) for trial in range(8)),
        *(number(trial, 0.5, load=HEAVY) for trial in range(8)),
    )
    assert found.factor(TPS, LIGHT) == pytest.approx(0.9, rel=0.02)
    assert found.factor(TPS, HEAVY) == pytest.approx(0.5, rel=0.02)
    # Of a load that nobody measured all that is known is the middle.
    assert 0.5 < found.factor(TPS, ("another",)) < 0.9


def test_metrics_are_moved_apart() -> None:
    found = anchors(number(1, 0.5), number(1, 2.0, metric=TTFT))
    assert found.factor(TPS) < 1 < found.factor(TTFT)
    assert found.factor("mean_tpot_ms") == 1.0


def test_same_trials_in_any_order_are_same_anchors() -> None:
    numbers = [number(trial, 0.7 + 0.02 * trial, load=load) for trial in range(9) for load in (LIGHT, HEAVY)]
    mixed = random.Random(1).sample(numbers, len(numbers))
    for metric, load in ((TPS, LIGHT), (TPS, HEAVY), (TPS, None)):
        assert anchors(*mixed).factor(metric, load) == anchors(*numbers).factor(metric, load)
    assert anchors(*mixed).wide(TPS) == pytest.approx(anchors(*numbers).wide(TPS))


def test_interval_narrows_to_what_trials_scatter() -> None:
    known = intervals.factor(TPS, 0.0)
    assert known is not None
    widths = [
        anchors(*(number(trial, 0.8 * (1.01 if trial % 2 else 0.99)) for trial in range(count))).wide(TPS)
        for count in (1, 4, 64)
    ]
    assert all(width is not None for width in widths)
    assert widths == sorted(widths, reverse=True, key=lambda width: width or 0.0)
    assert (widths[0] or 0.0) > known > (widths[-1] or 0.0)
    assert (widths[-1] or 0.0) < 1.05


@pytest.mark.parametrize("scatter", [0.02, 0.1, 0.4])
def test_interval_holds_four_of_five_numbers_that_were_not_seen(scatter: float) -> None:
    chances = random.Random(7)
    inside = count = 0
    for _ in range(60):
        level = chances.gauss(0.0, 0.5)
        offs = [math.exp(level + chances.gauss(0.0, scatter)) for _ in range(20)]
        found = anchors(*(number(trial, off) for trial, off in enumerate(offs[:12])))
        wide, middle = found.wide(TPS), found.factor(TPS, LIGHT)
        assert wide is not None
        inside += sum(middle / wide <= off <= middle * wide for off in offs[12:])
        count += len(offs[12:])
    # Where trials scatter less than any published stack did, what is known of those makes it wider.
    assert 0.7 <= inside / count <= (0.9 if scatter > 0.05 else 1.0)
