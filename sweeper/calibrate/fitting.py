"""Moves parameters until the model agrees with figures: weighted least squares of relative errors.

Parameters move in the logarithm, so none becomes negative and each counts relative to itself. A small ridge
keeps those near their start that the figures say nothing about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sweeper.calibrate.figures import Figure, predict
from sweeper.errors import ConfigError
from sweeper.simulation.calibration import Calibration

Floats = NDArray[np.float64]
Tell = Callable[[str], object]

BASE = (
    *("gemm_frac", "gemm_half_tokens", "weight_read_frac", "kv_read_frac", "decode_head_s"),
    *("kernel_layer_s", "eager_layer_s", "mixed_layer_s", "sample_s", "allreduce_s"),
    *("host_step_s", "host_sequence_s", "host_token_s", "host_prefix_sequence_s"),
)
"""Parameters that are fitted together; each stands for a part of a step's time."""

RIDGE = 0.15
_NUDGE = 0.08
"""Difference of the logarithm with which slopes are taken: a run is a sum of whole steps, so a smaller one
would see its jumps and not its slope."""

_LONGEST_MOVE = 0.5
_DAMPING = 0.05
_TRIES = 4
_ENOUGH = 1e-3
"""Part of the squares that a round has to save for another one to be worth it."""


def by_weight(figure: Figure) -> float:
    """Let each figure count as its own weight says."""
    return figure.weight


def alike(figure: Figure) -> float:
    """Let each figure count as much as any other."""
    return 1.0


def slopes_of(figures: Sequence[Figure], values: Mapping[str, float], parameters: Sequence[str]) -> Floats:
    """Return how the logarithm of each figure moves with that of each parameter.

    Args:
        figures: Of any number of trials.
        values: All parameters, none of those asked for 0.
        parameters: Names of those that move.

    Returns:
        Slopes, shape (figures, parameters).
    """

    def told(moved: Floats) -> Floats:
        return np.log(predict(figures, _moved(values, parameters, moved)))

    still = np.zeros(len(parameters))
    return _slopes(told, still, told(still))


def _moved(values: Mapping[str, float], parameters: Sequence[str], moved: Floats) -> dict[str, float]:
    """Return all parameters, some of them moved by a difference of the logarithm."""
    return {
        **values,
        **{name: values[name] * float(np.exp(by)) for name, by in zip(parameters, moved, strict=True)},
    }


def _slopes(of: Callable[[Floats], Floats], moved: Floats, there: Floats) -> Floats:
    """Return how a function that is ``there`` at a place moves with each of its arguments."""
    nudges = np.eye(len(moved)) * _NUDGE
    return np.array([(of(moved + nudge) - there) / _NUDGE for nudge in nudges]).T


def fit(
    figures: Sequence[Figure],
    start: Mapping[str, float],
    *,
    parameters: Sequence[str],
    rounds: int = 4,
    ridge: float | Mapping[str, float] = RIDGE,
    weigh: Callable[[Figure], float] = by_weight,
    tell: Tell = lambda _: None,
) -> dict[str, float]:
    """Fit some parameters to figures, all others kept.

    Args:
        figures: What to agree with; those with a remark are passed over.
        start: Parameters that differ from the default calibration.
        parameters: Names of those that move.
        rounds: Most steps of the method.
        ridge: How firmly a parameter holds to its start: doubling it costs as much as an error of
            ``0.69 * ridge`` in a figure of weight 1. A mapping has one for each parameter.
        weigh: How much a figure counts; ``by_weight``, ``alike`` or another.
        tell: Called with a line after each round.

    Returns:
        ``start`` with the fitted values in it.

    Raises:
        ConfigError: There is nothing to fit, or a parameter starts at zero, from where it cannot move.

    Source:
        Levenberg and Marquardt's damped least squares (Marquardt, SIAM J. Appl. Math. 11, 1963).
    """
    used = [figure for figure in figures if not figure.remark]
    if not used:
        raise ConfigError("calibrate: got no figures to fit to; expected at least one. Give measured runs.")
    first = Calibration().override(start)
    origin = {name: float(getattr(first, name)) for name in parameters}
    zero = next((name for name, value in origin.items() if value <= 0), None)
    if zero is not None:
        raise ConfigError(f"calibrate: {zero} starts at 0; expected above 0, since it moves by factors.")
    weights = np.array([weigh(figure) for figure in used])
    targets = np.log([figure.value for figure in used])
    holds = np.array([ridge[name] if isinstance(ridge, Mapping) else ridge for name in parameters])

    def values(moved: Floats) -> dict[str, float]:
        return {**start, **_moved(origin, parameters, moved)}

    def residuals(moved: Floats) -> Floats:
        told = np.log(predict(used, values(moved)))
        return np.concatenate([weights * (told - targets), holds * moved])

    moved, at = np.zeros(len(parameters)), residuals(np.zeros(len(parameters)))
    damping = _DAMPING
    for number in range(1, rounds + 1):
        better = _better(residuals, moved, at, damping)
        if better is None:
            break
        gained = float(at @ at - better[1] @ better[1])
        moved, at, damping = better
        tell(f"round {number}: weighted squares {float(at @ at):.4f}")
        if gained < _ENOUGH * float(at @ at):
            break
    return values(moved)


def _better(
    residuals: Callable[[Floats], Floats], moved: Floats, at: Floats, damping: float
) -> tuple[Floats, Floats, float] | None:
    """Take one damped step downhill; None where no damping finds one."""
    slopes = _slopes(residuals, moved, at)
    for _ in range(_TRIES):
        curvature = slopes.T @ slopes + damping * np.eye(len(moved))
        step = np.clip(np.linalg.solve(curvature, -slopes.T @ at), -_LONGEST_MOVE, _LONGEST_MOVE)
        reached = residuals(moved + step)
        if reached @ reached < at @ at:
            return moved + step, reached, damping / 2
        damping *= 4
    return None
