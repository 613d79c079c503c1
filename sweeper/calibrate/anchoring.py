"""A stack from a few of its numbers: the nearest known one, moved as little as these demand.

What two to four numbers cannot tell stays as the nearest stack has it, by a ridge on every parameter. How good
that is says leaving each number out in turn: it is predicted from a fit to the others alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from sweeper.calibrate.figures import Figure, predict
from sweeper.calibrate.fitting import fit
from sweeper.simulation import stacks
from sweeper.simulation.calibration import NamedCalibration
from sweeper.simulation.settings import generation_of

FEWEST = 2
"""Numbers from which a stack can be fitted."""

MOST_ANCHORS = 4
_RIDGE = 0.1
_ROUNDS = 5
_COMMON = ("gemm_frac", "kernel_layer_s", "sample_s", "kv_read_frac", "weight_read_frac")


def basis_of(figures: Sequence[Figure]) -> NamedCalibration:
    """Return the shipped calibration nearest to the runs, by the first of them."""
    return stacks.nearest(stacks.asked_of(figures[0].spec))


def parameters_of(figures: Sequence[Figure]) -> tuple[str, ...]:
    """Return what a few numbers move: the device's parts of a step, and the host's."""
    is_v1 = generation_of(figures[0].spec) == "v1"
    return (*_COMMON, "v1_host_frac" if is_v1 else "host_step_s")


def anchored(figures: Sequence[Figure], start: Mapping[str, float]) -> dict[str, float]:
    """Fit a stack to a few numbers.

    Args:
        figures: The numbers.
        start: All parameters of the nearest stack.
    """
    return fit(figures, start, parameters=parameters_of(figures), rounds=_ROUNDS, ridge=_RIDGE)


def left_out_one_by_one(figures: Sequence[Figure], start: Mapping[str, float]) -> list[float]:
    """Predict each number from a fit to all others of them."""
    told = []
    for number, figure in enumerate(figures):
        others = [*figures[:number], *figures[number + 1 :]]
        told += predict([figure], anchored(others, start))
    return told


def split(figures: Sequence[Figure], *, most: int = MOST_ANCHORS) -> tuple[list[Figure], list[Figure]]:
    """Choose the anchors of a source, before anything is predicted: the ends of each metric's list.

    Returns:
        Anchors, the first and the last number of each metric as far as there are places, and the rest.
    """
    by_metric: dict[str, list[Figure]] = {}
    for figure in figures:
        by_metric.setdefault(figure.metric, []).append(figure)
    ends = [own[0] for own in by_metric.values()] + [own[-1] for own in by_metric.values() if len(own) > 1]
    chosen = ends[: min(most, len(figures) - 1)]
    return chosen, [figure for figure in figures if figure not in chosen]


def unseen(figures: Sequence[Figure]) -> list[tuple[Figure, float]]:
    """Predict what a source says beyond its anchors; of a source of few numbers each from the others.

    Returns:
        Each number that was predicted without it, and the prediction.
    """
    start = asdict(basis_of(figures).calibration)
    if len(figures) <= MOST_ANCHORS:
        return list(zip(figures, left_out_one_by_one(figures, start), strict=True))
    anchors, rest = split(figures)
    return list(zip(rest, predict(rest, anchored(anchors, start)), strict=True))
