"""vLLM's first scheduler: a prompt gets all its blocks at once, and is remembered when it is computed."""

from __future__ import annotations

from typing import Any

from sweeper.simulation.run import Piece, Run
from sweeper.simulation.sequences import PieceHolders

WATERMARK_FRAC = 0.01
"""Part of the blocks that V0 keeps free when it admits a request, against preemption soon after. Source: vLLM
0.6.2, BlockSpaceManager."""


class V0Run(Run):
    """One run of V0, with or without chunked prefill."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.holders = PieceHolders(self.workload, self.kv)

    def _step(self) -> bool:
        if self.config.chunked_prefill:
            return self._mixed_step()
        if self._prompt_step():
            return True
        self._secure(self.config.scheduler_steps)
        return self._decode_groups()

    def _take(self, blocks: int) -> None:
        self.kv.take(blocks)

    def _remember(self, index: int) -> None:
        self.holders.remember(index)

    def _keep_answers(self, done: list[int]) -> None:
        for index in done:
            self.holders.keep_answer(index)

    def _lets_pass(self) -> bool:
        return False

    def _release(self, index: int, *, computed: int, is_cut_off: bool) -> None:
        """Take back a sequence's blocks; one that is cut off may have some for what is not yet computed."""
        if index in self.decoding:
            blocks = self.decoding.held_blocks(index)
        elif is_cut_off:
            blocks = self.kv.blocks_for(self.targets[index])
        else:
            blocks = self.kv.blocks_for(computed)
        self.holders.release(index, blocks=blocks)

    def _prompt_step(self) -> bool:
        """Compute waiting prompts, whole; return false if none can start."""
        if not self.waiting:
            return False
        budget, free_seqs = self.config.max_num_batched_tokens, self.config.max_num_seqs - len(self.running)
        kept = self._kept()
        pieces: list[Piece] = []
        while self.waiting and len(pieces) < free_seqs:
            target = self.targets[self.waiting[0]]
            if target > budget or not self._admit_first(pieces, kept=kept, budget=target):
                break
            budget -= target
        if not pieces:
            return False
        self._compute(pieces, decodes=False)
        return True

    def _mixed_step(self) -> bool:
        """Share one budget of tokens between decodes and prompts; return false if there is nothing to do."""
        preempted = self.kv.preemptions
        # A prompt is admitted only to tokens that are left over, so there is a token for every decode.
        self._secure(1)
        if self.decoding:
            self.kv.take(self.decoding.lacking(1))
            self.decoding.granted = 1
        budget = self.config.max_num_batched_tokens - len(self.decoding)
        pieces: list[Piece] = []
        for index, before in self.begun.items():
            if not budget:
                break
            chunk = min(self.targets[index] - before, budget)
            pieces.append((index, before, chunk))
            budget -= chunk
        # A sequence that has just lost its blocks must not get them back in the same step.
        if self.kv.preemptions == preempted:
            self._admit_all(pieces, budget=budget)
        if pieces:
            self._compute(pieces, decodes=True)
            return True
        self._secure(self.config.scheduler_steps)
        return self._decode_groups()

    def _admit_all(self, pieces: list[Piece], *, budget: int) -> None:
        """Admit waiting requests to the tokens that are left over, and add their pieces."""
        kept = self._kept()
        while self.waiting and budget and len(self.running) < self.config.max_num_seqs:
            if not self._admit_first(pieces, kept=kept, budget=budget):
                break
            budget -= pieces[-1][2]

    def _admit_first(self, pieces: list[Piece], *, kept: int, budget: int) -> bool:
        """Admit the first that waits if there are blocks for its prompt, and add its piece."""
        index = self.waiting[0]
        target = self.targets[index]
        found = self.holders.admit(index, target=target, kept=kept)
        if found is None:
            return False
        self._admit(self.waiting.popleft(), found=found)
        pieces.append((index, found, min(target - found, budget)))
        return True

    def _kept(self) -> int:
        return int(WATERMARK_FRAC * self.kv.blocks) if self.running else 0

    def _secure(self, tokens: int) -> None:
        """Preempt from the back until the rest can get so many more tokens."""
        while self.decoding.lacking(tokens) > self.kv.free_blocks and len(self.running) > 1:
            self._preempt(next(reversed(self.running)))
