"""What is served: a model, and the dimensions of its network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from sweeper.records.architecture import Architecture, Attention, Layer, Mlp


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """The numbers of a dense decoder-only transformer, as its config.json gives them."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    max_positions: int
    tied_embeddings: bool = False

    @property
    def parameters(self) -> int:
        """Weights in number: embeddings, attention, gated MLP, norms; the head unless it is tied."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        per_layer = attention + 3 * self.hidden * self.intermediate + 2 * self.hidden
        embeddings = self.vocab * self.hidden * (1 if self.tied_embeddings else 2)
        return self.layers * per_layer + embeddings + self.hidden

    @cached_property
    def architecture(self) -> Architecture:
        """The same numbers as the stack of equal layers that they describe."""
        attention = Attention(heads=self.heads, kv_heads=self.kv_heads, head_dim=self.head_dim)
        layer = Layer(attention=attention, mlp=Mlp(intermediate=self.intermediate))
        return Architecture(
            model_type="llama",
            hidden=self.hidden,
            vocab=self.vocab,
            max_positions=self.max_positions,
            layers=(layer,) * self.layers,
            is_tied=self.tied_embeddings,
        )


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """How the weights of a checkpoint are stored.

    Attributes:
        method: As its config.json names it: ``awq``, ``gptq``, ``mxfp4``, ``compressed-tensors``, ...
        bits: Bits of one weight, its share of the scales and zero points included.
        parts: Which matrices are stored so; the others stay in the type that is computed in.
    """

    method: str
    bits: float
    parts: frozenset[str] = frozenset({"attention", "mlp", "experts", "shared"})


DESCRIBES = ("shape", "architecture", "quantization", "dtype")
"""Fields of a model that say what it is built of, and how its weights are stored."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """The model that is served.

    Attributes:
        name: Name under which it is served.
        path: Hub id or local folder given to the engine.
        shape: Its dimensions where it is a dense decoder built as Llama is; else None.
        architecture: What it is built of where it is another build; None where that is not known.
        quantization: How its weights are stored, where ``dtype`` alone does not say it.
        dtype: Type of the weights: bfloat16, float16, float32 or fp8; None where it is not known.
        is_dummy: Weights are random, so only speed means anything.
        revision: Revision on the hub, or a content hash of a local folder.
        no_shape_because: Why there is no shape, in words.
        described_by: What says of what it is built, where that is looked up by its id, in words.
        scaled_by: Method that scales its fp8 weights otherwise than by one number for each matrix, such as
            ``fbgemm_fp8``; kernels are chosen by it, and what is served is the same.
        looked_up: Which of the fields of ``DESCRIBES`` were looked up so on a platform that measures. They
            may be found at one time and not at another, so they take no part in the identity there.
    """

    name: str
    path: str
    shape: ModelShape | None
    dtype: str | None = "bfloat16"
    is_dummy: bool = False
    revision: str | None = None
    no_shape_because: str | None = None
    architecture: Architecture | None = None
    quantization: Quantization | None = None
    described_by: str | None = None
    scaled_by: str | None = None
    looked_up: tuple[str, ...] = ()

    @property
    def built(self) -> Architecture | None:
        """What it is built of, of whatever build; None where that is not known."""
        return self.architecture if self.shape is None else self.shape.architecture

    @cached_property
    def identity(self) -> Mapping[str, object]:
        """What makes it this model: where a local folder lies does not, once its content has a hash."""
        nothing: dict[str, Any] = dict.fromkeys(self.looked_up)
        found = replace(self, **nothing) if nothing else self
        content = asdict(found)
        for name in ("no_shape_because", "described_by", "scaled_by", "looked_up"):
            del content[name]
        for name in ("architecture", "quantization"):  # came later: old keys hold where they are unused
            if content[name] is None:
                del content[name]
        if found.architecture is not None and found.architecture.block_rows is None:
            del content["architecture"]["block_rows"]
        if found.quantization is not None:
            content["quantization"]["parts"] = sorted(found.quantization.parts)
        if self.revision is not None:
            del content["path"]
        return content
