"""Sequences that decode in step with each other, so that a few sums say what a step needs.

Both of vLLM's schedulers give every sequence that decodes its token in each step: none is admitted to tokens
that the running ones could want. So the blocks that they need follow from how many of them stand at which
place of a block, and when each ends is known as it begins; nothing is looked at one by one.
"""

from __future__ import annotations

import heapq
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_AT_ONCE_TOKENS = 1_000_000
"""Times that are worked out at once, to bound the memory for them."""


class Span(NamedTuple):
    """A stretch of a request's answer: a token at the end of its prompt, then some with each message.

    Attributes:
        request: Whose.
        started_s: When its prompt ended.
        first: Number of the first message.
        last: Number of the message after the last.
        ended_s: When the last of them went out, where that was before the others of its message; else NaN.
    """

    request: int
    started_s: float
    first: int
    last: int
    ended_s: float = math.nan


class Decoding:
    """The sequences that decode, and when each message went out.

    A sequence's context are the tokens that its next decode attends to, its own included; all but the last of
    them are in the cache.

    Attributes:
        advanced: Tokens that a sequence would have got that decodes since the start.
        granted: Tokens for which the sequences have blocks already, beyond those in the cache.
        spans: Answers, or parts of them, that ended or were cut off, in order of time.
    """

    def __init__(self, *, block_tokens: int) -> None:
        self.advanced = 0
        self.granted = 0
        self.spans: list[Span] = []
        self._block_tokens = block_tokens
        self._messages_s: list[float] = []
        # Contexts less what all have advanced; their sum; and how many blocks would be full at which place.
        self._bases: dict[int, int] = {}
        self._base_sum = 0
        self._places = [0] * block_tokens
        # Who began when: time of the token before, and number of the next message.
        self._began: dict[int, tuple[float, int]] = {}
        # Who ends when all have advanced so far.
        self._ends: dict[int, int] = {}
        self._ending: dict[int, list[int]] = {}
        self._next_ends: list[int] = []

    def __len__(self) -> int:
        return len(self._bases)

    def __contains__(self, index: int) -> bool:
        return index in self._bases

    @property
    def context_tokens(self) -> int:
        """Tokens that all attend to, together."""
        return self._base_sum + self.advanced * len(self._bases)

    @property
    def least_left(self) -> int:
        """Tokens until the first of them ends."""
        while self._next_ends[0] not in self._ending:
            heapq.heappop(self._next_ends)
        return self._next_ends[0] - self.advanced

    def left(self, index: int) -> int:
        """Return the tokens until one of them ends."""
        return self._ends[index] - self.advanced

    def contexts(self, indices: list[int]) -> Ints:
        """Return the tokens that each attends to, shape (indices,)."""
        return np.array([self._bases[index] for index in indices], np.int64) + self.advanced

    def cached_tokens(self, index: int) -> int:
        """Return the tokens of one of them that are in the cache."""
        return self._bases[index] + self.advanced - 1

    def ending(self, *, within: int) -> dict[int, int]:
        """Return who ends within so many tokens, and the tokens that each has left."""
        if not self._bases or self.least_left > within:
            return {}
        ends = range(self.advanced + self.least_left, self.advanced + within + 1)
        return {index: end - self.advanced for end in ends for index in self._ending.get(end, ())}

    def join(self, index: int, *, context: int, left: int, at_s: float) -> None:
        """Take in a sequence that has just got a token, and gets some more."""
        base, end = context - self.advanced, self.advanced + left
        self._bases[index] = base
        self._base_sum += base
        self._places[(base - 1) % self._block_tokens] += 1
        self._began[index] = (at_s, len(self._messages_s))
        self._ends[index] = end
        if end in self._ending:
            self._ending[end].append(index)
        else:
            self._ending[end] = [index]
            heapq.heappush(self._next_ends, end)

    def leave(self, index: int) -> int:
        """Cut a sequence off; return the tokens that it still has to get."""
        end, left = self._ends[index], self.left(index)
        same = self._ending[end]
        same.remove(index)
        if not same:
            del self._ending[end]
        self._close(index, last=len(self._messages_s))
        return left

    def advance(self, tokens: int, *, times_s: list[float], step_s: float = 0.0) -> dict[int, float]:
        """Give each its tokens with each of some messages.

        Args:
            tokens: With each message.
            times_s: When the messages go out.
            step_s: Time between the tokens of the last message, where the end of an answer does not wait for
                the message; 0 where it does. None may end before that message then.

        Returns:
            Those that ended, and when.
        """
        before, sent = self.advanced, len(self._messages_s)
        self._messages_s += times_s
        self.advanced += tokens * len(times_s)
        self.granted = 0
        ended: dict[int, float] = {}
        while self._next_ends and self._next_ends[0] <= self.advanced:
            end = heapq.heappop(self._next_ends)
            last = sent - (before - end) // tokens
            ended_s = self._messages_s[last - 1] - step_s * (self.advanced - end)
            for index in self._ending.pop(end, ()):
                self._close(index, last=last, ended_s=ended_s if step_s else math.nan)
                ended[index] = ended_s
        return ended

    def _close(self, index: int, *, last: int, ended_s: float = math.nan) -> None:
        base = self._bases.pop(index)
        self._base_sum -= base
        self._places[(base - 1) % self._block_tokens] -= 1
        del self._ends[index]
        started_s, first = self._began.pop(index)
        self.spans.append(Span(index, started_s, first, last, ended_s))

    def wanting(self) -> set[int]:
        """Return the sequences that lack a block for their next token."""
        size, advanced = self._block_tokens, self.advanced - 1
        return {index for index, base in self._bases.items() if (base + advanced) % size == 0}

    def lacking(self, tokens: int) -> int:
        """Return the blocks that all lack to get so many more tokens."""
        return self._blocks_beyond_cache(tokens) - self._blocks_beyond_cache(self.granted)

    def _blocks_beyond_cache(self, tokens: int) -> int:
        """Blocks for so many tokens more than are in the cache."""
        if not tokens or not self._bases:
            return 0
        size, advanced = self._block_tokens, self.advanced
        if tokens == 1:
            return self._places[-advanced % size]
        # Beside whole blocks, one for each sequence that has less room in its last block than is left.
        whole, rest = divmod(tokens, size)
        first = (1 - rest - advanced) % size
        return whole * len(self._bases) + sum((self._places * 2)[first : first + rest])

    def times_s(self, *, requests: int) -> tuple[Floats, Floats]:
        """Return when each request got its first token, and the gaps between tokens, request by request.

        Returns:
            First tokens in seconds, shape (requests,), NaN where there is none; gaps, shape (tokens after the
            first,).
        """
        first_s = np.full(requests, np.nan)
        if not self.spans:
            return first_s, np.empty(0)
        # Of each request the spans are in order of time already; a stable sort keeps that.
        spans = sorted(self.spans, key=lambda span: span.request)
        index = np.array([span.request for span in spans])
        started_s = np.array([span.started_s for span in spans])
        ended_s = np.array([span.ended_s for span in spans])
        first = np.array([span.first for span in spans])
        tokens = 1 + np.array([span.last for span in spans]) - first
        is_new = np.diff(index, prepend=-1) != 0
        first_s[index[is_new]] = started_s[is_new]
        messages_s = np.array([*self._messages_s, np.nan])
        gaps_s = np.empty(int(tokens.sum()) - int(is_new.sum()))
        begin = filled = 0
        for end in _cuts(tokens, is_new):
            part = slice(begin, end)
            times_s = _flat_s(
                started_s[part], ended_s[part], first[part], tokens[part], messages_s=messages_s
            )
            is_gap = np.ones(len(times_s), np.bool_)
            is_gap[(np.cumsum(tokens[part]) - tokens[part])[is_new[part]]] = False
            found_s = np.diff(times_s, prepend=0.0)[is_gap]
            gaps_s[filled : filled + len(found_s)] = found_s
            begin, filled = end, filled + len(found_s)
        return first_s, gaps_s


def _cuts(tokens: Ints, is_new: NDArray[np.bool_]) -> list[int]:
    """Return ends of parts of about so many tokens as are worked out at once, none within a request."""
    starts = np.flatnonzero(is_new)
    before = (np.cumsum(tokens) - tokens)[starts] // _AT_ONCE_TOKENS
    return [*starts[np.flatnonzero(np.diff(before)) + 1].tolist(), len(tokens)]


def _flat_s(started_s: Floats, ended_s: Floats, first: Ints, tokens: Ints, *, messages_s: Floats) -> Floats:
    """Return the times of all tokens of some spans, one span after the other."""
    begins = np.cumsum(tokens) - tokens
    which = np.arange(int(tokens.sum())) + np.repeat(first - 1 - begins, tokens)
    times_s: Floats = messages_s[which]
    is_early = ~np.isnan(ended_s)
    times_s[(begins + tokens - 1)[is_early]] = ended_s[is_early]
    times_s[begins] = started_s
    return times_s
