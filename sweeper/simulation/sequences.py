"""Which of the KV cache's blocks each request holds, in each of vLLM's two schedulers."""

from __future__ import annotations

from collections.abc import Iterator

from sweeper.simulation.blocks import Key
from sweeper.simulation.kv_cache import KvCache
from sweeper.simulation.rules import V0Rules
from sweeper.workload.requests import Prompt, Workload


class SharedHolders:
    """Blocks by request in V0, where a prompt gets all of its blocks at once.

    Attributes:
        kv: Where the blocks are.
    """

    def __init__(self, workload: Workload, kv: KvCache, *, rules: V0Rules) -> None:
        self.kv = kv
        self._workload = workload
        self._rules = rules
        # Tokens of each request that were in the cache when it came to the front of those that wait.
        self._looked: dict[int, int] = {}
        self._held: dict[int, list[Key]] = {}
        self._own = kv.shared.own_pieces(workload.requests)

    def find(self, index: int, *, target: int) -> int:
        """Return the tokens of a request that need not be computed; never its last one."""
        if not self.kv.keeps_prefixes:
            return 0
        size = self.kv.block_tokens
        end = (target - self._rules.spares_last) // size
        return min(self.kv.shared.find(self._keys(index, first=0, end=end)) * size, target - 1)

    def look_up(self, index: int, *, target: int) -> int:
        """Return what is found of a request that waits in front; some releases look only once."""
        if self._rules.looks_again or index not in self._looked:
            self._looked[index] = self.find(index, target=target)
        return self._looked[index]

    def known(self, index: int, *, target: int) -> int:
        """Return what is found of a prompt that is computed in part."""
        return self.find(index, target=target) if self._rules.computes_late else self._looked[index]

    def look_again(self, index: int) -> None:
        """Let a request that has lost its blocks be looked up again."""
        self._looked.pop(index, None)

    def admit(self, index: int, *, target: int, found: int) -> None:
        """Give a waiting request the blocks of its prompt."""
        blocks = self.kv.blocks_for(target)
        if self.kv.keeps_prefixes:
            self.kv.count_query(tokens=target, found=found)
            held = list(self._keys(index, first=0, end=target // self.kv.block_tokens))
            self._held[index] = held
            self.kv.shared.hold(held)
            blocks -= len(held)
        self.kv.take(blocks)
        self.kv.peak_blocks = max(self.kv.peak_blocks, self.kv.shared.used)

    def computed(self, index: int, *, tokens: int) -> None:
        """Take note that so many tokens of a prompt are computed."""
        if index in self._held:
            self.kv.shared.computed(self._held[index][: tokens // self.kv.block_tokens])

    def release(self, index: int, *, tokens: int, blocks: int, turn: int) -> None:
        """Take all blocks of a request back.

        Args:
            index: Which.
            tokens: Its tokens in them.
            blocks: How many they are; some may be for tokens that are still to come.
            turn: Number of the last step that it took part in.
        """
        if not self.kv.keeps_prefixes:
            self.kv.take(-blocks)
            return
        held = self._held.pop(index)
        full = tokens // self.kv.block_tokens
        self.kv.shared.let_go(held, turn=turn)
        self.kv.shared.keep(self._keys(index, first=len(held), end=full), turn=turn)
        self.kv.take(full - blocks)

    def _keys(self, index: int, *, first: int, end: int) -> Iterator[Key]:
        said = _said(self._workload, index) if self._rules.finds_answers else self._workload.prompt(index)
        return _keys(said, own=self._own - index, size=self.kv.block_tokens, first=first, end=end)


class BlockHolders:
    """Blocks by request in V1, where a full block is remembered as soon as the step that fills it is planned.

    Attributes:
        kv: Where the blocks are.
    """

    def __init__(self, workload: Workload, kv: KvCache, *, is_plain_first: bool) -> None:
        self.kv = kv
        self._workload = workload
        self._is_plain_first = is_plain_first
        self._remembered: dict[int, list[int]] = {}
        self._own = kv.placed.own_pieces(workload.requests)

    def find(self, index: int, *, target: int) -> list[int]:
        """Return the remembered blocks that a waiting request begins with; never its last token's."""
        if not self.kv.keeps_prefixes:
            return []
        return self.kv.placed.find(self._keys(index, first=0, end=(target - 1) // self.kv.block_tokens))

    def admit(self, index: int, *, found: list[int], tokens: int, whole: int, is_again: bool) -> bool:
        """Give a waiting request what was found of it and blocks for more tokens, if there are enough.

        Args:
            index: Which request.
            found: Its blocks in the cache.
            tokens: Up to which its first step computes.
            whole: Tokens for which there must be blocks, without its being given them.
            is_again: Whether it lost its blocks before; such requests are not counted as queries.
        """
        placed, size = self.kv.placed, self.kv.block_tokens
        known = len(found) * size
        if self.kv.blocks_for(whole) - len(found) + placed.idle_of(found) > placed.free:
            return False
        if self.kv.keeps_prefixes:
            if not is_again:
                self.kv.count_query(tokens=self._asked(index), found=known)
            placed.hold(found)
            self._remembered[index] = found
        self.extend(index, before=known, tokens=tokens)
        return True

    def _asked(self, index: int) -> int:
        return int(self._workload.input_tokens[index])

    def extend(self, index: int, *, before: int, tokens: int) -> None:
        """Give a request that has computed some tokens the blocks to compute more, and remember full ones."""
        self.kv.take_placed(self.kv.blocks_for(tokens) - self.kv.blocks_for(before))
        if self.kv.keeps_prefixes:
            self._remember(index, tokens=tokens)

    def _remember(self, index: int, *, tokens: int) -> None:
        remembered = self._remembered[index]
        full = tokens // self.kv.block_tokens
        if full > len(remembered):
            remembered += self.kv.placed.remember(self._keys(index, first=len(remembered), end=full))

    def release(self, index: int, *, computed: int, is_cut_off: bool) -> None:
        """Take back all blocks of a request.

        Args:
            index: Which.
            computed: Its tokens in them.
            is_cut_off: Whether it will look for them again.
        """
        blocks, full = self.kv.blocks_for(computed), computed // self.kv.block_tokens
        remembered: list[int] = []
        if self.kv.keeps_prefixes:
            if is_cut_off or self._workload.goes_on(index):
                self._remember(index, tokens=computed)
            remembered = self._remembered.pop(index)
        else:
            full = 0
        self.kv.placed.give_back(
            remembered,
            unnamed=full - len(remembered),
            plain=blocks - full,
            is_plain_first=self._is_plain_first or not self.kv.keeps_prefixes,
        )

    def _keys(self, index: int, *, first: int, end: int) -> Iterator[Key]:
        said = _said(self._workload, index)
        return _keys(said, own=self._own - index, size=self.kv.block_tokens, first=first, end=end)


def _said(workload: Workload, index: int) -> Prompt:
    """Return a request's prompt in pieces, and its answer where another turn has it."""
    return workload.answered(index) if workload.goes_on(index) else workload.prompt(index)


def _keys(said: Prompt, *, own: int, size: int, first: int, end: int) -> Iterator[Key]:
    """Return what is in some blocks of a request; what comes after what is said is its own."""
    place = first
    for piece, until in said:
        for block in range(place, min(until // size, end)):
            yield piece, block
        place = max(place, min(until // size, end))
    for block in range(place, end):
        yield own, block
