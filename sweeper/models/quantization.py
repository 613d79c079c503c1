"""How a checkpoint stores its weights, as the ``quantization_config`` of its config.json says.

What matters here is how many bits a weight takes with its share of scales and zero points, and which
matrices are stored so. Lists of exceptions name modules by part of their name or by a regular expression;
they are read as far as whole parts of a layer are meant (attention, shared experts). Single layers that stay
in 16 bits are not counted apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.errors import ConfigError
from sweeper.records import Quantization

ALL = frozenset({"attention", "mlp", "experts", "shared"})
"""The parts of a layer that have matrices."""
# A module of each part, as vLLM names it, to hold the exceptions against.
_MODULES = {
    "attention": ("model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.o_proj"),
    "mlp": ("model.layers.1.mlp.down_proj", "model.layers.1.mlp.gate_proj"),
    "experts": ("model.layers.1.mlp.experts.1.down_proj", "model.layers.1.mlp.experts"),
    "shared": ("model.layers.1.mlp.shared_experts.down_proj", "model.layers.1.mlp.shared_experts"),
}
_EXCEPTIONS = ("modules_to_not_convert", "ignored_layers", "ignore", "exclude")
_SCALE_BITS = 16
_MXFP4_BITS = 4 + 8 / 32
"""Four bits, and a scale of eight bits for each 32 weights. Source: OCP Microscaling Formats, 1.0."""


def read(config: Mapping[str, Any], *, where: str) -> Quantization | None:
    """Read how the weights are stored; None where they are not quantized.

    Args:
        config: The content of a config.json.
        where: The file, for messages.

    Raises:
        ConfigError: The method is not known, or says no number of bits.

    Source:
        transformers 4.57, utils/quantization_config.py; compressed-tensors 0.12, quantization/quant_args.py;
        AMD Quark's export of Hugging Face checkpoints.
    """
    stored = config.get("quantization_config")
    if not isinstance(stored, Mapping):
        return None
    method = str(stored.get("quant_method", ""))
    bits = _bits(stored, method)
    if bits is None:
        raise ConfigError(
            f"{where}: quantization_config.quant_method is '{method}', of which it is not known how many "
            "bits a weight takes; expected fp8, awq, gptq, compressed-tensors, mxfp4 or quark. Measure it."
        )
    return Quantization(method=method, bits=bits, parts=_parts(stored, method))


def is_plain_fp8(stored: Quantization | None) -> bool:
    """Return whether all weights are stored in eight bits, which the ``fp8`` of a ``Model`` says alone."""
    return stored is not None and stored.bits == 8 and len(stored.parts) == len(ALL)


def block_rows(config: Mapping[str, Any]) -> int | None:
    """Return the rows of the blocks of fp8 weights that share a scale; None where they are not stored so."""
    stored = config.get("quantization_config")
    size = stored.get("weight_block_size") if isinstance(stored, Mapping) else None
    is_pair = isinstance(size, Sequence) and not isinstance(size, str) and len(size) == 2
    rows = size[0] if is_pair and size is not None else None
    return rows if isinstance(rows, int) and rows > 0 else None


def _bits(stored: Mapping[str, Any], method: str) -> float | None:
    match method:
        case "fp8" | "fbgemm_fp8" | "modelopt" if "fp4" not in str(stored).lower():
            return 8.0
        case "mxfp4":
            return _MXFP4_BITS
        case "awq":
            return _with_scales(
                stored.get("bits", stored.get("w_bit", 4)), stored.get("group_size"), zeros=True
            )
        case "gptq":
            return _with_scales(stored.get("bits"), stored.get("group_size"), zeros=True)
        case "compressed-tensors":
            first = next(iter(_part(stored.get("config_groups")).values()), None)
            weights = _part(_part(first).get("weights"))
            return _with_scales(weights.get("num_bits"), weights.get("group_size"))
        case "quark":
            told = _part(stored.get("global_quant_config")).get("weight")
            weights = _part(told[0] if isinstance(told, list) and told else told)
            return _quark_bits(str(weights.get("dtype", "")), weights.get("group_size"))
    return None


def _part(value: object) -> Mapping[str, Any]:
    """Return a part that has keys of its own; empty where something else stands there."""
    return value if isinstance(value, Mapping) else {}


def _quark_bits(dtype: str, group: object) -> float | None:
    if dtype.startswith("fp4"):
        return _MXFP4_BITS
    found = re.match(r"(?:fp|int|uint)(\d+)", dtype)
    return _with_scales(int(found[1]), group) if found else None


def _with_scales(bits: object, group: object, *, zeros: bool = False) -> float | None:
    """Add to a weight's bits its share of its group's scale, and of the zero point."""
    if isinstance(bits, bool) or not isinstance(bits, int | float) or not 0 < bits <= _SCALE_BITS:
        return None
    if not isinstance(group, int) or isinstance(group, bool) or group <= 0:
        return float(bits)  # one scale a channel or a tensor
    return bits + (_SCALE_BITS + (bits if zeros else 0)) / group


def _parts(stored: Mapping[str, Any], method: str) -> frozenset[str]:
    named = [words for name in _EXCEPTIONS if isinstance(words := stored.get(name), Sequence)]
    exceptions = [word for words in named if not isinstance(words, str) for word in words]
    quantized = {
        part
        for part, modules in _MODULES.items()
        if not any(_names(str(word), module) for word in exceptions for module in modules)
    }
    return frozenset(quantized & {"experts"} if method == "mxfp4" else quantized) or ALL


def _names(exception: str, module: str) -> bool:
    """Whether an exception means a module of every layer: a pattern, or a word without a layer's number."""
    if exception.startswith("re:"):
        try:
            return re.search(exception.removeprefix("re:"), module) is not None
        except re.error:
            return False
    plain = exception.replace("model.layers.*.", "").replace("*", "")
    return not re.search(r"\d", plain) and plain.strip(".") in module and plain.strip(".") != ""
