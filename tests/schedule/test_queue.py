"""Orders of those who wait are those of their definition, however few of them are looked at."""

from __future__ import annotations

import random

import pytest

from sweeper.schedule.occupancy import Entry
from sweeper.schedule.queue import ORDERS, PATIENCE, Queue, View, Waiting

RANKS = {None: 1, "a": 0, "b": 2}


def filled(order: str, chances: random.Random, *, entries: int) -> Queue:
    queue = Queue(order)
    for number in range(1, entries + 1):
        entry = Entry(
            key=str(number),
            devices=chances.choice([1, 2, 4]),
            predicted_s=float(chances.randint(1, 9)),
            is_exclusive=chances.random() < 0.2,
            is_next=chances.random() < 0.1,
            start_key=chances.choice([None, "a", "b"]),
        )
        queue.add(Waiting(entry=entry, number=number, round=number // 3, chance=chances.random()))
    return queue


def by_definition(queue: Queue, order: str, view: View) -> list[str]:
    def rank(waiting: Waiting) -> tuple[float, ...]:
        entry = waiting.entry
        claims = (entry.key != view.holder, not entry.is_next, not queue.is_late(waiting))
        before_all = (*claims, RANKS[entry.start_key])
        if order == "as_written":
            return (*before_all, waiting.number)
        if order == "shuffled":
            return (*before_all, waiting.chance)
        group = (0 if view.has_empty_node else 2) if entry.is_exclusive else 1
        is_short = entry.predicted_s < view.rest_s
        return (*before_all, group, is_short, -entry.devices, -entry.predicted_s, waiting.number)

    return [waiting.entry.key for waiting in sorted(queue, key=rank)]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("seed", range(8))
def test_order_is_that_of_its_definition(order: str, seed: int) -> None:
    chances = random.Random(seed)
    queue = filled(order, chances, entries=60)
    view = View(
        holder=chances.choice([None, "7"]),
        has_empty_node=chances.random() < 0.5,
        rest_s=6.0,
        start_rank=lambda key: RANKS[key],
    )
    for _ in range(6):
        assert [one.entry.key for one in queue.in_order(view)] == by_definition(queue, order, view)
        gone = chances.choice(list(queue))
        queue.remove(gone.entry.key)
        queue.note_begin(gone)
        queue.predict_anew(
            {one.entry.key: float(chances.randint(1, 9)) for one in chances.sample(list(queue), 5)}
        )


def test_entry_is_late_when_so_many_later_ones_have_started() -> None:
    queue = filled("as_written", random.Random(0), entries=PATIENCE + 9)
    first, *others = queue
    assert first.round == 0
    for waiting in others[2 : PATIENCE + 1]:
        queue.remove(waiting.entry.key)
        queue.note_begin(waiting)
    assert not queue.is_late(first)
    queue.note_begin(others[PATIENCE + 2])
    assert queue.is_late(first)


def test_kind_that_found_no_room_is_passed_over_but_for_those_that_are_gone_in_time() -> None:
    queue = Queue("longest_first")
    wide = [Entry(key=f"wide-{s}", devices=4, predicted_s=float(s)) for s in (9, 5, 3)]
    narrow = Entry(key="narrow", devices=1, predicted_s=4.0)
    for number, entry in enumerate([*wide, narrow], start=1):
        queue.add(Waiting(entry=entry, number=number, round=0, chance=0.0))
    view = View(holder=None, has_empty_node=False, rest_s=99.0, start_rank=lambda key: 1)
    order = queue.in_order(view)
    order.pass_over(next(order), unless=lambda predicted_s: predicted_s <= 3.0)
    assert [one.entry.key for one in order.left()] == ["wide-3", "narrow"]
    order.pass_over(next(order), unless=None)
    assert [one.entry.key for one in order] == ["narrow"]


def test_sum_of_what_waits_comes_back_to_nought() -> None:
    queue = Queue("shuffled")
    for number in range(1, 8):
        entry = Entry(key=str(number), devices=2, predicted_s=0.1 * number)
        queue.add(Waiting(entry=entry, number=number, round=0, chance=0.0))
    assert queue.device_s == pytest.approx(2 * 0.1 * 28)
    for number in range(1, 8):
        queue.remove(str(number))
    assert queue.device_s == 0.0 and list(queue) == []
