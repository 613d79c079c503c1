"""How many devices an assignment takes, and which ways of sharing a model out no release can run.

The devices of one replica are those that its weights, its layers and its prompts are divided among: tensor x
pipeline x prefill context parallel size (TGI has ``num_shard`` in their place, SGLang ``tp_size`` and
``pp_size``). Replicas multiply them: data parallelism, and the sweeper's own ``instances``. What multiplies
nothing: decode context parallelism uses the devices of tensor parallelism again, and expert parallelism only
says where experts lie.

That holds for every release: one without a flag refuses it, and does not read it as something else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from sweeper.errors import KnobError
from sweeper.knobs.release_order import is_between
from sweeper.records import INSTANCES, Assignment, ModelShape, Scalar
from sweeper.records.architecture import (
    AnyAttention,
    Architecture,
    Attention,
    DeltaAttention,
    Experts,
    LatentAttention,
    Mamba,
    Mlp,
)

TENSOR = "tensor_parallel_size"
PIPELINE = "pipeline_parallel_size"
PREFILL_CONTEXT = "prefill_context_parallel_size"
DECODE_CONTEXT = "decode_context_parallel_size"
DATA = "data_parallel_size"
DATA_LOCAL = "data_parallel_size_local"
SHARDS = "num_shard"
EXPERT_PARALLEL = "enable_expert_parallel"
SGLANG_TENSOR = "tp_size"
SGLANG_PIPELINE = "pp_size"
SGLANG_DATA = "dp_size"
# With it, SGLang's data parallel ranks share the devices of tensor parallelism.
_SHARES_DEVICES = "enable_dp_attention"

_OF_A_REPLICA = (TENSOR, PIPELINE, PREFILL_CONTEXT, SHARDS, SGLANG_TENSOR, SGLANG_PIPELINE)

PARALLEL_SIZES = (*_OF_A_REPLICA, DATA, SGLANG_DATA, INSTANCES)
"""Knobs whose values multiply the devices of a trial; each is 1 where it is left out."""


def ranks(assignment: Assignment) -> int:
    """Count the devices of one replica, which vLLM calls its world size; what is no size counts as 1.

    Source:
        vLLM, ParallelConfig.__post_init__: pipeline x tensor of 0.8.3 and 0.10.2, and x prefill context of
        0.12.0 and 0.32.0, none of which multiplies by the decode context or by the experts.
    """
    return math.prod(_size(assignment, knob) for knob in _OF_A_REPLICA)


def replicas(assignment: Assignment) -> int:
    """Count the copies of the model that share a trial's load and its devices.

    Of data parallel replicas those on this node count, where ``data_parallel_size_local`` says how many.
    SGLang's count unless attention alone is data parallel.

    Source:
        SGLang 0.5.9: DataParallelController.launch_dp_schedulers gives each rank devices of its own, and
        launch_dp_attention_schedulers gives all of them those of one.
    """
    here = _size(assignment, DATA_LOCAL if _is_size(assignment.get(DATA_LOCAL, 0)) else DATA)
    of_sglang = 1 if assignment.get(_SHARES_DEVICES) else _size(assignment, SGLANG_DATA)
    return here * of_sglang * _size(assignment, INSTANCES)


def devices(assignment: Assignment) -> int:
    """Count the devices that a trial of this assignment takes.

    Raises:
        KnobError: A size is not a whole number of at least 1.
    """
    for knob in PARALLEL_SIZES:
        size = assignment.get(knob, 1)
        if not _is_size(size):
            raise KnobError(f"knobs.{knob}: is {size!r}; expected a whole number of at least 1. Change it.")
    return ranks(assignment) * replicas(assignment)


def _size(assignment: Assignment, knob: str) -> int:
    size = assignment.get(knob, 1)
    return int(size) if _is_size(size) else 1


def _is_size(value: Scalar) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def why_not_on_one_node(assignment: Assignment, *, release: str) -> tuple[str, str] | None:
    """Name a parallel size that cannot come up on one node whatever the model, and say why; else None.

    Source:
        vLLM, ParallelConfig._validate_parallel_config: 0.12.0 for the prefill context (a check that 0.16.0
        no longer has), 0.32.0 for the others; decode context already must divide in 0.16.0 and 0.20.0.
    """
    found = _replicas_elsewhere(assignment)
    if found:
        return found
    tensor, prefill, decode = (_size(assignment, knob) for knob in (TENSOR, PREFILL_CONTEXT, DECODE_CONTEXT))
    if prefill > 1 and is_between(release, "0.12.0", "0.12.0"):
        return PREFILL_CONTEXT, f"vLLM {release} has the flag and refuses every value but 1. Leave it out."
    if prefill == 1 and tensor % decode:
        divisors = ", ".join(map(str, _divisors(tensor)))
        return (
            DECODE_CONTEXT,
            f"it shares out the devices of {TENSOR} = {tensor}; expected one of {divisors}. Choose one.",
        )
    spans = (1, prefill, tensor * prefill)
    if prefill > 1 and decode not in spans:
        return (
            DECODE_CONTEXT,
            f"beside {PREFILL_CONTEXT} = {prefill} and {TENSOR} = {tensor} vLLM takes "
            f"{', '.join(map(str, sorted(set(spans))))} only. Choose one of them.",
        )
    return None


def _replicas_elsewhere(assignment: Assignment) -> tuple[str, str] | None:
    everywhere = _size(assignment, DATA)
    if DATA_LOCAL not in assignment or assignment[DATA_LOCAL] == everywhere:
        return None
    return (
        DATA_LOCAL,
        f"expected {everywhere}, all replicas of {DATA}: the others would be waited for on further "
        "nodes, and a trial is on one. Leave it out.",
    )


def why_shape_forbids(assignment: Assignment, model: ModelShape | Architecture) -> Iterator[str]:
    """Name which parallel sizes cannot share out a model, and what could.

    Args:
        assignment: Knob to value, as one server gets it.
        model: What it is built of; a dimension of 0 is not known and forbids nothing.

    Source:
        vLLM 0.32.0: ModelConfig.verify_with_parallel_config (heads, decode context), LlamaAttention (KV heads
        are split, or copied evenly where they are fewer), ColumnParallelLinear (the MLP), get_pp_indices
        (layers). TGI: FlashLlamaAttention refuses shards that do not divide the heads.
    """
    built = model.architecture if isinstance(model, ModelShape) else model
    widths = _widths(built, has_whole_experts=bool(assignment.get(EXPERT_PARALLEL, False)))
    for knob in (TENSOR, SHARDS, SGLANG_TENSOR):
        size = _size(assignment, knob)
        for attention in dict.fromkeys(mixer for layer, _ in built.runs for mixer in layer.mixers):
            heads, kv_heads = _heads(attention)
            if heads and (heads % size or not _can_share(kv_heads, widths, size)):
                fits = [number for number in _divisors(heads) if _can_share(kv_heads, widths, number)]
                yield (
                    f"{knob} = {size} cannot share out {heads} attention heads, {kv_heads} KV heads and an "
                    f"MLP of {' and '.join(map(str, widths))}; expected one of {', '.join(map(str, fits))}"
                )
                break
    yield from _blocks(assignment, built)
    yield from _state_groups(assignment, built)
    stages = _size(assignment, PIPELINE)
    if built.layers and stages > len(built.layers):
        yield (
            f"{PIPELINE} = {stages} leaves stages without a layer; expected at most {len(built.layers)}, the "
            "model's layers"
        )
    yield from _decode_context(assignment, built)


def _blocks(assignment: Assignment, built: Architecture) -> Iterator[str]:
    """A slice of an expert holds whole blocks of fp8 weights, which share a scale.

    Source:
        vLLM 0.32.0, quantization/utils/fp8_utils.py, validate_fp8_block_shape_moe; replicas slice experts,
        too, unless expert parallelism keeps them whole.
    """
    rows = built.block_rows
    if rows is None or assignment.get(EXPERT_PARALLEL, False):
        return
    sizes = {layer.mlp.intermediate for layer, _ in built.runs if isinstance(layer.mlp, Experts)} - {0}
    slices = _size(assignment, TENSOR) * _size(assignment, DATA)
    for width in sorted(sizes):
        if width % (slices * rows):
            fits = [number for number in _divisors(width) if width % (number * rows) == 0]
            yield (
                f"{TENSOR} x {DATA} = {slices} slices experts of {width} into parts that are no whole fp8 "
                f"blocks of {rows}; expected one of {', '.join(map(str, fits)) or 'none'}, or "
                f"{EXPERT_PARALLEL}"
            )


def _state_groups(assignment: Assignment, built: Architecture) -> Iterator[str]:
    """Groups of Mamba-2 are shared out evenly, or one is copied.

    Source:
        vLLM 0.32.0, MambaMixer2.__init__.
    """
    size = _size(assignment, TENSOR)
    for mixer in dict.fromkeys(mixer for layer, _ in built.runs for mixer in layer.mixers):
        if isinstance(mixer, Mamba) and mixer.heads is not None and mixer.groups > 1 and mixer.groups % size:
            yield (
                f"{TENSOR} = {size} cannot share out {mixer.groups} groups of Mamba-2; expected one of "
                f"{', '.join(map(str, _divisors(mixer.groups)))}"
            )


def _heads(attention: AnyAttention) -> tuple[int, int]:
    """Return heads, and what of each token is cached by heads: for latent attention all heads share one."""
    match attention:
        case Attention(heads=heads, kv_heads=kv_heads):
            return heads, kv_heads or heads
        case LatentAttention(heads=heads):
            return heads, heads
        case DeltaAttention(key_heads=keys, value_heads=values):
            return values, keys
        case Mamba(inner=inner, heads=heads):
            return heads or inner, heads or inner


def _widths(built: Architecture, *, has_whole_experts: bool) -> list[int]:
    """Return the widths of the MLPs that tensor parallelism slices; whole experts are not sliced."""
    found = set()
    for layer, _ in built.runs:
        match layer.mlp:
            case Mlp(intermediate=width):
                found.add(width)
            case Experts() as experts:
                found |= {experts.shared, 0 if has_whole_experts else experts.intermediate}
    return sorted(found - {0})


def _decode_context(assignment: Assignment, built: Architecture) -> Iterator[str]:
    """Each decode context rank needs a copy of a KV head, which only more devices than KV heads make."""
    decode, tensor = _size(assignment, DECODE_CONTEXT), _size(assignment, TENSOR)
    grouped = next(
        (layer.attention for layer, _ in built.runs if isinstance(layer.attention, Attention)), None
    )
    if decode == 1 or grouped is None or not (grouped.heads and grouped.kv_heads):
        return
    copies, sharing = tensor // grouped.kv_heads, grouped.heads // grouped.kv_heads
    if decode > copies or sharing % decode:
        yield (
            f"{DECODE_CONTEXT} = {decode} needs as many copies of each KV head, and {TENSOR} = {tensor} "
            f"keeps {max(1, copies)} of {grouped.kv_heads} KV heads; expected it to divide that number and "
            f"the {sharing} heads that share a KV head"
        )


def _can_share(kv_heads: int, widths: Sequence[int], size: int) -> bool:
    is_even = kv_heads % size == 0 if kv_heads >= size else size % kv_heads == 0
    return is_even and all(width % size == 0 for width in widths)


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]
