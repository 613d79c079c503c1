"""Which requests enter which step: a discrete-event model of vLLM's schedulers.

Time moves from step to step. Before each, requests that have arrived join the queue; the scheduler picks; the
step takes what ``costs`` says; then tokens go out. Three kinds of step:

*prompt step* (V0 without chunked prefill): waiting prompts that fit are computed, whole, and nothing decodes.
*decode group* (V0 without chunked prefill): one or ``scheduler_steps`` steps in a row. New requests wait
    for its end, finished sequences keep their place until then, and its tokens reach the client together.
*mixed step* (V0 with chunked prefill, V1): a budget of tokens is given to running sequences, decodes
    included, and what is left to waiting prompts, cut where ``chunked_prefill`` allows it.

KV blocks are counted, not placed. When they run out, the last sequence to have been admitted gives up its
blocks and later computes its prompt and answer again, as both of vLLM's schedulers do by default.

Runs of steps in which nothing can join or leave are computed at once; the times are the same.

Left out: swapping, priorities, beam search, speculative decoding, pipeline stages, and the time that the API
server and the network add.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sweeper.metrics import RequestRecords
from sweeper.simulation.costs import CostModel, Step
from sweeper.simulation.kv_cache import KvCache
from sweeper.simulation.sequences import Sequences
from sweeper.simulation.users import SimulatedUsers
from sweeper.workload.requests import Workload

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WATERMARK_FRAC = 0.01
"""Part of the blocks that V0 keeps free when it admits a request, against preemption soon after. Source: vLLM
0.6.2, BlockSpaceManager."""


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """What the scheduler may do.

    Attributes:
        is_v1: Which of vLLM's two schedulers.
        max_num_seqs: Sequences at a time.
        max_num_batched_tokens: Tokens in one step.
        max_model_len: Longest prompt and answer together; longer requests are refused.
        chunked_prefill: Whether a prompt may be cut over several steps.
        scheduler_steps: Decode steps in a row without scheduling; V0 only.
    """

    is_v1: bool
    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    chunked_prefill: bool
    scheduler_steps: int = 1

    @property
    def mixes(self) -> bool:
        """Whether prompts and decodes share steps."""
        return self.is_v1 or self.chunked_prefill


def simulate(
    workload: Workload,
    *,
    config: SchedulerConfig,
    costs: CostModel,
    kv: KvCache,
    max_concurrency: int | None = None,
) -> RequestRecords:
    """Serve a workload on one engine.

    Args:
        workload: What arrives when.
        config: How it is scheduled.
        costs: How long steps take.
        kv: The engine's cache; it is changed, and what it remembers serves the next run.
        max_concurrency: Requests that the client has under way at once; None is unlimited. A request that
            waits for its turn counts as sent only then, as in vLLM's benchmark.

    Returns:
        What the client saw, in the order of the workload. Requests longer than ``max_model_len`` failed.
    """
    return _Run(workload, config=config, costs=costs, kv=kv, max_concurrency=max_concurrency).finish()


class _Run:
    """The state of one run. Arrays are by request; ``running`` is in order of admission."""

    def __init__(
        self,
        workload: Workload,
        *,
        config: SchedulerConfig,
        costs: CostModel,
        kv: KvCache,
        max_concurrency: int | None,
    ) -> None:
        count = workload.requests
        self.workload, self.config, self.costs, self.kv = workload, config, costs, kv
        self.now_s = 0.0
        self.client = SimulatedUsers(workload, max_concurrency=max_concurrency, longest=config.max_model_len)
        self.last_s = np.full(count, np.nan)
        self.sequences = Sequences(workload, kv)
        self.waiting: deque[int] = deque()
        self.running = np.empty(0, np.int64)
        self.emitted: list[tuple[Ints, Floats]] = []

    def finish(self) -> RequestRecords:
        while self.client.has_more or self.waiting or len(self.running):
            self._take_arrivals()
            if self.config.mixes:
                progressed = self._mixed_step()
            else:
                progressed = self._prompt_step() or self._decode_groups()
            if not progressed:
                self._sleep()
        return self._records()

    # Arrivals and departures

    def _take_arrivals(self) -> None:
        while self.client.next_s <= self.now_s:
            self.waiting.append(self.client.send())

    def _sleep(self) -> None:
        """Wait for the next arrival, when there is nothing to do."""
        if self.client.next_s <= self.now_s or not np.isfinite(self.client.next_s):
            raise RuntimeError(
                f"scheduler model: {len(self.waiting)} requests wait at {self.now_s:.3f} s and none can run; "
                f"expected that each fits in {self.kv.blocks} blocks and a step of "
                f"{self.config.max_num_batched_tokens} tokens. Check the memory before the start."
            )
        self.now_s = self.client.next_s

    def _emit(self, indices: Ints, *, tokens: Ints, times_s: Floats) -> None:
        """Send tokens of each request at each of some times, and let go of the requests that are done.

        Args:
            indices: Requests, shape (requests,).
            tokens: Tokens that each gets by the last of the times, same shape.
            times_s: Ascending; each is one message to every request.
        """
        self.emitted.append((np.tile(indices, len(times_s)), np.repeat(times_s, len(indices))))
        self.sequences.generated[indices] += tokens
        done = indices[self.sequences.generated[indices] >= self.workload.output_tokens[indices]]
        if len(done):
            self.last_s[done] = times_s[-1]
            self.sequences.finish(done)
            self.running = self.running[np.isnan(self.last_s[self.running])]
            self.client.answered(done, at_s=self.now_s)

    # Prompts

    def _prompt_step(self) -> bool:
        """Compute waiting prompts, whole (V0 without chunked prefill); false if none can start."""
        budget, free_seqs = self.config.max_num_batched_tokens, self.config.max_num_seqs - len(self.running)
        admitted: list[int] = []
        while self.waiting and len(admitted) < free_seqs:
            index = self.waiting[0]
            if self.sequences.target[index] > budget or not self._admit(index):
                break
            budget -= int(self.sequences.target[index])
            admitted.append(self.waiting.popleft())
        if not admitted:
            return False
        indices = np.array(admitted, np.int64)
        self.running = np.concatenate([self.running, indices])
        self._compute(
            indices,
            chunks=self.sequences.target[indices] - self.sequences.computed[indices],
            decoders=indices[:0],
        )
        return True

    def _admit(self, index: int) -> bool:
        """Admit a waiting request if there are blocks for its prompt."""
        kept = 0 if self.config.is_v1 or not len(self.running) else int(WATERMARK_FRAC * self.kv.blocks)
        return self.sequences.admit(index, kept=kept)

    def _compute(self, indices: Ints, *, chunks: Ints, decoders: Ints) -> None:
        """Run one step over pieces of prompts and one token of each decoder."""
        before = self.sequences.computed[indices]
        contexts = self.sequences.context(decoders)
        ends = before + chunks >= self.sequences.target[indices]
        step = Step(
            prefill_tokens=int(chunks.sum()),
            prefill_pairs=float((chunks * before + chunks * (chunks + 1) / 2).sum()),
            prefill_sequences=len(indices),
            decodes=len(decoders),
            context_tokens=float(contexts.sum()),
            samples=len(decoders) + int(ends.sum()),
            prompts=(before, chunks),
            contexts=contexts,
        )
        self.now_s += self.costs.step_s(step)
        self.sequences.computed[indices] += chunks
        for index in indices[ends]:
            self.sequences.remember(int(index))
        speaking = np.concatenate([decoders, indices[ends]])
        if len(speaking):
            self._emit(speaking, tokens=np.ones(len(speaking), np.int64), times_s=np.array([self.now_s]))

    # Decoding

    def _decode_groups(self) -> bool:
        """Decode all running sequences until something can interrupt them; return false if none runs."""
        if not len(self.running):
            return False
        self._secure(self.running, tokens=self.config.scheduler_steps)
        running = self.running
        left = self.workload.output_tokens[running] - self.sequences.generated[running]
        # A group ends early when all of its sequences have ended.
        steps = min(self.config.scheduler_steps, int(left.max()))
        groups = max(1, int(left.min()) // steps)
        groups = self._affordable(running, steps=steps, groups=groups)
        contexts = self.sequences.context(running)
        step = Step(
            decodes=len(running),
            context_tokens=float(contexts.sum()),
            samples=len(running),
            contexts=contexts,
        )
        ends_s = self.now_s + np.cumsum(self.costs.groups_s(step, steps=steps, groups=groups))
        ends_s = self._until_arrival(ends_s)
        self.sequences.grow(running, tokens=steps * len(ends_s))
        self.now_s = float(ends_s[-1])
        self._emit(running, tokens=np.minimum(left, steps * len(ends_s)), times_s=ends_s)
        return True

    def _until_arrival(self, ends_s: Floats) -> Floats:
        """Cut a run of steps after the first that ends when a newcomer may be admitted.

        Requests that wait already could not be admitted before, and cannot until another one leaves.
        """
        if self.waiting or len(self.running) >= self.config.max_num_seqs:
            return ends_s
        return ends_s[: 1 + int(np.searchsorted(ends_s, self.client.next_s))]

    def _affordable(self, indices: Ints, *, steps: int, groups: int) -> int:
        """Lower the number of groups until there are blocks for them; one group is secured already."""
        while groups > 1 and self.sequences.lacking(indices, tokens=steps * groups) > self.kv.free_blocks:
            groups //= 2
        return groups

    def _secure(self, indices: Ints, *, tokens: int) -> Ints:
        """Preempt from the back until the rest can grow; return which of the given ones remain."""
        while self.sequences.lacking(indices, tokens=tokens) > self.kv.free_blocks and len(self.running) > 1:
            self._preempt(int(self.running[-1]))
            indices = indices[np.isin(indices, self.running)]
        return indices

    def _preempt(self, index: int) -> None:
        self.sequences.preempt(index)
        self.running = self.running[:-1]
        self.waiting.appendleft(index)

    # Mixed steps

    def _mixed_step(self) -> bool:
        """Share one budget of tokens between decodes and prompts; false if there is nothing to do."""
        is_decoding = self.sequences.computed[self.running] >= self.sequences.target[self.running]
        preempted = self.kv.preemptions
        # A prompt is admitted only to tokens that are left over, so there is a token for every decode.
        decoders = self._secure(self.running[is_decoding], tokens=1)
        self.sequences.grow(decoders, tokens=1)
        budget = self.config.max_num_batched_tokens - len(decoders)
        # A sequence that has just lost its blocks must not get them back in the same step.
        prompts, chunks = self._prompt_pieces(budget, may_admit=self.kv.preemptions == preempted)
        if not len(prompts):
            return self._decode_groups()
        self._compute(prompts, chunks=chunks, decoders=decoders)
        return True

    def _prompt_pieces(self, budget: int, *, may_admit: bool) -> tuple[Ints, Ints]:
        """Choose pieces of prompts, first of those begun, then of those that wait, admitting them."""
        begun = self.running[self.sequences.computed[self.running] < self.sequences.target[self.running]]
        prompts: list[int] = []
        chunks: list[int] = []
        for index in begun:
            if not budget:
                break
            chunk = min(int(self.sequences.target[index] - self.sequences.computed[index]), budget)
            prompts.append(int(index))
            chunks.append(chunk)
            budget -= chunk
        admitted: list[int] = []
        while (
            may_admit
            and self.waiting
            and budget
            and len(self.running) + len(admitted) < self.config.max_num_seqs
        ):
            index = self.waiting[0]
            if not self._fits_uncut(index, budget) or not self._admit(index):
                break
            chunk = min(int(self.sequences.target[index] - self.sequences.computed[index]), budget)
            admitted.append(self.waiting.popleft())
            prompts.append(index)
            chunks.append(chunk)
            budget -= chunk
        if admitted:
            self.running = np.concatenate([self.running, np.array(admitted, np.int64)])
        return np.array(prompts, np.int64), np.array(chunks, np.int64)

    def _fits_uncut(self, index: int, budget: int) -> bool:
        if self.config.chunked_prefill:
            return True
        prompt, target = self.workload.prompt(index), int(self.sequences.target[index])
        return target - self.kv.found_tokens(prompt, prompt_tokens=target) <= budget

    # What the client saw

    def _records(self) -> RequestRecords:
        count = self.workload.requests
        indices = np.concatenate([np.empty(0, np.int64), *(indices for indices, _ in self.emitted)])
        times_s = np.concatenate([np.empty(0), *(times for _, times in self.emitted)])
        # Messages are in order of time already; a stable sort keeps that within each request.
        order = np.argsort(indices, kind="stable")
        indices, times_s = indices[order], times_s[order]
        is_first = np.diff(indices, prepend=-1) != 0
        first_s = np.full(count, np.nan)
        first_s[indices[is_first]] = times_s[is_first]
        return RequestRecords(
            arrival_s=self.client.sent_s,
            first_token_s=first_s,
            last_token_s=self.last_s,
            input_tokens=self.workload.input_tokens,
            output_tokens=self.sequences.generated,
            inter_token_s=np.diff(times_s, prepend=0.0)[~is_first],
        )
