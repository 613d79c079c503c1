"""Reads decoders that mix attention with Mamba: a state of fixed size instead of a KV cache in most layers.

Source:
    transformers 5: configuration_jamba.py, configuration_bamba.py, configuration_granitemoehybrid.py,
    configuration_falcon_h1.py, configuration_nemotron_h.py, for names and what holds where one is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from sweeper.errors import ConfigError
from sweeper.models.config_fields import Fields, attention_of, mlp_of, stack_of
from sweeper.records.architecture import Architecture, Experts, Layer, Mamba, Mlp


def _mamba2(fields: Fields, *, inner: int | None = None) -> Mamba:
    """Mamba-2 under the names of Bamba, Granite 4 and Falcon-H1."""
    return Mamba(
        inner=inner or fields.size("mamba_expand", 2) * fields.size("hidden_size"),
        state=fields.size("mamba_d_state"),
        kernel=fields.size("mamba_d_conv", 4),
        heads=fields.size("mamba_n_heads"),
        groups=fields.size("mamba_n_groups", 1),
    )


def _jamba(fields: Fields) -> Architecture:
    """Attention in one of so many layers, the first Mamba in the others; experts in every so many-th."""
    hidden = fields.size("hidden_size")
    mamba = Mamba(
        inner=fields.size("mamba_expand", 2) * hidden,
        state=fields.size("mamba_d_state", 16),
        kernel=fields.size("mamba_d_conv", 4),
        time_rank=fields.optional("mamba_dt_rank") or math.ceil(hidden / 16),
    )
    attention, mlp = attention_of(fields), mlp_of(fields)
    experts = Experts(
        count=fields.number("num_experts", 16),
        per_token=fields.number("num_experts_per_tok", 2),
        intermediate=mlp.intermediate,
    )
    period, offset = fields.size("attn_layer_period", 8), fields.number("attn_layer_offset", 4)
    step, first = fields.size("expert_layer_period", 2), fields.number("expert_layer_offset", 1)
    return stack_of(
        fields,
        [
            Layer(
                attention=attention if n % period == offset else mamba,
                mlp=experts if n % step == first and experts.count > 1 else mlp,
            )
            for n in range(fields.layers())
        ],
    )


def _bamba(fields: Fields) -> Architecture:
    """Mamba-2, but attention in the layers that are listed."""
    attention, mamba, mlp = attention_of(fields), _mamba2(fields), mlp_of(fields)
    whole = set(fields.numbers("attn_layer_indices"))
    return stack_of(
        fields,
        [Layer(attention=attention if n in whole else mamba, mlp=mlp) for n in range(fields.layers())],
    )


def _granite_hybrid(fields: Fields) -> Architecture:
    """Granite 4: Mamba-2 or attention by ``layer_types``; experts beside a shared one, or that alone."""
    attention, mamba = attention_of(fields), _mamba2(fields)
    shared, count = fields.size("shared_intermediate_size"), fields.number("num_local_experts", 0)
    mlp: Mlp | Experts = Mlp(intermediate=shared)
    if count:
        mlp = Experts(
            count=count,
            per_token=fields.number("num_experts_per_tok"),
            intermediate=fields.size("intermediate_size"),
            shared=shared,
        )
    kinds = fields.layer_kinds() or ["mamba"] * fields.layers()
    return stack_of(
        fields, [Layer(attention=attention if kind == "attention" else mamba, mlp=mlp) for kind in kinds]
    )


def _falcon_h1(fields: Fields) -> Architecture:
    """Falcon-H1: attention and Mamba-2 side by side in each layer."""
    mamba = _mamba2(fields, inner=fields.optional("mamba_d_ssm"))
    layer = Layer(attention=attention_of(fields), mlp=mlp_of(fields), beside=mamba)
    return stack_of(fields, [layer] * fields.layers())


_NEMOTRON_KINDS = {"M": "linear_attention", "*": "full_attention", "-": "mlp", "E": "moe"}


def _nemotron_h(fields: Fields) -> Architecture:
    """Nemotron-H: each layer is Mamba-2, attention, an MLP or experts alone.

    What follows a mixer is counted as its layer's MLP, so that a layer here is one or two of its config's.
    """
    mamba = Mamba(
        inner=fields.size("mamba_num_heads") * fields.size("mamba_head_dim"),
        state=fields.size("ssm_state_size"),
        kernel=fields.size("conv_kernel", 4),
        heads=fields.size("mamba_num_heads"),
        groups=fields.size("n_groups", 8),
        state_dtype=fields.text("mamba_ssm_cache_dtype") or "float32",
    )
    head_dim = fields.size("head_dim", fields.size("attention_head_dim", 128))
    attention = replace(attention_of(fields), head_dim=head_dim)
    layers: list[Layer] = []
    for kind in _nemotron_kinds(fields):
        if kind == "full_attention" or kind == "linear_attention":
            mixer = attention if kind == "full_attention" else mamba
            layers.append(Layer(attention=mixer, mlp=Mlp(intermediate=0, matrices=2)))
        elif layers:
            layers[-1] = replace(layers[-1], mlp=_nemotron_mlp(fields, has_experts=kind == "moe"))
    return stack_of(fields, layers)


def _nemotron_kinds(fields: Fields) -> Sequence[str]:
    """Return what each layer is, of a list of words or a text with a letter for each.

    Raises:
        ConfigError: There is neither, or a letter is not known.
    """
    words = fields.values.get("layers_block_type")
    if isinstance(words, list):
        return [str(word) for word in words]
    letters = fields.text("hybrid_override_pattern") or ""
    if not letters or set(letters) - set(_NEMOTRON_KINDS):
        raise ConfigError(
            f"{fields.where}: {fields.prefix}hybrid_override_pattern is {letters!r}; expected a letter for "
            f"each layer, of {' '.join(_NEMOTRON_KINDS)}. Correct it, or name another model."
        )
    return [_NEMOTRON_KINDS[letter] for letter in letters]


def _nemotron_mlp(fields: Fields, *, has_experts: bool) -> Mlp | Experts:
    if not has_experts:
        return mlp_of(fields, matrices=2)
    return Experts(
        count=fields.size("n_routed_experts"),
        per_token=fields.size("num_experts_per_tok"),
        intermediate=fields.size("moe_intermediate_size"),
        shared=fields.number("moe_shared_expert_intermediate_size", 0) * fields.number("n_shared_experts", 1),
        matrices=2,
    )


BUILDS: Mapping[str, Callable[[Fields], Architecture]] = {
    "jamba": _jamba,
    "bamba": _bamba,
    "granitemoehybrid": _granite_hybrid,
    "falcon_h1": _falcon_h1,
    "nemotron_h": _nemotron_h,
}
"""How each ``model_type`` is read."""
