from __future__ import annotations

from sweeper.simulation.shared import SharedBlocks

FIRST = [(1, 0), (1, 1), (1, 2)]
SECOND = [(1, 0), (2, 1)]


def test_what_is_computed_is_found_as_far_as_it_is_the_same() -> None:
    blocks = SharedBlocks(10)
    blocks.hold(FIRST)
    assert blocks.find(FIRST) == 0, "nothing is computed yet"
    blocks.computed(FIRST)
    assert (blocks.find(FIRST), blocks.find(SECOND)) == (3, 1)


def test_prompts_of_one_step_share_what_they_are_about_to_compute() -> None:
    blocks = SharedBlocks(10)
    blocks.hold(FIRST)
    blocks.hold(SECOND)
    assert (blocks.used, blocks.free) == (4, 6)
    blocks.let_go(FIRST, turn=1)
    assert blocks.used == 2
    blocks.let_go(SECOND, turn=1)
    assert blocks.used == 0


def test_empty_blocks_go_before_those_that_are_kept() -> None:
    blocks = SharedBlocks(5)
    blocks.hold(FIRST)
    blocks.let_go(FIRST, turn=1)
    blocks.take(2)
    assert blocks.find(FIRST) == 3
    blocks.take(1)
    assert blocks.find(FIRST) == 2, "the last of the sequence goes first"


def test_longest_unused_goes_first_and_what_is_used_again_stays() -> None:
    blocks = SharedBlocks(6)
    for turn, key in enumerate([(1, 0), (2, 0), (3, 0)]):
        blocks.hold([key])
        blocks.let_go([key], turn=turn)
    blocks.hold([(1, 0)])
    blocks.let_go([(1, 0)], turn=3)
    blocks.take(4)
    assert [blocks.find([key]) for key in [(1, 0), (2, 0), (3, 0)]] == [1, 0, 1]
    blocks.take(2)
    assert [blocks.find([key]) for key in [(1, 0), (2, 0), (3, 0)]] == [0, 0, 0]


def test_block_that_is_kept_already_is_not_kept_twice() -> None:
    blocks = SharedBlocks(4)
    blocks.hold([(1, 0)])
    blocks.take(2)
    blocks.keep([(1, 0), (1, 1)], turn=1)
    assert (blocks.used, blocks.find([(1, 0), (1, 1)])) == (1, 0)
    blocks.computed([(1, 0)])
    assert blocks.find([(1, 0), (1, 1)]) == 2


def test_what_nobody_uses_can_be_forgotten() -> None:
    blocks = SharedBlocks(4)
    blocks.hold(FIRST)
    blocks.computed(FIRST)
    blocks.let_go(FIRST, turn=1)
    blocks.hold([(1, 0)])
    blocks.forget()
    assert blocks.find(FIRST) == 1
    assert blocks.free == 3
