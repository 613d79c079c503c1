"""Blocks of the requests that run in vLLM's first scheduler, and when they come back."""

from __future__ import annotations

from typing import Any

import numpy as np

from sweeper.simulation.run import Piece, Run
from sweeper.simulation.sequences import SharedHolders


class SlotRun(Run):
    """A run in which those that decode get their blocks before a group of steps.

    With asynchronous output, the answers of a step are read while the next one runs. A request that has all
    its tokens keeps its place and its blocks until then, and if the next step decodes, it decodes once more.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.holders = SharedHolders(self.workload, self.kv, rules=self.config.v0_rules)
        # Number of the last step, of the last that decoded, and of the last of each prompt that was computed
        # since then.
        self._turn = self._decode_turn = 0
        self._prompt_turns: dict[int, int] = {}
        # Those that ended in the last group of steps, and in which of its steps.
        self._ended: dict[int, int] = {}
        # Requests that got a block more with their prompt than their first group of steps fills.
        self._ahead: set[int] = set()
        # Whether a step is the first of a group, whose others are planned with it; whether it is another.
        self._goes_on = self._is_rest = False

    def _take(self, blocks: int) -> None:
        self.kv.take(blocks)

    def _spared(self, steps: int) -> int:
        size = self.kv.block_tokens
        return _touched(size - steps, unseen=steps, steps=steps, block_tokens=size)

    def _release(self, index: int, *, computed: int, is_cut_off: bool) -> None:
        """Take back a sequence's blocks; one that is cut off may have some for what is not yet computed."""
        granted, seen = 0, computed + 1 - self._ended.get(index, 1)
        if is_cut_off and index in self.decoding:
            granted, seen = self.decoding.granted, self._seen(index, cached=computed)
        elif is_cut_off:
            computed = seen = self.targets[index]
        self._release_all(index, tokens=computed, seen=seen, granted=granted)

    def _seen(self, index: int, *, cached: int) -> int:
        """Return the tokens in the cache of which the blocks are known to hold them.

        What a group of steps adds becomes known as the next one is planned.
        """
        return cached + 1 - (1 if index in self._prompt_turns else self.config.scheduler_steps)

    def _release_all(self, index: int, *, tokens: int, seen: int, granted: int) -> None:
        turn = self._prompt_turns.get(index, self._decode_turn)
        blocks = self.kv.blocks_for(tokens + granted) + (index in self._ahead)
        self._ahead.discard(index)
        self.holders.release(index, tokens=seen, blocks=blocks, turn=turn)

    def _leave(self, index: int) -> None:
        steps = self.config.scheduler_steps
        if self._goes_on or (self.config.async_output and self._ended.get(index, steps) == steps):
            self.unread[index] = self._written(index)
        else:
            super()._leave(index)

    def _compute(self, pieces: list[Piece], *, decodes: bool) -> None:
        """Run one step; what was answered in the step before is read meanwhile."""
        unread = list(self.unread)
        self._begin_turn(decodes=decodes)
        self._prompt_turns.update({index: self._turn for index, _, _ in pieces})
        super()._compute(pieces, decodes=decodes)
        for index, before, chunk in pieces:
            is_late = self.config.v0_rules.computes_late
            self.holders.computed(index, tokens=before + chunk if is_late else self.targets[index])
        self.decoding.granted = 0
        if not self._goes_on:
            self._read(unread, more=int(decodes), granted=int(decodes))

    def _begin_turn(self, *, decodes: bool) -> None:
        self._turn += 1
        if decodes:
            self._decode_turn = self._turn
            self._prompt_turns = {
                index: turn for index, turn in self._prompt_turns.items() if index in self.begun
            }

    def _advance(self, steps: int, *, times_s: list[float], steps_s: list[float]) -> dict[int, float]:
        """Give all that decode their tokens; those of a group but its last are read by its end."""
        self._begin_turn(decodes=True)
        unread, tokens, granted = list(self.unread), steps * len(times_s), self.decoding.granted
        ending = self.decoding.ending(within=tokens)
        done = self._send(steps, times_s=times_s, steps_s=steps_s)
        self._read(unread, more=0 if self._is_rest else 1, granted=granted)
        # Steps before those of the last group, of which the first may have computed prompts.
        before = tokens - steps - int(self._is_rest)
        self._ended = {index: left - before for index, left in ending.items()}
        for index, left in ending.items():
            # It has blocks up to the end of the group.
            written = self._written(index)
            self.kv.take(self.kv.blocks_for(written) - self.kv.blocks_for(written + tokens - left))
        return done

    def _send(self, steps: int, *, times_s: list[float], steps_s: list[float]) -> dict[int, float]:
        """Send what groups of steps gave; return those that have all their tokens, and since when.

        A server does not wait for the end of a group, if it reads the answers of each step beside the next.

        Source:
            vLLM 0.6.2 and its commit cb3b2b9, engine/llm_engine.py, _process_model_outputs, and
            worker/multi_step_model_runner.py, _final_process_outputs.
        """
        if steps == 1 or not (self.config.async_output and self.client.is_online):
            return self.decoding.advance(steps, times_s=times_s)
        if not self.config.streams_steps:
            return self.decoding.advance(steps, times_s=times_s, step_s=steps_s[-1])
        left = np.arange(steps - 1, -1, -1)
        each_s = (np.array(times_s)[:, None] - np.array(steps_s)[:, None] * left).ravel()
        return self.decoding.advance(1, times_s=each_s.astype(float).tolist())

    def _give_ahead(self, index: int, *, steps: int) -> None:
        """Give a prompt the blocks for a group of steps, and for a token more."""
        target, blocks_for = self.targets[index], self.kv.blocks_for
        self.kv.take(blocks_for(target + steps) - blocks_for(target))
        if (target + steps - 1) % self.kv.block_tokens == 0:
            self._ahead.add(index)

    def _compute_group(self, pieces: list[Piece]) -> None:
        """Run a group of steps, the first of which computes prompts; all have blocks for it."""
        steps, unread = self.config.scheduler_steps, list(self.unread)
        self._goes_on = True
        self._compute(pieces, decodes=True)
        self._goes_on, self._is_rest = False, True
        self.decoding.granted = steps - 1
        for index in unread:
            self.unread[index] += 1
        self._decode_groups(steps=steps - 1, at_most=1)
        self._is_rest = False

    def _read(self, unread: list[int], *, more: int, granted: int) -> None:
        """Let go of requests whose last answers are read.

        Args:
            unread: Which.
            more: Tokens in the cache that they did not have when they were last looked at.
            granted: Tokens for which they have blocks beyond those they had then.
        """
        for index in unread:
            del self.running[index]
            tokens = self.unread.pop(index) + more
            seen = tokens if more or self._is_rest else self._seen(index, cached=tokens)
            self._release_all(index, tokens=tokens, seen=seen, granted=granted - more)

    def _secure(self, steps: int) -> None:
        """Give all that decode the blocks of a group of steps, preempting from the back."""
        lacking = self.decoding.lacking(steps) + sum(
            self._lacking(written, steps=steps) for written in self.unread.values()
        )
        if lacking + self._spared(steps) <= self.kv.free_blocks or not self.running:
            self.kv.take(lacking - len(self._ahead))
            self._ahead.clear()
        else:
            self._secure_in_order(steps)
        self.decoding.granted = steps if self.running else 0

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
                lacking = self._lacking(self._cached_tokens(index), steps=steps)
                self.kv.take(lacking - (index in self._ahead))
                self._ahead.discard(index)

    def _cut_off(self, index: int) -> None:
        """Preempt a request; one whose end was not yet read just ends."""
        if index in self.unread:
            self._read([index], more=0, granted=0)
        else:
            self._preempt(index)
            self.holders.look_again(index)

    def _touched_by(self, index: int, *, steps: int) -> int:
        """Return the blocks that must be free for a running request to go on."""
        if index in self.begun:
            # It has the blocks of all its prompt.
            return 1 if self.config.v0_rules.counts_begun or self.targets[index] % self.kv.block_tokens else 0
        cached = self._cached_tokens(index)
        seen = self._seen(index, cached=cached)
        return _touched(seen, unseen=cached + 1 - seen, steps=steps, block_tokens=self.kv.block_tokens)

    def _cached_tokens(self, index: int) -> int:
        return self.unread[index] if index in self.unread else self.decoding.cached_tokens(index)

    def _lacking(self, cached: int, *, steps: int) -> int:
        return self.kv.blocks_for(cached + steps) - self.kv.blocks_for(cached + self.decoding.granted)


def _touched(seen: int, *, unseen: int, steps: int, block_tokens: int) -> int:
    """Return the blocks that are touched by a sequence's tokens since the last look and those of a group.

    So many must be free, though the sequence has some of them already.

    Source:
        vLLM 0.8.5, core/block/block_table.py, get_num_blocks_touched_by_append_slots.
    """
    room = block_tokens - seen % block_tokens
    return 1 + -(-(unseen + steps - 1 - room) // block_tokens)
