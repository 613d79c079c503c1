"""Reads logs of requests: how long each prompt and answer was, when it came, and which prompts begin alike.

The layouts are those of ``workload.log_rows``. Requests of one name under one of its ``SESSION_KEYS``, or
whose messages go on with those of another, are turns of a conversation (``workload.sessions``).

Of a text nothing is kept: blocks of prompts get numbers, equal where everything up to their end is equal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sweeper.errors import ConfigError
from sweeper.records.plurals import amount
from sweeper.workload import log_rows
from sweeper.workload.log_rows import Row

BLOCK_TOKENS = 512
"""Tokens of a block of a prompt: what one of ``hash_ids`` stands for in Mooncake's traces."""

_IN_A_SECOND = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
"""Seconds since 1970 beyond 1e11 would be in the year 5138: such a number is milliseconds, and so on."""


@dataclass(frozen=True, kw_only=True)
class LoggedRequest:
    """One request of a log.

    Attributes:
        time_s: When it came, seconds on the log's own clock; None where the log does not say.
        input_tokens: Length of its prompt.
        output_tokens: Length of its answer.
        blocks: A number for each block of the prompt; equal where prompts are equal up to its end. Empty
            where the log says nothing of contents.
        session: Number of its conversation; None where the log does not say.
        duration_s: From its coming to the end of its answer; None where the log does not say.
        system: Number of its system prompt, equal where the prompts are; None without one.
        system_tokens: About how long that is.
    """

    time_s: float | None
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    session: int | None = None
    duration_s: float | None = None
    system: int | None = None
    system_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Log:
    """The requests of a log, in the order of their times.

    Attributes:
        layout: One of the module's layouts.
        requests: With at least one token in and out.
        left_out: Why requests were left out, to how many.
    """

    layout: str
    requests: tuple[LoggedRequest, ...]
    left_out: Mapping[str, int]

    @property
    def has_times(self) -> bool:
        """Whether every request has a time."""
        return all(request.time_s is not None for request in self.requests)

    @property
    def has_blocks(self) -> bool:
        """Whether it says which prompts begin alike."""
        return any(request.blocks for request in self.requests)

    @property
    def has_conversations(self) -> bool:
        """Whether some requests are turns of the same conversation."""
        sessions = [request.session for request in self.requests if request.session is not None]
        return len(set(sessions)) < len(sessions)


@dataclass(kw_only=True)
class _Numbers:
    """Numbers in place of what is not kept: blocks of texts, names of conversations, system prompts."""

    blocks: dict[tuple[int, str | tuple[int, ...]], int] = field(default_factory=dict)
    sessions: dict[str, int] = field(default_factory=dict)
    systems: dict[str, int] = field(default_factory=dict)


def read(path: Path, *, most_tokens: int | None = None) -> Log:
    """Read a log of requests.

    Args:
        path: The log.
        most_tokens: Requests of more, prompt and answer together, are left out; None leaves none out.

    Raises:
        ConfigError: It is missing, in none of the layouts, or a line is broken; the message names the line.
    """
    layout, rows = log_rows.rows(path)
    left_out: dict[str, int] = {}
    kept: list[LoggedRequest] = []
    numbers = _Numbers()
    whole = tuple(rows)
    characters = _characters_per_token(whole)
    for row in whole:
        request = _request(path, row, characters=characters, numbers=numbers)
        reason = _why_left_out(request, most_tokens)
        if reason is None:
            kept.append(request)
        else:
            left_out[reason] = left_out.get(reason, 0) + 1
    if not kept:
        raise ConfigError(
            f"{path}: none of {amount(len(whole), 'request')} has tokens in and out"
            f"{'' if most_tokens is None else f' and no more than {most_tokens:,}'}; expected at least "
            "one that was answered. Name a log with the lengths of answers."
        )
    if any(request.time_s is None for request in kept) and any(
        request.time_s is not None for request in kept
    ):
        without = sum(request.time_s is None for request in kept)
        raise ConfigError(
            f"{path}: {without} of {amount(len(kept), 'request')} have no time; expected all or none "
            "of them to have one. Add the times, or take out the column."
        )
    kept.sort(key=lambda request: request.time_s or 0.0)
    return Log(layout=layout, requests=tuple(kept), left_out=left_out)


def _request(path: Path, row: Row, *, characters: float, numbers: _Numbers) -> LoggedRequest:
    where = f"{path}, line {row.number}"
    tokens = _length(where, "the tokens of its prompt", row.input_tokens)
    blocks = row.blocks
    if row.text is not None and tokens:
        blocks = tuple(_numbered(row.text, round(characters * BLOCK_TOKENS), numbers.blocks))
        # The text alone does not say the template's tokens; the log's own count is what holds.
        blocks = blocks[: max(1, math.ceil(tokens / BLOCK_TOKENS))]
    elif row.block_tokens is not None:
        blocks = tuple(_together(row.blocks, BLOCK_TOKENS // row.block_tokens, numbers.blocks))
    return LoggedRequest(
        time_s=_time_s(where, row.time),
        input_tokens=tokens,
        output_tokens=_length(where, "the tokens of its answer", row.output_tokens),
        blocks=blocks,
        session=_session(row.session, numbers.sessions),
        duration_s=_duration_s(where, *row.duration),
        system=None if not row.system else numbers.systems.setdefault(row.system, len(numbers.systems)),
        # The user's message has a token at least.
        system_tokens=0 if not row.system else max(0, min(round(len(row.system) / characters), tokens - 1)),
    )


def _session(given: Any, numbers: dict[str, int]) -> int | None:
    """Number a conversation; without a name there is none."""
    return None if given is None or given == "" else numbers.setdefault(str(given), len(numbers))


def _duration_s(where: str, given: Any, unit_s: float) -> float | None:
    if given is None or given == "":
        return None
    try:
        number = float(given)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise ConfigError(
            f"{where}: its answer took {given!r}; expected a time from 0. Mend the line, or take the column "
            f"out."
        )
    return number * unit_s


def _length(where: str, what: str, given: Any) -> int:
    try:
        number = 0.0 if given is None or given == "" else float(given)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(given, bool) or number < 0 or number != number // 1 or math.isinf(number):
        raise ConfigError(
            f"{where}: {what} are {given!r}; expected a whole number from 0. Mend or remove the line."
        )
    return int(number)


def _time_s(where: str, given: Any) -> float | None:
    if given is None or given == "":
        return None
    try:
        number = float(given)
    except (TypeError, ValueError):
        return _date_s(where, given)
    if not math.isfinite(number):
        raise ConfigError(
            f"{where}: its time is {given!r}; expected a number of seconds or a date. Mend the line."
        )
    return number / next((parts for above, parts in _IN_A_SECOND if number > above), 1.0)


def _date_s(where: str, given: Any) -> float:
    try:
        # Azure's traces have seven digits after the point; a microsecond has six.
        head, dot, tail = str(given).strip().partition(".")
        digits = len(tail) - len(tail.lstrip("0123456789"))
        text = f"{head}{dot}{tail[: min(digits, 6)]}{tail[digits:]}" if dot else head
        found = datetime.fromisoformat(text)
    except ValueError as exc:
        raise ConfigError(
            f"{where}: its time is {given!r}; expected a number of seconds or a date such as "
            "2024-05-10T00:00:00.009. Mend the line."
        ) from exc
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _characters_per_token(rows: Sequence[Row]) -> float:
    """Return the characters of a token in the mean of all texts, by the log's own counts."""
    pairs = [
        (len(row.text), row.input_tokens)
        for row in rows
        if row.text is not None and isinstance(row.input_tokens, int) and row.input_tokens > 0
    ]
    return sum(size for size, _ in pairs) / sum(tokens for _, tokens in pairs) if pairs else 4.0


def _together(
    blocks: Sequence[int], size: int, numbers: dict[tuple[int, str | tuple[int, ...]], int]
) -> Iterator[int]:
    """Number so many smaller blocks at a time, by the number of the ones before them and their own."""
    before = -1
    for start in range(0, len(blocks), size):
        before = numbers.setdefault((before, tuple(blocks[start : start + size])), len(numbers))
        yield before


def _numbered(text: str, size: int, numbers: dict[tuple[int, str | tuple[int, ...]], int]) -> Iterator[int]:
    """Number each block of a text: by the number of the one before it, and what stands in it."""
    before = -1
    for start in range(0, len(text), max(1, size)):
        before = numbers.setdefault((before, text[start : start + max(1, size)]), len(numbers))
        yield before


def _why_left_out(request: LoggedRequest, most_tokens: int | None) -> str | None:
    if request.input_tokens < 1:
        return "no prompt tokens"
    if request.output_tokens < 1:
        return "no answer"
    is_too_long = most_tokens is not None and request.input_tokens + request.output_tokens > most_tokens
    return f"more than {most_tokens:,} tokens" if is_too_long else None
