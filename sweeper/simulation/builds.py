"""What distinguishes a simulated trial from those of dense models that calibrations are fitted to, in words.

A calibration may be right of Llama in 16 bits and far off of a mixture of experts, whose kernels it has never
seen. So each kind of layer, of stored weights and of sharing counts apart, and one that a calibration was
never compared with makes its expected error unknown.
"""

from __future__ import annotations

from collections.abc import Iterator

from sweeper.records import Assignment, Model
from sweeper.records.architecture import Architecture, Attention, LatentAttention


def kinds_of(model: Model, assignment: Assignment) -> tuple[str, ...]:
    """Return what a trial has that a dense model built as Llama is, in 16 or 8 bits, has not.

    Args:
        model: What is served.
        assignment: Knob to value.
    """
    built = model.built
    if built is None:
        return ()
    return (
        *dict.fromkeys(kind for layer, _ in built.runs for kind in _of_attention(layer.attention)),
        *(["a mixture of experts"] if built.has_experts else []),
        *_of_weights(model),
        *_of_sharing(built, assignment),
    )


def _of_attention(attention: object) -> Iterator[str]:
    match attention:
        case LatentAttention():
            yield "latent attention"
        case Attention(window=window):
            if window is not None:
                yield "attention over a window"
        case _:
            yield "layers with a state"


def _of_weights(model: Model) -> Iterator[str]:
    stored = model.quantization
    if stored is not None:
        yield f"{stored.method} weights of {stored.bits:g} bits"


def _of_sharing(built: Architecture, assignment: Assignment) -> Iterator[str]:
    if not built.has_experts:
        return
    if assignment.get("enable_expert_parallel"):
        yield "expert parallelism"
    replicas = assignment.get("data_parallel_size", 1)
    if isinstance(replicas, int) and replicas > 1:
        yield "replicas that share experts"
