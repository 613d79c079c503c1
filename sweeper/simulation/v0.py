"""vLLM's first scheduler: a prompt gets all its blocks at once, and is remembered when it is computed.

Held against vLLM's own, decision by decision, in tests/simulation/test_decisions_v0.py.

Source: vLLM 0.6.2, 0.6.6 and 0.8.5, core/scheduler.py, core/block_manager.py (0.6.2: block_manager_v1.py and
block_manager_v2.py) and engine/llm_engine.py; what releases do differently stands in ``rules``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sweeper.simulation.costs import Step
from sweeper.simulation.run import Piece, Run
from sweeper.simulation.sequences import PieceHolders

WATERMARK_FRAC = 0.01
"""Part of the blocks that V0 keeps free when it admits a request, against preemption soon after. Source: vLLM
0.6.2, BlockSpaceManager."""


class V0Run(Run):
    """One run of V0, with or without chunked prefill.

    With asynchronous output, the answers of a step are read while the next one runs. A request that has all
    its tokens keeps its place and its blocks until then, and if the next step decodes, it decodes once more.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.holders = PieceHolders(self.workload, self.kv)
        # Requests that have not decoded since their prompt was computed.
        self._fresh: set[int] = set()
        # Those whose end was read within the group of steps that they ended in.
        self._read_early: set[int] = set()
        # Sequences that had all ended within their group, of which the other steps are left over, and their
        # contexts.
        self._left_over: dict[int, int] = {}

    def _step(self) -> bool:
        if self._left_over and (self.running or self.waiting):
            self._run_left_over()
            return True
        if self.config.chunked_prefill:
            return self._mixed_step()
        if self._prompt_step():
            return True
        return self._decode_all()

    def _decode_all(self) -> bool:
        """Decode a group of steps, or as many as nothing can interrupt."""
        steps = self.config.scheduler_steps
        preempted = self.kv.preemptions
        self._secure(steps)
        if steps > 1 and self.unread and not self.decoding:
            # All ends are read during the first step, and the engine then waits in the middle of the group.
            self._left_over = {index: written + 2 for index, written in self.unread.items()}
            steps = 1
        # Who lost its blocks may get others in the next step.
        return self._decode_groups(steps=steps, at_most=1 if self.kv.preemptions != preempted else None)

    def _run_left_over(self) -> None:
        """Compute the rest of a group, of which nothing comes."""
        contexts, steps = list(self._left_over.values()), self.config.scheduler_steps - 1
        step = Step(
            decodes=len(contexts),
            context_tokens=float(sum(contexts)),
            samples=len(contexts),
            contexts=np.array(contexts) if self.costs.has_windows else None,
        )
        if self.watch is not None:
            self.watch.computed(dict.fromkeys(self._left_over, 1), steps=steps)
        self._left_over = {}
        self.now_s += float(self.costs.groups_s(step, steps=steps, groups=1)[0])

    # What differs from V1

    def _take(self, blocks: int) -> None:
        self.kv.take(blocks)

    def _remember(self, index: int) -> None:
        self.holders.remember(index)
        self._fresh.add(index)

    def _keep_answers(self, done: list[int]) -> None:
        for index in done:
            self.holders.keep_answer(index)

    def _lets_pass(self) -> bool:
        return False

    def _spared(self, steps: int) -> int:
        return self._touched(self.kv.block_tokens - 1, steps=steps, is_fresh=False)

    def _release(self, index: int, *, computed: int, is_cut_off: bool) -> None:
        """Take back a sequence's blocks; one that is cut off may have some for what is not yet computed."""
        tokens = computed
        if is_cut_off:
            is_decode = index in self.decoding
            tokens = computed + self.decoding.granted if is_decode else self.targets[index]
        self.holders.release(index, blocks=self.kv.blocks_for(tokens))

    # Ends

    def _leave(self, index: int) -> None:
        if self.config.async_output and index not in self._read_early:
            self.unread[index] = self._written(index)
        else:
            super()._leave(index)

    def _compute(self, pieces: list[Piece], *, decodes: bool) -> None:
        """Run one step; what was answered in the step before is read meanwhile."""
        unread = list(self.unread)
        super()._compute(pieces, decodes=decodes)
        self._read(unread, tokens=int(decodes))
        self.decoding.granted = 0
        if decodes:
            self._fresh.clear()
            self._fresh.update(index for index, before, chunk in pieces if index in self.decoding)

    def _advance(self, steps: int, *, times_s: list[float]) -> list[int]:
        """Give all that decode their tokens; return those that have all of theirs.

        Of a group of steps all but the last are read by its end.
        """
        unread, tokens, granted = list(self.unread), steps * len(times_s), self.decoding.granted
        ending = self.decoding.ending(within=tokens)
        done = super()._advance(steps, times_s=times_s)
        self._read(unread, tokens=granted)
        self._fresh.clear()
        self._read_early = {index for index, left in ending.items() if left < tokens}
        for index in self._read_early:
            # It has blocks up to the end of the group.
            written = self._written(index)
            self.kv.take(self.kv.blocks_for(written) - self.kv.blocks_for(written + tokens - ending[index]))
        return done

    def _read(self, unread: list[int], *, tokens: int) -> None:
        """Let go of requests whose last answers are read; they have blocks for so many tokens more."""
        for index in unread:
            del self.running[index]
            computed = self.unread.pop(index) + tokens
            self._release(index, computed=computed, is_cut_off=False)

    # Prompts

    def _prompt_step(self) -> bool:
        """Compute waiting prompts, whole; return false if none can start."""
        if not self.waiting:
            return False
        budget, free_seqs = self.config.max_num_batched_tokens, self.config.max_num_seqs - len(self.running)
        pieces: list[Piece] = []
        while self.waiting and len(pieces) < free_seqs:
            target = self.targets[self.waiting[0]]
            if target > budget or not self._admit_first(pieces, budget=target):
                break
            budget -= target
        if not pieces:
            return False
        self._compute(pieces, decodes=False)
        return True

    def _mixed_step(self) -> bool:
        """Share one budget of tokens between decodes and prompts; return false if there is nothing to do."""
        preempted = self.kv.preemptions
        self._secure(1)
        # Who has just lost its blocks must not get them back in the same step; others that wait may.
        cut_off = [self.waiting.popleft() for _ in range(self.kv.preemptions - preempted)]
        budget = self.config.max_num_batched_tokens - len(self.decoding) - len(self.unread)
        pieces: list[Piece] = []
        for index, before in self.begun.items():
            if not budget:
                break
            chunk = min(self.targets[index] - before, budget)
            pieces.append((index, before, chunk))
            budget -= chunk
        self._admit_all(pieces, budget=budget)
        self.waiting.extendleft(reversed(cut_off))
        if pieces:
            self._compute(pieces, decodes=True)
            return True
        if self.config.scheduler_steps > 1:
            self._secure(self.config.scheduler_steps)
        return self._decode_groups(
            steps=self.config.scheduler_steps, at_most=1 if self.kv.preemptions != preempted else None
        )

    def _admit_all(self, pieces: list[Piece], *, budget: int) -> None:
        """Admit waiting requests to the tokens that are left over, and add their pieces."""
        while self.waiting and budget and len(self.running) < self.config.max_num_seqs:
            if not self._admit_first(pieces, budget=budget):
                break
            budget -= pieces[-1][2]

    def _admit_first(self, pieces: list[Piece], *, budget: int) -> bool:
        """Admit the first that waits if there are blocks for its prompt, and add its piece."""
        index = self.waiting[0]
        target = self.targets[index]
        kept = int(WATERMARK_FRAC * self.kv.blocks) if self.running else 0
        found = self.holders.admit(index, target=target, kept=kept)
        if found is None:
            return False
        self._admit(self.waiting.popleft(), found=found)
        pieces.append((index, found, min(target - found, budget)))
        return True

    # Blocks for those that run

    def _secure(self, steps: int) -> None:
        """Give all that decode the blocks of a group of steps, preempting from the back."""
        lacking = self.decoding.lacking(steps) + sum(
            self._lacking(written, steps=steps) for written in self.unread.values()
        )
        if lacking + self._spared(steps) <= self.kv.free_blocks or not self.running:
            self.kv.take(lacking)
        else:
            self._secure_in_order(steps)
        self.decoding.granted = steps

    def _secure_in_order(self, steps: int) -> None:
        """Give running requests their blocks one after the other."""
        for index in list(self.running):
            if index not in self.running:
                return
            is_decode = index not in self.begun
            touched = self._touched_by(index, steps=steps)
            while touched > self.kv.free_blocks and len(self.running) > 1:
                last = next(reversed(self.running))
                self._cut_off(last)
                if last == index:
                    return
            if is_decode:
                self.kv.take(self._lacking(self._cached_tokens(index), steps=steps))

    def _cut_off(self, index: int) -> None:
        """Preempt a request; one whose end was not yet read just ends."""
        if index in self.unread:
            self._read([index], tokens=self.decoding.granted)
        else:
            self._preempt(index)

    def _touched_by(self, index: int, *, steps: int) -> int:
        """Return the blocks that must be free for a running request to go on."""
        if index in self.begun:
            # It has the blocks of all its prompt.
            return 1 if self.config.v0_rules.counts_begun or self.targets[index] % self.kv.block_tokens else 0
        return self._touched(self._cached_tokens(index), steps=steps, is_fresh=index in self._fresh)

    def _touched(self, cached: int, *, steps: int, is_fresh: bool) -> int:
        """Return the blocks that are touched by the tokens since the last look and those of a group.

        So many must be free, though a sequence has some of them already.

        Source:
            vLLM 0.8.5, core/block/block_table.py, get_num_blocks_touched_by_append_slots.
        """
        unseen = 1 if is_fresh else steps
        full = cached + 1 - unseen
        size = self.kv.block_tokens
        room = size - full % size
        return 1 + -(-(unseen + steps - 1 - room) // size)

    def _cached_tokens(self, index: int) -> int:
        return self.unread[index] if index in self.unread else self.decoding.cached_tokens(index)

    def _lacking(self, cached: int, *, steps: int) -> int:
        return self.kv.blocks_for(cached + steps) - self.kv.blocks_for(cached + self.decoding.granted)
