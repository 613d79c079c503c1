"""The KV cache of one engine: V0's blocks are counted, its prompts remembered in pieces; V1's are placed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from sweeper.simulation.placed import PlacedBlocks
from sweeper.workload.requests import Prompt


@dataclass(kw_only=True)
class KvCache:
    """The blocks of one engine, and the prompts that it remembers; both outlive a run.

    V1 has its blocks from ``placed``; what follows is V0's. A prompt is remembered in whole blocks from its
    end of computation until its blocks are needed; of those that no running sequence uses, the one used
    longest ago goes first. Where prompts begin alike they come in pieces, each of which is remembered once.

    Attributes:
        blocks: All there are.
        block_tokens: Tokens in one.
        keeps_prefixes: Whether prompts are remembered at all.
        placed: The blocks as V1 has them.
        prefix_queries: Prompt tokens looked up, since the start.
        prefix_hits: Prompt tokens found.
        preemptions: Sequences that lost their blocks.
        peak_blocks: Most blocks that running sequences held.
    """

    blocks: int
    block_tokens: int = 16
    keeps_prefixes: bool = False
    placed: PlacedBlocks = field(init=False)
    prefix_queries: int = 0
    prefix_hits: int = 0
    preemptions: int = 0
    peak_blocks: int = 0
    # Blocks of single sequences; of prompts in use; of prompts not in use.
    _private: int = field(default=0, init=False)
    _pinned: int = field(default=0, init=False)
    _idle: int = field(default=0, init=False)
    # Blocks of each remembered piece, how many sequences use it, and those without any, the one used longest
    # ago first.
    _remembered: dict[int, int] = field(default_factory=dict, init=False)
    _users: dict[int, int] = field(default_factory=dict, init=False)
    _unused: OrderedDict[int, None] = field(default_factory=OrderedDict, init=False)

    def __post_init__(self) -> None:
        self.placed = PlacedBlocks(self.blocks)

    @property
    def free_blocks(self) -> int:
        """Blocks that a sequence could get, those of unused prompts included."""
        return self.blocks - self.used_blocks

    @property
    def used_blocks(self) -> int:
        """Blocks that running sequences hold."""
        return self._private + self._pinned + self.placed.used

    def blocks_for(self, tokens: int) -> int:
        """Blocks that so many tokens fill, the last perhaps in part."""
        return -(-tokens // self.block_tokens)

    def found_tokens(self, prompt: Prompt, *, prompt_tokens: int) -> int:
        """Tokens of a prompt that need not be computed: whole blocks, and never its last token."""
        if not self.keeps_prefixes:
            return 0
        known = sum(self._remembered[piece] for piece in self._known(prompt))
        return min(known, (prompt_tokens - 1) // self.block_tokens) * self.block_tokens

    def look_up(self, prompt: Prompt, *, prompt_tokens: int) -> tuple[int, tuple[int, ...]]:
        """Count the query, and hold what is found for a sequence.

        Returns:
            Tokens found, and the pieces that are held until ``let_go``.
        """
        if not self.keeps_prefixes:
            return 0, ()
        found = self.found_tokens(prompt, prompt_tokens=prompt_tokens)
        self.count_query(tokens=prompt_tokens, found=found)
        held = self._known(prompt) if found else ()
        for piece in held:
            self._hold(piece)
        return found, held

    def forget(self) -> None:
        """Forget every prompt that no running sequence uses, as vLLM's reset of its prefix cache does."""
        for piece in self._unused:
            del self._remembered[piece]
        self._unused.clear()
        self._idle = 0
        self.placed.forget()

    def let_go(self, pieces: Sequence[int]) -> None:
        """End one sequence's use of remembered pieces; the last of a prompt is the first to be forgotten."""
        for piece in reversed(pieces):
            self._users[piece] -= 1
            if not self._users[piece]:
                del self._users[piece]
                self._pinned -= self._remembered[piece]
                self._idle += self._remembered[piece]
                self._unused[piece] = None

    def remember(self, prompt: Prompt, *, held: Sequence[int] = ()) -> tuple[int, tuple[int, ...]]:
        """Keep a computed prompt, held for the sequence that computed it.

        Args:
            prompt: Its pieces.
            held: Those that the sequence holds already.

        Returns:
            Blocks that passed from the sequence to the memory, and the pieces that it holds besides.
        """
        if not self.keeps_prefixes:
            return 0, ()
        passed, new, before = 0, [], 0
        for piece, end in prompt:
            full = end // self.block_tokens - before // self.block_tokens
            before = end
            # What somebody else computed meanwhile stays theirs, and this sequence's own blocks its own.
            if piece in held or piece in self._remembered:
                continue
            if full:
                self._remembered[piece] = full
                self._users[piece] = 1
                passed += full
                new.append(piece)
        self._pinned += passed
        self._private -= passed
        return passed, tuple(new)

    def take(self, blocks: int) -> None:
        """Give blocks to sequences, forgetting idle prompts where it must; negative ones come back."""
        self._private += blocks
        while self._idle and self.used_blocks + self._idle > self.blocks:
            self._forget_oldest()
        self.peak_blocks = max(self.peak_blocks, self.used_blocks)

    def take_placed(self, blocks: int) -> None:
        """Give blocks to sequences of V1."""
        if blocks:
            self.placed.take(blocks)
            self.peak_blocks = max(self.peak_blocks, self.placed.used)

    def count_query(self, *, tokens: int, found: int) -> None:
        """Count what was looked up and found."""
        self.prefix_queries += tokens
        self.prefix_hits += found

    def _known(self, prompt: Prompt) -> tuple[int, ...]:
        """Return the pieces from the first on that are remembered, over those that fill no block."""
        known: list[int] = []
        before = 0
        for piece, end in prompt:
            if piece in self._remembered:
                known.append(piece)
            elif end // self.block_tokens > before // self.block_tokens:
                break
            before = end
        return tuple(known)

    def _hold(self, piece: int) -> None:
        if piece not in self._users:
            self._idle -= self._remembered[piece]
            self._pinned += self._remembered[piece]
            del self._unused[piece]
        self._users[piece] = self._users.get(piece, 0) + 1

    def _forget_oldest(self) -> None:
        oldest, _ = self._unused.popitem(last=False)
        self._idle -= self._remembered.pop(oldest)
