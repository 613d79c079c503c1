"""A stack from a few of its numbers: the nearest known one, moved as little as these demand.

What two to four numbers cannot tell stays as the nearest stack has it, by a ridge on every parameter. How
good that is says leaving each number out in turn: it is predicted from a fit to the others alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date as Day

import numpy as np

from sweeper.calibrate.contradictions import contradictions
from sweeper.calibrate.design import SPREAD, Design
from sweeper.calibrate.figures import FIT, VALIDATION, Figure, predict
from sweeper.calibrate.fitting import fit, slopes_of
from sweeper.calibrate.judging import compared_of, errors_as
from sweeper.simulation import stacks
from sweeper.simulation.calibration import NamedCalibration
from sweeper.simulation.device import USUAL_DEVICE
from sweeper.simulation.intervals import family_of
from sweeper.simulation.settings import generation_of
from sweeper.simulation.stack import Stack, weights_of

FEWEST = 2
"""Numbers from which a stack can be fitted."""

MOST_ANCHORS = 4
_RIDGE = 0.05
_FIRM_RIDGE = 0.33
_LOOSE_RIDGE = 0.015
_ROUNDS = 5
_PARTS = (
    *("gemm_frac", "gemm_half_tokens", "weight_read_frac", "prefill_attention_frac", "kv_read_frac"),
    *("kernel_layer_s", "mixed_layer_s", "sample_s", "decode_head_s"),
)
_FIRM = ("weight_read_frac", "gemm_half_tokens", "eager_layer_s")
_LOOSE = ("allreduce_s", "kernel_layer_s")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is worth measuring.

    Attributes:
        chosen: Places of the numbers, or of the runs.
        open_before: Mean standard deviation of the logarithm of each other number, by how parameters differ.
        open_after: The same once those chosen are known.
    """

    chosen: list[int]
    open_before: float
    open_after: float


def basis_of(figures: Sequence[Figure]) -> NamedCalibration:
    """Return the shipped calibration nearest to the runs, by the first of them."""
    return stacks.nearest(stacks.asked_of(figures[0].spec))


def parameters_of(figures: Sequence[Figure]) -> tuple[str, ...]:
    """Return what a few numbers move: one parameter for each part of a step that the runs have.

    Among them is what decoding one sequence costs, of which the shipped stacks differ most after the host's
    step. What hardly differs from stack to stack moves less: the memory's rate for weights, the tokens that a
    multiplication needs, and the host's launches without graphs. All-reduces move more, of which 17 to 61 us
    are known, and a layer's launches: 30 to 200 us, as a graph holds all of them or is cut at attention.
    """
    specs = [figure.spec for figure in figures]
    is_v1 = generation_of(specs[0]) == "v1"
    has_several = any(int(spec.assignment.get("tensor_parallel_size", 1)) > 1 for spec in specs)
    is_narrow = any("8" in weights_of(spec.model) for spec in specs)
    launches = not is_v1 or any(spec.assignment.get("enforce_eager") for spec in specs)
    return (
        *_PARTS,
        *(("v1_host_frac",) if is_v1 else ("host_step_s", "host_sequence_s")),
        *(["allreduce_s"] if has_several else []),
        *(["fp8_gemm_frac"] if is_narrow else []),
        *(["eager_layer_s"] if launches else []),
    )


def _ridge(parameters: Iterable[str]) -> dict[str, float]:
    held = {**dict.fromkeys(_FIRM, _FIRM_RIDGE), **dict.fromkeys(_LOOSE, _LOOSE_RIDGE)}
    return {name: held.get(name, _RIDGE) for name in parameters}


def anchored(figures: Sequence[Figure], start: Mapping[str, float]) -> dict[str, float]:
    """Fit a stack to a few numbers.

    Args:
        figures: The numbers.
        start: All parameters of the nearest stack.
    """
    parameters = parameters_of(figures)
    return fit(
        figures,
        start,
        parameters=parameters,
        rounds=_ROUNDS,
        ridge=_ridge(parameters),
        weigh=_count,
    )


def _count(figure: Figure) -> float:
    """Return how much a number counts: a TTFT half, of which two to three times as much is left off."""
    return 0.5 if family_of(figure.metric) == "TTFT" else 1.0


def left_out_one_by_one(figures: Sequence[Figure], start: Mapping[str, float]) -> list[float]:
    """Predict each number from a fit to all others of them."""
    told = []
    for number, figure in enumerate(figures):
        others = [*figures[:number], *figures[number + 1 :]]
        told += predict([figure], anchored(others, start))
    return told


def named(
    figures: Sequence[Figure],
    *,
    name: str,
    source: str,
    image: str = "",
    date: str = "",
    basis: NamedCalibration | None = None,
    made: Day,
) -> tuple[NamedCalibration, list[tuple[Figure, float]]]:
    """Make the calibration of a stack from a few of its numbers.

    Args:
        figures: The numbers, of one stack.
        name: What to call it.
        source: Where they come from.
        image: As the source calls it.
        date: Of the image or the measurement.
        basis: Calibration to start from; None is that of the nearest stack.
        made: Day of the fit.

    Returns:
        The calibration, whose errors are those of leaving each number out, and each number with what a fit to
        the others says of it.
    """
    basis = basis or basis_of(figures)
    start = asdict(basis.calibration)
    told = left_out_one_by_one(figures, start)
    values = anchored(figures, start)
    asked = stacks.asked_of(figures[0].spec)
    about = (
        f"vLLM {asked.release} by {source}; the nearest stack known is {basis.name} "
        f"({stacks.nearness(basis, asked)}), of which all is that was not fitted."
    )
    made_of = of_stack(
        figures,
        values,
        judged=(figures, told),
        fitted=dict.fromkeys(parameters_of(figures), source),
        parent=basis,
        name=name,
        about=about,
        stack=stack_for(figures, parent=basis, image=image, date=date),
        made=made,
    )
    return made_of, list(zip(figures, told, strict=True))


def of_stack(
    figures: Sequence[Figure],
    values: Mapping[str, float],
    *,
    judged: tuple[Sequence[Figure], Sequence[float]],
    fitted: Mapping[str, str],
    parent: NamedCalibration,
    name: str,
    about: str,
    stack: Stack,
    made: Day,
) -> NamedCalibration:
    """Return the calibration of a stack of which some parameters were fitted, and the rest is its parent's.

    Args:
        figures: What was fitted to.
        values: All parameters.
        judged: What it is judged by, and what is predicted of that.
        fitted: Fitted parameter to where its figures come from.
        parent: Calibration that the others are taken from.
        name: What to call it.
        about: What it models, one sentence.
        stack: What it is of.
        made: Day of the fit.
    """
    return NamedCalibration(
        name=name,
        about=about,
        made=made.isoformat(),
        values=values,
        fitted=fitted,
        errors_pct={
            FIT: errors_as(FIT, figures, predict(figures, values), all_count=True),
            VALIDATION: errors_as(VALIDATION, *judged, all_count=True),
        },
        compared=compared_of([*figures, *judged[0]]),
        stack=stack,
        taken={entry: parent.name for entry in values if entry not in fitted},
    )


def stack_for(
    figures: Sequence[Figure], *, parent: NamedCalibration, image: str = "", date: str = ""
) -> Stack:
    """Return the stack that numbers are of, by the first of them; all have to be of one."""
    asked = stacks.asked_of(figures[0].spec)
    return Stack(
        release=asked.release,
        generation=asked.generation,
        device=asked.device or USUAL_DEVICE,
        image=image,
        date=date,
        aiter=asked.aiter,
        weights=tuple(dict.fromkeys(weights_of(f.spec.model) for f in figures)),
        kv=tuple(dict.fromkeys(str(f.spec.assignment.get("kv_cache_dtype", "auto")) for f in figures)),
        parent=parent.name,
    )


def worth_measuring(
    figures: Sequence[Figure],
    start: Mapping[str, float],
    *,
    most: int = MOST_ANCHORS,
    known: Sequence[int] = (),
    runs: Sequence[Sequence[int]] | None = None,
) -> Choice:
    """Choose the numbers of a stack that tell most of its others, before these are known.

    Args:
        figures: All numbers that can be measured; only values of those known are read.
        start: All parameters of the nearest stack, which those known move first.
        most: How many at most.
        known: Places of numbers that are measured already.
        runs: Places of numbers that one run measures together; None is each for itself.
    """
    told = [figures[place] for place in known]
    values = anchored(told, start) if len(told) >= FEWEST else start
    parameters = parameters_of(figures)
    design = Design(
        slopes_of(figures, values, parameters),
        spreads=np.array([SPREAD * _RIDGE / ridge for ridge in _ridge(parameters).values()]),
        counts=np.array([_count(figure) for figure in figures]),
        kinds=[family_of(figure.metric) or figure.metric for figure in figures],
    )
    chosen = design.choose(most, known=known, runs=runs)
    then = [*known, *(place for run in chosen for place in (runs[run] if runs is not None else [run]))]
    others = [place for place in range(len(figures)) if place not in then]
    return Choice(
        chosen=chosen,
        open_before=float(design.left_open(known)[others].mean()),
        open_after=float(design.left_open(then)[others].mean()),
    )


def split(figures: Sequence[Figure], start: Mapping[str, float]) -> tuple[list[Figure], list[Figure]]:
    """Choose the anchors of a source as somebody would who measures: two, and by what these say two more.

    Returns:
        Anchors, and the rest.
    """
    first = worth_measuring(figures, start, most=FEWEST).chosen
    then = worth_measuring(figures, start, most=MOST_ANCHORS - FEWEST, known=first).chosen
    chosen = [*first, *then]
    return (
        [figures[place] for place in chosen],
        [figure for place, figure in enumerate(figures) if place not in chosen],
    )


def unseen(figures: Sequence[Figure], *, basis: NamedCalibration | None = None) -> list[tuple[Figure, float]]:
    """Predict what a source says beyond its anchors; of a source of few numbers each from the others.

    Args:
        figures: All numbers of the source.
        basis: Calibration to start from; None is that of the nearest stack.

    Returns:
        Each number that was predicted without it, and the prediction; nothing of a source of one number,
        or of one that contradicts itself.
    """
    if len(figures) < FEWEST or any(contradictions(figures)):
        return []
    start = asdict((basis or basis_of(figures)).calibration)
    if len(figures) <= MOST_ANCHORS:
        return list(zip(figures, left_out_one_by_one(figures, start), strict=True))
    anchors, rest = split(figures, start)
    return list(zip(rest, predict(rest, anchored(anchors, start)), strict=True))
