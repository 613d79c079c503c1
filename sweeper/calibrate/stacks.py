"""The shipped calibrations of AMD's images: what each is fitted to, and what all of them share.

Peaks, shapes and links are physics: they are the same in every stack, and what the article or a measurement
of the bare device says of them is taken over. One number of that kind is fitted to all tables together. A
stack's own parameters are those that software moves; each starts from the same order of magnitude, to which a
ridge holds it, so that no stack leans on another. No parameter belongs to one figure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache
from multiprocessing import get_context

import numpy as np

from sweeper.calibrate import amd_tables, public
from sweeper.calibrate.figures import Figure, predict
from sweeper.calibrate.fitting import RIDGE, fit
from sweeper.records.plurals import amount
from sweeper.simulation import calibration
from sweeper.simulation.calibration import Calibration
from sweeper.simulation.stack import Asked, Stack
from sweeper.simulation.stacks import asked_of, nearest_name

SHARED: Mapping[str, tuple[float, str]] = {
    "fp8_gemm_frac": (
        0.757,
        "990 of 2,615 TFLOP/s in FP8 beside the half of bf16's peak (SemiAnalysis, MI300X against H100 "
        "and H200, training, 2024-12-22)",
    ),
    "eager_layer_s": (
        1.9e-4,
        "no more than that allow 4 prompts of 405B without graphs on 8 GPUs (dstack, 2024-11): 33 ms a step, "
        "one of them the host's own",
    ),
}
"""Physics, and the host's launches, that the article's calibration has otherwise, with its source."""

HALF = "gemm_half_tokens"
"""The one number of physics that is fitted to the tables of all stacks together."""

HALVES = (161.0, 176.0, 194.0, 213.0)
"""Values of ``HALF`` to choose from."""

_DEVICE = ("kernel_layer_s", "decode_head_s", "sample_s", "kv_read_frac")
OF_V0 = (*_DEVICE, "mixed_layer_s", "host_step_s", "host_sequence_s", "host_token_s", "capture_s")
OF_V1 = (*_DEVICE, "fp8_kv_frac", "v1_host_frac")
"""What software moves, by the form of the scheduler. The tables of V0 have no run without an FP8 KV cache."""

_ORDERS: Mapping[str, float] = {
    "decode_head_s": 1.3e-8,
    "kernel_layer_s": 1.8e-5,
    "kv_read_frac": 0.34,
    "fp8_kv_frac": 0.1,
    "capture_s": 5e-12,
    "sample_s": 5e-6,
    "host_token_s": 3e-6,
    "v1_host_frac": 0.17,
}
"""Where the fit of a stack begins: an order of magnitude."""

SINCE_V1: Mapping[str, float] = {"mixed_layer_s": 3e-4}
"""What V1 has otherwise than V0: the article tells what a step of prompts and decodes costs V0's kernels,
and AMD's tables too little of V1's to fit it. An order of magnitude."""

_IN_PROCESS: Mapping[str, float] = {"host_step_s": 2e-3, "host_sequence_s": 2e-5}
"""Where V0's begin, whose host work the article tells of a server of 0.6.2."""

SINGLE = ("single_host_frac", "cmontemuino_8b")
"""The host's work of V0 on one device, and the source that tells it."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A stack with tables of its own.

    Attributes:
        name: Of its calibration.
        stack: What it is.
    """

    name: str
    stack: Stack

    @property
    def parameters(self) -> tuple[str, ...]:
        """What is fitted."""
        return OF_V1 if self.stack.generation == "v1" else OF_V0


TABLES = tuple(
    Table(
        name=image.stack,
        stack=Stack(
            release=image.release,
            generation=image.generation,
            image=f"rocm/vllm-dev of {image.date}",
            date=image.date,
            aiter=False,
            weights=("fp8",),
            kv=("fp8",) if image.generation == "v0" else ("auto", "fp8"),
            parent=calibration.USUAL["v0"],
        ),
    )
    for image in amd_tables.IMAGES
)
"""AMD's images that published tables of validation are known of."""


@cache
def table_figures(name: str, *, without_models: tuple[str, ...] = ()) -> tuple[Figure, ...]:
    """Return the figures of a stack's tables.

    Args:
        name: Of its calibration.
        without_models: Parts of model names whose figures are left out, such as ``405B``.
    """
    return tuple(
        figure
        for source in public.sources()
        if source.get("stack") == name
        for figure in public.source_figures(source)
        if not any(part in figure.spec.model.name for part in without_models)
    )


def fit_all(
    *,
    without_stacks: Collection[str] = (),
    without_models: tuple[str, ...] = (),
    halves: Sequence[float] = HALVES,
    tell: Callable[[str], object] = lambda _: None,
) -> dict[str, Calibration]:
    """Fit every stack, and what they share.

    Args:
        without_stacks: Left out whole, as if they were not known.
        without_models: Models whose figures are left out of every stack.
        halves: Values of ``HALF`` to choose from; the first is the article's.
        tell: Called with a line for each stack.

    Returns:
        Name of the stack to its parameters.
    """
    figures = {
        table.name: table_figures(table.name, without_models=without_models)
        for table in TABLES
        if table.name not in without_stacks
    }
    fitted = _fitted(figures, halves, without_models)
    tried = [({name: fitted[name, half] for name in figures}, half) for half in halves]
    best, half = min(tried, key=lambda each: _squares(figures, each[0]) + _strays(each[1], halves))
    tell(
        f"{HALF} = {half:g}, from {amount(sum(map(len, figures.values())), 'value')} of {len(figures)} stacks"
    )
    for name, found in best.items():
        tell(f"{name}: {error_text(figures[name], found)}")
    return best


def start_of(half: float, *, generation: str) -> Calibration:
    """Return the parameters that the fit of a stack starts from."""
    physics = {name: value for name, (value, _) in SHARED.items()}
    own = SINCE_V1 if generation == "v1" else _IN_PROCESS
    return Calibration().override({**physics, **_ORDERS, **own, HALF: half})


_Fit = tuple[str, float, tuple[str, ...]]
_KEPT: dict[_Fit, Calibration] = {}
"""Fits by stack, ``HALF`` and what was left out. None depends on another stack, so each is made once."""


def _fitted(
    names: Iterable[str], halves: Iterable[float], without_models: tuple[str, ...]
) -> dict[tuple[str, float], Calibration]:
    """Fit stacks with several values of ``HALF``, on all cores."""
    wanted = [(name, half, without_models) for name in names for half in halves]
    missing = [each for each in wanted if each not in _KEPT]
    if missing:
        with ProcessPoolExecutor(mp_context=get_context("fork")) as pool:
            _KEPT.update(zip(missing, pool.map(_fit, missing), strict=True))
    return {(name, half): _KEPT[name, half, without_models] for name, half, _ in wanted}


def _fit(wanted: _Fit) -> Calibration:
    name, half, without_models = wanted
    table = next(table for table in TABLES if table.name == name)
    start = asdict(start_of(half, generation=table.stack.generation))
    figures = table_figures(name, without_models=without_models)
    return Calibration().override(fit(figures, start, parameters=table.parameters, rounds=20))


def _strays(half: float, halves: Sequence[float]) -> float:
    """Return what it costs to leave the article's value: models of one size alone hardly tell it."""
    return float((RIDGE * np.log(half / halves[0])) ** 2)


def _squares(figures: Mapping[str, Sequence[Figure]], found: Mapping[str, Calibration]) -> float:
    return float(sum((errors(figures[name], each) ** 2).sum() for name, each in found.items()))


def nearest_of(names: Collection[str], asked: Asked) -> str:
    """Return which of some stacks is nearest to a run; of those equally near, the newest."""
    newest_first = reversed([table for table in TABLES if table.name in names])
    return nearest_name({table.name: table.stack for table in newest_first}, asked)


def fit_single(found: Mapping[str, Calibration]) -> float:
    """Fit the host's work of V0 on one device, given all else as a run of that source gets it."""
    figures = public.figures_of(SINGLE[1])
    start = asdict(found[nearest_of(found, asked_of(figures[0].spec))])
    return fit(figures, start, parameters=(SINGLE[0],), rounds=10, ridge=0.05)[SINGLE[0]]


def errors(figures: Sequence[Figure], found: Calibration) -> np.ndarray:
    """Return predicted over published, less 1, of each figure, shape (figures,)."""
    return np.array([value / f.value - 1 for value, f in zip(told(figures, found), figures, strict=True)])


def told(figures: Sequence[Figure], found: Calibration) -> list[float]:
    """Return what a calibration says of each figure, in its unit."""
    return predict(figures, asdict(found))


def error_text(figures: Sequence[Figure], found: Calibration) -> str:
    """Say the mean absolute errors by kind of metric."""
    off = np.abs(errors(figures, found))
    is_rate = np.array([figure.metric.endswith("_per_s") for figure in figures])
    words = [
        f"{word} {100 * off[which].mean():.1f} % ({which.sum()})"
        for word, which in (("throughput", is_rate), ("latency", ~is_rate))
        if which.any()
    ]
    return ", ".join(words)


def with_single(found: Mapping[str, Calibration]) -> dict[str, Calibration]:
    """Return the stacks with what was fitted to one device, taken over by every V0 among them."""
    v0 = [table.name for table in TABLES if table.stack.generation == "v0" and table.name in found]
    if not v0:
        return dict(found)
    single = fit_single(found)
    return {
        name: replace(each, single_host_frac=single) if name in v0 else each for name, each in found.items()
    }
