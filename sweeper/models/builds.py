"""Reads a config.json into an `Architecture`: one short function for each way in which decoders are built.

A build is known by its ``model_type``; the presence of a field proves nothing, since the same name means
other things elsewhere. A build that is not listed is refused with its name, so that nothing is counted wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sweeper.errors import ConfigError, nearest
from sweeper.records.architecture import (
    MOST_LAYERS,
    WHOLE,
    AnyAttention,
    Architecture,
    Attention,
    DeltaAttention,
    Experts,
    LatentAttention,
    Layer,
    Mlp,
)


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
                f"{self.layers()} layers. Correct it, or name another."
            )
        return kinds


def architecture_of(
    config: Mapping[str, Any], *, where: str = "config.json", prefix: str = ""
) -> Architecture:
    """Read what a decoder is built of.

    Args:
        config: The content of a config.json.
        where: The file, for messages.
        prefix: Of the names of its fields, where it is a part of another.

    Raises:
        ConfigError: The build is not known, or a field is missing or not a number.
    """
    fields = Fields(config, where, prefix)
    kind = str(config.get("model_type", "not given"))
    text = config.get("text_config")
    if isinstance(text, Mapping):
        return _with_encoder(fields, kind)
    build = BUILDS.get(kind)
    if build is None:
        raise ConfigError(
            f"{where}: {prefix}model_type is '{kind}', whose build is not known here; expected one of "
            f"{', '.join(sorted(BUILDS))}.{nearest(kind, BUILDS)} Measure it, or name another model."
        )
    return build(fields)


# ---- parts ----


def _attention(
    fields: Fields, *, window: int | None = WHOLE, is_gated: bool = False, is_chunked: bool = False
) -> Attention:
    heads = fields.size("num_attention_heads")
    return Attention(
        heads=heads,
        kv_heads=fields.size("num_key_value_heads", heads),
        head_dim=fields.number("head_dim", fields.size("hidden_size") // heads),
        window=window,
        is_gated=is_gated,
        is_chunked=is_chunked,
    )


def _mlp(fields: Fields, matrices: int = 3) -> Mlp:
    return Mlp(intermediate=fields.size("intermediate_size"), matrices=matrices)


def _stack(fields: Fields, layers: Sequence[Layer]) -> Architecture:
    return Architecture(
        model_type=str(fields.values["model_type"]),
        hidden=fields.size("hidden_size"),
        vocab=fields.size("vocab_size"),
        max_positions=fields.size("max_position_embeddings"),
        layers=tuple(layers),
        is_tied=bool(fields.values.get("tie_word_embeddings", False)),
        draft_layers=fields.number("num_nextn_predict_layers", 0),
    )


def _same(fields: Fields, attention: AnyAttention, mlp: Mlp | Experts) -> Architecture:
    layer = Layer(attention=attention, mlp=mlp)
    return _stack(fields, [layer] * fields.layers())


def _windows(fields: Fields, window: int | None, *, every: int = 0) -> list[int | None]:
    """Return the window of each layer: by ``layer_types``, or the whole sequence in every so many-th one."""
    count, kinds = fields.layers(), fields.layer_kinds()
    if kinds:
        return [WHOLE if kind == "full_attention" else window for kind in kinds]
    return [WHOLE if every and (place + 1) % every == 0 else window for place in range(count)]


def _in_windows(fields: Fields, windows: Sequence[int | None], mlp: Mlp | Experts) -> Architecture:
    """Return a stack of layers that differ in their windows alone."""
    return _stack(fields, [Layer(attention=_attention(fields, window=window), mlp=mlp) for window in windows])


def _numbered_experts(fields: Fields, *, has_shared: bool = False) -> Experts:
    """Return experts under ``num_local_experts``, as wide as the model's ``intermediate_size``."""
    width = fields.size("intermediate_size")
    return Experts(
        count=fields.number("num_local_experts"),
        per_token=fields.number("num_experts_per_tok"),
        intermediate=width,
        shared=width if has_shared else 0,
    )


# ---- builds ----


def _dense(fields: Fields) -> Architecture:
    return _same(fields, _attention(fields), _mlp(fields))


def window_in_use(config: Mapping[str, Any]) -> int | None:
    """Return the window of attention that a dense model uses; None where each layer sees the whole sequence.

    Source:
        transformers: MistralConfig and Phi3Config use ``sliding_window`` where it is not null, and Mistral's
        is 4096 where it is left out; Qwen2Config and Qwen3Config use it with ``use_sliding_window`` only.
        From 4.53 on ``layer_types`` names the kind of each layer.
    """
    kind = str(config.get("model_type"))
    if not config.get("use_sliding_window", not kind.startswith("qwen")):
        return None
    window = config.get("sliding_window", 4096 if kind == "mistral" else None)
    return window if isinstance(window, int) else None


def _windowed(fields: Fields) -> Architecture:
    """Mistral, Phi-3, Qwen2 and Qwen3: one window for all layers or some, where it is used."""
    return _in_windows(fields, _windows(fields, window_in_use(fields.values)), _mlp(fields))


def _alternating(every: int) -> Callable[[Fields], Architecture]:
    """Gemma 2 and 3: a window in most layers, the whole sequence in every so many-th one."""

    def read(fields: Fields) -> Architecture:
        step = fields.number("sliding_window_pattern", every)
        windows = _windows(fields, fields.optional("sliding_window"), every=step)
        stack = _in_windows(fields, windows, _mlp(fields))
        return replace(stack, is_tied=bool(fields.values.get("tie_word_embeddings", True)))

    return read


def _local_experts(every: int) -> Callable[[Fields], Architecture]:
    """Mixtral, MiniMax-M2 and gpt-oss: experts in each layer; a window, but in every so many-th one."""

    def read(fields: Fields) -> Architecture:
        windows = _windows(fields, fields.optional("sliding_window"), every=every)
        return _in_windows(fields, windows, _numbered_experts(fields))

    return read


def _qwen_moe(fields: Fields) -> Architecture:
    """Qwen2-MoE and Qwen3-MoE: experts in every so many-th layer, but for those listed."""
    experts = Experts(
        count=fields.number("num_experts"),
        per_token=fields.number("num_experts_per_tok"),
        intermediate=fields.number("moe_intermediate_size"),
        shared=fields.number("shared_expert_intermediate_size", 0),
    )
    step, dense = fields.size("decoder_sparse_step", 1), set(fields.numbers("mlp_only_layers"))
    layers = []
    for place, attention in enumerate(_qwen_attentions(fields)):
        has_experts = place not in dense and (place + 1) % step == 0
        layers.append(Layer(attention=attention, mlp=experts if has_experts else _mlp(fields)))
    return _stack(fields, layers)


def _qwen_attentions(fields: Fields) -> list[AnyAttention]:
    count = fields.layers()
    if fields.values["model_type"] != "qwen3_next":
        return [_attention(fields)] * count
    delta = DeltaAttention(
        key_heads=fields.number("linear_num_key_heads"),
        value_heads=fields.number("linear_num_value_heads"),
        key_dim=fields.number("linear_key_head_dim"),
        value_dim=fields.number("linear_value_head_dim"),
        kernel=fields.number("linear_conv_kernel_dim"),
    )
    whole = _attention(fields, is_gated=True)
    kinds = fields.layer_kinds()
    every = fields.size("full_attention_interval", 4)
    is_whole = [kind == "full_attention" for kind in kinds] or [(n + 1) % every == 0 for n in range(count)]
    return [whole if is_it else delta for is_it in is_whole]


def _deepseek(fields: Fields) -> Architecture:
    """DeepSeek-V2, V3 and R1, Kimi-K2: latent attention; the first layers without experts."""
    attention = LatentAttention(
        heads=fields.number("num_attention_heads"),
        query_rank=fields.optional("q_lora_rank"),
        kv_rank=fields.number("kv_lora_rank"),
        rope_dim=fields.number("qk_rope_head_dim"),
        plain_dim=fields.number("qk_nope_head_dim"),
        value_dim=fields.number("v_head_dim"),
    )
    return _first_dense(fields, attention)


def _glm_moe(fields: Fields) -> Architecture:
    return _first_dense(fields, _attention(fields))


def _first_dense(fields: Fields, attention: AnyAttention) -> Architecture:
    width = fields.number("moe_intermediate_size")
    experts = Experts(
        count=fields.number("n_routed_experts"),
        per_token=fields.number("num_experts_per_tok"),
        intermediate=width,
        shared=width * fields.number("n_shared_experts", 0),
    )
    count, dense = fields.layers(), fields.number("first_k_dense_replace", 0)
    step = fields.size("moe_layer_freq", 1)
    layers = [
        Layer(attention=attention, mlp=experts if n >= dense and n % step == 0 else _mlp(fields))
        for n in range(count)
    ]
    return _stack(fields, layers)


def _llama4(fields: Fields) -> Architecture:
    """Llama 4: chunks of attention but in every fourth layer; experts in every so many-th one, one shared."""
    experts = _numbered_experts(fields, has_shared=True)
    dense = Mlp(intermediate=fields.number("intermediate_size_mlp"))
    step = fields.size("interleave_moe_layer_step", 1)
    chunk = fields.optional("attention_chunk_size")
    layers = []
    for place in range(fields.layers()):
        is_whole = (place + 1) % 4 == 0
        attention = _attention(fields, window=WHOLE if is_whole else chunk, is_chunked=not is_whole)
        layers.append(Layer(attention=attention, mlp=experts if (place + 1) % step == 0 else dense))
    return _stack(fields, layers)


def _two_matrices(fields: Fields) -> Architecture:
    return _same(fields, _attention(fields), _mlp(fields, matrices=2))


BUILDS: Mapping[str, Callable[[Fields], Architecture]] = {
    "llama": _dense,
    "granite": _dense,
    "qwen3": _windowed,
    "qwen2": _windowed,
    "mistral": _windowed,
    "phi3": _windowed,
    "gemma2": _alternating(2),
    "gemma3_text": _alternating(6),
    "mixtral": _local_experts(every=0),
    "gpt_oss": _local_experts(every=2),
    "qwen2_moe": _qwen_moe,
    "qwen3_moe": _qwen_moe,
    "qwen3_next": _qwen_moe,
    "deepseek_v2": _deepseek,
    "deepseek_v3": _deepseek,
    "kimi_k2": _deepseek,
    "glm4_moe": _glm_moe,
    "minimax_m2": _local_experts(every=0),
    "llama4_text": _llama4,
    "nemotron": _two_matrices,
    "starcoder2": _two_matrices,
}
"""How each ``model_type`` is read. Source: transformers 4.57, modeling files of these types."""


# ---- encoders of images ----


def _with_encoder(fields: Fields, kind: str) -> Architecture:
    """Read the decoder of a model of several parts, and count the encoder beside it."""
    text = dict(fields.values["text_config"])
    text.setdefault("tie_word_embeddings", fields.values.get("tie_word_embeddings", kind == "gemma3"))
    decoder = architecture_of(text, where=fields.where, prefix="text_config.")
    return replace(
        decoder, model_type=kind, encoder_parameters=_encoder(fields.part("vision_config"), decoder.hidden)
    )


def _encoder(vision: Fields, decoder_hidden: int) -> int:
    """Count a vision transformer of the usual build and the projection out of it, about."""
    if not vision.values:
        return 0
    hidden = vision.number("hidden_size")
    layers = vision.number("num_hidden_layers", vision.number("depth", 0))
    intermediate = vision.number("intermediate_size", 4 * hidden)
    patch = vision.number("patch_size", 14)
    return (
        layers * (4 * hidden * hidden + 2 * hidden * intermediate)
        + 3 * patch * patch * hidden
        + (hidden * decoder_hidden)
    )
