"""What is served: a model, and the dimensions of its network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass


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


@dataclass(frozen=True, kw_only=True)
class Model:
    """The model that is served.

    Attributes:
        name: Name under which it is served.
        path: Hub id or local folder given to the engine.
        shape: Its dimensions; None where they are not known.
        dtype: Type of the weights: bfloat16, float16, float32 or fp8; None where it is not known.
        is_dummy: Weights are random, so only speed means anything.
        revision: Revision on the hub, or a content hash of a local folder.
        no_shape_because: Why there is no shape, in words.
    """

    name: str
    path: str
    shape: ModelShape | None
    dtype: str | None = "bfloat16"
    is_dummy: bool = False
    revision: str | None = None
    no_shape_because: str | None = None

    @property
    def identity(self) -> Mapping[str, object]:
        """What makes it this model: where a local folder lies does not, once its content has a hash."""
        content = asdict(self)
        del content["no_shape_because"]
        if self.revision is not None:
            del content["path"]
        return content
