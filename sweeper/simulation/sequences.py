"""Which of the KV cache's blocks each request holds, in each of vLLM's two schedulers."""

from __future__ import annotations

from collections.abc import Iterator

from sweeper.simulation.kv_cache import KvCache
from sweeper.workload.requests import Prompt, Workload


class PieceHolders:
    """Blocks by request in V0, where a prompt is remembered in pieces once it is computed.

    Attributes:
        kv: Where the blocks are.
    """

    def __init__(self, workload: Workload, kv: KvCache) -> None:
        self.kv = kv
        self._workload = workload
        # Of requests that use remembered prompts: their blocks in them, and the pieces that they are in.
        self._shared: dict[int, int] = {}
        self._held: dict[int, tuple[int, ...]] = {}

    def uncached_tokens(self, index: int, *, target: int) -> int:
        """Return the tokens of a waiting request that have to be computed."""
        return target - self.kv.found_tokens(self._workload.prompt(index), prompt_tokens=target)

    def admit(self, index: int, *, target: int, kept: int) -> int | None:
        """Give a waiting request the blocks of its prompt, if there are enough besides those kept.

        Returns:
            Tokens found in the cache; None where it has to wait.
        """
        prompt = self._workload.prompt(index)
        found = self.kv.found_tokens(prompt, prompt_tokens=target)
        wanted = self.kv.blocks_for(target)
        # What is found may be idle and so counted as free; it will be held, and cannot be given away as well.
        if wanted + kept > self.kv.free_blocks:
            return None
        found, held = self.kv.look_up(prompt, prompt_tokens=target)
        shared = found // self.kv.block_tokens
        if held:
            self._held[index] = held
        if shared:
            self._shared[index] = shared
        self.kv.take(wanted - shared)
        return found

    def release(self, index: int, *, blocks: int) -> None:
        """Take all blocks of a request back."""
        shared = self._shared.pop(index, 0)
        self.kv.take(shared - blocks)
        if index in self._held:
            self.kv.let_go(self._held.pop(index))

    def keep_answer(self, index: int) -> None:
        """Keep what was answered to a request, where another turn follows."""
        if self._workload.goes_on(index):
            self._keep(index, self._workload.answered(index))

    def remember(self, index: int) -> None:
        """Keep the prompt of a request for others, once it is computed."""
        if self.kv.keeps_prefixes:
            self._keep(index, self._workload.prompt(index))

    def _keep(self, index: int, said: Prompt) -> None:
        held = self._held.get(index, ())
        passed, new = self.kv.remember(said, held=held)
        if new:
            self._held[index] = (*held, *new)
            self._shared[index] = self._shared.get(index, 0) + passed


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

    def _keys(self, index: int, *, first: int, end: int) -> Iterator[tuple[int, int]]:
        """Return what is in some blocks of a request, its prompt and its answer."""
        size, place = self.kv.block_tokens, first
        goes_on = self._workload.goes_on(index)
        for piece, until in self._workload.answered(index) if goes_on else self._workload.prompt(index):
            for block in range(place, min(until // size, end)):
                yield piece, block
            place = max(place, min(until // size, end))
        for block in range(place, end):
            yield self._own - index, block
