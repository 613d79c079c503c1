"""What vLLM keeps in its KV cache is what `fit` says, for models of every build."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import architectures
from sweeper.models import tiny

ROWS = architectures.read_rows()
RAN = [like for like, row in ROWS.items() if row.tokens is not None]
STARTED = ("deepseek_v3", "gpt_oss", "falcon_h1", "qwen3_next")
"""Experts and latent attention; experts, windows and sinks; Mamba beside attention; linear attention."""


@pytest.mark.parametrize("like", RAN)
def test_fit_counts_blocks_and_tokens_that_vllm_logged(like: str, tmp_path: Path) -> None:
    row, found = ROWS[like], architectures.fitted(architectures.model_of(like, folder=tmp_path))
    assert (found.blocks, found.tokens) == (row.blocks, row.tokens)


def test_builds_of_every_kind_were_asked_and_what_did_not_run_says_why() -> None:
    assert set(ROWS) <= set(tiny.known())
    assert {"mixtral", "deepseek_v3", "gpt_oss", "gemma3_text", "qwen3_next", "falcon_h1"} <= set(RAN)
    # In the engine's own words.
    assert all(row.failure for like, row in ROWS.items() if like not in RAN)
    assert "No module named 'torchvision'" in ROWS["gemma3"].failure


def test_page_is_what_its_command_prints(tmp_path: Path) -> None:
    kept = Path(architectures.__file__).parents[1] / "docs" / "architectures.md"
    assert kept.read_text(encoding="utf-8") == architectures.page(list(ROWS.values()), folder=tmp_path)


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.parametrize("like", STARTED)
def test_real_vllm_logs_what_fit_counts(like: str, tmp_path: Path, vllm_python: str) -> None:
    row = architectures.started(like, folder=tmp_path, python=vllm_python)
    found = architectures.fitted(architectures.model_of(like, folder=tmp_path))
    assert not row.failure
    assert row.answer
    assert (row.blocks, row.tokens) == (found.blocks, found.tokens)
