"""Stacks that no maker publishes tables of, each fitted to what several public sources say of it together.

One source tells of one model; several tell what is the same for all of them, so a fit moves the few
parameters that this device or software has otherwise. What that is worth for a model that no source has says
leaving out each model in turn: its numbers are predicted from a fit to those of all others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import date
from functools import cache
from multiprocessing import get_context

from sweeper.calibrate import public
from sweeper.calibrate.anchoring import of_stack
from sweeper.calibrate.figures import Figure, predict
from sweeper.calibrate.fitting import fit
from sweeper.records.plurals import amount
from sweeper.simulation import calibration
from sweeper.simulation.calibration import NamedCalibration, bare_name
from sweeper.simulation.intervals import family_of
from sweeper.simulation.stack import Stack, weights_of

_ROUNDS = 8
_RIDGE = 0.3
_TTFT_WEIGHT = 0.3
"""First tokens depend on how many prompts came at once and on a server's warm-up, which sources do not tell;
with the weight of other numbers, what they say makes all others worse where a model is left out."""


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """A stack and the sources that tell of it.

    Attributes:
        name: Of its calibration.
        release: In the middle of those of its sources.
        device: One of ``DEVICES``, of which its parameters are.
        aiter: Whether AITER's kernels are on in its sources; None where they differ.
        date: Of its sources, from and to.
        parent: Calibration that the fit starts from.
        sources: Names in ``public``.
        parameters: Those that move.
        words: Which GPUs with which kernels, for a reader.
    """

    name: str
    release: str
    device: str
    aiter: bool | None
    date: str
    parent: str
    sources: tuple[str, ...]
    parameters: tuple[str, ...]
    words: str


STACKS = (
    Pooled(
        name="mi355x_0_14",
        release="0.14.0",
        device="mi355x",
        aiter=None,
        date="2025-09 to 2026-07",
        parent="amd_0_10_0",
        sources=(
            *("inferencex_llama_70b_mi355x", "llm_d_70b_fp8_mi355x", "moreh_deepseek_r1_mi355x_0_11_1"),
            *("moreh_exaone_32b_mi355x", "moreh_llama_4_maverick_mi355x", "moreh_qwen3_235b_mi355x"),
            *("vllm_blog_qwen3_235b_mi355x", "vllm_blog_deepseek_r1_mi355x"),
            *("vllm_blog_minimax_m2_5_mi355x", "vllm_blog_kimi_k2_5_mi355x"),
        ),
        # One GPU is as fast as peaks say; several wait for collectives, and all for the host.
        parameters=(
            *("kernel_layer_s", "allreduce_s", "v1_host_frac"),
            *("kv_read_frac", "prefill_attention_frac"),
        ),
        words="MI355X",
    ),
)


def fitted_names() -> frozenset[str]:
    """Return the sources that a stack was fitted to: each is judged by a fit without its model."""
    return frozenset(name for each in STACKS for name in each.sources)


def without_model_of(source: str) -> NamedCalibration:
    """Return the calibration of the stack that a source tells of, fitted without that source's model."""
    each = next(each for each in STACKS if source in each.sources)
    values = fitted_without(each, _model_of(public.figures_of(source)[0]))
    return replace(calibration.load(each.name), values=values)


def fitted_without(each: Pooled, model: str | None) -> dict[str, float]:
    """Return all parameters of a stack from a fit to the numbers of all models but one, or of all models."""
    return _fitted([(each.name, model)])[each.name, model]


def made(*, date_made: date, tell: Callable[[str], object] = lambda _: None) -> Iterator[NamedCalibration]:
    """Make the calibration of every stack that several sources tell.

    Args:
        date_made: Day of the fit.
        tell: Called with a line for each stack.
    """
    fit_all()
    for each in STACKS:
        yield _made(each, date_made=date_made)
        models = amount(len(by_model(each)), "model")
        tell(f"{each.name}: from {amount(len(each.sources), 'source')} of {models}")


def fit_all() -> None:
    """Fit every stack, and every one without each of its models, on all cores."""
    _fitted((each.name, model) for each in STACKS for model in (None, *by_model(each)))


@cache
def by_model(each: Pooled) -> dict[str, tuple[Figure, ...]]:
    """Return the numbers of a stack's sources, by the model that they are of."""
    found: dict[str, tuple[Figure, ...]] = {}
    for name in each.sources:
        figures = public.figures_of(name)
        model = _model_of(figures[0])
        found[model] = (*found.get(model, ()), *figures)
    return found


def left_out(each: Pooled) -> tuple[list[Figure], list[float]]:
    """Return all numbers of a stack's sources, and what a fit without its model says of each."""
    figures: list[Figure] = []
    told: list[float] = []
    for model, own in by_model(each).items():
        figures += own
        told += predict(own, fitted_without(each, model))
    return figures, told


_Fit = tuple[str, str | None]
_KEPT: dict[_Fit, dict[str, float]] = {}
"""Fits by stack and the model that was left out; each is made once."""


def _fitted(wanted: Iterable[_Fit]) -> dict[_Fit, dict[str, float]]:
    """Fit stacks with all models, and without one, on all cores."""
    asked = list(wanted)
    missing = [each for each in asked if each not in _KEPT]
    if len(missing) == 1:
        _KEPT[missing[0]] = _fit(missing[0])
    elif missing:
        with ProcessPoolExecutor(mp_context=get_context("fork")) as pool:
            _KEPT.update(zip(missing, pool.map(_fit, missing), strict=True))
    return {each: _KEPT[each] for each in asked}


def _fit(wanted: _Fit) -> dict[str, float]:
    name, without = wanted
    each = next(each for each in STACKS if each.name == name)
    return fit(
        [figure for model, own in by_model(each).items() if model != without for figure in own],
        asdict(calibration.load(each.parent).calibration),
        parameters=each.parameters,
        rounds=_ROUNDS,
        ridge=_RIDGE,
        weigh=_weight,
    )


def _weight(figure: Figure) -> float:
    return _TTFT_WEIGHT if family_of(figure.metric) == "TTFT" else 1.0


def _model_of(figure: Figure) -> str:
    return bare_name(figure.spec.model.name)


def _made(each: Pooled, *, date_made: date) -> NamedCalibration:
    parent = calibration.load(each.parent)
    figures = [figure for own in by_model(each).values() for figure in own]
    models = ", ".join(by_model(each))
    return of_stack(
        figures,
        fitted_without(each, None),
        judged=left_out(each),
        fitted=dict.fromkeys(each.parameters, ", ".join(each.sources)),
        parent=parent,
        name=each.name,
        about=f"vLLM after 0.10 (V1) on {each.words}, after {amount(len(each.sources), 'public source')} "
        f"of {models}; runs not fitted: each model predicted from a fit to all others.",
        stack=_stack(each, figures),
        made=date_made,
    )


def _stack(each: Pooled, figures: Sequence[Figure]) -> Stack:
    return Stack(
        release=each.release,
        generation="v1",
        device=each.device,
        image="several builds",
        date=each.date,
        aiter=each.aiter,
        weights=tuple(dict.fromkeys(weights_of(figure.spec.model) for figure in figures)),
        kv=tuple(
            dict.fromkeys(str(figure.spec.assignment.get("kv_cache_dtype", "auto")) for figure in figures)
        ),
        parent=each.parent,
        has_several_builds=True,
    )
