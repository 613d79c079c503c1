"""The datasets as aiperf is given them: settings of its configuration, and a file in one of its layouts.

Files are written anew for each load, with so many requests as are sent, so that each is sent once and how
many tokens all answers have is known before.

Source: aiperf 0.13.0, aiperf/config/dataset and aiperf/dataset/loader (single_turn.py, mooncake_trace.py,
models.py).
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper.kinds import DATASETS, opened
from sweeper.records import LoadPoint
from sweeper.text import trial_files
from sweeper.workload import conversations as talks
from sweeper.workload import files
from sweeper.workload.logs import BLOCK_TOKENS


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset in aiperf's words.

    Attributes:
        settings: The section ``dataset`` of its configuration.
        sessions: Conversations of several turns that it holds; None where each request stands alone.
        output_tokens: Tokens of all answers together, where each has a length of its own; None where the
            load point says it or nobody knows.
    """

    settings: Mapping[str, Any]
    sessions: int | None = None
    output_tokens: int | None = None


def random(point: LoadPoint, *, file: Path) -> Dataset:
    """Prompts drawn by aiperf, of lengths in the same range as vLLM's benchmark draws them."""
    lengths = {"isl": point.input_len, "osl": point.output_len}
    ratio = {"randomRangeRatio": f"{point.range_ratio:g}"} if point.range_ratio else {}
    prefix = point.option("prefix_len")
    shared = {"prefixPrompts": {"poolSize": 1, "length": prefix}} if prefix else {}
    prompts = {"prompts": {**lengths, **ratio}, **shared}
    return Dataset(settings={"type": "synthetic", "entries": point.num_prompts, **prompts})


def custom(point: LoadPoint, *, file: Path) -> Dataset:
    """The prompts of a file in its order, and again from the first on where more are asked for."""
    rows = [row for _, row in files.read_objects(point)]
    sent = [rows[place % len(rows)] for place in range(point.num_prompts)]
    answers = [point.output_len or int(row["output_tokens"]) for row in sent]
    written = (
        {"text": row["prompt"], "output_length": tokens} for row, tokens in zip(sent, answers, strict=True)
    )
    return _of_file(file, written, layout="single_turn", output_tokens=sum(answers))


def timed_trace(point: LoadPoint, *, file: Path) -> Dataset:
    """A trace with its times."""
    times_s = opened(DATASETS[point.dataset].times or "")(point)
    return _trace(point, file, [{"timestamp": round(time_s * 1000, 3)} for time_s in times_s])


def trace_lengths(point: LoadPoint, *, file: Path) -> Dataset:
    """The prompts and answers of a trace, at the load point's own arrivals."""
    return _trace(point, file, [{}] * point.num_prompts)


def _trace(point: LoadPoint, file: Path, times: Iterable[Mapping[str, float]]) -> Dataset:
    rows = [row for _, row in files.read_objects(point)][: point.num_prompts]
    answers = [max(1, int(row["output_length"])) for row in rows]
    block = int(point.option("chunk_len") or BLOCK_TOKENS)
    numbers: dict[tuple[Hashable, int], int] = {}
    written = (
        {**time, **_prompt(row, block=block, numbers=numbers), "output_length": tokens}
        for time, row, tokens in zip(times, rows, answers, strict=True)
    )
    more = {"blockSize": block}
    return _of_file(file, written, layout="mooncake_trace", output_tokens=sum(answers), more=more)


def _prompt(
    row: Mapping[str, Any], *, block: int, numbers: dict[tuple[Hashable, int], int]
) -> dict[str, Any]:
    """Return the length of a prompt and the numbers of its blocks.

    aiperf wants a number to be of one length always, and so many as make up the prompt. A last block that is
    not full gets a number of its own for each length, and what the trace tells nothing of is nobody else's.
    """
    tokens = max(1, int(row["input_length"]))
    sizes = [block] * (tokens // block) + ([tokens % block] if tokens % block else [])
    told = row.get("hash_ids")
    if not told:
        return {"input_length": tokens}
    names = [told[place] if place < len(told) else object() for place in range(len(sizes))]
    found = [numbers.setdefault((name, size), len(numbers)) for name, size in zip(names, sizes, strict=True)]
    return {"input_length": tokens, "hash_ids": found}


def _of_file(
    file: Path,
    rows: Iterable[Mapping[str, Any]],
    *,
    layout: str,
    output_tokens: int,
    more: Mapping[str, Any] | None = None,
) -> Dataset:
    trial_files.write(file, "".join(f"{json.dumps(row)}\n" for row in rows))
    return Dataset(
        settings={
            "type": "file",
            "path": str(file),
            "format": layout,
            "sampling": "sequential",
            **(more or {}),
        },
        output_tokens=output_tokens,
    )


def conversations(point: LoadPoint, *, file: Path) -> Dataset:
    """Conversations, each turn sent after the answer to the one before and a pause."""
    held = talks.of(point, seed=point.client_seed)
    _, answers = talks.lengths_of(held)
    lines = talks.multi_turn(point, seed=point.client_seed)
    if DATASETS[point.dataset].times is not None:
        lines = map(_timed, lines)
    trial_files.write(file, "".join(f"{line}\n" for line in lines))
    return Dataset(
        settings={"type": "file", "path": str(file), "format": "multi_turn", "sampling": "sequential"},
        sessions=len(held),
        output_tokens=int(answers.sum()),
    )


def _timed(line: str) -> str:
    """Say that a conversation has times where aiperf 0.13.0 looks for them, which is not in its turns.

    It refuses a schedule whose first record has none (aiperf/config/dataset/resolver.py); the loader itself
    reads those of the turns. To be removed where it looks into the turns, too.
    """
    return json.dumps({**json.loads(line), "timestamp": 0})
