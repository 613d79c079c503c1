from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.simulation import decoding as module
from sweeper.simulation.decoding import Decoding

SEQUENCES = st.lists(st.tuples(st.integers(2, 90), st.integers(1, 40)), min_size=1, max_size=12)


def decoding_of(sequences: list[tuple[int, int]]) -> Decoding:
    """Take in sequences of (context, tokens left), all at second 0."""
    decoding = Decoding(block_tokens=16)
    for index, (context, left) in enumerate(sequences):
        decoding.join(index, context=context, left=left, at_s=0.0)
    return decoding


def test_sequences_end_when_they_have_their_tokens() -> None:
    decoding = decoding_of([(11, 3), (21, 1), (31, 3)])
    assert (decoding.least_left, decoding.context_tokens) == (1, 63)
    assert decoding.ending(within=1) == {1: 1}
    assert decoding.ending(within=3) == {0: 3, 1: 1, 2: 3}
    assert decoding.advance(1, times_s=[1.0]) == {1: 1.0}
    assert (len(decoding), decoding.least_left, decoding.context_tokens) == (2, 2, 44)
    assert decoding.advance(1, times_s=[2.0, 3.0]) == {0: 3.0, 2: 3.0}
    first_s, gaps_s = decoding.times_s(requests=4)
    assert first_s[:3].tolist() == [0.0, 0.0, 0.0]
    assert np.isnan(first_s[3])
    assert gaps_s.tolist() == [1.0] * 7


def test_one_that_is_cut_off_goes_on_where_it_was() -> None:
    decoding = decoding_of([(11, 5), (11, 2)])
    decoding.advance(1, times_s=[1.0])
    assert decoding.leave(0) == 4
    assert decoding.ending(within=9) == {1: 1}
    decoding.advance(1, times_s=[2.0])
    decoding.join(0, context=13, left=1, at_s=7.0)
    assert decoding.advance(1, times_s=[9.0]) == {0: 9.0}
    # Tokens at 0 and 1, then at 7 and 9; the other's at 0, 1 and 2.
    assert decoding.times_s(requests=2)[1].tolist() == [1.0, 6.0, 2.0, 1.0, 1.0]


@given(SEQUENCES, st.integers(0, 30), st.integers(1, 60))
def test_blocks_that_all_lack_are_those_that_each_lacks(
    sequences: list[tuple[int, int]], advanced: int, tokens: int
) -> None:
    decoding = decoding_of(sequences)
    alive = [(context + advanced, left - advanced) for context, left in sequences if left > advanced]
    for second in range(advanced):
        decoding.advance(1, times_s=[float(second)])
    assert len(decoding) == len(alive)

    def blocks(more: int) -> int:
        # All but the last token of a context are in the cache.
        return sum(math.ceil((context - 1 + more) / 16) for context, _ in alive)

    assert decoding.lacking(tokens) == blocks(tokens) - blocks(0)
    decoding.granted = 1
    assert decoding.lacking(tokens) == blocks(tokens) - blocks(1)


@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_times_are_the_same_however_many_are_worked_out_at_once(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AT_ONCE_TOKENS", at_once)
    decoding = decoding_of([(5, 2), (5, 4), (5, 1)])
    decoding.advance(1, times_s=[1.0])
    decoding.leave(0)
    decoding.join(0, context=9, left=1, at_s=1.5)
    decoding.advance(1, times_s=[3.0])
    decoding.advance(1, times_s=[6.0, 10.0])
    assert decoding.times_s(requests=3)[1].tolist() == [1.0, 0.5, 1.5, 1.0, 2.0, 3.0, 4.0, 1.0]
