"""A user's own conversations, in the layout that aiperf calls ``multi_turn``.

A JSON object per line: ``session_id``, and ``turns``, each with ``text`` and ``output_length``, perhaps a
``delay`` (milliseconds from the end of the answer before it) or a ``timestamp`` (milliseconds). A first turn
with ``"role": "system"`` is the system prompt. Lines of one ``session_id`` are one conversation. In place of
a text a turn may have ``input_length``, the tokens of a message whose words are made: then those of a log
need not leave the place where they were written. System prompts without a text are one where length and
``id`` are equal.

Source: aiperf 0.13.0, aiperf/dataset/loader/multi_turn.py and models.py; ``input_length`` is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sweeper.errors import ConfigError
from sweeper.records import LoadPoint
from sweeper.workload.conversations import Conversation, Turn
from sweeper.workload.drawing import Floats
from sweeper.workload.files import CHARACTERS_PER_TOKEN, is_whole, read_objects, wrong

_EXPECTED = '{"session_id": "a", "turns": [{"text": "...", "output_length": 128}]}'
_NOT_TEXT = ("texts", "image", "images", "audio", "audios", "video", "videos", "extra")


def check(point: LoadPoint) -> None:
    """Check a file of conversations.

    Raises:
        ConfigError: It is missing or not as expected, or has fewer turns than are asked for; the message
            names file and line.
    """
    _checked(point)


def _checked(point: LoadPoint) -> list[Conversation]:
    found = _read(point)
    turns = sum(len(conversation.turns) for conversation in found)
    if turns < point.num_prompts:
        raise ConfigError(
            f"workload.num_prompts: {point.num_prompts} turns are asked for, or by workload.warmup_prompts, "
            f"and {point.dataset_path} has {turns}; expected no more, for each is sent once. Lower it."
        )
    return found


def check_timed(point: LoadPoint) -> None:
    """Check a file of conversations that say when they begin; as ``check``."""
    _in_time(point)


def of(point: LoadPoint, rng: np.random.Generator) -> tuple[Conversation, ...]:
    """Return the conversations of a file in its order, without their times.

    Raises:
        ConfigError: As ``check``.
    """
    return _first(point, [_untimed(conversation) for conversation in _checked(point)])


def timed(point: LoadPoint, rng: np.random.Generator) -> tuple[Conversation, ...]:
    """Return the conversations of a file in the order of their beginnings, with their times.

    Raises:
        ConfigError: As ``check_timed``.
    """
    found = _in_time(point)
    begin, speed = found[0].turns[0].time_s or 0.0, float(point.option("speed") or 1.0)
    return _first(point, [_sped_up(conversation, begin_s=begin, speed=speed) for conversation in found])


def times_s(point: LoadPoint) -> Floats:
    """Return when the turns of a file are sent at the soonest, ascending, shape (requests,), from 0 on."""
    times: list[float] = []
    for conversation in timed(point, np.random.default_rng(0)):
        now = 0.0
        for turn in conversation.turns:
            now = now + turn.pause_s if turn.time_s is None else max(now, turn.time_s)
            times.append(now)
    return np.sort(np.array(times, np.float64))


def _first(point: LoadPoint, conversations: Sequence[Conversation]) -> tuple[Conversation, ...]:
    """Return so many turns as are sent."""
    kept: list[Conversation] = []
    left = point.num_prompts
    for conversation in conversations:
        if left <= 0:
            break
        kept.append(replace(conversation, turns=conversation.turns[:left]))
        left -= len(conversation.turns)
    return tuple(kept)


def _untimed(conversation: Conversation) -> Conversation:
    return replace(conversation, turns=tuple(replace(turn, time_s=None) for turn in conversation.turns))


def _sped_up(conversation: Conversation, *, begin_s: float, speed: float) -> Conversation:
    return replace(
        conversation,
        turns=tuple(
            replace(
                turn,
                # Its own time holds, not the pause that it was once sent after.
                pause_s=turn.pause_s / speed if turn.time_s is None else 0.0,
                time_s=None if turn.time_s is None else (turn.time_s - begin_s) / speed,
            )
            for turn in conversation.turns
        ),
    )


def _in_time(point: LoadPoint) -> list[Conversation]:
    """Return the conversations in the order of their beginnings."""
    found = _checked(point)
    without = sum(conversation.turns[0].time_s is None for conversation in found)
    if without:
        raise ConfigError(
            f"workload.dataset_path: {point.dataset_path} has {without} conversations of {len(found)} "
            "without a 'timestamp' in their first turn; expected when each begins, in milliseconds. Add it, "
            "or use dataset custom_conversations, which begins them at a rate or by users."
        )
    return sorted(found, key=lambda conversation: conversation.turns[0].time_s or 0.0)


# ---- reading ----


def _read(point: LoadPoint) -> list[Conversation]:
    sessions: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    for number, row in read_objects(point):
        turns = row.get("turns")
        if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
            raise wrong(point, number, "has no list of turns under 'turns'", _EXPECTED)
        session = row.get("session_id")
        # Without a name it is a conversation of its own.
        name = f"line {number}" if session is None else f"session {session}"
        sessions.setdefault(name, []).extend((number, turn) for turn in turns)
    systems: dict[str, int] = {}
    return [_conversation(point, turns, systems) for turns in sessions.values()]


def _conversation(
    point: LoadPoint, turns: Sequence[tuple[int, Mapping[str, Any]]], systems: dict[str, int]
) -> Conversation:
    number, first = turns[0]
    system, tokens, text = None, 0, None
    if first.get("role") == "system":
        turns = turns[1:]
        tokens, text = _said(point, number, first)
        system = systems.setdefault(text or f"{tokens} tokens, {first.get('id')}", len(systems))
    if not turns:
        raise wrong(point, number, "has a system prompt and no message of a user", _EXPECTED)
    return Conversation(
        system=system,
        system_tokens=tokens,
        system_text=text,
        turns=tuple(_turn(point, number, turn) for number, turn in turns),
    )


def _turn(point: LoadPoint, number: int, turn: Mapping[str, Any]) -> Turn:
    role, answer = turn.get("role", "user"), turn.get("output_length")
    if role != "user":
        raise wrong(
            point,
            number,
            f"has a turn of role {role!r}",
            "turns of the user after the system prompt, for the answers are the server's",
        )
    if point.output_len is None and (not is_whole(answer) or not answer >= 1):
        raise wrong(
            point,
            number,
            f"has output_length {answer!r}, and workload.output_len is null",
            "a whole number from 1, or workload.output_len for all",
        )
    tokens, text = _said(point, number, turn)
    pause = _milliseconds(point, number, turn, "delay")
    moment = _milliseconds(point, number, turn, "timestamp")
    usual = float(point.option("pause_s") or 0.0)
    return Turn(
        input_tokens=tokens,
        output_tokens=point.output_len or int(answer or 1),
        pause_s=usual if pause is None else pause / 1000,
        time_s=None if moment is None else moment / 1000,
        text=text,
    )


def _said(point: LoadPoint, number: int, turn: Mapping[str, Any]) -> tuple[int, str | None]:
    """Return about how many tokens a turn's text has, and the text; None where only its length is known."""
    other = [key for key in _NOT_TEXT if turn.get(key) is not None]
    if other:
        raise wrong(point, number, f"has a turn with {', '.join(other)}", "a single text under 'text'")
    text, tokens = turn.get("text"), turn.get("input_length")
    if isinstance(text, str) and text:
        return max(1, round(len(text) / CHARACTERS_PER_TOKEN)), text
    if is_whole(tokens) and tokens >= 1:
        return int(tokens), None
    raise wrong(point, number, "has a turn with neither 'text' nor 'input_length'", _EXPECTED)


def _milliseconds(point: LoadPoint, number: int, turn: Mapping[str, Any], key: str) -> float | None:
    value = turn.get(key)
    if value is None:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < np.inf:
        raise wrong(point, number, f"has {key} {value!r} in a turn", "a number of milliseconds from 0")
    return float(value)
