"""Reads the lines of a log of requests into rows: which layout it is, and where in it everything stands.

Layouts, found by what stands in the file:

- ``openai``: a JSON object per line with a request (``messages`` or ``prompt``, perhaps below ``body`` or
  ``request``) and the ``usage`` of its answer; a time under one of ``TIME_KEYS``.
- ``mooncake``: a JSON object per line with ``timestamp`` (milliseconds), ``input_length``, ``output_length``
  and ``hash_ids``. Source: the traces published with Mooncake.
- ``bailian``: the same with ``timestamp`` in seconds, ``hash_ids`` of 16 tokens each, and conversations by
  ``chat_id`` and ``parent_chat_id``. Source: the traces published as qwen-bailian-usagetraces-anon; their
  units as aiperf 0.13.0 reads them, aiperf/dataset/loader/bailian_trace.py.
- ``json``: a JSON object per line with a time and two lengths under the names of a CSV's columns.
- ``azure``: CSV with ``TIMESTAMP``, ``ContextTokens``, ``GeneratedTokens``. Source: Azure's public traces.
- ``burstgpt``: CSV with ``Timestamp``, ``Request tokens``, ``Response tokens``. Source: BurstGPT.
- ``csv``: any other CSV with a time and two lengths under usual names; separated by what stands most often in
  its first line, of comma, semicolon and tab.

Names are read without regard to case, spaces and signs. A file may be packed by gzip.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from sweeper.errors import ConfigError
from sweeper.records.text_rows import csv_rows, numbered

TIME_KEYS = ("timestamp", "time", "created_at", "created", "start_time", "arrival_time", "arrived_at", "ts")
"""Where a time is looked for, in this order."""

_BAILIAN_BLOCK_TOKENS = 16

SESSION_KEYS = ("session_id", "session id", "conversation_id", "chat_id", "thread_id")
"""Where the name of a request's conversation is looked for, as ``TIME_KEYS``. BurstGPT has the second."""

_DURATIONS_S: Mapping[str, float] = {
    **dict.fromkeys(("duration_s", "latency_s", "elapsed_s", "elapsed time"), 1.0),
    **dict.fromkeys(("duration_ms", "latency_ms", "elapsed_ms"), 1e-3),
}
"""How long the answer took, under names that say the unit; BurstGPT's ``Elapsed time`` is in seconds."""

_INPUT_COLUMNS = (
    *("input_tokens", "prompt_tokens", "context_tokens", "request_tokens", "input_length", "input_len"),
    *("prompt_length", "prompt_len", "num_prompt_tokens", "num_input_tokens", "tokens_in"),
)
_OUTPUT_COLUMNS = (
    *("output_tokens", "completion_tokens", "generated_tokens", "response_tokens", "output_length"),
    *("output_len", "completion_length", "completion_len", "response_length", "response_len"),
    *("generation_tokens", "num_generation_tokens", "num_output_tokens", "num_completion_tokens"),
    "tokens_out",
)
_NAMES = (
    f"the tokens of prompt and answer under one name each of {', '.join(_INPUT_COLUMNS)}, and of "
    f"{', '.join(_OUTPUT_COLUMNS)}"
)
_SEPARATORS = ",;\t"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a line says, before it is judged."""

    number: int
    time: Any
    input_tokens: Any
    output_tokens: Any
    text: str | None = None
    blocks: tuple[int, ...] = ()
    session: Any = None
    duration: tuple[Any, float] = (None, 1.0)
    system: str | None = None
    block_tokens: int | None = None


def rows(path: Path) -> tuple[str, Iterator[Row]]:
    """Return the layout of a log, and its rows.

    Raises:
        ConfigError: It is missing, empty, no text, or in none of the layouts. A row that is broken raises it
            when it is reached; the message names the line.
    """
    lines = _lines(path)
    return _json_rows(path, lines) if lines[0][1].lstrip().startswith("{") else _csv_rows(path, lines)


def _lines(path: Path) -> Sequence[tuple[int, str]]:
    try:
        text = _unpacked(path.read_bytes()).decode("utf-8-sig")
    except OSError as exc:
        raise ConfigError(
            f"{path}: cannot be read ({exc.strerror}); expected a log of requests. Name another file."
        ) from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(
            f"{path}: is no text in UTF-8 (byte {exc.start}); expected JSON lines or CSV. Unpack or convert "
            "it."
        ) from exc
    lines = numbered(text)
    if not lines:
        raise ConfigError(f"{path}: is empty; expected a log of requests. Name another file.")
    if lines[0][1].lstrip().startswith("["):
        raise ConfigError(
            f"{path}: is a JSON list; expected a JSON object per line. Convert it: jq -c '.[]' {path.name}."
        )
    return lines


def _unpacked(content: bytes) -> bytes:
    """Return what is packed by gzip, by its first bytes; anything else, broken files too, as it is."""
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        return content


# ---- JSON lines ----


def _json_rows(path: Path, lines: Sequence[tuple[int, str]]) -> tuple[str, Iterator[Row]]:
    # Requests that failed may lack what the others have.
    objects = (_object(path, number, line) for number, line in lines)
    first = next(filter(_is_known, objects), None) or _object(path, *lines[0])
    if "parent_chat_id" in first:
        return "bailian", _bailian_rows((number, _object(path, number, line)) for number, line in lines)
    if "input_length" in first:
        return "mooncake", (_mooncake_row(number, _object(path, number, line)) for number, line in lines)
    if _usage(first) is not None:
        chains = _Chains()
        return "openai", (_openai_row(number, _object(path, number, line), chains) for number, line in lines)
    if _has_lengths(first):
        return "json", (_flat_row(number, _object(path, number, line)) for number, line in lines)
    if _prompt(first) is not None:
        raise ConfigError(
            f"{path}, line {lines[0][0]}: is a request without the usage of its answer; expected both. Log "
            "answers as well, or send these prompts with workload.dataset=custom (docs/own_traffic.md)."
        )
    raise ConfigError(
        f"{path}, line {lines[0][0]}: has neither input_length and output_length (Mooncake's layout) nor "
        f"usage (OpenAI's answers), only {', '.join(map(str, list(first)[:8]))}; expected one of them, or "
        f"{_NAMES}. Rename the keys."
    )


def _is_known(content: Mapping[str, Any]) -> bool:
    return "input_length" in content or _usage(content) is not None or _has_lengths(content)


def _has_lengths(content: Mapping[str, Any]) -> bool:
    return all(_first_of(content, names) is not None for names in (_INPUT_COLUMNS, _OUTPUT_COLUMNS))


def _flat_row(number: int, content: Mapping[str, Any]) -> Row:
    return Row(
        number=number,
        time=_first_of(content, TIME_KEYS),
        input_tokens=_first_of(content, _INPUT_COLUMNS),
        output_tokens=_first_of(content, _OUTPUT_COLUMNS),
        session=_first_of(content, SESSION_KEYS),
        duration=_duration_in(content),
    )


def _object(path: Path, number: int, line: str) -> Mapping[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as exc:
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


def _mooncake_row(number: int, content: Mapping[str, Any]) -> Row:
    stamp, hashes = content.get("timestamp"), content.get("hash_ids")
    is_whole = isinstance(hashes, list) and all(isinstance(one, int) for one in hashes)
    return Row(
        number=number,
        time=stamp / 1000 if isinstance(stamp, (int, float)) else stamp,
        input_tokens=content.get("input_length"),
        output_tokens=content.get("output_length"),
        blocks=tuple(hashes) if is_whole and hashes is not None else (),
        session=_first_of(content, SESSION_KEYS),
        duration=_duration_in(content),
    )


def _bailian_rows(lines: Iterable[tuple[int, Mapping[str, Any]]]) -> Iterator[Row]:
    """Return rows whose conversations are named by their first request."""
    first_of: dict[Any, Any] = {}
    for number, content in lines:
        name, parent = content.get("chat_id"), content.get("parent_chat_id")
        first_of[name] = name if parent in (None, -1) else first_of.get(parent, parent)
        yield replace(
            _mooncake_row(number, content),
            time=content.get("timestamp"),
            session=first_of[name],
            block_tokens=_BAILIAN_BLOCK_TOKENS,
        )


def _openai_row(number: int, content: Mapping[str, Any], chains: _Chains) -> Row:
    usage = _usage(content) or {}
    asked = usage.get("prompt_tokens", usage.get("input_tokens"))
    answered = usage.get("completion_tokens", usage.get("output_tokens"))
    session = _first_of(content, SESSION_KEYS)
    return Row(
        number=number,
        time=_first_of(content, TIME_KEYS),
        input_tokens=asked,
        output_tokens=answered,
        text=_prompt(content),
        session=chains.name(_messages(content)) if session is None else session,
        duration=_duration_in(content),
        system=_system(content),
    )


def _parts(content: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Return the object itself and those below it that a request or an answer is usually under."""
    yield content
    for key in ("request", "response", "body", "metadata"):
        below = content.get(key)
        if isinstance(below, dict):
            yield from _parts(below)


def _usage(content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next((part["usage"] for part in _parts(content) if isinstance(part.get("usage"), dict)), None)


def _first_of(content: Mapping[str, Any], keys: Iterable[str]) -> Any:
    """Return what stands under the first of some keys that has a value, in the object or below it."""
    for part in _parts(content):
        found = {_bare(str(key)): value for key, value in part.items()}
        for key in map(_bare, keys):
            if found.get(key) is not None:
                return found[key]
    return None


@cache
def _bare(name: str) -> str:
    """Return the letters and digits of a name: Prompt Tokens, prompt_tokens and promptTokens are one."""
    return "".join(filter(str.isalnum, name.lower()))


def _duration_in(content: Mapping[str, Any]) -> tuple[Any, float]:
    """Return how long the answer took, and the seconds of its unit."""
    return next(
        (
            (found, unit)
            for key, unit in _DURATIONS_S.items()
            if (found := _first_of(content, (key,))) is not None
        ),
        (None, 1.0),
    )


class _Chains:
    """Names the conversations of requests that have no name, by the messages that they begin with.

    A request goes on with the one whose messages it repeats, and adds an answer to. Of two that asked the
    same, each is gone on with once.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, list[str]] = {}
        self._conversations = 0

    def name(self, messages: Sequence[Mapping[str, Any]]) -> str | None:
        """Return the name of a request's conversation; None where it has no messages."""
        if not messages:
            return None
        begun, so_far = list[int](), 0
        for message in messages:
            so_far = hash((so_far, message.get("role"), json.dumps(message.get("content"))))
            begun.append(so_far)
        found = self._go_on(messages, begun)
        if found is None:
            self._conversations += 1
            found = f"unnamed {self._conversations}"
        self._waiting.setdefault(begun[-1], []).append(found)
        return found

    def _go_on(self, messages: Sequence[Mapping[str, Any]], begun: Sequence[int]) -> str | None:
        for place in range(len(messages) - 1, 0, -1):
            waiting = self._waiting.get(begun[place - 1])
            if waiting and messages[place].get("role") == "assistant":
                return waiting.pop(0)
        return None


def _messages(content: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the messages of a request; none where it has a single prompt."""
    for part in _parts(content):
        if isinstance(part.get("messages"), list):
            return [one for one in part["messages"] if isinstance(one, dict)]
    return ()


def _system(content: Mapping[str, Any]) -> str | None:
    """Return the system prompt, for its length and to see whether others have the same."""
    first = next(iter(_messages(content)), {})
    return json.dumps(first.get("content")) if first.get("role") in ("system", "developer") else None


def _prompt(content: Mapping[str, Any]) -> str | None:
    for part in _parts(content):
        if isinstance(part.get("prompt"), str):
            return str(part["prompt"])
        if isinstance(part.get("messages"), list):
            # Role and content alone: ids and names of a message are no part of what the model reads.
            return json.dumps([(one.get("role"), one.get("content")) for one in _messages(part)])
    return None


# ---- CSV ----


def _csv_rows(path: Path, lines: Sequence[tuple[int, str]]) -> tuple[str, Iterator[Row]]:
    if len(lines) == 1:
        raise ConfigError(f"{path}: has one line; expected columns and requests below. Name another file.")
    separator = max(_SEPARATORS, key=lines[0][1].count)
    table = csv_rows(lines, where=str(path), separator=separator)
    _, header = next(table)
    names = {_bare(name): name for name in header}
    time, asked, answered = (
        next((names[key] for key in map(_bare, wanted) if key in names), None)
        for wanted in (TIME_KEYS, _INPUT_COLUMNS, _OUTPUT_COLUMNS)
    )
    if asked is None or answered is None:
        raise ConfigError(
            f"{path}: has the columns {', '.join(name.strip() for name in header) or 'none'}; expected "
            f"{_NAMES}, or JSON lines. Rename the columns."
        )
    layout = "azure" if "contexttokens" in names else "burstgpt" if "requesttokens" in names else "csv"
    rows = ((number, dict(zip(header, cells, strict=False))) for number, cells in table)
    return layout, _table_rows(rows, time=time, asked=asked, answered=answered)


def _table_rows(
    rows: Iterable[tuple[int, Mapping[str, Any]]], *, time: str | None, asked: str, answered: str
) -> Iterator[Row]:
    for number, row in rows:
        yield Row(
            number=number,
            time=None if time is None else row.get(time),
            input_tokens=row.get(asked),
            output_tokens=row.get(answered),
            session=_first_of(row, SESSION_KEYS),
            duration=_duration_in(row),
        )
