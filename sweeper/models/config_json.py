"""A model's dimensions as its own config.json gives them, for a model that has no file in conf/model.

Only dense decoders of Llama's build are understood: what is worked out from a shape counts two projections
of the KV heads, an MLP of three matrices, and a KV cache of the whole sequence in every layer. A file with
the same fields may describe another build: a build is known by its ``model_type``, and others are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeper.errors import ConfigError
from sweeper.records import Model, ModelShape

_FIELDS = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "intermediate": "intermediate_size",
    "heads": "num_attention_heads",
    "vocab": "vocab_size",
    "max_positions": "max_position_embeddings",
}
# Builds that count as Llama's does, with the class that serves them. Biases and norms of queries and keys,
# which some of them add, are below a thousandth of the weights.
# Source: transformers 4.56, modeling files of these model_types; vLLM 0.32.0, model_executor/models/.
_BUILDS: Mapping[str, str] = {
    "granite": "GraniteForCausalLM",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
_TWO_MATRICES = "an MLP of two matrices"
_LOCAL = "layers with local attention, whose KV cache is shorter than the sequence"
_STATES = "layers with a state in place of a KV cache (Mamba, linear attention)"
# What is known of some other builds, for the reason in words. Source: as above.
_OTHER_BUILDS: Mapping[str, str] = {
    **dict.fromkeys(("bloom", "falcon", "gpt2", "gpt_bigcode", "gpt_neox", "mpt", "opt"), _TWO_MATRICES),
    **dict.fromkeys(("nemotron", "phi", "starcoder2"), _TWO_MATRICES),
    **dict.fromkeys(("cohere2", "exaone4", "gemma2", "gemma3_text", "gpt_oss", "olmo3"), _LOCAL),
    **dict.fromkeys(("bamba", "falcon_h1", "granitemoehybrid", "jamba", "mamba", "mamba2"), _STATES),
    **dict.fromkeys(("minimax", "nemotron_h", "qwen3_next", "zamba2"), _STATES),
    "nemotron-nas": "layers that differ from one another",
}
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_DTYPES = ("bfloat16", "float16", "float32")


def read(path: Path) -> Model:
    """Read a model's config.json.

    Args:
        path: The file, or the folder that it lies in.

    Raises:
        ConfigError: It is not there, is no JSON, lacks a dimension, or is of another build.

    Source:
        transformers' LlamaConfig: names, and ``head_dim`` and ``num_key_value_heads`` where they are left
        out. ``torch_dtype`` is ``dtype`` since transformers 4.56. ``quant_method`` of 8 bits means fp8 here.
    """
    file = path / "config.json" if path.is_dir() else path
    config = _json(file)
    _refuse_other_builds(config, file)
    shape = {name: _number(config, key, file) for name, key in _FIELDS.items()}
    heads = shape["heads"]
    return Model(
        name=str(config.get("_name_or_path") or file.resolve().parent.name),
        path=str(file.parent),
        dtype=_dtype(config, file),
        shape=ModelShape(
            **shape,
            kv_heads=_number({"n": config.get("num_key_value_heads") or heads}, "n", file),
            head_dim=_number({"n": config.get("head_dim") or shape["hidden"] // heads}, "n", file),
            tied_embeddings=bool(config.get("tie_word_embeddings", False)),
        ),
    )


def why_no_shape(path: str) -> str:
    """Return in words why the dimensions of a model at this path cannot be read."""
    folder = Path(path)
    if not folder.is_dir():
        return f"no config.json: '{path}' is no folder of this machine"
    if not (folder / "config.json").exists():
        return f"no config.json in {path}"
    try:
        read(folder)
    except ConfigError as exc:
        return str(exc)
    return f"{path}/config.json was not read"


def _refuse_other_builds(config: Mapping[str, Any], file: Path) -> None:
    """Refuse whatever is not known to be built as Llama is, with what it has that is not worked out."""
    _refuse_experts(config, file)
    kind = str(config.get("model_type", "not given"))
    text = config.get("text_config")
    if isinstance(text, dict):
        raise ConfigError(
            f"{file}: model_type is '{kind}', of several parts: its decoder ({text.get('model_type')!r}) "
            "stands in text_config, and what its encoder takes is not worked out. "
            f"{_expected()} Take another, or measure."
        )
    if kind not in _BUILDS:
        other = _OTHER_BUILDS.get(kind)
        reason = f"which has {other}" if other else "whose build is not known here"
        raise ConfigError(
            f"{file}: model_type is '{kind}', {reason}. {_expected()} Take another, or measure."
        )
    _refuse_local_attention(config, file)
    classes = config.get("architectures") or [_BUILDS[kind]]
    if not isinstance(classes, list) or str(classes[0]).lower() != _BUILDS[kind].lower():
        raise ConfigError(
            f"{file}: architectures is {classes!r} with model_type '{kind}'; expected ['{_BUILDS[kind]}'], "
            "since another class may be built otherwise. Take another, or measure."
        )


def _expected() -> str:
    return f"Expected a dense decoder built as Llama is: model_type {', '.join(_BUILDS)}."


def _refuse_experts(config: Mapping[str, Any], file: Path) -> None:
    """Refuse experts and latent attention, which some configs have in a part of their own."""
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    experts = [name for part in parts for name in _EXPERTS if part.get(name)]
    if experts:
        raise ConfigError(
            f"{file}: has '{experts[0]}', so it is a mixture of experts; expected a dense decoder like "
            "Llama, since how many of the weights a step reads is not worked out. Take another, or measure."
        )
    if any("kv_lora_rank" in part for part in parts):
        raise ConfigError(
            f"{file}: has 'kv_lora_rank'; expected a dense decoder like Llama, since latent attention is not "
            "worked out here. Take another model, or measure."
        )


def _refuse_local_attention(config: Mapping[str, Any], file: Path) -> None:
    """Refuse windows of attention, which models of these types have or have not.

    Source:
        transformers: MistralConfig and Phi3Config use ``sliding_window`` where it is not null, and Mistral's
        is 4096 where it is left out; Qwen2Config and Qwen3Config use it with ``use_sliding_window`` only.
        From 4.53 on ``layer_types`` names the kind of each layer.
    """
    kind = config["model_type"]
    is_used = config.get("use_sliding_window", not str(kind).startswith("qwen"))
    window = config.get("sliding_window", 4096 if kind == "mistral" else None) if is_used else None
    told_kinds = config.get("layer_types")
    kinds = [kind for kind in told_kinds if kind != "full_attention"] if isinstance(told_kinds, list) else []
    longest = config.get("max_position_embeddings")
    is_shorter = isinstance(window, int) and (not isinstance(longest, int) or window < longest)
    if kinds or is_shorter:
        told = f"layer_types has '{kinds[0]}'" if kinds else f"sliding_window is {window}"
        raise ConfigError(
            f"{file}: {told}, so it has {_LOCAL}; expected attention over the whole sequence in every layer, "
            "since others are not worked out. Take another, or measure."
        )


def _json(file: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(
            f"{file}: {exc.strerror or exc}; expected a model's config.json. Name the file or its folder."
        ) from exc
    except ValueError as exc:
        raise ConfigError(
            f"{file}: is no JSON ({exc}); expected a model's config.json. Name another."
        ) from exc
    if not isinstance(config, dict):
        raise ConfigError(f"{file}: is no JSON object; expected a model's config.json. Name another.")
    return config


def _number(config: Mapping[str, Any], key: str, file: Path) -> int:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(
            f"{file}: {key} is {value!r}; expected a whole number of at least 1, as in the config.json of a "
            "dense decoder like Llama. Name another file."
        )
    return value


def _dtype(config: Mapping[str, Any], file: Path) -> str:
    quantization = config.get("quantization_config") or {}
    method = str(quantization.get("quant_method", "")) if isinstance(quantization, dict) else ""
    if "fp8" in method:
        return "fp8"
    if method:
        raise ConfigError(
            f"{file}: quant_method is '{method}'; expected fp8 or none, whose sizes are known here. Measure."
        )
    dtype = str(config.get("torch_dtype") or config.get("dtype") or "bfloat16").removeprefix("torch.")
    if dtype not in _DTYPES:
        raise ConfigError(f"{file}: torch_dtype is '{dtype}'; expected one of {', '.join(_DTYPES)}.")
    return dtype
