"""Who waits, in the order in which a scheduler looks at them, worked out only as far as it looks.

Entries that are alike in all that decides where they may go (width, whether they run alone, whose start they
share) form a row, sorted once. An order is a merge of rows, so that a look at ten thousand entries of a kind
costs as much as the few that start; and where one of a row found no room, the rest of it is passed over.
"""

from __future__ import annotations

import bisect
import copy
import heapq
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from sweeper.schedule.occupancy import Entry

LONGEST_FIRST, AS_WRITTEN, SHUFFLED = ORDERS = ("longest_first", "as_written", "shuffled")
"""In which order entries that wait are looked at."""

PATIENCE = 32
"""So many entries that arrived later may start before one that waits comes first."""

_Kind: TypeAlias = tuple[bool, str | None, int]
_Rank: TypeAlias = tuple[float, ...]


@dataclass(kw_only=True)
class Waiting:
    """An entry that waits.

    Attributes:
        entry: What waits.
        number: Its place among all that were ever added, from 1.
        round: Look in which it was added.
        chance: Its place where the order is shuffled, 0 to 1.
    """

    entry: Entry
    number: int
    round: int
    chance: float

    @property
    def kind(self) -> _Kind:
        """What it has in common with others that may go wherever it may."""
        return (self.entry.is_exclusive, self.entry.start_key, self.entry.devices)


# By its place in its row; no two have one number, so that nothing else is compared.
_Placed: TypeAlias = tuple[float, int, Waiting]


@dataclass(frozen=True, kw_only=True)
class View:
    """What an order depends on besides those who wait.

    Attributes:
        holder: Key of the entry that has a reservation.
        has_empty_node: Whether nothing runs on one of the nodes.
        rest_s: How long all that is left would take, evenly spread; for the longest first.
        start_rank: Of an engine's start by its key: the lower, the sooner its entries come.
    """

    holder: str | None
    has_empty_node: bool
    rest_s: float
    start_rank: Callable[[str | None], int]


class Queue:
    """Entries that wait, by key."""

    def __init__(self, order: str) -> None:
        """Begin empty.

        Args:
            order: One of ``ORDERS``.
        """
        self._order = order
        self._waiting: dict[str, Waiting] = {}
        self._rows: dict[_Kind, list[_Placed]] = {}
        self._next: set[str] = set()
        self._begun: list[int] = []
        self.device_s = 0.0

    def __contains__(self, key: str) -> bool:
        return key in self._waiting

    def __iter__(self) -> Iterator[Waiting]:
        return iter(tuple(self._waiting.values()))

    def add(self, waiting: Waiting) -> None:
        """Take in an entry of a new key; rounds never go back."""
        entry = waiting.entry
        self._waiting[entry.key] = waiting
        bisect.insort(self._rows.setdefault(waiting.kind, []), self._placed(waiting))
        self.device_s += entry.predicted_s * entry.devices
        if entry.is_next:
            self._next.add(entry.key)

    def predict_anew(self, predicted_s: Mapping[str, float]) -> None:
        """Replace the predictions of entries, by key; they keep their places otherwise."""
        kinds = set()
        for key, seconds in predicted_s.items():
            waiting = self._waiting[key]
            entry = waiting.entry
            if seconds != entry.predicted_s:
                self.device_s += (seconds - entry.predicted_s) * entry.devices
                waiting.entry = replace(entry, predicted_s=seconds)
                kinds.add(waiting.kind)
        for kind in kinds:
            self._rows[kind] = sorted(self._placed(waiting) for *_, waiting in self._rows[kind])

    def remove(self, key: str) -> None:
        """Forget an entry; nothing happens where it does not wait."""
        waiting = self._waiting.pop(key, None)
        if waiting is None:
            return
        row = self._rows[waiting.kind]
        del row[bisect.bisect_left(row, self._placed(waiting))]
        if not row:
            del self._rows[waiting.kind]
        self._next.discard(key)
        self.device_s -= waiting.entry.predicted_s * waiting.entry.devices
        if not self._waiting:
            # Sums that are added to and taken from do not come back to nought.
            self.device_s = 0.0

    def note_begin(self, waiting: Waiting) -> None:
        """Note that an entry started: it passed all that wait since an earlier round."""
        bisect.insort(self._begun, waiting.round)
        # Only the latest decide who has waited long enough.
        del self._begun[:-PATIENCE]

    def is_late(self, waiting: Waiting) -> bool:
        """Whether so many later ones started before an entry that its time is now."""
        return len(self._begun) == PATIENCE and self._begun[0] > waiting.round

    def in_order(self, view: View) -> Order:
        """Return those who wait, first to last; what is removed meanwhile is still among them."""
        first = {key: self._waiting[key] for key in self._next}
        if view.holder in self._waiting:
            first[str(view.holder)] = self._waiting[str(view.holder)]
        for waiting in self._waiting.values():
            if not self.is_late(waiting):
                break
            first[waiting.entry.key] = waiting
        rank = self._rank_of(view)

        def before_all(waiting: Waiting) -> _Rank:
            entry = waiting.entry
            claims = (entry.key != view.holder, not entry.is_next, not self.is_late(waiting))
            return (*claims, *rank(waiting))

        return Order(
            first=sorted(first.values(), key=before_all),
            rows=[part for row in self._rows.values() for part in self._parts(row, view.rest_s)],
            rank=rank,
            are_by_length=self._order == LONGEST_FIRST,
        )

    def _placed(self, waiting: Waiting) -> _Placed:
        """Return an entry with what those of one row are sorted by."""
        if self._order == LONGEST_FIRST:
            return (-waiting.entry.predicted_s, waiting.number, waiting)
        return (waiting.chance if self._order == SHUFFLED else waiting.number, waiting.number, waiting)

    def _parts(self, row: list[_Placed], rest_s: float) -> list[list[_Placed]]:
        """Split a row in two where ranks begin anew: what lasts for all that is left comes before others."""
        if self._order != LONGEST_FIRST:
            return [list(row)]
        at = bisect.bisect_right(row, -rest_s, key=lambda placed: placed[0])
        return [part for part in (row[:at], row[at:]) if part]

    def _rank_of(self, view: View) -> Callable[[Waiting], _Rank]:
        # As things are now: an order is read while trials start.
        starts = {start_key: view.start_rank(start_key) for _, start_key, _ in self._rows}

        def rank(waiting: Waiting) -> _Rank:
            entry = waiting.entry
            start = starts[entry.start_key]
            if self._order == AS_WRITTEN:
                return (start, waiting.number)
            if self._order == SHUFFLED:
                return (start, waiting.chance)
            group = (0 if view.has_empty_node else 2) if entry.is_exclusive else 1
            is_short = entry.predicted_s < view.rest_s
            return (start, group, is_short, -entry.devices, -entry.predicted_s, waiting.number)

        return rank


class Order(Iterator[Waiting]):
    """Those who wait, one after the other."""

    def __init__(
        self,
        *,
        first: list[Waiting],
        rows: list[list[_Placed]],
        rank: Callable[[Waiting], _Rank],
        are_by_length: bool,
    ) -> None:
        """Begin before the first.

        Args:
            first: Who comes before all others, in order.
            rows: Parts of rows, each sorted as its ranks are.
            rank: What the others are merged by.
            are_by_length: Whether rows begin with the longest prediction.
        """
        self._first = iter(first)
        self._are_first = {one.number for one in first}
        self._rank = rank
        self._rows = rows
        self._are_by_length = are_by_length
        self._at = [0] * len(rows)
        self._heads: list[tuple[_Rank, int, int]] = []
        for row in range(len(rows)):
            self._push(row)

    def __next__(self) -> Waiting:
        found = next(self._first, None)
        if found is not None:
            return found
        while self._heads:
            _, row, at = heapq.heappop(self._heads)
            if at != self._at[row]:
                self._push(row)
                continue
            found = self._rows[row][at][2]
            self._at[row] += 1
            self._push(row)
            return found
        raise StopIteration

    def left(self) -> Iterator[Waiting]:
        """Return those to come, and stay where it is."""
        rest = copy.copy(self)
        rest._first, self._first = itertools.tee(self._first)
        rest._at, rest._heads = list(self._at), list(self._heads)
        return rest

    def pass_over(self, waiting: Waiting, *, unless: Callable[[float], bool] | None) -> None:
        """Leave out those of a kind that find no room either.

        Args:
            waiting: One of them, which found none.
            unless: Whether one of such a prediction may find room all the same, which no longer one does if a
                shorter one does not; None where none does.
        """
        for row, part in enumerate(self._rows):
            if part[0][2].kind == waiting.kind:
                at = len(part) if unless is None else self._first_of(part, unless)
                self._at[row] = max(self._at[row], at)

    def _first_of(self, part: list[_Placed], is_short: Callable[[float], bool]) -> int:
        if not self._are_by_length:
            return 0
        return bisect.bisect_left(part, True, key=lambda placed: is_short(-placed[0]))

    def _push(self, row: int) -> None:
        part = self._rows[row]
        while self._at[row] < len(part) and part[self._at[row]][1] in self._are_first:
            self._at[row] += 1
        if self._at[row] < len(part):
            rank = self._rank(part[self._at[row]][2])
            heapq.heappush(self._heads, (rank, row, self._at[row]))
