"""How many bytes a number takes: of what is computed in, of the weights, of the KV cache, of a state."""

from __future__ import annotations

from sweeper.records import Assignment, Model

GIB = 2**30

PARTS = ("attention", "mlp", "experts", "shared")
"""The kinds of matrices of a layer that a checkpoint may store differently."""

_BYTES = {"float32": 4, "float": 4, "bfloat16": 2, "float16": 2, "half": 2}
_ONE_BYTE = ("fp8", "int8")


def bytes_of(dtype: str) -> int:
    """Return the bytes of one number of this type; a name that is not known counts as 16 bits."""
    return 1 if dtype.startswith(_ONE_BYTE) else _BYTES.get(dtype, 2)


def compute_dtype(model: Model, assignment: Assignment) -> str:
    """Return the type that is computed in: as asked, else the checkpoint's, which for fp8 is bfloat16."""
    asked = str(assignment.get("dtype", "auto"))
    own = model.dtype if model.dtype is not None and model.dtype in _BYTES else "bfloat16"
    return own if asked == "auto" else asked


def kv_dtype(model: Model, assignment: Assignment) -> str:
    """Return the type of the KV cache: as asked, else the type that is computed in."""
    asked = str(assignment.get("kv_cache_dtype", "auto"))
    return compute_dtype(model, assignment) if asked == "auto" else asked


def part_bytes(model: Model, assignment: Assignment) -> dict[str, float]:
    """Return the bytes of one weight for each kind of matrices of a layer."""
    width, stored = _matrix_bytes(model, assignment), model.quantization
    if stored is None:
        return dict.fromkeys(PARTS, width)
    return {part: stored.bits / 8 if part in stored.parts else width for part in PARTS}


def _matrix_bytes(model: Model, assignment: Assignment) -> float:
    """Bytes of one number of the layers' matrices."""
    quantization = str(assignment.get("quantization", "none")).lower()
    if model.dtype == "fp8" or any(kind in quantization for kind in _ONE_BYTE):
        return 1.0
    if quantization in ("none", "null", "auto") or model.quantization is not None:
        return float(bytes_of(compute_dtype(model, assignment)))
    # Of an unknown kind the smallest is taken: a trial that would have fitted must not be refused.
    return 0.5
