"""Does a model fit its devices: weights + KV cache < memory, before anything is started.

Weights are counted from the model's shape and divided by tensor parallelism; a KV cache entry is counted
by KV heads, not heads (grouped-query attention keeps fewer). What an engine needs besides, for
activations and its own runtime, is left to the share that ``gpu_memory_utilization`` leaves free.

Source: vLLM refuses to start when one sequence of the maximum length has no room in its cache; the rule
of thumb is AMD's guide "Steps to Run a vLLM Workload", whose Llama-2 examples it reproduces.
"""

from __future__ import annotations

from dataclasses import dataclass

from sweeper.records import Assignment, Model, ModelShape

GIB = 2**30
_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "half": 2.0, "fp8": 1.0}


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What one device must hold, in GiB.

    Attributes:
        weights_gib: Weights of this device's share of the model.
        kv_cache_gib: KV cache of one sequence of the maximum length, this device's share.
        available_gib: Memory that the engine may use.
        max_model_len: Tokens of that sequence.
    """

    weights_gib: float
    kv_cache_gib: float
    available_gib: float
    max_model_len: int

    @property
    def is_feasible(self) -> bool:
        """Whether the engine can start."""
        return self.weights_gib + self.kv_cache_gib <= self.available_gib

    def __str__(self) -> str:
        """The arithmetic as a sentence, for a row or a message."""
        needed = self.weights_gib + self.kv_cache_gib
        return (
            f"weights {self.weights_gib:.1f} GiB + KV cache of one sequence of {self.max_model_len} tokens "
            f"{self.kv_cache_gib:.1f} GiB = {needed:.1f} GiB per device; "
            f"{self.available_gib:.1f} GiB available"
        )


def kv_bytes_per_token(shape: ModelShape, *, dtype: str = "bfloat16") -> float:
    """Bytes of KV cache that one token takes over all layers, before tensor parallelism divides it."""
    return 2 * shape.layers * shape.kv_heads * shape.head_dim * _bytes(dtype)


def weight_bytes(model: Model, *, quantization: str | None = None) -> float:
    """Bytes of all weights, before tensor parallelism divides them."""
    dtype = "fp8" if quantization == "fp8" else model.dtype
    return model.shape.parameters * _bytes(dtype)


def fit(model: Model, assignment: Assignment, *, device_memory_gib: float) -> Fit:
    """Work out what each device of a trial must hold.

    Args:
        model: What is served.
        assignment: Knobs; ``tensor_parallel_size``, ``pipeline_parallel_size``, ``max_model_len``,
            ``kv_cache_dtype``, ``quantization`` and ``gpu_memory_utilization`` count.
        device_memory_gib: Memory of the smallest device of the placement.
    """
    shards = int(assignment.get("tensor_parallel_size", 1)) * int(assignment.get("pipeline_parallel_size", 1))
    length = int(assignment.get("max_model_len", model.shape.max_positions))
    kv_dtype = str(assignment.get("kv_cache_dtype", "auto"))
    kv_dtype = "fp8" if kv_dtype.startswith("fp8") else model.dtype if model.dtype != "fp8" else "bfloat16"
    quantization = assignment.get("quantization")
    return Fit(
        weights_gib=weight_bytes(model, quantization=None if quantization is None else str(quantization))
        / shards
        / GIB,
        kv_cache_gib=length * kv_bytes_per_token(model.shape, dtype=kv_dtype) / shards / GIB,
        available_gib=device_memory_gib * float(assignment.get("gpu_memory_utilization", 0.9)),
        max_model_len=length,
    )


def _bytes(dtype: str) -> float:
    return _BYTES.get(dtype, 2.0)
