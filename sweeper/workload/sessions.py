"""The conversations of a log of requests: which turns they have, and the file that sends them again.

Each request of a log says how long its whole prompt was. A message of its own is what that has more than
everything said before it: the prompt of the turn before and the answer to it. Where a prompt is shorter than
that (its beginning was cut, or the log counts new tokens only), it begins a conversation of its own.

The file holds lengths, times and which system prompts are equal, and no text (``conversation_files``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sweeper.records.plurals import amount
from sweeper.workload.logs import Log, LoggedRequest


@dataclass(frozen=True, kw_only=True)
class LoggedTurn:
    """A turn of a conversation of a log.

    Attributes:
        request: What the log says.
        message_tokens: Of its prompt, what nobody said before it; without the system prompt.
        pause_s: From the end of the answer before it; None for a first turn, or where the log does not say
            how long answers took.
    """

    request: LoggedRequest
    message_tokens: int
    pause_s: float | None


@dataclass(frozen=True, kw_only=True)
class Conversations:
    """The conversations of a log, in the order in which they begin.

    Attributes:
        turns: Of each, in the order of the log.
        cut: How many turns began one of their own, for their prompts do not hold what was said before.
    """

    turns: tuple[tuple[LoggedTurn, ...], ...]
    cut: int

    @property
    def pauses_s(self) -> tuple[float, ...]:
        """All that are known."""
        return tuple(turn.pause_s for turns in self.turns for turn in turns if turn.pause_s is not None)


def conversations(log: Log) -> Conversations:
    """Return the conversations of a log; a request without one is a conversation of a single turn."""
    found: list[list[LoggedTurn]] = []
    latest: dict[int, list[LoggedTurn]] = {}
    cut = 0
    for request in log.requests:
        before = None if request.session is None else latest.get(request.session)
        turn = None if before is None else _next(request, before[-1].request)
        if before is not None and turn is not None:
            before.append(turn)
            continue
        cut += before is not None
        opened = [_first(request)]
        found.append(opened)
        if request.session is not None:
            latest[request.session] = opened
    return Conversations(turns=tuple(map(tuple, found)), cut=cut)


def _first(request: LoggedRequest) -> LoggedTurn:
    message = request.input_tokens - request.system_tokens
    return LoggedTurn(request=request, message_tokens=message, pause_s=None)


def _next(request: LoggedRequest, before: LoggedRequest) -> LoggedTurn | None:
    """Return the turn after another; None where its prompt cannot hold what was said."""
    message = request.input_tokens - before.input_tokens - before.output_tokens
    if message < 1:
        return None
    return LoggedTurn(request=request, message_tokens=message, pause_s=_pause_s(request, before))


def _pause_s(request: LoggedRequest, before: LoggedRequest) -> float | None:
    if request.time_s is None or before.time_s is None or before.duration_s is None:
        return None
    return max(0.0, request.time_s - before.time_s - before.duration_s)


def lines(found: Conversations) -> Iterator[str]:
    """Write the conversations, a JSON object per line, times from 0 on in milliseconds, no text.

    Without times there are none in it, so that conversations begin at a rate or by users.
    """
    times = [turns[0].request.time_s for turns in found.turns]
    begin_s = min((time for time in times if time is not None), default=0.0)
    for number, turns in enumerate(found.turns):
        yield json.dumps({"session_id": str(number), "turns": list(_turns(turns, begin_s=begin_s))})


def _turns(turns: Sequence[LoggedTurn], *, begin_s: float) -> Iterator[Mapping[str, object]]:
    first = turns[0].request
    if first.system_tokens:
        yield {"role": "system", "input_length": first.system_tokens, "id": first.system}
    for turn in turns:
        content: dict[str, object] = {
            "input_length": turn.message_tokens,
            "output_length": turn.request.output_tokens,
        }
        if turn.request.time_s is not None:
            content["timestamp"] = round((turn.request.time_s - begin_s) * 1000)
        if turn.pause_s is not None:
            content["delay"] = round(turn.pause_s * 1000)
        yield content


def said(found: Conversations) -> Iterator[str]:
    """Describe the conversations of a log in lines."""
    turns = [len(one) for one in found.turns]
    messages = [turn.message_tokens for one in found.turns for turn in one]
    yield (
        f"conversations: {len(turns)} of {np.mean(turns):.3g} turns in the mean, longest {max(turns)}; "
        f"messages of {np.mean(messages):.0f} tokens in the mean"
    )
    if found.pauses_s:
        yield f"pauses between turns: {np.median(found.pauses_s):.3g} s in the middle"
    elif any(count > 1 for count in turns):
        yield "pauses between turns: unknown, for the log does not say how long answers took (latency_ms)"
    if found.cut:
        one = found.cut == 1
        yield (
            f"{amount(found.cut, 'prompt')} {'is' if one else 'are'} shorter than all that was said before, "
            f"and {'begins' if one else 'begin'} another conversation"
        )
