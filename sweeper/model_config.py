"""A model's dimensions as its own config.json gives them, for a model that has no file in conf/model.

Only dense decoders of Llama's build are understood (Llama, Mistral, Qwen2 and their like): what is worked
out from a shape counts two projections of the KV heads and an MLP of three matrices. Others are refused.
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


def _refuse_other_builds(config: Mapping[str, Any], file: Path) -> None:
    """Refuse experts and latent attention, which some configs tell in a part of their own."""
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
