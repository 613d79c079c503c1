"""What ``python -m sweeper fit --json`` prints: the numbers of its tables, not rounded, and its sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sweeper.cli import as_json

if TYPE_CHECKING:
    from sweeper.models.fit import Fit
    from sweeper.models.sizes import Size


def of_modes(
    found: Mapping[str, Mapping[int, Fit]], *, engines: Callable[[str, int], int], mean_tokens: int | None
) -> list[dict[str, Any]]:
    """Return an entry for each mode and tensor parallel size.

    Args:
        found: Modes to sizes to what fits.
        engines: How many engines of a size the node of a mode has devices for, if it fits.
        mean_tokens: A further length whose sequences are counted; None counts the longest alone.
    """
    return [
        {
            "mode": mode,
            "tensor_parallel_size": size,
            "fits": fit.is_feasible and engines(mode, size) > 0,
            **_memory(fit),
            "needed_gib": fit.needed_gib,
            "available_gib": fit.available_gib,
            "engines": engines(mode, size) if fit.is_feasible else 0,
            **({} if mean_tokens is None else {"sequences_of_mean_tokens": fit.sequences(mean_tokens)}),
        }
        for mode, fits in found.items()
        for size, fit in fits.items()
    ]


def of_sizes(mode: str, found: Sequence[Size]) -> list[dict[str, Any]]:
    """Return an entry for each parallel size of a mode, with why it cannot be."""
    return [
        {
            "mode": mode,
            "size": size.words,
            "devices": size.devices,
            "fits": size.fit is not None and size.fit.is_feasible,
            **({} if size.fit is None else _memory(size.fit)),
            "why_not": size.answer or None,
        }
        for size in found
    ]


def _memory(fit: Fit) -> dict[str, Any]:
    return {
        "weights_gib": fit.weights_gib,
        "working_gib": fit.working_gib,
        "kv_cache_of_one_gib": fit.kv_cache_gib,
        "blocks": fit.blocks,
        "max_model_len": fit.max_model_len,
        "sequences": fit.sequences(),
    }


def text(model: str, release: str, entries: Sequence[Mapping[str, Any]], notes: Sequence[str]) -> str:
    """Return all of it as JSON."""
    told = {"model": model, "vllm": release, "sizes": list(entries), "notes": list(notes)}
    return as_json.text(told)
