"""Reads a config.json into an `Architecture`: one short function for each way in which decoders are built.

A build is known by its ``model_type``; the presence of a field proves nothing, since the same name means
other things elsewhere. A build that is not listed is refused with its name, so that nothing is counted wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sweeper.errors import ConfigError, nearest
from sweeper.models import hybrid_builds
from sweeper.models.config_fields import Fields, attention_of, mlp_of, stack_of
from sweeper.records.architecture import (
    WHOLE,
    AnyAttention,
    Architecture,
    DeltaAttention,
    Experts,
    LatentAttention,
    Layer,
    Mlp,
)


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


def _same(fields: Fields, attention: AnyAttention, mlp: Mlp | Experts) -> Architecture:
    layer = Layer(attention=attention, mlp=mlp)
    return stack_of(fields, [layer] * fields.layers())


def _windows(fields: Fields, window: int | None, *, every: int = 0) -> list[int | None]:
    """Return the window of each layer: by ``layer_types``, or the whole sequence in every so many-th one."""
    count, kinds = fields.layers(), fields.layer_kinds()
    if kinds:
        return [WHOLE if kind == "full_attention" else window for kind in kinds]
    return [WHOLE if every and (place + 1) % every == 0 else window for place in range(count)]


def _in_windows(fields: Fields, windows: Sequence[int | None], mlp: Mlp | Experts) -> Architecture:
    """Return a stack of layers that differ in their windows alone."""
    return stack_of(
        fields, [Layer(attention=attention_of(fields, window=window), mlp=mlp) for window in windows]
    )


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
    return _same(fields, attention_of(fields), mlp_of(fields))


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
    return _in_windows(fields, _windows(fields, window_in_use(fields.values)), mlp_of(fields))


def _alternating(every: int) -> Callable[[Fields], Architecture]:
    """Gemma 2 and 3: a window in most layers, the whole sequence in every so many-th one."""

    def read(fields: Fields) -> Architecture:
        step = fields.number("sliding_window_pattern", every)
        windows = _windows(fields, fields.optional("sliding_window"), every=step)
        stack = _in_windows(fields, windows, mlp_of(fields))
        return replace(stack, is_tied=bool(fields.values.get("tie_word_embeddings", True)))

    return read


def _local_experts(every: int) -> Callable[[Fields], Architecture]:
    """Mixtral, MiniMax-M2 and gpt-oss: experts in each layer; a window, but in every so many-th one."""

    def read(fields: Fields) -> Architecture:
        windows = _windows(fields, fields.optional("sliding_window"), every=every)
        return _in_windows(fields, windows, _numbered_experts(fields))

    return read


_LINEAR_QWENS = ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text")


def _qwen_dense(fields: Fields) -> Architecture:
    """Qwen3.5 without experts: linear attention but in every so many-th layer."""
    return stack_of(fields, [Layer(attention=one, mlp=mlp_of(fields)) for one in _qwen_attentions(fields)])


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
        layers.append(Layer(attention=attention, mlp=experts if has_experts else mlp_of(fields)))
    return stack_of(fields, layers)


def _qwen_attentions(fields: Fields) -> list[AnyAttention]:
    count = fields.layers()
    if fields.values["model_type"] not in _LINEAR_QWENS:
        return [attention_of(fields)] * count
    delta = DeltaAttention(
        key_heads=fields.number("linear_num_key_heads"),
        value_heads=fields.number("linear_num_value_heads"),
        key_dim=fields.number("linear_key_head_dim"),
        value_dim=fields.number("linear_value_head_dim"),
        kernel=fields.number("linear_conv_kernel_dim"),
        state_dtype=fields.text("mamba_ssm_dtype"),
    )
    whole = attention_of(fields, is_gated=True)
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
    return _first_dense(fields, attention_of(fields))


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
        Layer(attention=attention, mlp=experts if n >= dense and n % step == 0 else mlp_of(fields))
        for n in range(count)
    ]
    return stack_of(fields, layers)


def _llama4(fields: Fields) -> Architecture:
    """Llama 4: chunks of attention but in every fourth layer; experts in every so many-th one, one shared."""
    experts = _numbered_experts(fields, has_shared=True)
    dense = Mlp(intermediate=fields.number("intermediate_size_mlp"))
    step = fields.size("interleave_moe_layer_step", 1)
    chunk = fields.optional("attention_chunk_size")
    layers = []
    for place in range(fields.layers()):
        is_whole = (place + 1) % 4 == 0
        attention = attention_of(fields, window=WHOLE if is_whole else chunk, is_chunked=not is_whole)
        layers.append(Layer(attention=attention, mlp=experts if (place + 1) % step == 0 else dense))
    return stack_of(fields, layers)


def _two_matrices(fields: Fields) -> Architecture:
    return _same(fields, attention_of(fields), mlp_of(fields, matrices=2))


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
    "qwen3_5_text": _qwen_dense,
    "qwen3_5_moe_text": _qwen_moe,
    **hybrid_builds.BUILDS,
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
