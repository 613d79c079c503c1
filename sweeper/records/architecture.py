"""What a decoder is built of, as its config.json says, and what that comes to: parameters, KV cache, state.

A model is a stack of layers; each has an attention and either one MLP or experts. Models that are served
today differ in exactly these: how many values of a token stay in the cache (grouped heads, a latent vector, a
window, a state in its place), and how many of the weights a token passes through. Both are counted here.

Counted: embeddings and head, attention, MLPs, experts with their router and shared experts, two norms a
layer, and an encoder of images. Biases, norms of queries and keys, and scales of quantized weights are left
out; together they are below a thousandth.

Field names are those of transformers' configuration classes, on which every published config.json rests.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

MOST_LAYERS = 10_000
"""More layers than any model has; a larger number would be counted out before it is noticed."""

WHOLE = None
"""The window of an attention that sees the whole sequence."""


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Grouped-query attention over the whole sequence or a window of it.

    Attributes:
        heads: Query heads.
        kv_heads: Key and value heads.
        head_dim: Numbers of a head.
        window: Tokens that are seen; ``WHOLE`` for all.
        is_gated: The queries' projection makes an output gate of the same size as well (Qwen3-Next).
        is_chunked: The window begins anew after so many tokens, instead of moving along (Llama 4).
    """

    heads: int
    kv_heads: int
    head_dim: int
    window: int | None = WHOLE
    is_gated: bool = False
    is_chunked: bool = False

    def parameters(self, hidden: int) -> int:
        """Count the weights of the four projections."""
        queries = self.heads * (3 if self.is_gated else 2)
        return hidden * self.head_dim * (queries + 2 * self.kv_heads)

    @property
    def cached_values(self) -> int:
        """Numbers that the KV cache keeps of each token that is in sight."""
        return 2 * self.kv_heads * self.head_dim

    @property
    def state_values(self) -> int:
        """Numbers that are kept of a sequence whatever its length."""
        return 0

    def state_parts(self, tensor: int = 1) -> tuple[int, int]:
        """Return the numbers that one of so many devices keeps of a sequence whatever its length: none."""
        del tensor
        return 0, 0


@dataclass(frozen=True, kw_only=True)
class LatentAttention:
    """Multi-head latent attention: keys and values are made anew from one small vector a token.

    Attributes:
        heads: Heads.
        query_rank: Width of the queries' own latent vector; None projects them directly.
        kv_rank: Width of the vector that is cached.
        rope_dim: Numbers of a head that carry positions; cached once for all heads.
        plain_dim: Numbers of a head's query and key that carry none.
        value_dim: Numbers of a head's value.

    Source:
        DeepSeek-V2, arXiv:2405.04434, section 2.1.
    """

    heads: int
    query_rank: int | None
    kv_rank: int
    rope_dim: int
    plain_dim: int
    value_dim: int
    window: int | None = WHOLE

    def parameters(self, hidden: int) -> int:
        """Count the weights of the projections down, up and out."""
        query_dim = self.heads * (self.plain_dim + self.rope_dim)
        rank = self.query_rank
        queries = hidden * query_dim if rank is None else rank * (hidden + query_dim)
        down = hidden * (self.kv_rank + self.rope_dim)
        up = self.kv_rank * self.heads * (self.plain_dim + self.value_dim)
        return queries + down + up + self.heads * self.value_dim * hidden

    @property
    def cached_values(self) -> int:
        """Numbers that the KV cache keeps of each token; not shared out by tensor parallelism."""
        return self.kv_rank + self.rope_dim

    @property
    def state_values(self) -> int:
        """Numbers that are kept of a sequence whatever its length."""
        return 0

    def state_parts(self, tensor: int = 1) -> tuple[int, int]:
        """Return the numbers that one of so many devices keeps of a sequence whatever its length: none."""
        del tensor
        return 0, 0


class _Recurrent(ABC):
    """What keeps a state of fixed size of each sequence, in place of something of each token."""

    @property
    def cached_values(self) -> int:
        """Numbers that are kept of each token: none."""
        return 0

    @property
    def state_values(self) -> int:
        """Numbers that are kept of a sequence whatever its length: its state, and the convolution's."""
        return sum(self.state_parts())

    @abstractmethod
    def state_parts(self, tensor: int = 1) -> tuple[int, int]:
        """Return the numbers that one of so many devices keeps: of the convolution, of the state."""


@dataclass(frozen=True, kw_only=True)
class DeltaAttention(_Recurrent):
    """Gated delta rule: a linear attention with a state of fixed size instead of a KV cache.

    Attributes:
        key_heads: Heads of queries and of keys.
        value_heads: Heads of values.
        key_dim: Numbers of a key head.
        value_dim: Numbers of a value head.
        kernel: Tokens that the convolution before it sees.
        state_dtype: Type that the state is kept in where the model's config says it.

    Source:
        transformers 4.57, modeling_qwen3_next.py, Qwen3NextGatedDeltaNet.
    """

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    kernel: int
    state_dtype: str | None = None
    window: int | None = 0

    def parameters(self, hidden: int) -> int:
        """Count the weights of the projections in and out, of the gates and of the convolution."""
        keys, values = self.key_heads * self.key_dim, self.value_heads * self.value_dim
        projected = hidden * (2 * keys + 2 * values + 2 * self.value_heads)
        return projected + (2 * keys + values) * self.kernel + values * hidden

    def state_parts(self, tensor: int = 1) -> tuple[int, int]:
        """Return the numbers that one of so many devices keeps: of the convolution, of the state.

        Source:
            vLLM 0.32.0, mamba_utils.py, gated_delta_net_state_shape.
        """
        keys, values = self.key_heads * self.key_dim, self.value_heads * self.value_dim
        return (
            (2 * keys + values) // tensor * (self.kernel - 1),
            self.value_heads // tensor * self.key_dim * self.value_dim,
        )


@dataclass(frozen=True, kw_only=True)
class Mamba(_Recurrent):
    """Selective state space: a state of fixed size instead of a KV cache, of the first or the second kind.

    Attributes:
        inner: Width between its projections in and out.
        state: Numbers of the state for each of them.
        kernel: Tokens that the convolution before it sees.
        heads: Heads that share out ``inner``, of Mamba-2; None for the first Mamba.
        groups: Groups of heads that share their inputs' projections, of Mamba-2.
        time_rank: Width through which time steps are projected, of the first Mamba.
        state_dtype: Type that the state is kept in where the model's config says it.

    Source:
        transformers 5, modeling_jamba.py (JambaMambaMixer), modeling_bamba.py (BambaMixer).
    """

    inner: int
    state: int
    kernel: int
    heads: int | None = None
    groups: int = 1
    time_rank: int = 0
    state_dtype: str | None = None
    window: int | None = 0

    def parameters(self, hidden: int) -> int:
        """Count the weights of projections, convolution, and what the state passes through."""
        if self.heads is not None:
            mixed = self.inner + 2 * self.groups * self.state
            projected = hidden * (self.inner + mixed + self.heads)
            return projected + mixed * self.kernel + self.inner * hidden + 3 * self.heads + self.inner
        steps = self.inner * (self.time_rank + 2 * self.state) + self.time_rank * self.inner
        return 3 * hidden * self.inner + self.inner * self.kernel + steps + self.inner * (self.state + 1)

    def state_parts(self, tensor: int = 1) -> tuple[int, int]:
        """Return the numbers that one of so many devices keeps: of the convolution, of the state.

        Source:
            vLLM 0.32.0, mamba_utils.py, mamba1_state_shape and mamba2_state_shape: groups that cannot be
            shared out evenly are copied until each device has one.
        """
        groups = self.groups if self.groups % tensor == 0 else tensor
        mixed = self.inner if self.heads is None else self.inner + 2 * groups * self.state
        return mixed // tensor * (self.kernel - 1), self.inner // tensor * self.state


AnyAttention = Attention | LatentAttention | DeltaAttention | Mamba


@dataclass(frozen=True, kw_only=True)
class Mlp:
    """One MLP that every token passes.

    Attributes:
        intermediate: Its width.
        matrices: 3 with a gate, 2 without.
    """

    intermediate: int
    matrices: int = 3

    def parameters(self, hidden: int) -> int:
        """Count its weights."""
        return self.matrices * hidden * self.intermediate

    def active(self, hidden: int) -> int:
        """Count the weights that a token passes through: all of them."""
        return self.parameters(hidden)


@dataclass(frozen=True, kw_only=True)
class Experts:
    """MLPs of which a router chooses some for each token, and shared ones that all tokens pass.

    Attributes:
        count: Routed experts.
        per_token: Routed experts of one token.
        intermediate: Width of each.
        shared: Width of the shared experts together; 0 without any.
        matrices: Of each expert: 3 with a gate, 2 without.
    """

    count: int
    per_token: int
    intermediate: int
    shared: int = 0
    matrices: int = 3

    def parameters(self, hidden: int) -> int:
        """Count the weights of all experts and of the router."""
        return self.matrices * hidden * (self.count * self.intermediate + self.shared) + hidden * self.count

    def active(self, hidden: int) -> int:
        """Count the weights that one token passes through."""
        return (
            self.matrices * hidden * (self.per_token * self.intermediate + self.shared) + hidden * self.count
        )


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer: an attention and what follows it.

    Attributes:
        attention: What mixes tokens.
        mlp: What follows it; one of width 0 where nothing does.
        beside: A second one that mixes the same input at its side (Falcon-H1); None almost everywhere.
    """

    attention: AnyAttention
    mlp: Mlp | Experts
    beside: Mamba | None = None

    @property
    def mixers(self) -> tuple[AnyAttention, ...]:
        """All that mixes tokens in this layer, each with a cache or state of its own."""
        return (self.attention,) if self.beside is None else (self.beside, self.attention)

    def parameters(self, hidden: int) -> int:
        """Count its weights, two norms among them."""
        return self._mixing(hidden) + self.mlp.parameters(hidden) + 2 * hidden

    def active(self, hidden: int) -> int:
        """Count its weights that one token passes through."""
        return self._mixing(hidden) + self.mlp.active(hidden) + 2 * hidden

    def _mixing(self, hidden: int) -> int:
        return sum(mixer.parameters(hidden) for mixer in self.mixers)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A decoder, and the encoder of images before it where there is one.

    Attributes:
        model_type: As transformers calls the build.
        hidden: Width of the stream between layers.
        vocab: Entries of the vocabulary.
        max_positions: Tokens of the longest sequence.
        layers: From the first to the last.
        is_tied: Whether the head is the table of embeddings.
        draft_layers: Layers that predict tokens beyond the next one; loaded only for speculative decoding.
        encoder_parameters: Weights of the encoder of images, about; 0 without one.
        block_rows: Rows of the blocks that share a scale, where weights are fp8 by blocks; else None.
    """

    model_type: str
    hidden: int
    vocab: int
    max_positions: int
    layers: Sequence[Layer]
    is_tied: bool = False
    draft_layers: int = 0
    encoder_parameters: int = 0
    block_rows: int | None = None

    def __hash__(self) -> int:
        """Return the hash that goes with equality; of a hundred layers it is worked out once."""
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(getattr(self, field.name) for field in fields(self)))

    @cached_property
    def runs(self) -> tuple[tuple[Layer, int], ...]:
        """The layers as runs of equal ones with their lengths: a stack of a hundred layers has a few."""
        return tuple(runs_of(self.layers))

    @property
    def words(self) -> str:
        """What layers it has, in words: ``3 x latent attention, MLP; 58 x latent attention, experts``."""
        found: dict[str, int] = {}
        for layer, count in self.runs:
            mixers = " beside ".join(map(_attention_name, layer.mixers))
            name = f"{mixers}{_mlp_name(layer.mlp)}"
            found[name] = found.get(name, 0) + count
        return "; ".join(f"{count} x {name}" for name, count in found.items())

    @property
    def parameters(self) -> int:
        """Weights in number, without the layers that predict further tokens."""
        tables = self.vocab * self.hidden * (1 if self.is_tied else 2)
        layers = sum(count * layer.parameters(self.hidden) for layer, count in self.runs)
        return layers + tables + self.hidden + self.encoder_parameters

    @property
    def draft_parameters(self) -> int:
        """Weights of the layers that predict further tokens: each as the last one, and what joins its inputs.

        Source:
            DeepSeek-V3, arXiv:2412.19437, section 2.2: a projection from twice the width to the width.
        """
        return self.draft_layers * (self.layers[-1].parameters(self.hidden) + 2 * self.hidden * self.hidden)

    @property
    def active_parameters(self) -> int:
        """Weights of the decoder that one token passes through, the head among them.

        A token reads one row of the table of embeddings; a head of its own is read whole.
        """
        layers = sum(count * layer.active(self.hidden) for layer, count in self.runs)
        return layers + self.vocab * self.hidden + self.hidden

    @property
    def has_experts(self) -> bool:
        """Whether some layer has experts."""
        return any(isinstance(layer.mlp, Experts) for layer, _ in self.runs)

    def kv_bytes_per_token(self, bytes_per_value: float = 2.0) -> float:
        """Return the bytes of KV cache of a token that every layer sees, over all devices of one replica."""
        return bytes_per_value * sum(count * layer.attention.cached_values for layer, count in self.runs)

    def state_values(self) -> int:
        """Return how many numbers are kept of a sequence whatever its length."""
        return sum(count * sum(one.state_values for one in layer.mixers) for layer, count in self.runs)


def runs_of(layers: Sequence[Layer]) -> Iterator[tuple[Layer, int]]:
    """Yield each run of equal layers with its length."""
    for layer, equal in itertools.groupby(layers):
        yield layer, sum(1 for _ in equal)


def _mlp_name(mlp: Mlp | Experts) -> str:
    if isinstance(mlp, Experts):
        return ", experts"
    return ", MLP" if mlp.intermediate else ""


def _attention_name(attention: AnyAttention) -> str:
    match attention:
        case LatentAttention():
            return "latent attention"
        case DeltaAttention():
            return "linear attention"
        case Mamba():
            return "Mamba" if attention.heads is None else "Mamba-2"
        case Attention(window=None):
            return "attention"
    return f"attention over {attention.window} tokens"
