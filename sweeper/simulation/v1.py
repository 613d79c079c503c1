"""vLLM's second scheduler: every step is a budget of tokens, and blocks are given for the tokens of a step.

Held against vLLM's own, decision by decision, in tests/simulation/test_decisions.py.

Source: vLLM 0.32.0, v1/core/sched/scheduler.py and v1/core/kv_cache_manager.py; what earlier releases do
differently stands in ``rules``.
"""

from __future__ import annotations

from typing import Any

from sweeper.simulation.run import Piece, Run, never_fits
from sweeper.simulation.sequences import BlockHolders


class V1Run(Run):
    """One run of V1."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        rules = self.config.rules
        self.holders = BlockHolders(self.workload, self.kv, is_plain_first=rules.is_plain_first)
        self._may_cut = self.config.chunked_prefill or not rules.obeys_uncut
        self._cut_off: set[int] = set()

    def _step(self) -> bool:
        most = self._most_of_prompt()
        preempted = self.kv.preemptions
        pieces = self._secured(self._begun_pieces(most))
        has_preempted = self.kv.preemptions != preempted
        if not has_preempted and self.waiting:
            self._admit_all(pieces, most=most)
        if pieces:
            self._compute(pieces, decodes=True)
            return True
        # Who lost its blocks may get others in the next step.
        return self._decode_groups(at_most=1 if has_preempted else None)

    def _take(self, blocks: int) -> None:
        self.kv.take_placed(blocks)

    def _release(self, index: int, *, computed: int, is_cut_off: bool) -> None:
        if is_cut_off:
            self._cut_off.add(index)
        self.holders.release(index, computed=computed, is_cut_off=is_cut_off)

    def _spared(self, steps: int) -> int:
        return 0

    def _lets_pass(self) -> bool:
        return self.config.rules.skips_uncut and not self._may_cut

    def _most_of_prompt(self) -> int:
        """Return the most tokens of one prompt in this step."""
        budget, most = self.config.max_num_batched_tokens, self.config.long_prefill_tokens
        is_alone = len(self.running) + len(self.waiting) == 1
        return budget if not most or (is_alone and self.config.rules.spares_lone) else most

    def _begun_pieces(self, most: int) -> list[Piece]:
        """Return the next pieces of the prompts that have begun.

        A request is admitted only to tokens that are left over, so there are tokens for every running one.
        """
        budget = self.config.max_num_batched_tokens - len(self.decoding)
        pieces: list[Piece] = []
        for index, before in self.begun.items():
            chunk = min(self.targets[index] - before, budget, most)
            pieces.append((index, before, chunk))
            budget -= chunk
        return pieces

    def _secured(self, pieces: list[Piece]) -> list[Piece]:
        """Give all running requests the blocks of this step; return the pieces of those that got theirs."""
        blocks_for, lacking = self.kv.blocks_for, self.decoding.lacking(1)
        wanted = sum(blocks_for(before + chunk) - blocks_for(before) for _, before, chunk in pieces)
        if lacking + wanted > self.kv.free_blocks:
            self._secure_in_order({index: before + chunk for index, before, chunk in pieces})
            pieces = [piece for piece in pieces if piece[0] in self.begun]
        else:
            self.kv.take_placed(lacking)
            for index, before, chunk in pieces:
                self.holders.extend(index, before=before, tokens=before + chunk)
        if self.decoding:
            self.decoding.granted = 1
        return pieces

    def _secure_in_order(self, ends: dict[int, int]) -> None:
        """Give running requests their blocks one after the other, preempting from the back."""
        wanting = self.decoding.wanting()
        for index in [index for index in self.running if index in wanting or index in ends]:
            if index not in self.running:
                return
            before = self.begun[index] if index in self.begun else self.decoding.cached_tokens(index)
            tokens = ends.get(index, before + 1)
            lacking = self.kv.blocks_for(tokens) - self.kv.blocks_for(before)
            while lacking > self.kv.free_blocks and index in self.running:
                if len(self.running) == 1:
                    raise never_fits(self)
                self._preempt(next(reversed(self.running)))
            if index not in self.running:
                return
            if index in self.begun:
                self.holders.extend(index, before=before, tokens=tokens)
            else:
                self.kv.take_placed(lacking)

    def _admit_all(self, pieces: list[Piece], *, most: int) -> None:
        """Admit waiting requests to the tokens that are left over, and add their pieces."""
        budget = self.config.max_num_batched_tokens - len(self.decoding) - sum(piece[2] for piece in pieces)
        skipped: list[int] = []
        while self.waiting and budget and len(self.running) < self.config.max_num_seqs:
            index = self.waiting[0]
            found = self.holders.find(index, target=self.targets[index])
            known = len(found) * self.kv.block_tokens
            chunk = min(self.targets[index] - known, most)
            if chunk > budget and not self._may_cut:
                if not self.config.rules.skips_uncut:
                    break
                skipped.append(self.waiting.popleft())
                continue
            chunk = min(chunk, budget)
            if not self._gets_blocks(index, found=found, tokens=known + chunk):
                break
            self._admit(self.waiting.popleft(), found=known)
            pieces.append((index, known, chunk))
            budget -= chunk
        # The release puts them back in front, the last that was passed over first.
        self.waiting.extendleft(skipped)

    def _gets_blocks(self, index: int, *, found: list[int], tokens: int) -> bool:
        return self.holders.admit(
            index,
            found=found,
            tokens=tokens,
            whole=self.targets[index] if self.config.rules.reserves_prompts else tokens,
            is_again=index in self._cut_off,
        )
