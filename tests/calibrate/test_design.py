"""Which numbers tell most of the others: held against Bayes' rule and against choices beside them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from sweeper.calibrate import design
from sweeper.calibrate.design import Design
from sweeper.calibrate.fitting import Floats

KINDS = ("throughput", "TTFT", "TPOT") * 4


def slopes(seed: int) -> Floats:
    return np.random.default_rng(seed).normal(size=(len(KINDS), 5))


def made(seed: int, *, kinds: tuple[str, ...] = KINDS) -> Design:
    return Design(
        slopes(seed), np.linspace(0.1, 0.5, 5), np.where(np.array(kinds) == "TTFT", 0.5, 1.0), kinds
    )


def left(chosen: Design, taken: tuple[int, ...]) -> float:
    """Return what is left open of all other numbers, each as much as it counts."""
    others = [place for place in range(len(KINDS)) if place not in taken]
    counts = np.where(np.array(KINDS) == "TTFT", 0.5, 1.0)
    return float(counts[others] @ chosen.left_open(taken)[others])


def test_what_is_left_open_follows_from_bayes_rule() -> None:
    spreads, known = np.linspace(0.1, 0.5, 5), [1, 4, 6]
    errors = np.array([2 * design._OFF, 2 * design._OFF, design._OFF])
    of = slopes(0)
    precision = np.diag(spreads**-2) + (of[known].T / errors**2) @ of[known]
    expected = np.sqrt(np.einsum("ij,jk,ik->i", of, np.linalg.inv(precision), of))
    assert made(0).left_open(known) == pytest.approx(expected)
    assert made(0).left_open([]) == pytest.approx(np.sqrt(((of * spreads) ** 2).sum(axis=1)))


@pytest.mark.parametrize("seed", range(4))
def test_no_exchange_of_one_number_would_leave_less_open(seed: int) -> None:
    several = made(seed)
    chosen = several.choose(4)
    cost = left(several, tuple(chosen))
    for place in range(4):
        for other in set(range(len(KINDS))) - set(chosen):
            swapped = (*chosen[:place], other, *chosen[place + 1 :])
            assert left(several, swapped) >= cost * (1 - 1e-6)


def test_one_number_of_each_kind_stays_to_be_predicted() -> None:
    kinds = ("TTFT", "TTFT", *("TPOT",) * 9, "latency")
    # The two TTFTs alone tell of anything.
    steep = slopes(3) * np.where(np.arange(12) < 2, 1.0, 1e-3)[:, None]
    several = Design(steep, np.full(5, 0.4), np.ones(12), kinds)
    assert len({0, 1} & set(several.choose(6))) == 1
    # All but one of each kind, and what is the only one of its kind.
    assert len(several.choose(99)) == 1 + 8 + 1


def test_runs_are_chosen_whole() -> None:
    several, runs = made(5), [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    chosen = several.choose(2, runs=runs)
    every = {pair: left(several, (*runs[pair[0]], *runs[pair[1]])) for pair in combinations(range(4), 2)}
    assert tuple(sorted(chosen)) == min(every, key=every.__getitem__)
    again = several.choose(1, runs=runs, known=runs[chosen[0]])
    assert chosen[0] not in again
    assert len(again) == 1
    # Of two runs one is chosen, though no other number is of its kind.
    kinds = ("TTFT", "TTFT", "TPOT", "TPOT")
    assert (
        len(Design(slopes(5)[:4], np.full(5, 0.4), np.ones(4), kinds).choose(1, runs=[[0, 1], [2, 3]])) == 1
    )
