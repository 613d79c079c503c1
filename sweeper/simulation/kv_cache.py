"""The KV cache of one engine: V0's blocks are shared by what is in them, V1's are placed."""

from __future__ import annotations

from dataclasses import dataclass, field

from sweeper.simulation.placed import PlacedBlocks
from sweeper.simulation.shared import SharedBlocks


@dataclass(kw_only=True)
class KvCache:
    """The blocks of one engine, and the prompts that it remembers; both outlive a run.

    Attributes:
        blocks: All there are.
        block_tokens: Tokens in one.
        keeps_prefixes: Whether prompts are remembered at all.
        shared: The blocks as V0 has them.
        placed: The blocks as V1 has them.
        prefix_queries: Prompt tokens looked up, since the start.
        prefix_hits: Prompt tokens found.
        preemptions: Sequences that lost their blocks.
        peak_blocks: Most blocks that running sequences held.
    """

    blocks: int
    block_tokens: int = 16
    keeps_prefixes: bool = False
    shared: SharedBlocks = field(init=False)
    placed: PlacedBlocks = field(init=False)
    prefix_queries: int = 0
    prefix_hits: int = 0
    preemptions: int = 0
    peak_blocks: int = 0

    def __post_init__(self) -> None:
        self.shared = SharedBlocks(self.blocks)
        self.placed = PlacedBlocks(self.blocks)

    @property
    def free_blocks(self) -> int:
        """Blocks that a sequence could get, those of unused prompts included."""
        return self.blocks - self.used_blocks

    @property
    def used_blocks(self) -> int:
        """Blocks that running sequences hold."""
        return self.shared.used + self.placed.used

    def blocks_for(self, tokens: int) -> int:
        """Blocks that so many tokens fill, the last perhaps in part."""
        return -(-tokens // self.block_tokens)

    def forget(self) -> None:
        """Forget every prompt that no running sequence uses, as vLLM's reset of its prefix cache does."""
        self.shared.forget()
        self.placed.forget()

    def take(self, blocks: int) -> None:
        """Give blocks to sequences of V0; negative ones come back."""
        if blocks:
            self.shared.take(blocks)
            self.peak_blocks = max(self.peak_blocks, self.shared.used)

    def take_placed(self, blocks: int) -> None:
        """Give blocks to sequences of V1."""
        if blocks:
            self.placed.take(blocks)
            self.peak_blocks = max(self.peak_blocks, self.placed.used)

    def count_query(self, *, tokens: int, found: int) -> None:
        """Count what was looked up and found."""
        self.prefix_queries += tokens
        self.prefix_hits += found
