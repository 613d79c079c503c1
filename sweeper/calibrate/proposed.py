"""Stacks that are not shipped, from public measurements of several makers: AITER on after 0.10.0, and MI355X.

Each is the newest V1 stack with a few parameters moved. How good that is says leaving out one model at a
time, with all sources that have it: the rest tells of others on the same kind of software. Nothing here is
used by a run; ``python -m sweeper.calibrate.proposed`` makes ``data/proposed_stacks.json`` anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sweeper.calibrate import public
from sweeper.calibrate.figures import Figure, predict, relative_errors
from sweeper.calibrate.fitting import fit
from sweeper.simulation import calibration

PROPOSED = Path(__file__).parent / "data" / "proposed_stacks.json"
_BASIS = "amd_0_10_0"
_RIDGE = 0.05
_ROUNDS = 4


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A stack by the sources that tell of it.

    Attributes:
        name: Of the calibration.
        device: One of ``DEVICES``.
        release: In the middle of those of its sources.
        sources: Names in ``public``.
        parameters: Those that move.
    """

    name: str
    device: str
    release: str
    sources: tuple[str, ...]
    parameters: tuple[str, ...]


PROPOSALS = (
    Proposal(
        name="aiter_0_14",
        device="mi300x",
        release="0.14.0",
        sources=(
            *("inferencex_llama_70b_mi300x", "inferencex_llama_70b_mi325x"),
            *("inferencex_minimax_m2_5_mi300x", "inferencex_minimax_m2_5_mi325x"),
            *("vllm_blog_qwen3_235b_mi300x", "vllm_blog_qwen3_235b_mi325x"),
            *("vllm_blog_deepseek_r1_mi300x", "vllm_blog_deepseek_r1_mi325x"),
        ),
        parameters=("kernel_layer_s", "kv_read_frac", "sample_s", "gemm_half_tokens"),
    ),
    Proposal(
        name="mi355x_0_14",
        device="mi355x",
        release="0.14.0",
        sources=(
            *("inferencex_llama_70b_mi355x", "llm_d_70b_fp8_mi355x", "moreh_deepseek_r1_mi355x_0_11_1"),
            *("moreh_exaone_32b_mi355x", "moreh_llama_4_maverick_mi355x", "moreh_qwen3_235b_mi355x"),
            *("vllm_blog_qwen3_235b_mi355x", "vllm_blog_deepseek_r1_mi355x"),
            *("vllm_blog_minimax_m2_5_mi355x", "vllm_blog_kimi_k2_5_mi355x"),
        ),
        parameters=(
            *("kernel_layer_s", "kv_read_frac", "sample_s", "gemm_half_tokens"),
            "prefill_attention_frac",
        ),
    ),
)


def figures_by_model(proposal: Proposal) -> dict[str, list[Figure]]:
    """Return the figures of a proposal's sources, by the model that they are of."""
    found: dict[str, list[Figure]] = {}
    for source in public.sources():
        if source["name"] in proposal.sources:
            model = source["model"]
            name = model if isinstance(model, str) else str(model["name"])
            found.setdefault(name, []).extend(public.source_figures(source))
    return found


def fitted(proposal: Proposal, figures: Sequence[Figure]) -> dict[str, float]:
    """Return all parameters, with the proposal's moved to fit figures."""
    return fit(
        figures,
        asdict(calibration.load(_BASIS).calibration),
        parameters=proposal.parameters,
        rounds=_ROUNDS,
        ridge=_RIDGE,
        weighs_alike=True,
    )


def left_out(proposal: Proposal) -> Iterator[tuple[str, list[Figure], list[float], list[float]]]:
    """Yield each model, its figures, and what the basis and a fit to all other models say of them."""
    start = asdict(calibration.load(_BASIS).calibration)
    by_model = figures_by_model(proposal)
    for model, figures in by_model.items():
        others = [figure for name, each in by_model.items() if name != model for figure in each]
        yield model, figures, predict(figures, start), predict(figures, fitted(proposal, others))


def mean_errors_pct(figures: Sequence[Figure], predicted: Sequence[float]) -> dict[str, float]:
    """Return the mean absolute error of each metric, in percent."""
    errors: dict[str, list[float]] = {}
    for figure, error in zip(figures, relative_errors(figures, predicted), strict=True):
        errors.setdefault(figure.metric, []).append(abs(error))
    return {metric: round(100 * sum(each) / len(each), 1) for metric, each in errors.items()}


def content(proposal: Proposal) -> Mapping[str, Any]:
    """Return what the file holds of a proposal: its parameters that moved, and its errors."""
    told = list(left_out(proposal))
    figures = [figure for _, each, _, _ in told for figure in each]
    values = fitted(proposal, figures)
    return {
        "name": proposal.name,
        "basis": _BASIS,
        "device": proposal.device,
        "release": proposal.release,
        "sources": list(proposal.sources),
        "values": {name: float(f"{values[name]:.6g}") for name in proposal.parameters},
        "errors_pct": {
            "numbers": len(figures),
            "basis": mean_errors_pct(figures, [value for _, _, before, _ in told for value in before]),
            "model_left_out": mean_errors_pct(figures, [value for *_, after in told for value in after]),
            "fitted": mean_errors_pct(figures, predict(figures, values)),
            "by_model": {
                model: {"basis": mean_errors_pct(own, before), "left_out": mean_errors_pct(own, after)}
                for model, own, before, after in told
            },
        },
    }


if __name__ == "__main__":
    text = json.dumps([content(proposal) for proposal in PROPOSALS], indent=1)
    PROPOSED.write_text(text + "\n", encoding="utf-8")
