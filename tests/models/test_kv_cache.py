"""Groups, blocks and logged tokens: by hand for each kind of mixture, and beside vLLM's own functions."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from pathlib import Path

import pytest

from sweeper.errors import PlacementError
from sweeper.models import published
from sweeper.models.kv_cache import Keeps, KvCache, Page, kv_cache, pages_of
from sweeper.models.shares import Share, stage_sizes
from sweeper.records import Scalar
from sweeper.records.architecture import Architecture

KIB, GIB = 2**10, 2**30
CHUNKS = "VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE"
BUILT = {model.name: model.architecture for model in published.published_models()}


def laid_out(name: str, *, release: str = "0.32.0", **knobs: Scalar) -> KvCache:
    said = {"max_num_batched_tokens": 2048, "async_scheduling": True, **knobs}
    return kv_cache(BUILT[name], said, kv_dtype="bfloat16", dtype="bfloat16", release=release)


def sizes(cache: KvCache) -> list[tuple[Keeps, int]]:
    return [(group.page.keeps, len(group.layers)) for group in cache.groups]


def test_alike_layers_are_one_group_of_which_each_token_takes_its_place() -> None:
    cache = laid_out("meta-llama/Llama-3.1-8B-Instruct")
    assert sizes(cache) == [(Keeps.ALL, 32)]
    assert cache.block_bytes == 16 * 128 * KIB
    assert (cache.blocks_of(1), cache.blocks_of(16), cache.blocks_of(17)) == (1, 1, 2)
    assert not cache.is_mixed


def test_halves_of_windows_and_whole_layers_are_two_groups() -> None:
    """gpt-oss-120b: 18 windows of 128 and 18 whole layers, 2 x 8 x 64 numbers of 2 bytes a token."""
    cache = laid_out("openai/gpt-oss-120b")
    assert sizes(cache) == [(Keeps.WINDOW, 18), (Keeps.ALL, 18)]
    assert cache.block_bytes == 18 * 16 * 2 * KIB
    # Two steps of 2048 tokens may be under way beside 127 in sight: 4223 tokens are 264 blocks, and one more.
    assert cache.blocks_of(131072) == 8192 + 264 + 1
    # A short sequence takes one block more in the windows' group than in the other.
    assert cache.blocks_of(100) == 7 + 7 + 1


def test_tokens_of_log_are_sequences_of_longest_length() -> None:
    cache = laid_out("openai/gpt-oss-120b")
    # 100,000 blocks hold 100000 / 8457 = 11.8245 sequences of 131,072 tokens.
    assert cache.logged_tokens(100_000, max_model_len=131072) == 1_549_864
    # Releases before shared the blocks out evenly: 50,000 blocks of 16 tokens.
    older = laid_out("openai/gpt-oss-120b", release="0.11.0")
    assert older.logged_tokens(100_000, max_model_len=131072) == 800_000


def test_steps_under_way_were_counted_once_before() -> None:
    """Until a release that was read, a window kept the tokens of one step."""
    cache = laid_out("openai/gpt-oss-120b", release="0.11.0")
    assert cache.blocks_of(131072) == 8192 + 136 + 1


def test_gpt_oss_on_mi325x_logs_what_was_published() -> None:
    """157,200 tokens of 10.79 GiB: LMCache's example for an MI325X, with vLLM of before 0.20."""
    cache = laid_out("openai/gpt-oss-120b", release="0.11.0")
    blocks = int(10.79 * GIB // cache.block_bytes)
    # 10.79 is rounded: half a hundredth of a GiB is 73 tokens.
    assert abs(cache.logged_tokens(blocks, max_model_len=131072) - 157_200) <= 73 + 16


def test_chunks_keep_every_token_unless_allowed() -> None:
    """Llama 4: vLLM turns its hybrid manager off for chunks, unless a variable allows it."""
    plain = laid_out("meta-llama/Llama-4-Scout-17B-16E-Instruct")
    assert sizes(plain) == [(Keeps.ALL, 48)]
    allowed = laid_out("meta-llama/Llama-4-Scout-17B-16E-Instruct", **{CHUNKS: "1"})
    assert sizes(allowed) == [(Keeps.CHUNK, 12)] * 3 + [(Keeps.ALL, 12)]
    # 8192 tokens of a chunk and two steps of 2048 are 768 blocks.
    assert allowed.blocks_of(131072) == 8192 + 3 * 768


def test_turning_manager_off_makes_every_layer_keep_every_token() -> None:
    cache = laid_out("google/gemma-3-27b-it", disable_hybrid_kv_cache_manager=True)
    assert sizes(cache) == [(Keeps.ALL, 62)]
    assert sizes(laid_out("google/gemma-3-27b-it", release="0.8.5")) == sizes(cache)


def test_manager_cannot_be_off_beside_states() -> None:
    with pytest.raises(PlacementError, match="keeps states beside a KV cache; expected false"):
        laid_out("ibm-ai-platform/Bamba-9B-v1", disable_hybrid_kv_cache_manager=True)


def test_states_of_mamba_fill_blocks_of_as_many_tokens() -> None:
    """Bamba: 3 whole layers are the group, so 29 states make 10."""
    cache = laid_out("ibm-ai-platform/Bamba-9B-v1", enable_prefix_caching=False)
    assert sizes(cache) == [(Keeps.STATE, 3)] * 9 + [(Keeps.STATE, 2), (Keeps.ALL, 3)]
    # 128 heads x 64 x 128 and 3 inputs of 8192 + 2 x 128, of 2 bytes; a token takes 2 x 8 x 128 x 2.
    state, token = 2 * (128 * 64 * 128 + 3 * (8192 + 256)), 4096
    assert state == 2_147_840
    # 524.4 tokens, in whole sixteens 528.
    assert cache.block_bytes == 3 * 528 * token
    assert cache.blocks_of(528) == 1 + 10
    # With prefix caching three states of Mamba-2 are kept in each group, and two of other kinds.
    assert laid_out("ibm-ai-platform/Bamba-9B-v1", enable_prefix_caching=True).blocks_of(528) == 1 + 30
    jamba = laid_out("ai21labs/AI21-Jamba-1.5-Mini", enable_prefix_caching=True)
    assert {group.page.states for group in jamba.groups} == {0, 2}


def test_states_of_nemotron_are_kept_in_32_bits() -> None:
    wide = laid_out("nvidia/Nemotron-H-8B-Base-8K")
    narrow = laid_out("nvidia/Nemotron-H-8B-Base-8K", mamba_ssm_cache_dtype="bfloat16")
    # A token takes 4096 bytes; convolutions 3 x (8192 + 2 x 8 x 128) of 2 bytes.
    assert wide.groups[0].page.tokens == 16 * -(-(4 * 2**20 + 2 * 3 * 10_240) // (16 * 4096)) == 1040
    assert narrow.groups[0].page.tokens == 528


def test_layer_with_two_mixers_has_two_pages() -> None:
    """Falcon-H1: 44 layers, each with attention and a state."""
    assert sorted(sizes(laid_out("tiiuae/Falcon-H1-7B-Instruct"))) == sorted(
        [(Keeps.ALL, 44), (Keeps.STATE, 44)]
    )


def test_groups_of_inputs_that_cannot_be_shared_out_are_copied() -> None:
    """Bamba's one group is kept by each of 8 devices: 3 x (8192 / 8 + 2 x 128) inputs of the convolution."""
    mamba = BUILT["ibm-ai-platform/Bamba-9B-v1"].layers[0].attention
    assert mamba.state_parts(8) == (3 * (1024 + 256), 16 * 64 * 128)


# Beside vLLM's own functions


def case_of(built: Architecture, knobs: dict[str, Scalar], *, length: int, memory: int) -> dict[str, object]:
    share = Share.of(knobs)
    mode = "align" if knobs["enable_prefix_caching"] else "none"
    pages = pages_of(
        built,
        knobs,
        share,
        kv_dtype="bfloat16",
        dtype="bfloat16",
        accelerator="rocm",
        is_aligned=mode == "align",
    )
    stages, start = [], 0
    for count in stage_sizes(built, share.pipeline):
        here = range(start, start + count)
        stages.append([(place, as_layer(page)) for place, page in pages if place in here])
        start += count
    return {
        "stages": stages,
        "is_off": knobs["disable_hybrid_kv_cache_manager"],
        "mode": mode,
        "length": length,
        "flight": 2048 * (share.pipeline + 1),
        "memory": memory,
    }


def as_layer(page: Page) -> dict[str, object]:
    heads, width = page.form if len(page.form) == 2 else (0, *page.form, 0)[:2]
    return {
        "keeps": page.keeps.value,
        "tokens": page.tokens,
        "bytes": page.bytes,
        "window": page.window,
        "states": page.states,
        "heads": heads,
        "width": width,
    }


@pytest.mark.vllm
@pytest.mark.parametrize("length", [8192, 40_000])
def test_real_vllm_makes_same_groups_blocks_and_tokens(length: int, vllm_python: str, tmp_path: Path) -> None:
    """All published models, on 1 and 4 devices and 2 stages, with the manager on and off."""
    memory = 40 * GIB
    cases, expected, names = [], [], []
    for name, tensor, stages, is_off, is_caching in itertools.product(
        BUILT, (1, 4), (1, 2), (False, True), (False, True)
    ):
        if tensor > 1 and stages > 1:
            continue
        knobs: dict[str, Scalar] = {
            "tensor_parallel_size": tensor,
            "pipeline_parallel_size": stages,
            "disable_hybrid_kv_cache_manager": is_off,
            "enable_prefix_caching": is_caching,
            CHUNKS: "1",
        }
        cases.append(case_of(BUILT[name], knobs, length=length, memory=memory))
        names.append((name, tensor, stages, is_off, is_caching))
        expected.append(expectation(name, knobs, length=length, memory=memory))
    answer = subprocess.run(
        [vllm_python, str(Path(__file__).with_name("real_kv_cache.py"))],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)},
    )
    found = json.loads(answer.stdout)
    assert dict(zip(names, map(said, found), strict=True)) == dict(zip(names, expected, strict=True))


def expectation(
    name: str, knobs: dict[str, Scalar], *, length: int, memory: int
) -> tuple[int, int, int] | str:
    try:
        cache = laid_out(name, **knobs)
    except PlacementError:
        return "refused: states"
    blocks = memory // cache.block_bytes
    if blocks - cache.spare_blocks < cache.blocks_of(length):
        return "refused: memory"
    return blocks, len(cache.groups), cache.logged_tokens(blocks, max_model_len=length)


def said(answer: list[int] | str) -> tuple[int, ...] | str:
    if isinstance(answer, str):
        return "refused: memory" if answer.startswith("To serve at least one request") else "refused: states"
    return tuple(answer)
