"""The weights that one device holds, as its share of the layers, experts and embeddings makes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

from sweeper.errors import PlacementError
from sweeper.models.number_types import bytes_of, compute_dtype, part_bytes
from sweeper.models.shares import Share, stages_of
from sweeper.records import Assignment, Model
from sweeper.records.architecture import (
    AnyAttention,
    Architecture,
    Attention,
    DeltaAttention,
    Experts,
    LatentAttention,
    Layer,
    Mamba,
    Mlp,
)

_VOCAB_MULTIPLE = 64


def built_of(model: Model) -> Architecture:
    """Return what a model is built of.

    Raises:
        PlacementError: That is not known.
    """
    built = model.built
    if built is None:
        raise PlacementError(
            f"model.shape: is not given for {model.name} ({model.no_shape_because}); expected the numbers of "
            "its config.json. Set model.path to a folder that holds it, or give model.shape."
        )
    return built


def weight_bytes(model: Model, assignment: Assignment) -> float:
    """Bytes of the weights on the device that holds most of them.

    Quantisation shrinks the matrices of the layers; embeddings, head, norms and routers stay as they are.
    Norms and routers are copied to each device, KV projections where KV heads are fewer than devices, the
    projections into latent vectors always, and the vocabulary is padded. Experts are shared out over tensor
    and data parallel devices together: whole ones with ``enable_expert_parallel``, slices of each without.

    Source:
        vLLM: QKVParallelLinear, VocabParallelEmbedding (padding to 64), quantization/fp8.py (linear layers),
        FusedMoEParallelConfig.make (experts), DeepseekV2MLAAttention (latent vectors).
        Llama 3.1 70B in 8 bits so gets 67.7 GiB; vLLM's log said 67.7229 (vllm-project/vllm pull 12569).
    """
    width = bytes_of(compute_dtype(model, assignment))
    bits = tuple(part_bytes(model, assignment).items())
    return _shard_bytes(built_of(model), Share.of(assignment), bits=bits, width=width)


@lru_cache(maxsize=1024)
def _shard_bytes(
    built: Architecture, share: Share, *, bits: tuple[tuple[str, float], ...], width: int
) -> float:
    """Return the bytes of one device's weights; thousands of settings have few of them."""
    layers = max(
        sum(n * _layer_bytes(layer, built.hidden, share, bits=dict(bits), width=width) for layer, n in stage)
        for stage in stages_of(built, share.pipeline)
    )
    vocab = math.ceil(built.vocab / _VOCAB_MULTIPLE) * _VOCAB_MULTIPLE
    # The first stage of a pipeline has the embeddings and the last one the head.
    tables = 1 if built.is_tied or share.pipeline > 1 else 2
    plain = built.hidden + (tables * vocab * built.hidden + built.encoder_parameters) / share.tensor
    return layers + plain * width


def _layer_bytes(layer: Layer, hidden: int, share: Share, *, bits: Mapping[str, float], width: int) -> float:
    """Return the bytes of one layer on the device that holds most of it."""
    norms = 2 * hidden * width
    attention = bits["attention"] * sum(
        _attention_weights(mixer, hidden, share.tensor) for mixer in layer.mixers
    )
    match layer.mlp:
        case Mlp() as mlp:
            return norms + attention + mlp.parameters(hidden) / share.tensor * bits["mlp"]
        case Experts() as experts:
            here = (experts.count + share.redundant_experts) / share.expert_devices
            if share.has_whole_experts:
                here = math.ceil(here)
            routed = experts.matrices * hidden * experts.intermediate * here * bits["experts"]
            shared = experts.matrices * hidden * experts.shared / share.tensor * bits["shared"]
            return norms + attention + routed + shared + hidden * experts.count * width


def _attention_weights(attention: AnyAttention, hidden: int, tensor: int) -> float:
    """Return the weights of an attention on one of so many devices."""
    match attention:
        case Attention():
            queries = attention.heads * (3 if attention.is_gated else 2) / tensor
            return hidden * attention.head_dim * (queries + 2 * max(1, attention.kv_heads // tensor))
        case LatentAttention():
            down = hidden * ((attention.query_rank or 0) + attention.kv_rank + attention.rope_dim)
            return down + (attention.parameters(hidden) - down) / tensor
        case DeltaAttention() | Mamba():
            return attention.parameters(hidden) / tensor
