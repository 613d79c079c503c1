"""The KV cache of vLLM V0: what full blocks hold is kept once, and the longest unused is given away first.

A full block is kept by what is in it and all that comes before it. Requests that are admitted take what is
there already, and those of the same step share what they are about to compute, though they all compute it.
Blocks that nobody uses wait until there are no empty ones left; of those that were last used in the same
step, the one that stands last in its sequence goes first.

Source: vLLM 0.8.5, core/block/prefix_caching_block.py and core/evictor.py.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from sweeper.simulation.blocks import Key, Pieces


class SharedBlocks(Pieces):
    """The blocks of one engine: those that are kept go by what is in them, and the others are counted.

    Attributes:
        blocks: All there are.
    """

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.blocks = blocks
        self._private = 0
        # Sequences that use each kept block, and of those that none uses, their number in the line.
        self._users: dict[Key, int] = {}
        self._idle: dict[Key, int] = {}
        # Those that are not computed yet.
        self._coming: set[Key] = set()
        # The line: last use, places from the front of the sequence, and number, the next to go first. One
        # that is used again stays in it until it comes to the front.
        self._line: list[tuple[int, int, int, Key]] = []
        self._next_number = 0

    @property
    def used(self) -> int:
        """Blocks that sequences hold."""
        return self._private + len(self._users)

    @property
    def free(self) -> int:
        """Blocks that a sequence could get."""
        return self.blocks - self.used

    def find(self, keys: Iterable[Key]) -> int:
        """Count the blocks that a prompt begins with and that are computed."""
        count = 0
        for key in keys:
            if key not in self._idle and (key not in self._users or key in self._coming):
                break
            count += 1
        return count

    def hold(self, keys: Iterable[Key]) -> None:
        """Use the blocks of a prompt, one after the other, and take those that are not there."""
        for key in keys:
            if key in self._users:
                self._users[key] += 1
                continue
            self._users[key] = 1
            if self._idle.pop(key, None) is None:
                self._coming.add(key)
                self._make_room()

    def computed(self, keys: Iterable[Key]) -> None:
        """Take note that blocks of a prompt are computed."""
        self._coming.difference_update(keys)

    def take(self, count: int) -> None:
        """Give blocks to sequences; negative ones come back empty."""
        self._private += count
        self._make_room()

    def let_go(self, keys: Iterable[Key], *, turn: int) -> None:
        """End one sequence's use of kept blocks, the last of which was in a step of that number."""
        for key in keys:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key]
                self._coming.discard(key)
                self._wait(key, turn=turn)

    def keep(self, keys: Iterable[Key], *, turn: int) -> None:
        """Keep full blocks that a sequence gives back; what is kept already is not kept twice."""
        for key in keys:
            self._private -= 1
            if key not in self._users and key not in self._idle:
                self._wait(key, turn=turn)

    def forget(self) -> None:
        """Forget all that no sequence uses."""
        self._idle.clear()
        self._line.clear()

    def _wait(self, key: Key, *, turn: int) -> None:
        self._next_number += 1
        self._idle[key] = self._next_number
        heapq.heappush(self._line, (turn, -key[1], self._next_number, key))

    def _make_room(self) -> None:
        while self._idle and self.used + len(self._idle) > self.blocks:
            *_, number, key = heapq.heappop(self._line)
            if self._idle.get(key) == number:
                del self._idle[key]
