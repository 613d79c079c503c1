"""What V0 and V1 have in common: arrivals, steps with prompts, runs of decodes, and what the client saw."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sweeper.metrics import RequestRecords
from sweeper.simulation.costs import CostModel, Step
from sweeper.simulation.decoding import Decoding
from sweeper.simulation.front_end import FrontEnd
from sweeper.simulation.kv_cache import KvCache
from sweeper.simulation.rules import NEWEST, NEWEST_V0, V0Rules, V1Rules
from sweeper.simulation.users import SimulatedUsers
from sweeper.workload.requests import Workload

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Piece = tuple[int, int, int]
"""A piece of a prompt in a step: which request, its tokens before, its tokens in the step."""


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
        long_prefill_tokens: Most tokens of one prompt in a step; 0 is unlimited; V1 only.
        rules: What V1's releases do differently.
        async_output: Whether a step's answers are read only during the next one; V0 only.
        streams_steps: Whether a server sends what each of several steps gives, and not only what a request
            ends with, before their group is over; with ``async_output`` alone.
        v0_rules: What V0's releases do differently.
    """

    is_v1: bool
    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    chunked_prefill: bool
    scheduler_steps: int = 1
    long_prefill_tokens: int = 0
    rules: V1Rules = NEWEST
    async_output: bool = False
    streams_steps: bool = True
    v0_rules: V0Rules = NEWEST_V0


class Watch(Protocol):
    """Somebody who is told each decision; steps that only decode come many at a time."""

    def admitted(self, index: int, *, found_tokens: int) -> None:
        """A waiting request was admitted, and so many of its tokens were in the prefix cache."""

    def preempted(self, index: int) -> None:
        """A request lost its blocks."""

    def computed(self, tokens: dict[int, int], *, steps: int) -> None:
        """So many steps in a row computed so many tokens of each request."""


class Run(ABC):
    """The state of one run. ``running`` has a number for each, ascending in order of admission."""

    def __init__(
        self,
        workload: Workload,
        *,
        config: SchedulerConfig,
        costs: CostModel,
        kv: KvCache,
        max_concurrency: int | None,
        watch: Watch | None,
        front_end: FrontEnd | None = None,
    ) -> None:
        self.config, self.costs, self.kv, self.watch = config, costs, kv, watch
        self.now_s = 0.0
        self.client = SimulatedUsers(
            workload,
            max_concurrency=max_concurrency,
            longest=config.max_model_len,
            front_end=front_end,
            is_drained=not config.is_v1,
        )
        self.workload = workload
        self.last_s = np.full(workload.requests, np.nan)
        # Tokens that each request wants computed before it decodes, and those that it then still has to get.
        self.targets: list[int] = workload.input_tokens.tolist()
        self.lefts: list[int] = workload.output_tokens.tolist()
        self.waiting: deque[int] = deque()
        self.running: dict[int, int] = {}
        # Prompts that are computed in part: tokens in the cache.
        self.begun: dict[int, int] = {}
        self.decoding = Decoding(block_tokens=kv.block_tokens)
        # Requests that have all their tokens, but whose end was not read yet: tokens in the cache.
        self.unread: dict[int, int] = {}

    def finish(self) -> RequestRecords:
        """Serve everything and return what the client saw."""
        client = self.client
        while client.has_more or self.waiting or self.running:
            while client.next_s <= self.now_s:
                self.waiting.append(client.send())
            if not self._step():
                self._sleep()
        return _records(self)

    # What V0 and V1 do in their own ways

    @abstractmethod
    def _step(self) -> bool:
        """Schedule and compute; return false if there is nothing to do."""

    @abstractmethod
    def _take(self, blocks: int) -> None:
        """Give blocks to sequences that decode."""

    @abstractmethod
    def _release(self, index: int, *, computed: int, is_cut_off: bool) -> None:
        """Take the blocks of a request back, that has so many tokens in the cache."""

    @abstractmethod
    def _spared(self, steps: int) -> int:
        """Blocks that are free wherever none is preempted in a group of so many steps."""

    @abstractmethod
    def _lets_pass(self) -> bool:
        """Whether a newcomer may be admitted while others wait."""

    # Arrivals and departures

    def _sleep(self) -> None:
        """Wait for the next arrival, when there is nothing to do."""
        if self.client.next_s <= self.now_s or not np.isfinite(self.client.next_s):
            raise never_fits(self)
        self.now_s = self.client.next_s

    def _admit(self, index: int, *, found: int) -> None:
        """Take a waiting request in, so many of whose tokens were found in the cache."""
        self.running[index] = next(reversed(self.running.values()), 0) + 1
        self.begun[index] = found
        if self.watch is not None:
            self.watch.admitted(index, found_tokens=found)

    def _preempt(self, index: int) -> None:
        """Take all blocks of a request; it will compute its prompt and its answer so far again."""
        if index in self.decoding:
            self._release(index, computed=self.decoding.cached_tokens(index), is_cut_off=True)
            left = self.decoding.leave(index)
            self.targets[index] += self.lefts[index] - left
            self.lefts[index] = left
        else:
            self._release(index, computed=self.begun.pop(index), is_cut_off=True)
        del self.running[index]
        self.waiting.appendleft(index)
        self.kv.preemptions += 1
        if self.watch is not None:
            self.watch.preempted(index)

    def _let_go(self, ended_s: dict[int, float]) -> None:
        """Let go of requests that have all their tokens, since these times."""
        if not ended_s:
            return
        for index in sorted(ended_s, key=self.running.__getitem__):
            self.last_s[index] = ended_s[index]
            self._leave(index)
        self.client.answered(ended_s)

    def _leave(self, index: int) -> None:
        """Take back the place and the blocks of a request that is answered."""
        del self.running[index]
        self._release(index, computed=self._written(index), is_cut_off=False)

    def _written(self, index: int) -> int:
        """Return the tokens of an answered request in the cache; the last one is not written to it."""
        return self.targets[index] + self.lefts[index] - 1

    # Steps

    def _compute(self, pieces: list[Piece], *, decodes: bool) -> None:
        """Run one step over pieces of prompts and, if it decodes too, one token of each decoder."""
        ended = [index for index, before, chunk in pieces if before + chunk >= self.targets[index]]
        chunks = [chunk for _, _, chunk in pieces]
        decoders = len(self.decoding) + len(self.unread) if decodes else 0
        together, contexts = self._decodes() if decoders else (0.0, None)
        step = Step(
            prefill_tokens=sum(chunks),
            prefill_pairs=float(sum(chunk * before + chunk * (chunk + 1) / 2 for _, before, chunk in pieces)),
            prefill_sequences=len(pieces),
            decodes=decoders,
            context_tokens=together,
            samples=decoders + len(ended),
            prompts=_each_prompt(pieces) if self.costs.has_windows else None,
            contexts=contexts,
        )
        self._tell(pieces, decodes=decodes, steps=1)
        self.now_s += self.costs.step_s(step)
        done = self.decoding.advance(1, times_s=[self.now_s]) if decodes and self.decoding else {}
        for index, before, chunk in pieces:
            self.begun[index] = before + chunk
        for index in ended:
            del self.begun[index]
            # A prompt's end is the first of the tokens that it has left.
            self.targets[index] += 1
            self.lefts[index] -= 1
            left = self.lefts[index]
            self.decoding.join(index, context=self.targets[index], left=left, at_s=self.now_s)
            if not left:
                self.decoding.leave(index)
                done[index] = self.now_s
        self._let_go(done)

    def _decodes(self) -> tuple[float, Ints | None]:
        """Return the tokens that all decodes attend to, and of each where a step's costs need that."""
        together = float(self.decoding.context_tokens + sum(self.unread.values()) + len(self.unread))
        if not self.costs.has_windows:
            return together, None
        contexts = self.decoding.contexts([index for index in self.running if index in self.decoding])
        return together, np.concatenate([contexts, np.array(list(self.unread.values()), np.int64) + 1])

    def _tell(self, pieces: list[Piece], *, decodes: bool, steps: int) -> None:
        if self.watch is None:
            return
        tokens = {index: 1 for index in self.running if decodes and index not in self.begun}
        self.watch.computed({**tokens, **{index: chunk for index, _, chunk in pieces}}, steps=steps)

    def _decode_groups(self, *, at_most: int | None = None, steps: int = 1) -> bool:
        """Decode all running sequences until something can interrupt them; return false if none runs.

        Args:
            at_most: Groups of steps, where something can interrupt them that is not looked at here.
            steps: Steps in a group, for the first of which all have blocks.
        """
        decoding = self.decoding
        if not decoding and not self.unread:
            return False
        groups = max(1, decoding.least_left // steps) if decoding and not self.unread else 1
        groups = self._affordable(steps=steps, groups=groups if at_most is None else min(groups, at_most))
        decodes = len(decoding) + len(self.unread)
        together, contexts = self._decodes()
        step = Step(
            decodes=decodes,
            context_tokens=together,
            samples=decodes,
            contexts=contexts,
        )
        took_s = self.costs.groups_s(step, steps=steps, groups=groups)
        times_s = self._until_arrival(self.now_s + np.cumsum(took_s)).tolist()
        self._tell([], decodes=True, steps=steps * len(times_s))
        self._take(decoding.lacking(steps * len(times_s)))
        self.now_s = times_s[-1]
        steps_s: list[float] = []
        if steps > 1:
            # The host's work goes before a group's first step.
            ahead_s = self.costs.ahead_s(step, steps=steps)
            steps_s = [(each_s - ahead_s) / steps for each_s in took_s[: len(times_s)].tolist()]
        self._let_go(self._advance(steps, times_s=times_s, steps_s=steps_s))
        return True

    def _advance(self, steps: int, *, times_s: list[float], steps_s: list[float]) -> dict[int, float]:
        """Give all that decode their tokens.

        Args:
            steps: In a group.
            times_s: When each group ends.
            steps_s: What each step of a group takes, of each group; empty where a group is a step.

        Returns:
            Those that have all of theirs, and since when.
        """
        return self.decoding.advance(steps, times_s=times_s)

    def _until_arrival(self, ends_s: Floats) -> Floats:
        """Cut a run of steps after the first that ends when a newcomer may be admitted.

        Requests that wait already could not be admitted before, and cannot until another one leaves.
        """
        if len(ends_s) == 1 or len(self.running) >= self.config.max_num_seqs:
            return ends_s
        if self.waiting and not self._lets_pass():
            return ends_s
        return ends_s[: 1 + int(np.searchsorted(ends_s, self.client.next_s))]

    def _affordable(self, *, steps: int, groups: int) -> int:
        """Lower the number of groups until there are blocks for them; one group is secured already."""
        while groups > 1 and self.decoding.lacking(steps * groups) > self.kv.free_blocks - self._spared(
            steps
        ):
            groups //= 2
        return groups


def never_fits(run: Run) -> RuntimeError:
    """Return what to raise where requests wait and none can ever run."""
    return RuntimeError(
        f"scheduler model: {len(run.waiting)} requests wait at {run.now_s:.3f} s and none can run; "
        f"expected that each fits in {run.kv.blocks} blocks and a step of "
        f"{run.config.max_num_batched_tokens} tokens. Check the memory before the start."
    )


def _records(run: Run) -> RequestRecords:
    """Return what the client saw of a run that is over."""
    first_s, gaps_s = run.decoding.times_s(requests=run.workload.requests)
    return RequestRecords(
        arrival_s=run.client.sent_s,
        first_token_s=first_s + run.client.return_s,
        last_token_s=run.last_s + run.client.return_s,
        input_tokens=run.workload.input_tokens,
        output_tokens=np.where(np.isnan(run.last_s), 0, run.workload.output_tokens),
        inter_token_s=gaps_s,
    )


def _each_prompt(pieces: list[Piece]) -> tuple[Ints, Ints]:
    """Return the tokens of each prompt before a step and in it."""
    before, chunks = ([piece[place] for piece in pieces] for place in (1, 2))
    return np.array(before, np.int64), np.array(chunks, np.int64)
