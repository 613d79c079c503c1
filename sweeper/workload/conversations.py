"""Conversations: turns of a user and answers of a model, each sent after the answer to the one before.

A turn's prompt holds all that was said before it: system prompt, messages and answers. So prompts grow from
turn to turn, and a server that keeps prefixes finds most of each again.

This is what a load point sends, whoever sends it: ``multi_turn`` writes it for a client in the layout of
aiperf's dataset ``multi_turn``; ``turns_of``, ``lengths_of`` and ``pieces_of`` say of the same conversations
what follows what, how long each prompt is and which of its tokens came before, for the simulated platform.

Left out: what a chat template adds to each message, and what it takes from earlier answers (their reasoning);
real prompts are longer by the one and shorter by the other.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sweeper.errors import ConfigError
from sweeper.kinds import DATASETS, opened
from sweeper.records import LoadPoint
from sweeper.workload import sharegpt
from sweeper.workload.drawing import Floats, Ints, random_lengths

Bools = NDArray[np.bool_]

_CONTENT = 3
"""Of the generators of a load point's seed, the one that draws conversations. ``workload.requests`` has the
others."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A message of a user and the answer to it.

    Attributes:
        input_tokens: Tokens of the message alone.
        output_tokens: Tokens of the answer.
        pause_s: From the end of the answer before it to the message; of the first turn it means nothing.
        time_s: When it is sent, seconds from the first of all, or after the answer before it where that comes
            later; None where the load point's rate or users say it.
        text: The message; None for any of that length.
    """

    input_tokens: int
    output_tokens: int
    pause_s: float = 0.0
    time_s: float | None = None
    text: str | None = None


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """What one user says and is answered.

    Attributes:
        turns: At least one.
        system: Which system prompt it begins with: conversations with an equal one share it. None for none.
        system_tokens: Its length.
        system_text: Its words; None for any of that length.
    """

    turns: tuple[Turn, ...]
    system: int | None = None
    system_tokens: int = 0
    system_text: str | None = None


@dataclass(frozen=True, kw_only=True)
class Turns:
    """How the requests of a run hang together. Those of a conversation follow each other in its arrays.

    Attributes:
        follows: Whether each goes on with the conversation of the request before it, shape (requests,).
        pause_s: From the end of the answer before it to its sending, seconds, same shape.
        earliest_s: It is not sent before, seconds from the first of all, same shape.
    """

    follows: Bools
    pause_s: Floats
    earliest_s: Floats

    def at(self, places: Ints) -> Self:
        """Return the turns of some requests, whole conversations of them."""
        return replace(
            self,
            follows=self.follows[places],
            pause_s=self.pause_s[places],
            earliest_s=self.earliest_s[places],
        )


def of(point: LoadPoint, *, seed: int) -> tuple[Conversation, ...]:
    """Return the conversations of a load point, in the order in which they begin.

    Args:
        point: What is sent; its own ``client_seed`` is not looked at.
        seed: Seed of lengths, turns and pauses.

    Returns:
        Conversations of ``point.num_prompts`` turns together; the last one ends early where it has to.

    Raises:
        ConfigError: The dataset has no conversations, or its file is wrong or has too few.
    """
    place = DATASETS[point.dataset].conversations
    if place is None:
        raise ConfigError(
            f"workload.dataset: is {point.dataset}, whose requests are single ones; expected "
            f"{' or '.join(kind.name for kind in DATASETS.values() if kind.conversations)}. Choose "
            "one of them."
        )
    found: tuple[Conversation, ...] = opened(place)(point, np.random.default_rng([seed, _CONTENT]))
    return found


def draw(point: LoadPoint, rng: np.random.Generator) -> tuple[Conversation, ...]:
    """Draw conversations; turns, lengths and pauses lie in their mean * (1 +/- ``range_ratio``).

    Returns:
        As ``of``. The first ones are the same for every number of requests.
    """
    check_drawn(point)
    conversations: list[Conversation] = []
    left = point.num_prompts
    while left > 0:
        drawn = _drawn(point, rng)
        conversations.append(replace(drawn, turns=drawn.turns[:left]))
        left -= len(drawn.turns)
    return tuple(conversations)


def check_drawn(point: LoadPoint) -> None:
    """Check that a conversation has messages and answers.

    Raises:
        ConfigError: A length is missing.
    """
    if point.input_len is None or point.output_len is None or point.option("turns") is None:
        raise ConfigError(
            f"load point: dataset {point.dataset} with input_len {point.input_len}, output_len "
            f"{point.output_len} and {point.option('turns')} turns; expected the tokens of each message and "
            f"each "
            "answer, and the turns of a conversation. Set workload.input_len, workload.output_len and "
            "workload.options.turns."
        )


def _drawn(point: LoadPoint, rng: np.random.Generator) -> Conversation:
    """Draw one conversation."""
    assert point.input_len is not None and point.output_len is not None
    wanted = int(point.option("turns") or 1)
    turns = int(random_lengths(requests=1, mean_tokens=wanted, range_ratio=point.range_ratio, rng=rng)[0])
    asked, answered = (
        random_lengths(requests=turns, mean_tokens=mean, range_ratio=point.range_ratio, rng=rng)
        for mean in (point.input_len, point.output_len)
    )
    asked[0] += int(point.option("context_len") or 0)
    pauses = float(point.option("pause_s") or 0.0) * (1 + point.range_ratio * rng.uniform(-1, 1, turns))
    shared = int(point.option("system_len") or 0)
    return Conversation(
        system=0 if shared else None,
        system_tokens=shared,
        turns=tuple(
            Turn(input_tokens=int(asked[place]), output_tokens=int(answered[place]), pause_s=float(pause))
            for place, pause in enumerate(pauses)
        ),
    )


def turns_of(conversations: Sequence[Conversation]) -> Turns:
    """Return how the turns of conversations hang together, one conversation after the other."""
    rows = [
        (place > 0, turn.pause_s if place else 0.0, turn.time_s or 0.0)
        for conversation in conversations
        for place, turn in enumerate(conversation.turns)
    ]
    return Turns(
        follows=np.array([row[0] for row in rows], np.bool_),
        pause_s=np.array([row[1] for row in rows], np.float64),
        earliest_s=np.array([row[2] for row in rows], np.float64),
    )


def lengths_of(conversations: Sequence[Conversation]) -> tuple[Ints, Ints]:
    """Return the tokens of each turn's prompt, with all that was said before it, and of each answer."""
    prompts: list[int] = []
    answers: list[int] = []
    for conversation in conversations:
        said = conversation.system_tokens
        for turn in conversation.turns:
            prompts.append(said + turn.input_tokens)
            answers.append(turn.output_tokens)
            said = prompts[-1] + turn.output_tokens
    return np.array(prompts, np.int64), np.array(answers, np.int64)


def pieces_of(conversations: Sequence[Conversation]) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Return the prompt of each turn in pieces (``Workload.pieces``): system prompt, messages and answers.

    The last token of an answer lies in the piece of the message after it: a server has made it, and has not
    computed it.
    """
    numbers = itertools.count()
    systems: dict[int | None, int] = {}
    prompts: list[tuple[tuple[int, int], ...]] = []
    for conversation in conversations:
        end, said = conversation.system_tokens, []
        if conversation.system_tokens:
            if conversation.system not in systems:
                systems[conversation.system] = next(numbers)
            said.append((systems[conversation.system], end))
        for turn in conversation.turns:
            end += turn.input_tokens
            said.append((next(numbers), end))
            prompts.append(tuple(said))
            end += turn.output_tokens
            said.append((next(numbers), end - 1))
    return tuple(prompts)


def multi_turn(point: LoadPoint, *, seed: int) -> Iterator[str]:
    """Write the conversations of a load point for a client, a JSON object per line, with words in each turn.

    Turns without a text of their own get made words, one token each in usual vocabularies.

    Args:
        point: What is sent.
        seed: Seed of lengths, turns, pauses and words.

    Yields:
        ``{"session_id": ..., "turns": [{"role": "system", "text": ...}, {"text": ..., "output_length": ...,
        "delay": milliseconds, "timestamp": milliseconds}]}``; delay and timestamp where there are such.

    Raises:
        ConfigError: As ``of``.

    Source:
        aiperf 0.13.0, aiperf/dataset/loader/multi_turn.py and models.py.
    """
    rng = np.random.default_rng([seed, _CONTENT + 1])
    systems: dict[int | None, str] = {}
    for number, conversation in enumerate(of(point, seed=seed)):
        turns: list[dict[str, object]] = []
        if conversation.system_tokens:
            if conversation.system not in systems:
                made = conversation.system_text or sharegpt.text(conversation.system_tokens, rng)
                systems[conversation.system] = made
            turns.append({"role": "system", "text": systems[conversation.system]})
        for place, turn in enumerate(conversation.turns):
            words = turn.text or sharegpt.text(turn.input_tokens, rng)
            content: dict[str, object] = {"text": words, "output_length": turn.output_tokens}
            if place and turn.pause_s and turn.time_s is None:
                content["delay"] = round(turn.pause_s * 1000, 3)
            if turn.time_s is not None:
                content["timestamp"] = round(turn.time_s * 1000, 3)
            turns.append(content)
        yield json.dumps({"session_id": f"conversation-{number}", "turns": turns})
