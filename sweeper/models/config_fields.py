"""The fields of a config.json, checked as they are read, and the parts that most builds have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeper.errors import ConfigError
from sweeper.records.architecture import MOST_LAYERS, WHOLE, Architecture, Attention, Layer, Mlp
from sweeper.records.plurals import amount

# Kinds of rotary embeddings whose max_position_embeddings is that of the scaled ones.
_SCALED_ALREADY = (None, "default", "su", "longrope", "llama3", "mrope", "deepseek_llama_scaling")


@dataclass(frozen=True)
class Fields:
    """The fields of a config.json, and where it lies, for messages."""

    values: Mapping[str, Any]
    where: str
    prefix: str = ""

    def number(self, name: str, default: int | None = None, *, least: int = 0, most: int = 2**60) -> int:
        """Return a whole number, of at least 0 unless told otherwise.

        Raises:
            ConfigError: It is missing without a default, or something else.
        """
        value = self.values.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ConfigError(
                f"{self.where}: {self.prefix}{name} is {value!r}; expected a whole number of {least} to "
                f"{most:,}, as in the config.json of a {self.values.get('model_type')!r} model. Correct it, "
                "or name another."
            )
        return value

    def size(self, name: str, default: int | None = None) -> int:
        """Return a dimension: a whole number of at least 1."""
        return self.number(name, default, least=1)

    def layers(self) -> int:
        """Return the number of layers."""
        return self.number("num_hidden_layers", least=1, most=MOST_LAYERS)

    def optional(self, name: str) -> int | None:
        """Return a whole number, or None where it is missing or null."""
        return None if self.values.get(name) is None else self.number(name)

    def part(self, name: str) -> Fields:
        """Return a part that has fields of its own; empty where there is none."""
        part = self.values.get(name)
        return Fields(part if isinstance(part, Mapping) else {}, self.where, f"{self.prefix}{name}.")

    def text(self, name: str) -> str | None:
        """Return a text, or None where it is missing or something else."""
        value = self.values.get(name)
        return value if isinstance(value, str) else None

    def numbers(self, name: str) -> Sequence[int]:
        """Return a list of whole numbers; empty where there is none."""
        value = self.values.get(name)
        return [item for item in value if isinstance(item, int)] if isinstance(value, list) else []

    def layer_kinds(self) -> Sequence[str]:
        """Return ``layer_types``, a word for each layer; empty where there are none.

        Raises:
            ConfigError: They are not as many as there are layers.
        """
        value = self.values.get("layer_types")
        kinds = [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
        if kinds and len(kinds) != self.layers():
            raise ConfigError(
                f"{self.where}: {self.prefix}layer_types has {len(kinds)} words; expected one for each of "
                f"{amount(self.layers(), 'layer')}. Correct it, or name another."
            )
        return kinds


def attention_of(
    fields: Fields, *, window: int | None = WHOLE, is_gated: bool = False, is_chunked: bool = False
) -> Attention:
    """Read grouped-query attention under the names that most builds use."""
    heads = fields.size("num_attention_heads")
    return Attention(
        heads=heads,
        kv_heads=fields.size("num_key_value_heads", heads),
        head_dim=fields.number("head_dim", fields.size("hidden_size") // heads),
        window=window,
        is_gated=is_gated,
        is_chunked=is_chunked,
    )


def mlp_of(fields: Fields, matrices: int = 3) -> Mlp:
    """Read the MLP that follows each attention."""
    return Mlp(intermediate=fields.size("intermediate_size"), matrices=matrices)


def positions(embedded: int, config: Mapping[str, Any]) -> int:
    """Return the tokens of a model's longest sequence, which scaled rotary embeddings make more.

    Args:
        embedded: Its ``max_position_embeddings``.
        config: Its config.json, or the part of it that is for text.

    Source:
        vLLM 0.32.0, config/model.py, ``_get_and_verify_max_len``. Of YaRN, whose ``max_position_embeddings``
        some files give scaled and others not, the larger, as releases before it took it.
    """
    given = config.get("rope_scaling") or config.get("rope_parameters") or {}
    scalings = [one for one in given.values() if isinstance(one, Mapping)] or [given]
    longest = embedded
    for scaling in scalings:
        kind, factor = scaling.get("rope_type", scaling.get("type")), scaling.get("factor")
        if not isinstance(factor, int | float) or "gemma3" in str(config.get("model_type")):
            continue
        if "yarn" in str(kind):
            original = scaling.get("original_max_position_embeddings")
            longest = max(longest, int(original * factor)) if isinstance(original, int) else longest
        elif kind not in _SCALED_ALREADY:
            longest = max(longest, int(embedded * factor))
    return longest


def stack_of(fields: Fields, layers: Sequence[Layer]) -> Architecture:
    """Return a decoder of these layers, with what its fields say of the rest."""
    return Architecture(
        model_type=str(fields.values["model_type"]),
        hidden=fields.size("hidden_size"),
        vocab=fields.size("vocab_size"),
        max_positions=positions(fields.size("max_position_embeddings"), fields.values),
        layers=tuple(layers),
        is_tied=bool(fields.values.get("tie_word_embeddings", False)),
        draft_layers=fields.number("num_nextn_predict_layers", fields.number("mtp_num_hidden_layers", 0)),
    )
