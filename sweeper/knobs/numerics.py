"""Which knobs may change an answer: those that choose other arithmetic, and why each does.

A greedy answer that differs from the baseline's is expected where one of these differs, and a sign of a fault
where none does. Whether the other answer is as good is a question for an evaluation, not for this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_KERNELS = "other kernels add in another order"
_ROUNDING = "numbers are kept with fewer bits"

MAY_CHANGE_ANSWERS: Mapping[str, str] = MappingProxyType(
    {
        "kv_cache_dtype": f"{_ROUNDING} in the KV cache",
        "calculate_kv_scales": f"{_ROUNDING} in the KV cache, scaled otherwise",
        "quantization": f"{_ROUNDING} in the weights",
        "quantization_param_path": f"{_ROUNDING} in the KV cache, scaled otherwise",
        "dtype": f"{_ROUNDING}, or with more",
        "load_format": "weights may be others altogether",
        "rope_scaling": "positions are computed otherwise",
        "tensor_parallel_size": "partial sums of the ranks are added in another order",
        "pipeline_parallel_size": "layers may be fused otherwise at the borders of the stages",
        "prefill_context_parallel_size": "sums of attention are added in another order",
        "decode_context_parallel_size": "sums of attention are added in another order",
        "data_parallel_size": "experts may lie on other ranks",
        "enable_expert_parallel": "experts lie on other ranks, and their sums are added in another order",
        "attention_backend": _KERNELS,
        "block_size": "attention is split into other blocks, which are added in another order",
        "enforce_eager": "compiled code fuses operations and rounds less often",
        "compilation_config": "compiled code fuses operations and rounds less often",
        "optimization_level": "compiled code fuses operations and rounds less often",
        "disable_custom_all_reduce": "sums of the ranks are added in another order",
        "speculative_config": "tokens are verified in batches, by kernels of another shape",
        "speculative_model": "tokens are verified in batches, by kernels of another shape",
        "VLLM_ATTENTION_BACKEND": _KERNELS,
        "VLLM_USE_V1": "another engine with other kernels",
        "VLLM_USE_TRITON_FLASH_ATTN": _KERNELS,
        "VLLM_USE_ROCM_CUSTOM_PAGED_ATTN_FP8_OUT": f"{_ROUNDING} in the output of attention",
        "VLLM_CPU_OMP_THREADS_BIND": "another number of threads adds in another order",
    }
)
"""Knob to the reason why it may change an answer."""

_FAMILIES: Mapping[str, str] = MappingProxyType(
    {
        "VLLM_ROCM_": _KERNELS,
        "VLLM_CPU_": _KERNELS,
        "VLLM_USE_AITER": _KERNELS,
        "AITER_": _KERNELS,
        "PYTORCH_TUNABLEOP_": "the fastest kernel is chosen on the spot",
        "TORCH_BLAS_PREFER_HIPBLASLT": "another library multiplies matrices",
        "HIPBLASLT_": "another algorithm multiplies matrices",
        "NCCL_ALGO": "sums of the ranks are added in another order",
        "NCCL_PROTO": "sums of the ranks are added in another order",
    }
)


def why_answers_may_change(knob: str) -> str | None:
    """Explain why a knob may change a greedy answer; None where it may not, as far as is known."""
    told = MAY_CHANGE_ANSWERS.get(knob)
    return told or next((why for start, why in _FAMILIES.items() if knob.startswith(start)), None)
