"""Published starts beside what fit says: what agrees is held, and what does not is explained on the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper.models import starts
from sweeper.models.starts import CLOSE_SHARE, GIB, Start

PAGE = Path(__file__).resolve().parents[2] / "docs" / "starts.md"
STARTS = starts.published_starts()
ROUNDED_GIB = 0.005
"""A log says two decimals."""


def names(start: Start) -> str:
    return f"{start.model.name} {start.release}"


def test_page_is_what_starts_come_to() -> None:
    assert PAGE.read_text(encoding="utf-8") == starts.page()


def test_there_are_four_models_on_instinct_gpus() -> None:
    assert len({start.model.name for start in STARTS}) >= 4
    assert {start.device for start in STARTS} <= {"mi300x", "mi325x", "mi355x"}


@pytest.mark.parametrize("start", STARTS, ids=names)
def test_what_differs_is_explained(start: Start) -> None:
    assert all(abs(off) <= CLOSE_SHARE for off in start.offs) or start.why


@pytest.mark.parametrize("start", [s for s in STARTS if s.kv_gib and s.logged], ids=names)
def test_cache_of_memory_that_log_says_has_blocks_and_tokens_that_it_says(start: Start) -> None:
    """Grouped heads of Llama, and the states and whole layers of Qwen3-Next in fp8, of what was left."""
    assert start.kv_gib is not None
    assert start.logged is not None
    least, most = (start.blocks_of(start.kv_gib + part) for part in (-ROUNDED_GIB, ROUNDED_GIB))
    assert start.counted(least) <= start.logged <= start.counted(most)
    if start.concurrency is not None:
        blocks = start.fit.cache.blocks_of(start.fit.max_model_len)
        assert start.concurrency == pytest.approx(start.blocks_of(start.kv_gib) / blocks, abs=0.01)


def test_qwen_coder_next_is_met_to_the_token() -> None:
    """36 states and 12 whole layers in blocks of 1072 tokens: 7764 of 95.26 GiB, a quarter of them 1941."""
    (start,) = [start for start in STARTS if start.model.name == "Qwen/Qwen3-Coder-Next-FP8"]
    # A state takes 2 x (32 x 128 x 128 + 3 x (2 x 16 + 32) x 128) bytes, a token 2 x 2 x 256: 1072 of them.
    assert 2 * (32 * 128 * 128 + 3 * 64 * 128) / 1024 == 1072
    assert start.fit.cache.block_bytes == 12 * 1072 * 1024
    assert 95.26 * GIB // (12 * 1072 * 1024) == 7764
    assert start.tokens == 7764 // 4 * 1072 == 2_080_752
