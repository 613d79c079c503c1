"""The KV cache of one engine: blocks are counted, not placed, and prompts are remembered in whole ones."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class KvCache:
    """The blocks of one engine, and the prompts that it remembers; both outlive a run.

    A prompt is remembered in whole blocks from its end of computation until its blocks are needed; of those
    that no running sequence uses, the one used longest ago goes first.

    Attributes:
        blocks: All there are.
        block_tokens: Tokens in one.
        keeps_prefixes: Whether prompts are remembered at all.
        prefix_queries: Prompt tokens looked up, since the start.
        prefix_hits: Prompt tokens found.
        preemptions: Sequences that lost their blocks.
        peak_blocks: Most blocks that running sequences held.
    """

    blocks: int
    block_tokens: int = 16
    keeps_prefixes: bool = False
    prefix_queries: int = 0
    prefix_hits: int = 0
    preemptions: int = 0
    peak_blocks: int = 0
    # Blocks of single sequences; of prompts in use; of prompts not in use.
    _private: int = field(default=0, init=False)
    _pinned: int = field(default=0, init=False)
    _idle: int = field(default=0, init=False)
    # Blocks of each remembered prompt, the one used longest ago first, and how many sequences use it.
    _remembered: OrderedDict[int, int] = field(default_factory=OrderedDict, init=False)
    _users: dict[int, int] = field(default_factory=dict, init=False)

    @property
    def free_blocks(self) -> int:
        """Blocks that a sequence could get, those of unused prompts included."""
        return self.blocks - self._private - self._pinned

    @property
    def used_blocks(self) -> int:
        """Blocks that running sequences hold."""
        return self._private + self._pinned

    def blocks_for(self, tokens: int) -> int:
        """Blocks that so many tokens fill, the last perhaps in part."""
        return -(-tokens // self.block_tokens)

    def found_tokens(self, prompt_id: int, *, prompt_tokens: int) -> int:
        """Tokens of a prompt that need not be computed: whole blocks, and never its last token."""
        if not self.keeps_prefixes:
            return 0
        reusable = min(self._remembered.get(prompt_id, 0), (prompt_tokens - 1) // self.block_tokens)
        return reusable * self.block_tokens

    def look_up(self, prompt_id: int, *, prompt_tokens: int) -> int:
        """Count the query, and hold what is found for a sequence.

        Returns:
            Tokens found; above 0, the prompt is held until ``let_go``.
        """
        if not self.keeps_prefixes:
            return 0
        found = self.found_tokens(prompt_id, prompt_tokens=prompt_tokens)
        self.prefix_queries += prompt_tokens
        self.prefix_hits += found
        if found:
            self._hold(prompt_id)
        return found

    def forget(self) -> None:
        """Forget every prompt that no running sequence uses, as vLLM's reset of its prefix cache does."""
        for prompt_id in [known for known in self._remembered if not self._users.get(known)]:
            del self._remembered[prompt_id]
        self._idle = 0

    def let_go(self, prompt_id: int) -> None:
        """End one sequence's use of a remembered prompt."""
        self._users[prompt_id] -= 1
        if not self._users[prompt_id]:
            del self._users[prompt_id]
            self._pinned -= self._remembered[prompt_id]
            self._idle += self._remembered[prompt_id]
            self._remembered.move_to_end(prompt_id)

    def remember(self, prompt_id: int, *, prompt_tokens: int) -> int:
        """Keep a computed prompt, held for the sequence that computed it.

        Returns:
            Blocks that passed from the sequence to the memory; 0 if there was nothing new.
        """
        full = prompt_tokens // self.block_tokens
        if not self.keeps_prefixes or not full or prompt_id in self._remembered:
            return 0
        self._remembered[prompt_id] = full
        self._users[prompt_id] = 1
        self._pinned += full
        self._private -= full
        return full

    def take(self, blocks: int) -> None:
        """Give blocks to sequences, forgetting idle prompts where it must; negative ones come back."""
        self._private += blocks
        while self._idle and self.used_blocks + self._idle > self.blocks:
            self._forget_oldest()
        self.peak_blocks = max(self.peak_blocks, self.used_blocks)

    def _hold(self, prompt_id: int) -> None:
        if prompt_id not in self._users:
            self._idle -= self._remembered[prompt_id]
            self._pinned += self._remembered[prompt_id]
        self._users[prompt_id] = self._users.get(prompt_id, 0) + 1

    def _forget_oldest(self) -> None:
        oldest = next(prompt_id for prompt_id in self._remembered if prompt_id not in self._users)
        self._idle -= self._remembered.pop(oldest)
