"""Writes a file in ShareGPT's format whose conversations have ShareGPT's lengths, for where it cannot be had.

The lengths are those of ``workload.drawing.sharegpt_lengths``, which has the public statistics of the dataset
after vLLM's filter; the words mean nothing. So the real code path (a file that vLLM's benchmark reads,
filters, shuffles and tokenizes) runs without a download. Answers of a real model to such prompts say nothing:
use it to measure speed, and say that the prompts were made.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from sweeper.errors import ConfigError
from sweeper.workload.drawing import SHAREGPT_MIN_TOKENS, Ints, sharegpt_lengths

_TEXT = """
    a above advance after again all an and another answer any are around as at average batch because before
    behind benchmark between both broken busy by cache captain capture children clock communication compare
    compilation conditions copies cost covered cuts data decide device difference distant down drivers
    efficiency engine every evidence first flows for friendly from good hardware held here hold host how
    improve in into is islands it keeps kernels latency launch libraries long look markets matrix may mean
    memory model morning moved near not number of old one operations or output own past people pieces point
    prompt quality question queue quiet rate reads replaces report requests right run same save schedule
    sends sequences service setting several share ships short single slice slow small so that the their them
    then throughput time to token until under up user values what when which who with work
"""
WORDS = tuple(_TEXT.split())
"""Common words, nearly all of which are one token with the blank before them in usual vocabularies, and in
that of ``tiny_model``."""

FIRST_WORD = "I"
"""Begins every text: one token in any vocabulary, and too short for a prefix that could be cached."""


def conversations(*, count: int, seed: int, scale: float = 1.0) -> list[dict[str, object]]:
    """Make conversations of one question and one answer.

    Args:
        count: How many.
        seed: Seed of lengths and words.
        scale: Lengths are multiplied by this, for models with a short context; at least 4 tokens stay, what
            vLLM's filter asks for.

    Returns:
        Entries of the file: ``id``, and ``conversations`` with a text from ``human`` and one from ``gpt``.

    Raises:
        ConfigError: The count is below 1, the seed below 0, or the scale not above 0 and at most 1.
    """
    if count < 1:
        raise ConfigError(f"conversations: is {count}; expected at least 1.")
    if not 0 < scale <= 1:
        raise ConfigError(
            f"scale: is {scale:g}; expected above 0 and at most 1. ShareGPT's own lengths are scale 1."
        )
    if seed < 0:
        raise ConfigError(f"seed: is {seed}; expected 0 or more.")
    rng = np.random.default_rng(seed)
    prompts, answers = (_scaled(tokens, scale) for tokens in sharegpt_lengths(requests=count, rng=rng))
    return [
        {
            "id": f"made-{seed}-{place}",
            "conversations": [
                {"from": "human", "value": text(int(prompt), rng)},
                {"from": "gpt", "value": text(int(answer), rng)},
            ],
        }
        for place, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
    ]


def text(words: int, rng: np.random.Generator) -> str:
    """Return so many words, which is about as many tokens."""
    return " ".join([FIRST_WORD, *(WORDS[index] for index in rng.integers(len(WORDS), size=words - 1))])


def write(path: Path, *, count: int, seed: int, scale: float = 1.0) -> Path:
    """Write a file of conversations; the same arguments write the same bytes.

    Raises:
        ConfigError: A number is out of range, or the file cannot be written.
    """
    content = json.dumps(conversations(count=count, seed=seed, scale=scale), indent=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be written ({exc}). Name a file in a writable folder.") from exc
    return path


def _scaled(tokens: Ints, scale: float) -> Ints:
    scaled: Ints = np.maximum(np.rint(tokens * scale).astype(np.int64), SHAREGPT_MIN_TOKENS)
    return scaled
