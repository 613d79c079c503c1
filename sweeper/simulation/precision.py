"""In which types the matrices of a layer are stored, and in which they are multiplied.

The two differ where a checkpoint has fewer bits than the matrix units take: then each weight is converted on
its way, the bytes that are read are few, and the peak is that of the wider type. What that conversion costs
is ``Calibration.dequantized_gemm_frac``, an assumption.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sweeper.records import Quantization, Scalar

PLAIN_BITS = 16
"""Bits of what no method quantizes: embeddings, head, norms and routers, and all that is computed with."""

_EIGHT_BITS = 8
_EIGHT_BIT_METHODS = ("fp8", "fbgemm_fp8", "modelopt", "compressed-tensors", "quark")
_LOADED_AS = ("fp8",)
_FLOATING_FOUR = ("mxfp4", "quark")


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One kind of matrices.

    Attributes:
        bits: Of one weight, its share of scales and zero points included.
        compute_bits: Of the type that it is multiplied in, 8 or 16.
        is_slow_to_convert: Whether a small batch waits for weights to be converted as long as for wide ones.
    """

    bits: float = PLAIN_BITS
    compute_bits: int = PLAIN_BITS
    is_slow_to_convert: bool = False

    @property
    def bytes_each(self) -> float:
        """Bytes of one weight."""
        return self.bits / 8

    @property
    def width_frac(self) -> float:
        """How wide a stored weight is beside what it is multiplied as; below 1, reading it takes less."""
        return 1.0 if self.is_slow_to_convert else min(1.0, self.bits / self.compute_bits)

    @property
    def is_dequantized(self) -> bool:
        """Whether it is converted before it is multiplied."""
        return self.bits < self.compute_bits


@dataclass(frozen=True, kw_only=True)
class Precision:
    """The matrices of a model, by part."""

    attention: Stored = Stored()
    mlp: Stored = Stored()
    experts: Stored = Stored()
    shared: Stored = Stored()


def uniform(bits: int) -> Precision:
    """Return all matrices in the same type, 8 or 16 bits wide, stored as they are multiplied."""
    each = Stored(bits=bits, compute_bits=bits)
    return Precision(attention=each, mlp=each, experts=each, shared=each)


def precision_of(
    settings: Mapping[str, Scalar], quantization: Quantization | None, *, has_rocm: bool = True
) -> Precision:
    """Return how the matrices of a trial are stored and multiplied.

    Args:
        settings: Resolved; ``quantization`` is ``fp8`` where the checkpoint is, or is made so at its start.
        quantization: What the checkpoint's config.json says; None where its dtype says it all.
        has_rocm: Whether ROCm's kernels run it; others were never compared.

    Source:
        vLLM 0.32.0: fp8.py and compressed_tensors_w8a8_*.py multiply in 8 bits, scaled by tensor or by block;
        auto_awq.py, auto_gptq.py and compressed_tensors_wNa16.py convert to 16 bits, and so does
        fused_moe/oracle/mxfp4.py on MI300X (gfx942), which has no four-bit matrix instructions. On MI355X
        the W4A16 kernels, which that file has for it as well, are assumed. That ROCm's experts of four-bit
        integers (fused_moe_kernel_gptq_awq) are slow to convert show Kimi-K2.5's on MI300X, MI325X and MI355X
        (InferenceX, 2026-04): else they come twice as fast as published, which gpt-oss's of mxfp4 do not.
    """
    if quantization is None:
        return uniform(8 if settings["quantization"] in _LOADED_AS else PLAIN_BITS)
    is_eight = quantization.method in _EIGHT_BIT_METHODS and _EIGHT_BITS <= quantization.bits < PLAIN_BITS
    stored = Stored(bits=quantization.bits, compute_bits=8 if is_eight else PLAIN_BITS)
    parts = dict.fromkeys(quantization.parts, stored)
    is_integer = stored.bits < _EIGHT_BITS and quantization.method not in _FLOATING_FOUR
    if has_rocm and is_integer and "experts" in parts:
        parts["experts"] = replace(stored, is_slow_to_convert=True)
    return Precision(**parts)
