"""How far the requests of a run are, and which of the KV cache's blocks each holds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sweeper.simulation.kv_cache import KvCache
from sweeper.workload.requests import Prompt, Workload

Ints = NDArray[np.int64]


class Sequences:
    """How far each request is, and the blocks that it holds. Arrays are by request.

    Attributes:
        workload: The requests.
        kv: Where their blocks are.
        generated: Tokens that each has got.
        computed: Tokens that each has in the cache before it decodes.
        target: Tokens to compute before it decodes; a preemption adds what it had generated.
        private: Blocks of its own.
        shared: Blocks of remembered prompts that each uses.
        held: The pieces of prompts that they are in, by request.
    """

    def __init__(self, workload: Workload, kv: KvCache) -> None:
        count = workload.requests
        self.workload, self.kv = workload, kv
        self.generated = np.zeros(count, np.int64)
        self.computed = np.zeros(count, np.int64)
        self.target = workload.input_tokens.copy()
        self.private = np.zeros(count, np.int64)
        self.shared = np.zeros(count, np.int64)
        self.held: dict[int, tuple[int, ...]] = {}

    def admit(self, index: int, *, kept: int) -> bool:
        """Give a waiting request the blocks of its prompt, if there are enough besides those kept."""
        target = int(self.target[index])
        prompt = self.workload.prompt(index)
        found = self.kv.found_tokens(prompt, prompt_tokens=target)
        wanted = self.kv.blocks_for(target) - found // self.kv.block_tokens
        # What is found may be idle and so counted as free; it will be held, and cannot be given away as well.
        if wanted + found // self.kv.block_tokens + kept > self.kv.free_blocks:
            return False
        self.computed[index], held = self.kv.look_up(prompt, prompt_tokens=target)
        if held:
            self.held[index] = held
        self.shared[index] = found // self.kv.block_tokens
        self.private[index] = wanted
        self.kv.take(wanted)
        return True

    def release(self, indices: Ints) -> None:
        """Take all blocks of some requests back."""
        self.kv.take(-int(self.private[indices].sum()))
        self.private[indices] = 0
        for index in indices[self.shared[indices] > 0]:
            self.kv.let_go(self.held.pop(int(index)))
        self.shared[indices] = 0

    def finish(self, indices: Ints) -> None:
        """Take the blocks of answered requests back; where a turn follows, the answer is kept for it."""
        for index in indices:
            if self.workload.goes_on(int(index)):
                self._keep(int(index), self.workload.answered(int(index)))
        self.release(indices)

    def remember(self, index: int) -> None:
        """Keep the prompt of a request for others, once it is computed."""
        self._keep(index, self.workload.prompt(index))

    def _keep(self, index: int, said: Prompt) -> None:
        held = self.held.get(index, ())
        passed, new = self.kv.remember(said, held=held)
        if new:
            self.held[index] = (*held, *new)
            self.shared[index] += passed
            self.private[index] -= passed

    def context(self, indices: Ints) -> Ints:
        """Tokens that the next decode of each attends to, its own included."""
        return self.workload.input_tokens[indices] + self.generated[indices]

    def lacking(self, indices: Ints, *, tokens: int) -> int:
        """Blocks that all of them lack together."""
        return int(self.growth(indices, tokens=tokens).sum())

    def growth(self, indices: Ints, *, tokens: int) -> Ints:
        """Blocks that each lacks to decode so many more tokens, or as many as it has left."""
        held = self.private[indices] + self.shared[indices]
        left = self.workload.output_tokens[indices] - self.generated[indices]
        # The last token of all is never written to the cache.
        wanted = -(-(self.context(indices) + np.minimum(tokens, left) - 1) // self.kv.block_tokens)
        return np.asarray(np.maximum(wanted - held, 0), np.int64)

    def grow(self, indices: Ints, *, tokens: int) -> None:
        """Allocate the blocks that they lack."""
        growth = self.growth(indices, tokens=tokens)
        self.private[indices] += growth
        self.kv.take(int(growth.sum()))

    def preempt(self, index: int) -> None:
        """Take all blocks of a request; it will compute its prompt and its answer so far again."""
        self.release(np.array([index]))
        self.computed[index] = 0
        self.target[index] = self.workload.input_tokens[index] + self.generated[index]
        self.kv.preemptions += 1
