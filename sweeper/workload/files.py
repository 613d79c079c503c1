"""Files of prompts and of lengths that a load point sends: their checks, and the lengths that are modelled.

- ``custom``: a JSON object per line with ``prompt`` and perhaps ``output_tokens``.
- ``burstgpt``: CSV with ``Model``, ``Request tokens`` and ``Response tokens``.
- ``timed_trace``: a JSON object per line with ``timestamp`` (ms), ``input_length``, ``output_length``
  and ``hash_ids``, one for each block of the prompt, equal where prompts begin alike.

Source: the datasets of these names in vllm/benchmarks/datasets of vLLM 0.32.0; for the last, Mooncake's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from sweeper.errors import ConfigError
from sweeper.records import LoadPoint
from sweeper.records.plurals import amount
from sweeper.records.text_rows import csv_rows, numbered
from sweeper.workload.drawing import Floats, Ints
from sweeper.workload.logs import BLOCK_TOKENS
from sweeper.workload.requests import Prompt

CHARACTERS_PER_TOKEN = 4
"""Of English text, about: what a prompt's tokens are modelled by where no tokenizer is at hand."""

_MODEL, _ASKED, _ANSWERED = "Model", "Request tokens", "Response tokens"
_BURSTGPT_MODEL = "GPT-4"
"""Rows of this model alone are sent, as vLLM's benchmark does."""

_TRACE_KEYS = ("timestamp", "input_length", "output_length")


def check_custom(point: LoadPoint) -> None:
    """Check a file of prompts.

    Raises:
        ConfigError: It is missing or not as expected; the message names file and line.
    """
    rows = read_objects(point)
    for number, row in rows:
        if not isinstance(row.get("prompt"), str) or not row["prompt"]:
            raise wrong(
                point, number, "has no text under 'prompt'", '{"prompt": "...", "output_tokens": 128}'
            )
        length = row.get("output_tokens")
        if point.output_len is None and (not is_whole(length) or length < 1):
            raise wrong(
                point,
                number,
                f"has output_tokens {length!r}, and workload.output_len is null",
                "a whole number from 1, or workload.output_len for all",
            )


def check_burstgpt(point: LoadPoint) -> None:
    """Check a file of BurstGPT; as ``check_custom``."""
    if not _read(point, _burstgpt_rows):
        raise ConfigError(
            f"workload.dataset_path: {point.dataset_path} has no answered request of {_BURSTGPT_MODEL}; "
            "expected some, for vLLM's benchmark sends these alone. Take BurstGPT_without_fails_2.csv, or "
            "use dataset custom."
        )


def check_timed_trace(point: LoadPoint) -> None:
    """Check a trace; as ``check_custom``. Its times rise from request to request."""
    rows, before = read_objects(point), -np.inf
    if len(rows) < point.num_prompts:
        raise ConfigError(
            f"workload.num_prompts: is {point.num_prompts}, and {point.dataset_path} has "
            f"{amount(len(rows), 'request')}; expected no more than it has, each of which is sent once. "
            "Lower it."
        )
    for number, row in rows:
        for key in _TRACE_KEYS:
            if not isinstance(row.get(key), (int, float)) or isinstance(row.get(key), bool):
                raise wrong(point, number, f"has no number under '{key}'", ", ".join(_TRACE_KEYS))
        if row["timestamp"] < before:
            raise wrong(point, number, "lies before the line above it", "requests in order of time")
        before = row["timestamp"]


def draw_custom(point: LoadPoint, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """Draw the lengths of a file of prompts, from the first on and again from there; tokens by characters.

    Returns:
        Prompt tokens, answer tokens, and the index of the request whose prompt is sent, each (requests,).
    """
    check_custom(point)
    rows = [row for _, row in read_objects(point)]
    places = np.arange(point.num_prompts) % len(rows)
    asked = np.array([max(1, round(len(row["prompt"]) / CHARACTERS_PER_TOKEN)) for row in rows], np.int64)
    answers = np.array([point.output_len or row["output_tokens"] for row in rows], np.int64)
    return asked[places], answers[places], places.astype(np.int64)


def draw_burstgpt(point: LoadPoint, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """Draw requests of BurstGPT, without repeats where there are enough; as ``draw_custom``."""
    check_burstgpt(point)
    lengths = np.array([row for _, row in _read(point, _burstgpt_rows)], np.int64)
    drawn = rng.choice(len(lengths), point.num_prompts, replace=point.num_prompts > len(lengths))
    return lengths[drawn, 0], lengths[drawn, 1], np.arange(point.num_prompts, dtype=np.int64)


def draw_timed_trace(point: LoadPoint, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """Return the lengths of a trace in its order; as ``draw_custom``."""
    check_timed_trace(point)
    rows = [row for _, row in read_objects(point)][: point.num_prompts]
    asked = np.array([max(1, int(row["input_length"])) for row in rows], np.int64)
    answers = np.array([max(1, int(row["output_length"])) for row in rows], np.int64)
    return asked, answers, np.arange(point.num_prompts, dtype=np.int64)


def trace_pieces(point: LoadPoint, input_tokens: Ints, rng: np.random.Generator) -> tuple[Prompt, ...]:
    """Return the prompts of a trace in the blocks that its ``hash_ids`` stand for."""
    rows = [row for _, row in read_objects(point)][: point.num_prompts]
    block = int(point.option("chunk_len") or BLOCK_TOKENS)
    numbers: dict[tuple[int, int], int] = {}
    return tuple(
        _in_blocks(row.get("hash_ids") or (), int(end), block=block, numbers=numbers)
        for row, end in zip(rows, input_tokens, strict=True)
    )


def _in_blocks(
    hashes: Sequence[int], tokens: int, *, block: int, numbers: dict[tuple[int, int], int]
) -> Prompt:
    """Number each block by the one before it and its hash: equal where all up to its end is equal."""
    before, end, pieces = -1, 0, []
    for one in hashes:
        before = numbers.setdefault((before, one), len(numbers))
        end = min(end + block, tokens)
        pieces.append((before, end))
        if end == tokens:
            break
    if end < tokens:
        # What the trace says nothing of is nobody else's.
        pieces.append((numbers.setdefault((before, -1 - len(numbers)), len(numbers)), tokens))
    return tuple(pieces)


def trace_times_s(point: LoadPoint) -> Floats:
    """Return when each request of a trace is sent, seconds from the first, shape (requests,)."""
    rows = [row for _, row in read_objects(point)][: point.num_prompts]
    times = np.array([row["timestamp"] for row in rows], np.float64) / 1000
    return (times - times[:1]) / float(point.option("speed") or 1.0)


def read_objects(point: LoadPoint) -> Sequence[tuple[int, Mapping[str, Any]]]:
    """Return the JSON objects of a load point's file, each with the number of its line.

    Raises:
        ConfigError: It is missing, empty, or a line is no object.
    """
    return _read(point, _objects)


def _read(point: LoadPoint, reader: Any) -> Sequence[tuple[int, Any]]:
    if point.dataset_path is None:
        raise ConfigError(
            f"workload.dataset_path: is not given; expected the file of dataset {point.dataset}. Set "
            "workload.dataset_path=PATH."
        )
    path = Path(point.dataset_path)
    try:
        found = _rows(path, path.stat().st_mtime_ns, reader)
    except OSError as exc:
        raise ConfigError(
            f"workload.dataset_path: {path} cannot be read ({exc.strerror}); expected the file of dataset "
            f"{point.dataset}. Set workload.dataset_path=PATH."
        ) from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(
            f"workload.dataset_path: {path} is no text in UTF-8; expected the file of dataset "
            f"{point.dataset}. Name another."
        ) from exc
    if not found:
        raise ConfigError(
            f"workload.dataset_path: {path} has no request in it; expected at least one. Name another file."
        )
    return found


@lru_cache(maxsize=8)
def _rows(path: Path, _changed_ns: int, reader: Any) -> tuple[tuple[int, Any], ...]:
    return tuple(reader(path))


def _objects(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in numbered(path.read_text(encoding="utf-8")):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as exc:
            raise ConfigError(
                f"workload.dataset_path: {path}, line {number}: is no JSON ({exc}); expected an object "
                "per line. Mend the line."
            ) from exc
        if not isinstance(row, dict):
            raise ConfigError(
                f"workload.dataset_path: {path}, line {number}: is a {type(row).__name__}; expected a "
                "JSON object per line. Mend the line."
            )
        yield number, row


def _burstgpt_rows(path: Path) -> Iterator[tuple[int, tuple[int, int]]]:
    lines = numbered(path.read_text(encoding="utf-8-sig"))
    table = csv_rows(lines, where=f"workload.dataset_path: {path}")
    _, header = next(table, (1, []))
    missing = [name for name in (_MODEL, _ASKED, _ANSWERED) if name not in header]
    if missing:
        raise ConfigError(
            f"workload.dataset_path: {path} has no column {', '.join(missing)}; expected BurstGPT's CSV. "
            "Name another file."
        )
    for number, cells in table:
        row = dict(zip_longest(header, cells))
        try:
            asked, answered = int(row[_ASKED] or ""), int(row[_ANSWERED] or "")
        except ValueError as exc:
            raise ConfigError(
                f"workload.dataset_path: {path}, line {number}: has {_ASKED} {row[_ASKED]!r} and "
                f"{_ANSWERED} {row[_ANSWERED]!r}; expected whole numbers. Mend the line."
            ) from exc
        if row[_MODEL] == _BURSTGPT_MODEL and asked > 0 and answered > 0:
            yield number, (asked, answered)


def wrong(point: LoadPoint, number: int, got: str, expected: str) -> ConfigError:
    """Return the error of a line of a load point's file."""
    return ConfigError(
        f"workload.dataset_path: {point.dataset_path}, line {number}: {got}; expected {expected}. Mend the "
        "line."
    )


def is_whole(value: Any) -> TypeGuard[int]:
    """Return whether a value is a whole number, which true is not."""
    return isinstance(value, int) and not isinstance(value, bool)
