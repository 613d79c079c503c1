"""vLLM's first scheduler: a prompt gets all its blocks at once, and goes before decodes or shares their step.

Held against vLLM's own, decision by decision, in tests/simulation/test_decisions_v0.py.

Source: vLLM 0.6.2, 0.6.6 and 0.8.5, core/scheduler.py, core/block_manager.py (0.6.2: block_manager_v1.py and
block_manager_v2.py) and engine/llm_engine.py; what releases do differently stands in ``rules``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sweeper.simulation.costs import Step
from sweeper.simulation.run import Piece
from sweeper.simulation.slots import SlotRun

WATERMARK_FRAC = 0.01
"""Part of the blocks that V0 keeps free when it admits a request, against preemption soon after. Source: vLLM
0.6.2, BlockSpaceManager."""


class V0Run(SlotRun):
    """One run of V0, with or without chunked prefill."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Sequences that had all ended within their group, of which the other steps are left over, and their
        # contexts.
        self._left_over: dict[int, int] = {}

    def _step(self) -> bool:
        if self._left_over and (self.running or self.waiting):
            self._run_left_over()
            return True
        if self.config.chunked_prefill:
            return self._mixed_step() if self.config.scheduler_steps == 1 else self._mixed_group()
        return self._prompt_step() or self._decode_all(ran=len(self.running))

    def _lets_pass(self) -> bool:
        return False

    def _decode_all(self, *, ran: int) -> bool:
        """Decode a group of steps, or as many as nothing can interrupt.

        Args:
            ran: Requests that ran before this step was planned.
        """
        steps = self.config.scheduler_steps
        if self.decoding.granted < steps:
            self._secure(steps)
        if steps > 1 and self.unread and not self.decoding:
            # All ends are read during the first step, and the engine then waits in the middle of the group.
            self._left_over = {index: written + 2 for index, written in self.unread.items()}
            steps = 1
        # Who lost its blocks, or waits for those of one that has ended, may get them in the next step.
        return self._decode_groups(steps=steps, at_most=1 if len(self.running) < ran else None)

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

    def _prompt_step(self) -> bool:
        """Compute waiting prompts, whole; return false if none can start."""
        if not self.waiting:
            return False
        pieces = self._admit_whole(budget=self.config.max_num_batched_tokens, ahead=0)
        if not pieces:
            return False
        self._compute(pieces, decodes=False)
        return True

    def _admit_whole(self, *, budget: int, ahead: int) -> list[Piece]:
        """Admit prompts that fit into a budget, with blocks for some tokens more; return their pieces."""
        pieces: list[Piece] = []
        while self.waiting:
            index = self.waiting[0]
            found = self.holders.look_up(index, target=self.targets[index])
            wanted = self.targets[index] - (0 if self.config.v0_rules.budgets_found else found)
            is_full = len(self.running) == self.config.max_num_seqs
            # With several steps a prompt may be longer than all of them have tokens; it goes alone.
            least = min(wanted, self.config.max_num_batched_tokens) if ahead else wanted
            if is_full or least > budget or not self._fits(index, ahead=ahead):
                break
            pieces.append(self._admitted(found, tokens=wanted))
            if ahead:
                self._give_ahead(index, steps=ahead)
            budget -= wanted
        return pieces

    def _mixed_step(self) -> bool:
        """Share one budget of tokens between decodes and prompts; return false if there is nothing to do."""
        preempted, ran = self.kv.preemptions, len(self.running)
        self._secure(1)
        # Who has just lost its blocks must not get them back in the same step; others that wait may.
        cut_off = [self.waiting.popleft() for _ in range(self.kv.preemptions - preempted)]
        budget = self.config.max_num_batched_tokens - len(self.decoding) - len(self.unread)
        budgets_found = self.config.v0_rules.budgets_found
        pieces: list[Piece] = []
        for index, before in self.begun.items():
            tokens = self._cut(self.targets[index] - before, budget=budget)
            if not tokens:
                break
            found = self.holders.known(index, target=self.targets[index]) if budgets_found else 0
            pieces.append(_piece(index, before, tokens=tokens, found=found))
            budget -= tokens
        self._admit_all(pieces, budget=budget)
        self.waiting.extendleft(reversed(cut_off))
        if pieces:
            self._compute(pieces, decodes=True)
            return True
        return self._decode_all(ran=ran)

    def _mixed_group(self) -> bool:
        """Share the first of several steps between decodes and prompts, which are whole then."""
        steps, preempted, ran = self.config.scheduler_steps, self.kv.preemptions, len(self.running)
        self._secure(steps)
        cut_off = [self.waiting.popleft() for _ in range(self.kv.preemptions - preempted)]
        budget = self.config.max_num_batched_tokens - len(self.decoding) - len(self.unread)
        pieces = self._admit_whole(budget=budget, ahead=steps)
        self.waiting.extendleft(reversed(cut_off))
        if not pieces:
            return self._decode_all(ran=ran)
        self._compute_group(pieces)
        return True

    def _admit_all(self, pieces: list[Piece], *, budget: int) -> None:
        """Admit waiting requests to the tokens that are left over, and add their pieces."""
        while self.waiting and budget:
            index = self.waiting[0]
            found = self.holders.look_up(index, target=self.targets[index])
            known = 0 if self.config.v0_rules.budgets_found else found
            tokens = self._cut(self.targets[index] - known, budget=budget)
            if len(self.running) == self.config.max_num_seqs or not tokens or not self._fits(index):
                break
            pieces.append(self._admitted(found, tokens=tokens))
            budget -= tokens

    def _cut(self, wanted: int, *, budget: int) -> int:
        """Return the tokens of a prompt that a budget allows; in whole blocks, where these are remembered."""
        if not self.kv.keeps_prefixes or (wanted <= budget and self.config.v0_rules.budgets_found):
            return min(wanted, budget)
        return min(wanted, budget // self.kv.block_tokens * self.kv.block_tokens)

    def _fits(self, index: int, *, ahead: int = 0) -> bool:
        """Whether there are blocks for a prompt and some tokens ahead, besides those that are kept free."""
        kept = int(WATERMARK_FRAC * self.kv.blocks) if self.running else 0
        return self.kv.blocks_for(self.targets[index] + ahead) + kept <= self.kv.free_blocks

    def _admitted(self, found: int, *, tokens: int) -> Piece:
        """Admit the first that waits, of which so many tokens were found; return its piece."""
        index = self.waiting.popleft()
        self.holders.admit(index, target=self.targets[index], found=found)
        self._admit(index, found=found)
        if self.config.v0_rules.budgets_found:
            return _piece(index, 0, tokens=tokens, found=found)
        return index, found, tokens


def _piece(index: int, before: int, *, tokens: int, found: int) -> Piece:
    """Return what is computed of a piece of a prompt, if some of it was found: at least its last token."""
    end = before + tokens
    begin = min(max(before, found), end - 1)
    return index, begin, end - begin
