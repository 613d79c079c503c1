"""A model as the fields of its config.json describe it: from a file, or written out in conf/model.

Dense decoders of Llama's build become a `ModelShape`, as they always did, so that the keys of stored trials
hold; every other build that ``builds`` knows becomes an `Architecture`. A build is known by its
``model_type``, and others are refused: a file with the same fields may describe another build.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweeper.errors import ConfigError
from sweeper.models import builds, quantization
from sweeper.models.config_fields import positions
from sweeper.records import Model, ModelShape, Quantization
from sweeper.records.architecture import MOST_LAYERS, Architecture

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
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_SERVED = ("ForCausalLM", "ForConditionalGeneration")
"""How the classes of whole models end; others, such as drafts for speculative decoding, differ."""

_DTYPES = ("bfloat16", "float16", "float32")


def read(path: Path) -> Model:
    """Read a model's config.json.

    Args:
        path: The file, or the folder that it lies in.

    Raises:
        ConfigError: It is not there, is no JSON, lacks a dimension, or is of a build that is not known.

    Source:
        transformers' LlamaConfig: names, and ``head_dim`` and ``num_key_value_heads`` where they are left
        out. ``torch_dtype`` is ``dtype`` since transformers 4.56.
    """
    file = path / "config.json" if path.is_dir() else path
    config = content(file)
    name = str(config.get("_name_or_path") or file.resolve().parent.name)
    return describe(config, where=str(file), name=name, path=str(file.parent))


def describe(config: Mapping[str, Any], *, where: str, name: str, path: str) -> Model:
    """Return the model that the fields of a config.json describe.

    Args:
        config: The fields, under the names that they have there.
        where: The file, or the key that holds them, for messages.
        name: What the model is served as.
        path: Where the engine finds it.

    Raises:
        ConfigError: They lack a dimension, or are of a build that is not known.
    """
    _refuse_other_classes(config, where)
    _refuse_contradictions(config, where)
    stored = quantization.read(config, where=where)
    is_plain_fp8 = quantization.is_plain_fp8(stored)
    is_llamas = _is_built_as_llama(config)
    return Model(
        name=name,
        path=path,
        dtype="fp8" if is_plain_fp8 else _dtype(config, where),
        shape=_shape(config, where) if is_llamas else None,
        architecture=None if is_llamas else _architecture(config, stored, where=where),
        quantization=None if is_plain_fp8 else stored,
        scaled_by=stored.method if stored is not None and is_plain_fp8 and stored.method != "fp8" else None,
    )


def _architecture(config: Mapping[str, Any], stored: Quantization | None, *, where: str) -> Architecture:
    built = builds.architecture_of(config, where=where)
    has_blocks = stored is not None and "experts" in stored.parts
    return replace(built, block_rows=quantization.block_rows(config) if has_blocks else None)


def why_no_shape(path: str) -> str:
    """Return in words why the dimensions of a model at this path cannot be read."""
    folder = Path(path)
    if not folder.is_dir():
        return f"no config.json: '{path}' is no folder of this machine"
    if not (folder / "config.json").exists():
        return f"no config.json in {path}"
    try:
        fields = content(folder / "config.json")
        if is_unknown_build(fields):
            return why_unknown(fields)
        read(folder)
    except ConfigError as exc:
        return str(exc)
    return f"{path}/config.json was not read"


def is_unknown_build(config: Mapping[str, Any] | None) -> bool:
    """Whether the fields of a config.json are of a build that this release cannot read."""
    return bool(config) and _unknown_type(config or {}) is not None


def why_unknown(config: Mapping[str, Any]) -> str:
    """Return in words that the build is not known."""
    return f"model_type '{_unknown_type(config)}' is not known to this release"


def _unknown_type(config: Mapping[str, Any]) -> str | None:
    """Return the ``model_type`` whose build is not known: the decoder's, in a model of several parts."""
    text = config.get("text_config")
    kind = str((text if isinstance(text, Mapping) else config).get("model_type", "not given"))
    return None if kind in builds.BUILDS else kind


def _kind(config: Mapping[str, Any]) -> str:
    """Return the ``model_type`` as a text, whatever stands there."""
    return str(config.get("model_type"))


def _is_built_as_llama(config: Mapping[str, Any]) -> bool:
    """Return whether a model is a dense decoder whose layers all see the whole sequence."""
    if _kind(config) not in _BUILDS or isinstance(config.get("text_config"), dict):
        return False
    window, kinds = builds.window_in_use(config), config.get("layer_types")
    has_others = isinstance(kinds, list) and any(kind != "full_attention" for kind in kinds)
    longest = config.get("max_position_embeddings")
    is_shorter = window is not None and (not isinstance(longest, int) or window < longest)
    return not has_others and not is_shorter


def _refuse_other_classes(config: Mapping[str, Any], where: str) -> None:
    """Refuse a class that is not a whole model of its ``model_type``."""
    kind = _kind(config)
    wanted = _BUILDS.get(kind)
    classes = config.get("architectures")
    if classes is None:
        return
    named = str(classes[0]) if isinstance(classes, list) and classes else ""
    is_known = named.lower() == wanted.lower() if wanted else named.endswith(_SERVED)
    if not is_known:
        raise ConfigError(
            f"{where}: architectures is {classes!r} with model_type '{kind}'; expected "
            f"{[wanted] if wanted else 'a class that ends in ' + ' or '.join(_SERVED)}, since another class "
            "may be built otherwise. Take another, or measure."
        )


def _refuse_contradictions(config: Mapping[str, Any], where: str) -> None:
    """Refuse a dense build that has what makes another one: experts, or latent attention."""
    kind = _kind(config)
    if kind not in _BUILDS:
        return
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    for name in (*_EXPERTS, "kv_lora_rank"):
        if any(part.get(name) for part in parts):
            raise ConfigError(
                f"{where}: has '{name}' with model_type '{kind}', which is a dense decoder "
                "like Llama and has none; expected the model_type of its own build. Correct the "
                "file, or measure."
            )


def _shape(config: Mapping[str, Any], where: str) -> ModelShape:
    shape = {name: _number(config, key, where) for name, key in _FIELDS.items()}
    shape["max_positions"] = positions(shape["max_positions"], config)
    if shape["layers"] > MOST_LAYERS:
        raise ConfigError(
            f"{where}: num_hidden_layers is {shape['layers']:,}; expected at most {MOST_LAYERS:,}. "
            "Name another file."
        )
    heads = shape["heads"]
    return ModelShape(
        **shape,
        kv_heads=_number({"n": config.get("num_key_value_heads") or heads}, "n", where),
        head_dim=_number({"n": config.get("head_dim") or shape["hidden"] // heads}, "n", where),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
    )


def content(file: Path) -> Mapping[str, Any]:
    """Return the fields of a config.json as they stand there.

    Raises:
        ConfigError: It is not there, or is no JSON object.
    """
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(
            f"{file}: {exc.strerror or exc}; expected a model's config.json. Name the file or its folder."
        ) from exc
    except (ValueError, RecursionError) as exc:
        raise ConfigError(
            f"{file}: is no JSON ({exc}); expected a model's config.json. Name another."
        ) from exc
    if not isinstance(config, dict):
        raise ConfigError(f"{file}: is no JSON object; expected a model's config.json. Name another.")
    return config


def _number(config: Mapping[str, Any], key: str, where: str) -> int:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(
            f"{where}: {key} is {value!r}; expected a whole number of at least 1, as in the config.json of a "
            "dense decoder like Llama. Name another file."
        )
    return value


def _dtype(config: Mapping[str, Any], where: str) -> str:
    """Return the type that is computed in; models of several parts say it in one of them."""
    text = config.get("text_config")
    parts = (config, text) if isinstance(text, Mapping) else (config,)
    said = next(
        (part[key] for part in parts for key in ("torch_dtype", "dtype") if part.get(key)), "bfloat16"
    )
    dtype = str(said).removeprefix("torch.")
    if dtype not in _DTYPES:
        raise ConfigError(f"{where}: torch_dtype is '{dtype}'; expected one of {', '.join(_DTYPES)}.")
    return dtype
