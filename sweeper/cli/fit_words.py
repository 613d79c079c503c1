"""What ``python -m sweeper fit`` says beside its numbers: the table of all sizes, and what to trust of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeper.models.fit import Fit
    from sweeper.models.sizes import Size
    from sweeper.records import Model

SIZES_LEGEND = """\
{model}, vLLM {release}
Tensor (TP), pipeline (PP) and data (DP) parallel sizes; EP shares experts out whole. Of each device: GiB of
weights and of what is left for the KV cache. Of each replica: tokens of the cache as vLLM logs them, and
sequences of the longest length that it holds at once.
"""

_HEAD = ["size", "devices", "legal", "fits", "weights", "KV", "tokens", "sequences", "why not"]


def size_rows(found: Sequence[Size]) -> list[list[str]]:
    """Return the head of the table of sizes, and a row for each."""
    return [_HEAD, *(_row(size) for size in found)]


def _row(size: Size) -> list[str]:
    fit = size.fit
    if fit is None:
        return [size.words, str(size.devices), "no", "no", *[""] * 4, size.answer]
    cells = [f"{fit.weights_gib:.1f}", f"{max(0.0, fit.free_gib):.1f}"]
    counts = [f"{fit.tokens:,}", str(fit.sequences())] if fit.is_feasible else ["", ""]
    answer = "yes" if fit.is_feasible else "no"
    return [size.words, str(size.devices), "yes", answer, *cells, *counts, size.answer]


def notes(fit: Fit, model: Model, *, release: str) -> list[str]:
    """Return how the cache is laid out where layers differ, and what of all that is exact.

    Args:
        fit: Of any size: which layers there are is the same for all.
        model: What is served.
        release: Release of vLLM.
    """
    lines = []
    if fit.cache.is_mixed:
        words: dict[str, int] = {}
        for group in fit.cache.groups:
            words[group.words] = words.get(group.words, 0) + 1
        named = "; ".join(f"{count} of {word}" for word, count in words.items())
        lines.append(f"KV cache groups: {named}. A sequence takes blocks in each.")
    built = model.built
    if built is not None and built.draft_layers:
        lines.append(
            f"Not counted: {built.draft_layers} layer that predicts further tokens, loaded for speculative "
            f"decoding only ({built.draft_parameters / 1e9:.1f}B weights)."
        )
    lines.append(
        "Exact: KV bytes, groups and blocks of a given memory with vLLM 0.32.0, and weights of layers "
        "that are all stored alike. Estimated: working memory, encoders, stages of a pipeline"
        + ("." if release == "0.32.0" else f", and groups and logged tokens of vLLM {release}.")
    )
    lines.append("An estimate; docs/fit.md says how good it is.")
    return lines
