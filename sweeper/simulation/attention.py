"""What attention costs: scores over prompts, and what decoding reads of a cache or a state.

Three kinds. Grouped heads read keys and values of every token in sight; a layer with a window sees no more
tokens than that. Latent attention computes prompts with keys and values of every head, made anew, and decodes
on the cached vectors themselves (absorbed), which every device keeps whole. Layers with a state read and
write it once in a step, whatever the length of the sequence.

Left out: chunks of attention (Llama 4) see between one token and a whole chunk, and are taken to be windows;
prompts that are computed in several pieces make the keys of latent attention for earlier pieces again.

Source:
    vLLM 0.32.0: model_executor/layers/attention/mla_attention.py (its introduction: prompts expanded, decodes
    absorbed), model_executor/layers/mamba (states).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sweeper.knobs.release_order import release_key
from sweeper.records import Scalar
from sweeper.records.architecture import (
    AnyAttention,
    Architecture,
    Attention,
    DeltaAttention,
    LatentAttention,
    Mamba,
)
from sweeper.simulation.device import Device

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_STATE_FLOPS = 6
"""Operations for each number of a state and token: decay and correct it, add to it, read it out; two each.
Source: transformers 4.57, modeling_qwen3_next.py, torch_recurrent_gated_delta_rule."""

_VALUE_BYTES = 2

PAGED_FRAC = 0.0105
"""Part of the peak matrix rate that V0's first kernel on ROCm reaches between a piece of a prompt and what
comes before it, which it finds in the cache.

Source: vLLM 0.6.3, attention/backends/rocm_flash_attn.py, forward_prefix. Its rate follows from the first
tokens of 16000 to 128000 tokens of 405B (dstack, 2024-10; ``dstack_405b_bf16_single``), apart from what grows
with the tokens themselves: 13.7 TFLOP/s a GPU at each length. AMD's tables from 0.6.6 on fit better without
it."""

_PAGED_BEFORE = "0.6.6"


def reads_slowly(release: str, device: Device, *, is_v1: bool, settings: Mapping[str, Scalar]) -> bool:
    """Return whether pieces of prompts attend to what came before them at ``PAGED_FRAC``."""
    reads_cache = bool(settings["enable_chunked_prefill"] or settings["enable_prefix_caching"])
    is_first = release_key(release) < release_key(_PAGED_BEFORE)
    return reads_cache and is_first and not is_v1 and device.has_rocm


SERIAL_TOKEN_S = 1.4e-7
"""What decoding one token takes for each token before it and each layer where one part of the device reads a
sequence's keys from first to last.

Source: vLLM 0.32.0 on MI325X without AITER, Qwen3.5-122B-A10B (heads of 256; twelve such layers): one user's
time per token rises from 17.5 to 38.5 ms between 200 and 12,288 tokens (vllm-project/vllm issue 56945)."""

_SPLIT_HEAD_DIMS = (64, 128)
_SPLIT_QUERIES = 16


def decodes_serially(device: Device, *, is_v1: bool, has_aiter: bool) -> bool:
    """Return whether heads that ROCm's own kernel does not take are read by one that does not split them.

    Source:
        vLLM 0.9.1, platforms/rocm.py, use_rocm_custom_paged_attention, and
        attention/ops/chunked_prefill_paged_decode.py: a program for each sequence and KV head.
    """
    return device.has_rocm and is_v1 and not has_aiter


@dataclass(frozen=True, kw_only=True)
class Sight:
    """Layers that see equally far, together, on one device.

    Attributes:
        window: Tokens that they see; None for all.
        pair_flops: Operations for each pair of a prompt's token and a token that it attends to.
        cached_bytes: What decoding reads of each token in sight, with one byte a number.
        token_flops: Operations of decoding for each token in sight, where they count beside reading it.
    """

    window: int | None
    pair_flops: float
    cached_bytes: float
    token_flops: float


@dataclass(frozen=True, kw_only=True)
class AttentionWork:
    """All attention of a model on one device.

    Attributes:
        whole: Layers that see everything.
        windows: Layers that see a window, by its length.
        heads: Query heads over all layers.
        state_bytes: What its states keep of a sequence.
        state_token_flops: Operations for each prompt token of layers with a state.
        serial_layers: Layers that see everything with heads that ROCm's own kernel does not take.
    """

    whole: Sight
    windows: tuple[Sight, ...]
    heads: float
    state_bytes: float
    state_token_flops: float
    serial_layers: int

    @property
    def sights(self) -> tuple[Sight, ...]:
        """All that look back at tokens, those that see everything first."""
        return (self.whole, *self.windows)


def work_of(built: Architecture, *, devices: int) -> AttentionWork:
    """Return the attention of a model on each device of a tensor-parallel group."""
    kinds = [(layer.attention, count) for layer, count in built.runs]
    looking = [(each, count) for each, count in kinds if each.cached_values]
    states = [(each.state_parts(devices), _state_bytes(each), count) for each, count in kinds]
    lengths = sorted({each.window for each, _ in looking if each.window is not None})
    return AttentionWork(
        whole=_sight(None, looking, devices),
        windows=tuple(_sight(window, looking, devices) for window in lengths),
        heads=sum(count * heads_of(each) for each, count in kinds) / devices,
        state_bytes=sum(
            count * (convolved * _VALUE_BYTES + kept * each) for (convolved, kept), each, count in states
        ),
        state_token_flops=sum(count * kept for (_, kept), _, count in states) * _STATE_FLOPS,
        serial_layers=sum(count for each, count in looking if _is_serial(each)),
    )


def _is_serial(attention: AnyAttention) -> bool:
    if not isinstance(attention, Attention) or attention.window is not None:
        return False
    has_dim = attention.head_dim in _SPLIT_HEAD_DIMS
    return not has_dim or attention.heads > _SPLIT_QUERIES * attention.kv_heads


def heads_of(attention: AnyAttention) -> int:
    """Return the query heads of an attention; of one with a state, its heads or its values', if any."""
    if isinstance(attention, DeltaAttention):
        return attention.value_heads
    return attention.heads or 0


def _state_bytes(attention: AnyAttention) -> int:
    """Return the bytes of a number of its state; the convolution's are of the type that is computed in."""
    is_wide = isinstance(attention, DeltaAttention | Mamba) and attention.state_dtype == "float32"
    return 2 * _VALUE_BYTES if is_wide else _VALUE_BYTES


def _sight(window: int | None, looking: Iterable[tuple[AnyAttention, int]], devices: int) -> Sight:
    own = [(each, count) for each, count in looking if each.window == window]
    return Sight(
        window=window,
        pair_flops=sum(count * _pair_flops(each) for each, count in own) / devices,
        cached_bytes=sum(count * _cached_here(each, devices) for each, count in own),
        token_flops=sum(count * _token_flops(each) for each, count in own) / devices,
    )


def _pair_flops(attention: AnyAttention) -> int:
    match attention:
        case LatentAttention():
            return 2 * attention.heads * (attention.plain_dim + attention.rope_dim + attention.value_dim)
        case Attention():
            return 4 * attention.heads * attention.head_dim
    return 0


def _token_flops(attention: AnyAttention) -> int:
    """Absorbed, each head compares and sums whole cached vectors; grouped heads are bound by reading."""
    if isinstance(attention, LatentAttention):
        return 2 * attention.heads * (2 * attention.kv_rank + attention.rope_dim)
    return 0


def _cached_here(attention: AnyAttention, devices: int) -> float:
    """Return the cached numbers of a token on one device; a head is kept whole, a latent vector by each."""
    if isinstance(attention, Attention):
        return 2 * max(attention.kv_heads / devices, 1.0) * attention.head_dim
    return float(attention.cached_values)


def pairs_in(window: int, *, before: Ints, chunks: Ints) -> float:
    """Count the pairs of pieces of prompts within a window.

    Args:
        window: Tokens in sight.
        before: Tokens of each sequence that were computed already, shape (sequences,).
        chunks: Tokens computed now, same shape.
    """
    return float((_pairs_up_to(window, before + chunks) - _pairs_up_to(window, before)).sum())


def _pairs_up_to(window: int, tokens: Ints) -> Floats:
    short = np.minimum(tokens, window).astype(np.float64)
    return np.asarray(short * (short + 1) / 2 + (tokens - short) * window, np.float64)


def context_in(window: int, contexts: Ints, *, steps: int) -> Floats:
    """Count the tokens in sight of all sequences in consecutive steps, each one token longer.

    Args:
        window: Tokens in sight.
        contexts: Tokens of each sequence at the first step, shape (sequences,).
        steps: How many.

    Returns:
        Shape (steps,).
    """
    room = np.clip(window - contexts, 0, steps)
    ended = np.cumsum(np.bincount(room, minlength=steps + 1))[:steps]
    growing = len(contexts) - ended
    first = float(np.minimum(contexts, window).sum())
    return np.asarray(first + np.concatenate([[0.0], np.cumsum(growing[:-1])]), np.float64)
