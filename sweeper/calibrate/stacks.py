"""The shipped calibrations of AMD's images: what each is fitted to, and what all of them share.

Peaks, shapes and links are physics: they are the same in every stack, and what the article or a measurement
of the bare device says of them is taken over. One number of that kind is fitted to all tables together. A
stack's own parameters are those that software moves; each starts from its parent's, to which a ridge holds
it, so that few numbers suffice. No parameter belongs to one figure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from sweeper.calibrate import public
from sweeper.calibrate.figures import Figure, predict
from sweeper.calibrate.fitting import fit
from sweeper.records.plurals import amount
from sweeper.simulation import calibration
from sweeper.simulation.calibration import Calibration
from sweeper.simulation.stack import Stack
from sweeper.simulation.stacks import asked_of, nearest_names, with_kernels

SHARED: Mapping[str, tuple[float, str]] = {
    "fp8_gemm_frac": (
        0.757,
        "990 of 2,615 TFLOP/s in FP8 beside the half of bf16's peak (SemiAnalysis, MI300X against H100 "
        "and H200, training, 2024-12-22)",
    ),
    "eager_layer_s": (
        1.7e-4,
        "no more than that allow 4 prompts of 405B without graphs on 8 GPUs (dstack, 2024-11): 33 ms a step, "
        "7 of them the host's own",
    ),
}
"""Physics, and the host's launches, that the article's calibration has otherwise, with its source."""

HALF = "gemm_half_tokens"
"""The one number of physics that is fitted to the tables of all stacks together."""

_HALVES = (161.0, 176.0, 194.0, 213.0)
_DEVICE = ("kernel_layer_s", "decode_head_s", "sample_s", "kv_read_frac", "fp8_kv_frac")
OF_V0 = (*_DEVICE, "host_token_s", "capture_s")
OF_V1 = (*_DEVICE, "v1_host_frac")
"""What software moves, by the form of the scheduler."""

_KERNELS_SINCE: Mapping[str, float] = {
    "decode_head_s": 1.3e-8,
    "kernel_layer_s": 1.8e-5,
    "kv_read_frac": 0.34,
    "fp8_kv_frac": 0.1,
    "capture_s": 5e-12,
    "sample_s": 5e-6,
    "host_token_s": 3e-6,
    "v1_host_frac": 0.17,
}
"""Where the fit of a stack begins that has no parent among AMD's images: an order of magnitude."""

SINCE_V1: Mapping[str, float] = {"mixed_layer_s": 3e-4}
"""What V1 has otherwise than V0: the article tells what a step of prompts and decodes costs V0's kernels,
and AMD's tables too little of V1's to fit it. An order of magnitude."""

SINGLE = ("single_host_frac", "cmontemuino_8b")
"""The host's work of V0 on one device, and the source that tells it."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A stack with tables of its own.

    Attributes:
        name: Of its calibration.
        stack: What it is.
        parent: Name of another table from which the fit starts; None starts from an order of magnitude.
    """

    name: str
    stack: Stack
    parent: str | None = None

    @property
    def parameters(self) -> tuple[str, ...]:
        """What is fitted."""
        return OF_V1 if self.stack.generation == "v1" else OF_V0


def _amd(release: str, generation: str, date: str, parent: str | None) -> Table:
    return Table(
        name=f"amd_{release.replace('.', '_')}",
        parent=parent,
        stack=Stack(
            release=release,
            generation=generation,
            image=f"rocm/vllm-dev of {date}",
            date=date,
            aiter=False,
            weights=("fp8",),
            kv=("auto", "fp8"),
            parent=parent or calibration.USUAL["v0"],
        ),
    )


TABLES = (
    _amd("0.6.6", "v0", "2025-01-12", None),
    _amd("0.8.5", "v0", "2025-05-27", "amd_0_6_6"),
    _amd("0.9.1", "v1", "2025-07-15", "amd_0_8_5"),
    _amd("0.10.0", "v1", "2025-08-12", "amd_0_9_1"),
)
"""AMD's images that published tables of validation are known of."""


def table_figures(name: str, *, without_models: Collection[str] = ()) -> list[Figure]:
    """Return the figures of a stack's tables.

    Args:
        name: Of its calibration.
        without_models: Parts of model names whose figures are left out, such as ``405B``.
    """
    found = [
        figure
        for source in public.sources()
        if source.get("stack") == name
        for figure in public.source_figures(source)
    ]
    return [f for f in found if not any(part in f.spec.model.name for part in without_models)]


def fit_all(
    *,
    without_stacks: Collection[str] = (),
    without_models: Collection[str] = (),
    halves: Sequence[float] = _HALVES,
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
    tried = [(_fitted(figures, half), half) for half in halves]
    best, half = min(tried, key=lambda each: _squares(figures, each[0]))
    tell(
        f"{HALF} = {half:g}, from {amount(sum(map(len, figures.values())), 'value')} of {len(figures)} stacks"
    )
    for name, found in best.items():
        tell(f"{name}: {error_text(figures[name], found)}")
    return best


def start_of(half: float) -> Calibration:
    """Return the parameters that a stack without a parent starts from."""
    physics = {name: value for name, (value, _) in SHARED.items()}
    return Calibration().override({**physics, **_KERNELS_SINCE, HALF: half})


def _fitted(figures: Mapping[str, Sequence[Figure]], half: float) -> dict[str, Calibration]:
    found: dict[str, Calibration] = {}
    for table in TABLES:
        if table.name not in figures:
            continue
        parent = table.parent
        while parent is not None and parent not in found:
            parent = next(other.parent for other in TABLES if other.name == parent)
        start = found[parent] if parent is not None else start_of(half)
        if table.stack.generation == "v1":
            start = replace(start, **SINCE_V1)
        values = fit(figures[table.name], asdict(start), parameters=table.parameters, rounds=20)
        found[table.name] = Calibration().override(values)
    return found


def _squares(figures: Mapping[str, Sequence[Figure]], found: Mapping[str, Calibration]) -> float:
    return float(sum((errors(figures[name], each) ** 2).sum() for name, each in found.items()))


def fit_single(found: Mapping[str, Calibration]) -> float:
    """Fit the host's work of V0 on one device, given all else as a run of that source gets it."""
    source = next(source for source in public.sources() if source["name"] == SINGLE[1])
    figures = public.source_figures(source)
    known = {table.name: table.stack for table in TABLES if table.name in found}
    basis, kernels = nearest_names(known, asked_of(figures[0].spec))
    start = asdict(with_kernels(found[basis], found[kernels]))
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
