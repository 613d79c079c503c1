"""The KV cache of vLLM V1, block by block: what is remembered, and which block is given away next.

A full block is remembered by what is in it and all that comes before it, from the moment at which the step
that fills it is scheduled. Blocks that nobody uses wait in one line, in which those of a sequence stand from
its last to its first; who needs one takes it from the front, and what was in it is forgotten.

Source: vLLM 0.32.0 and 0.11.0, v1/core/block_pool.py and v1/core/kv_cache_manager.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from sweeper.simulation.blocks import Key, Pieces


class PlacedBlocks(Pieces):
    """The blocks of one engine, of which those that are remembered have numbers and all others are counted.

    Attributes:
        blocks: All there are.
        used: Those that sequences hold.
    """

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.blocks = blocks
        self.used = 0
        self._next_number = 0
        # Unused blocks with something in them, the next to be given away first. One that was taken out of the
        # line stays in it until it comes to the front: so often is its number to be passed over.
        self._line: deque[int] = deque()
        self._passed_over: dict[int, int] = {}
        self._idle = 0
        # Sequences that use each remembered block; what is in each; the block of each content, and any more
        # with the same one.
        self._users: dict[int, int] = {}
        self._content: dict[int, Key] = {}
        self._found: dict[Key, int] = {}
        self._copies: dict[Key, list[int]] = {}

    @property
    def free(self) -> int:
        """Blocks that a sequence could get."""
        return self.blocks - self.used

    def find(self, keys: Iterable[Key]) -> list[int]:
        """Return the remembered blocks of a prompt, up to the first that is not remembered."""
        blocks: list[int] = []
        for key in keys:
            block = self._found.get(key)
            if block is None:
                break
            blocks.append(block)
        return blocks

    def idle_of(self, blocks: Sequence[int]) -> int:
        """Count those of some blocks that nobody uses."""
        return sum(block not in self._users for block in blocks)

    def hold(self, blocks: Sequence[int]) -> None:
        """Use remembered blocks for one more sequence."""
        for block in blocks:
            if block in self._users:
                self._users[block] += 1
                continue
            self._users[block] = 1
            self._passed_over[block] = self._passed_over.get(block, 0) + 1
            self._idle -= 1
            self.used += 1

    def take(self, count: int) -> None:
        """Give blocks to sequences, and forget what was in them."""
        lost = count - (self.free - self._idle)
        self.used += count
        while lost > 0:
            block = self._line.popleft()
            if self._passed_over and block in self._passed_over:
                self._passed_over[block] -= 1
                if not self._passed_over[block]:
                    del self._passed_over[block]
                continue
            lost -= 1
            self._idle -= 1
            key = self._content.pop(block, None)
            if key is not None:
                self._forget(key, block)

    def remember(self, keys: Iterable[Key]) -> list[int]:
        """Remember what is in blocks that a sequence has taken; return their numbers."""
        contents = list(keys)
        blocks = list(range(self._next_number, self._next_number + len(contents)))
        self._next_number += len(contents)
        self._users.update(dict.fromkeys(blocks, 1))
        self._content.update(zip(blocks, contents, strict=True))
        for key, block in zip(contents, blocks, strict=True):
            # The same may be in another block already; the one that came first is found.
            if self._found.setdefault(key, block) != block:
                self._copies.setdefault(key, []).append(block)
        return blocks

    def give_back(self, blocks: Sequence[int], *, unnamed: int, plain: int, is_plain_first: bool) -> None:
        """Take back the blocks of a sequence.

        Args:
            blocks: Those that are remembered, from its first on.
            unnamed: How many full ones follow whose content nobody will ask for.
            plain: How many follow that are not full.
            is_plain_first: Whether these are the next to be given away; else they join the line.
        """
        self.used -= unnamed + plain
        joining = unnamed if is_plain_first else unnamed + plain
        if joining:
            self._line.extend(range(self._next_number, self._next_number + joining))
            self._next_number += joining
            self._idle += joining
        for block in reversed(blocks):
            users = self._users[block] - 1
            if users:
                self._users[block] = users
                continue
            del self._users[block]
            self._line.append(block)
            self._idle += 1
            self.used -= 1

    def forget(self) -> None:
        """Forget all that no sequence uses."""
        for block in self._line:
            if block not in self._users and block in self._content:
                self._forget(self._content.pop(block), block)
        self._line.clear()
        self._passed_over.clear()
        self._idle = 0

    def _forget(self, key: Key, block: int) -> None:
        copies = self._copies.get(key) if self._copies else None
        if copies is None:
            del self._found[key]
            return
        if self._found[key] == block:
            self._found[key] = copies.pop(0)
        else:
            copies.remove(block)
        if not copies:
            del self._copies[key]
