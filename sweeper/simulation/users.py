"""Who sends what when: the client of a modelled run, with arrivals, users, and conversations that go on.

The k-th request is sent at the k-th arrival of the workload, or as soon after it as there is one to send: the
next turn of a conversation whose pause is over, else the first one of another, where a place is free. So a
rate is that of all requests, turns included, and without one (all arrivals at 0) each is sent as soon as it
can be.

A place is one of ``max_concurrency`` users. One who has begun a conversation holds it to its end, pauses
included.

Source: aiperf 0.13.0, aiperf/timing/strategies/request_rate.py and concurrency.py: turns go before new
conversations, and a place is held for a whole one. It lets an arrival pass at which there is nothing to send;
here, as in vLLM's benchmark, whatever comes next is sent for it.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Mapping

import numpy as np

from sweeper.simulation.front_end import FrontEnd
from sweeper.workload.conversations import Turns
from sweeper.workload.requests import Workload


class SimulatedUsers:
    """Sends the requests of a workload.

    Attributes:
        sent_s: When each was sent, seconds from the first arrival, shape (requests,).
        next_s: When the scheduler sees the next request, seconds; infinite where an answer has to come first.
    """

    def __init__(
        self,
        workload: Workload,
        *,
        max_concurrency: int | None,
        longest: int,
        front_end: FrontEnd | None = None,
        is_drained: bool = False,
    ) -> None:
        """Begin with nothing sent.

        Args:
            workload: What is sent.
            max_concurrency: Requests, or conversations, under way at once; None is unlimited.
            longest: Most tokens of prompt and answer together; longer requests are never sent, and what
                follows them in their conversation neither.
            front_end: What requests and answers pass; None hands them over at once.
            is_drained: Whether the scheduler gets at once what the front end begins together, as V0's does.
        """
        self._workload, self._front_end, self._is_drained = workload, front_end, is_drained
        self._fits = workload.input_tokens + workload.output_tokens <= longest
        turns = workload.turns or _single(workload)
        self._pause_s = turns.pause_s
        self._earliest_s: list[float] = turns.earliest_s.tolist()
        self._openers = deque(int(index) for index in np.flatnonzero(self._fits & ~turns.follows))
        # Arrivals that are still to come, where they are nobody's own.
        self._arrivals_s = deque([] if workload.turns is None else workload.arrival_s.tolist())
        self._pausing: list[tuple[float, int]] = []
        # When each place became free; None where there is any number of them.
        self._places = None if max_concurrency is None else deque([0.0] * max_concurrency)
        self.sent_s = workload.arrival_s.copy()
        # Requests that the front end handles at the same time, since when, and until when.
        self._entering: deque[int] = deque()
        self._since_s = self._through_s = 0.0
        self.next_s = np.inf
        self._enter()

    @property
    def return_s(self) -> float:
        """What lies between the end of a step and the client's sight of its tokens, in seconds."""
        return 0.0 if self._front_end is None else self._front_end.return_s

    @property
    def is_online(self) -> bool:
        """Whether a server stands between client and scheduler."""
        return self._front_end is not None

    @property
    def has_more(self) -> bool:
        """Whether something is still to be sent, as far as is known before what is under way is answered."""
        return bool(self._entering or self._openers or self._pausing)

    @property
    def _due_s(self) -> float:
        """When the next request is sent."""
        arrival_s = self._arrivals_s[0] if self._arrivals_s else 0.0
        return max(min(self._turn_s, self._opener_s), arrival_s)

    def _enter(self) -> None:
        """Let what was sent into the front end: one request, or all that it hands over together."""
        due_s = self._due_s
        if self._front_end is None:
            self.next_s = due_s
            return
        if not self._entering and due_s < np.inf:
            self._since_s = self._through_s = max(due_s, self._through_s)
        while (self._is_drained or not self._entering) and self._due_s <= self._since_s:
            self._entering.append(self._sent())
            tokens = int(self._workload.input_tokens[self._entering[-1]])
            self._through_s += self._front_end.token_s * tokens
        self.next_s = self._through_s + self._front_end.entry_s if self._entering else np.inf

    def send(self) -> int:
        """Hand the next request to the scheduler, at ``next_s``; return which it is."""
        index = self._sent() if self._front_end is None else self._entering.popleft()
        if not self._entering:
            self._enter()
        return index

    def _sent(self) -> int:
        """Send the next request, when it is due; return which it is."""
        now_s = self._due_s
        if self._arrivals_s:
            self._arrivals_s.popleft()
        if self._turn_s <= now_s:
            _, index = heapq.heappop(self._pausing)
        else:
            index = self._openers.popleft()
            if self._places is not None:
                self._places.popleft()
        self.sent_s[index] = now_s
        return index

    def answered(self, ended_s: Mapping[int, float]) -> None:
        """Take note that requests were answered, and when."""
        for index, at_s in sorted(ended_s.items(), key=lambda each: each[1]):
            at_s += self.return_s
            if self._workload.goes_on(index) and self._fits[index + 1]:
                ready_s = max(at_s + self._pause_s[index + 1], self._earliest_s[index + 1])
                heapq.heappush(self._pausing, (float(ready_s), index + 1))
            elif self._places is not None:
                self._places.append(at_s)
        self._enter()

    @property
    def _turn_s(self) -> float:
        return self._pausing[0][0] if self._pausing else np.inf

    @property
    def _opener_s(self) -> float:
        if not self._openers or (self._places is not None and not self._places):
            return np.inf
        place_s = 0.0 if self._places is None else self._places[0]
        return max(self._earliest_s[self._openers[0]], place_s)


def _single(workload: Workload) -> Turns:
    """Return requests that are no turns, each with an arrival of its own."""
    return Turns(
        follows=np.zeros(workload.requests, np.bool_),
        pause_s=np.zeros(workload.requests),
        earliest_s=workload.arrival_s,
    )
