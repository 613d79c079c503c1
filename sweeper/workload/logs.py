"""Reads logs of requests: how long each prompt and answer was, when it came, and which prompts begin alike.

Layouts, found by what stands in the file:

- ``openai``: a JSON object per line with a request (``messages`` or ``prompt``, perhaps below ``body`` or
  ``request``) and the ``usage`` of its answer; a time under one of ``TIME_KEYS``.
- ``mooncake``: a JSON object per line with ``timestamp`` (milliseconds), ``input_length``, ``output_length``
  and ``hash_ids``. Source: the traces published with Mooncake.
- ``azure``: CSV with ``TIMESTAMP``, ``ContextTokens``, ``GeneratedTokens``. Source: Azure's public traces.
- ``burstgpt``: CSV with ``Timestamp``, ``Request tokens``, ``Response tokens``. Source: BurstGPT.
- ``csv``: any other CSV with a time and two lengths under usual names.

Of a text nothing is kept: blocks of prompts get numbers, equal where everything up to their end is equal.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sweeper.errors import ConfigError

BLOCK_TOKENS = 512
"""Tokens of a block of a prompt: what one of ``hash_ids`` stands for in Mooncake's traces."""

TIME_KEYS = ("timestamp", "time", "created_at", "created", "start_time", "arrival_time", "arrived_at", "ts")
"""Where a time is looked for, in this order, without regard to case."""

_INPUT_COLUMNS = (
    "input_tokens",
    "prompt_tokens",
    "contexttokens",
    "request tokens",
    "input_length",
    "input_len",
)
_OUTPUT_COLUMNS = (
    *("output_tokens", "completion_tokens", "generatedtokens", "response tokens", "output_length"),
    "output_len",
)
_MILLISECONDS = 1e11
"""Seconds since 1970 beyond this would be in the year 5138: such a number is milliseconds."""


@dataclass(frozen=True, kw_only=True)
class LoggedRequest:
    """One request of a log.

    Attributes:
        time_s: When it came, seconds on the log's own clock; None where the log does not say.
        input_tokens: Length of its prompt.
        output_tokens: Length of its answer.
        blocks: A number for each block of the prompt; equal where prompts are equal up to its end. Empty
            where the log says nothing of contents.
    """

    time_s: float | None
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()


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


@dataclass(frozen=True, kw_only=True)
class _Row:
    """What a line says, before it is judged."""

    number: int
    time: Any
    input_tokens: Any
    output_tokens: Any
    text: str | None = None
    blocks: tuple[int, ...] = ()


def read(path: Path) -> Log:
    """Read a log of requests.

    Raises:
        ConfigError: It is missing, in none of the layouts, or a line is broken; the message names the line.
    """
    lines = _lines(path)
    layout, rows = _json_rows(path, lines) if lines[0][1].lstrip().startswith("{") else _csv_rows(path, lines)
    left_out: dict[str, int] = {}
    kept: list[LoggedRequest] = []
    numbers: dict[tuple[int, str], int] = {}
    whole = tuple(rows)
    characters = _characters_per_token(whole)
    for row in whole:
        request = _request(path, row, characters=characters, numbers=numbers)
        reason = _why_left_out(request)
        if reason is None:
            kept.append(request)
        else:
            left_out[reason] = left_out.get(reason, 0) + 1
    if not kept:
        raise ConfigError(
            f"{path}: none of {len(whole)} requests has tokens in and out; expected at least one that was "
            "answered. Name a log with the lengths of answers."
        )
    if any(request.time_s is None for request in kept) and any(
        request.time_s is not None for request in kept
    ):
        without = sum(request.time_s is None for request in kept)
        raise ConfigError(
            f"{path}: {without} of {len(kept)} requests have no time; expected all or none of them to have "
            "one. Add the times, or take out the column."
        )
    kept.sort(key=lambda request: request.time_s or 0.0)
    return Log(layout=layout, requests=tuple(kept), left_out=left_out)


def _lines(path: Path) -> Sequence[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as exc:
        raise ConfigError(
            f"{path}: cannot be read ({exc.strerror}); expected a log of requests. Name another file."
        ) from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(
            f"{path}: is no text in UTF-8 (byte {exc.start}); expected JSON lines or CSV. Unpack or convert "
            "it."
        ) from exc
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines:
        raise ConfigError(f"{path}: is empty; expected a log of requests. Name another file.")
    if lines[0][1].lstrip().startswith("["):
        raise ConfigError(
            f"{path}: is a JSON list; expected a JSON object per line. Convert it: jq -c '.[]' {path.name}."
        )
    return lines


# ---- JSON lines ----


def _json_rows(path: Path, lines: Sequence[tuple[int, str]]) -> tuple[str, Iterator[_Row]]:
    first = _object(path, *lines[0])
    if "input_length" in first:
        return "mooncake", (_mooncake_row(number, _object(path, number, line)) for number, line in lines)
    if _usage(first) is not None:
        return "openai", (_openai_row(path, number, _object(path, number, line)) for number, line in lines)
    raise ConfigError(
        f"{path}, line {lines[0][0]}: has neither input_length and output_length (Mooncake's layout) nor "
        f"usage (OpenAI's answers), only {', '.join(map(str, list(first)[:8]))}; expected one of them. See: "
        "python -m sweeper traffic --help"
    )


def _object(path: Path, number: int, line: str) -> Mapping[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as exc:
        raise ConfigError(
            f"{path}, line {number}: is no JSON ({exc}); expected an object per line. Mend or remove the "
            "line."
        ) from exc
    if not isinstance(found, dict):
        raise ConfigError(
            f"{path}, line {number}: is a {type(found).__name__}; expected a JSON object. Mend or remove "
            "the line."
        )
    return found


def _mooncake_row(number: int, content: Mapping[str, Any]) -> _Row:
    stamp, hashes = content.get("timestamp"), content.get("hash_ids")
    is_whole = isinstance(hashes, list) and all(isinstance(one, int) for one in hashes)
    return _Row(
        number=number,
        time=stamp / 1000 if isinstance(stamp, (int, float)) else stamp,
        input_tokens=content.get("input_length"),
        output_tokens=content.get("output_length"),
        blocks=tuple(hashes) if is_whole and hashes is not None else (),
    )


def _openai_row(path: Path, number: int, content: Mapping[str, Any]) -> _Row:
    usage = _usage(content) or {}
    asked = usage.get("prompt_tokens", usage.get("input_tokens"))
    answered = usage.get("completion_tokens", usage.get("output_tokens"))
    return _Row(
        number=number,
        time=_time_in(content),
        input_tokens=asked,
        output_tokens=answered,
        text=_prompt(content),
    )


def _parts(content: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Return the object itself and those below it that a request or an answer is usually under."""
    yield content
    for key in ("request", "response", "body"):
        below = content.get(key)
        if isinstance(below, dict):
            yield from _parts(below)


def _usage(content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next((part["usage"] for part in _parts(content) if isinstance(part.get("usage"), dict)), None)


def _time_in(content: Mapping[str, Any]) -> Any:
    for part in _parts(content):
        lower = {str(key).lower(): value for key, value in part.items()}
        for key in TIME_KEYS:
            if lower.get(key) is not None:
                return lower[key]
    return None


def _prompt(content: Mapping[str, Any]) -> str | None:
    for part in _parts(content):
        if isinstance(part.get("prompt"), str):
            return str(part["prompt"])
        if isinstance(part.get("messages"), list):
            # Role and content alone: ids and names of a message are no part of what the model reads.
            return json.dumps(
                [(one.get("role"), one.get("content")) for one in part["messages"] if isinstance(one, dict)]
            )
    return None


# ---- CSV ----


def _csv_rows(path: Path, lines: Sequence[tuple[int, str]]) -> tuple[str, Iterator[_Row]]:
    reader = csv.DictReader(line for _, line in lines)
    names = {name.strip().lower(): name for name in reader.fieldnames or ()}
    time = next((names[key] for key in TIME_KEYS if key in names), None)
    asked = next((names[key] for key in _INPUT_COLUMNS if key in names), None)
    answered = next((names[key] for key in _OUTPUT_COLUMNS if key in names), None)
    if asked is None or answered is None:
        raise ConfigError(
            f"{path}: has the columns {', '.join(names) or 'none'}; expected the tokens of prompt and answer "
            f"under names such as {_INPUT_COLUMNS[0]} and {_OUTPUT_COLUMNS[0]}, or JSON lines. Rename the "
            "columns."
        )
    layout = "azure" if "contexttokens" in names else "burstgpt" if "request tokens" in names else "csv"
    numbers = [number for number, _ in lines[1:]]
    return layout, _table_rows(zip(numbers, reader, strict=False), time=time, asked=asked, answered=answered)


def _table_rows(
    rows: Iterable[tuple[int, Mapping[str, Any]]], *, time: str | None, asked: str, answered: str
) -> Iterator[_Row]:
    for number, row in rows:
        yield _Row(
            number=number,
            time=None if time is None else row.get(time),
            input_tokens=row.get(asked),
            output_tokens=row.get(answered),
        )


# ---- one request ----


def _request(
    path: Path, row: _Row, *, characters: float, numbers: dict[tuple[int, str], int]
) -> LoggedRequest:
    where = f"{path}, line {row.number}"
    tokens = _length(where, "the tokens of its prompt", row.input_tokens)
    blocks = row.blocks
    if row.text is not None and tokens:
        blocks = tuple(_numbered(row.text, round(characters * BLOCK_TOKENS), numbers))
        # The text alone does not say the template's tokens; the log's own count is what holds.
        blocks = blocks[: max(1, math.ceil(tokens / BLOCK_TOKENS))]
    return LoggedRequest(
        time_s=_time_s(where, row.time),
        input_tokens=tokens,
        output_tokens=_length(where, "the tokens of its answer", row.output_tokens),
        blocks=blocks,
    )


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
    return number / 1000 if number > _MILLISECONDS else number


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


def _characters_per_token(rows: Sequence[_Row]) -> float:
    """Return the characters of a token in the mean of all texts, by the log's own counts."""
    pairs = [
        (len(row.text), row.input_tokens)
        for row in rows
        if row.text is not None and isinstance(row.input_tokens, int) and row.input_tokens > 0
    ]
    return sum(size for size, _ in pairs) / sum(tokens for _, tokens in pairs) if pairs else 4.0


def _numbered(text: str, size: int, numbers: dict[tuple[int, str], int]) -> Iterator[int]:
    """Number each block of a text: by the number of the one before it, and what stands in it."""
    before = -1
    for start in range(0, len(text), max(1, size)):
        before = numbers.setdefault((before, text[start : start + max(1, size)]), len(numbers))
        yield before


def _why_left_out(request: LoggedRequest) -> str | None:
    if request.input_tokens < 1:
        return "no prompt tokens"
    return "no answer" if request.output_tokens < 1 else None
