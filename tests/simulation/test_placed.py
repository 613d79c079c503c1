from __future__ import annotations

from sweeper.simulation.placed import PlacedBlocks


def keys(piece: int, count: int) -> list[tuple[int, int]]:
    return [(piece, number) for number in range(count)]


def used_by(placed: PlacedBlocks, piece: int, count: int) -> list[int]:
    """Take blocks for a prompt and remember them."""
    placed.take(count)
    return placed.remember(keys(piece, count))


def give_back(
    placed: PlacedBlocks, blocks: list[int], *, plain: int = 0, is_plain_first: bool = True
) -> None:
    placed.give_back(blocks, unnamed=0, plain=plain, is_plain_first=is_plain_first)


def test_block_is_found_while_it_is_used_and_up_to_first_that_is_not() -> None:
    placed = PlacedBlocks(10)
    blocks = used_by(placed, 1, 3)
    assert placed.find(keys(1, 5)) == blocks
    assert placed.find(keys(2, 5)) == []
    assert placed.idle_of(blocks) == 0


def test_of_equal_blocks_first_is_found_and_then_next() -> None:
    placed = PlacedBlocks(4)
    first, second = used_by(placed, 1, 2), used_by(placed, 1, 2)
    assert placed.find(keys(1, 2)) == first
    give_back(placed, first)
    # The two blocks of the first are all that is free; they are given to somebody else.
    placed.take(2)
    assert placed.find(keys(1, 2)) == second


def test_last_block_of_sequence_is_given_away_before_its_first() -> None:
    placed = PlacedBlocks(3)
    give_back(placed, used_by(placed, 1, 3))
    placed.take(1)
    assert len(placed.find(keys(1, 3))) == 2


def test_held_block_is_not_given_away_and_takes_its_turn_anew() -> None:
    placed = PlacedBlocks(4)
    old, new = used_by(placed, 1, 2), used_by(placed, 2, 2)
    give_back(placed, old)
    give_back(placed, new)
    placed.hold(old)
    assert (placed.used, placed.free) == (2, 2)
    give_back(placed, old)
    # Now the second sequence's were used longest ago.
    placed.take(2)
    assert placed.find(keys(1, 2)) == old
    assert placed.find(keys(2, 2)) == []


def test_shared_block_is_free_when_last_user_lets_go() -> None:
    placed = PlacedBlocks(4)
    blocks = used_by(placed, 1, 2)
    placed.hold(blocks)
    give_back(placed, blocks)
    assert placed.free == 2
    give_back(placed, blocks)
    assert placed.free == 4


def test_blocks_that_are_not_full_are_given_away_first_or_in_turn() -> None:
    for is_plain_first, kept in ((True, 2), (False, 1)):
        placed = PlacedBlocks(4)
        give_back(placed, used_by(placed, 1, 2))
        placed.take(2)
        give_back(placed, [], plain=2, is_plain_first=is_plain_first)
        # In turn, what was remembered before them goes before them.
        placed.take(1)
        assert len(placed.find(keys(1, 2))) == kept


def test_what_is_used_is_not_forgotten() -> None:
    placed = PlacedBlocks(4)
    used, unused = used_by(placed, 1, 2), used_by(placed, 2, 2)
    give_back(placed, unused)
    placed.forget()
    assert placed.find(keys(1, 2)) == used
    assert placed.find(keys(2, 2)) == []
    placed.take(2)
    assert placed.free == 0
