"""Our own method: a Gaussian process that believes the simulated platform as far as measurements bear it out.

Every candidate has a *score*: its place in the simulated platform's ranking. A measured value is modelled as
``slope * score + what the knobs add``. Two dozen such models, with different slopes (0 among them: the
ranking says nothing) and different kernels, are weighed by how well each explains what was measured so far
(their marginal likelihood), and the next point is the one with the largest expected improvement under that
mixture. So the ranking leads while nothing is known, several points of its top are tried rather than one, and
where measurements contradict it the slope of 0 takes over by itself: a wrong ranking costs a few trials.
Without a ranking only that model is left.

A point that failed, or broke a bound, counts as the worst one seen. Several objectives are joined with random
weights, drawn anew for each proposal, so that the proposals spread over the front. Points that run already
count as known with the value the model expects, which keeps parallel proposals apart.

Source: expected improvement, Jones, Schonlau and Welch 1998; random weights for several objectives, ParEGO,
Knowles 2006; a prior that loses its say as data come in, piBO, Hvarfner et al. 2022, from which the weighting
by marginal likelihood departs; a kernel that is a sum over knobs, Duvenaud et al. 2011.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sweeper.search.candidates import Floats, Geometry
from sweeper.space.space import Point

_SLOPES = (0.0, 0.5, 1.0, 2.0)
_TRUST = 0.8
"""Weight of all slopes but 0 together before anything is measured."""

_LENGTHS = (0.4, 1.2)
"""Distance over which a knob's effect changes, as a part of its range."""

_NOISES = (0.03, 0.3)
"""Standard deviation of a measurement, as a part of that of all measured values."""

_TOGETHER = 0.3
"""Share of the variance that belongs to knobs acting together; the rest is a sum over single knobs."""

MOST_MODELLED = 400
"""Measured points that a model rests on at most."""

_LEVEL_VARIANCE = 4.0
_SMALLEST_SPREAD = 0.01
"""Values closer than this part of their size are noise: they are not blown up to look like differences."""

_JITTER = 1e-8


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A point that was measured or is running.

    Attributes:
        values: One for each objective, larger is better; None where it failed or broke a bound.
        is_running: Whether it has no values yet.
    """

    point: Point
    values: tuple[float, ...] | None
    is_running: bool = False


def choose(
    candidates: Sequence[Point],
    seen: Sequence[Seen],
    *,
    geometry: Geometry,
    scores: Floats | None,
    seen_scores: Floats | None,
    rng: np.random.Generator,
) -> Point:
    """Choose the next point.

    Args:
        candidates: Free points, at least one.
        seen: Measured and running points, in any order.
        scores: Place of each candidate in the ranking, 0 (worst) to 1; None without a ranking.
        seen_scores: The same for ``seen``.
        rng: Breaks ties, and draws the weights of several objectives.
    """
    running = np.array([one.is_running for one in seen], dtype=bool)
    targets = _targets([one for one in seen if not one.is_running], rng)
    if targets is None:
        return candidates[_best(np.zeros(len(candidates)) if scores is None else scores, rng)]
    modelled = telling(targets)
    # The measured ones first, then those that run.
    kept = np.concatenate([np.flatnonzero(~running)[modelled], np.flatnonzero(running)])
    places = geometry.coordinates([seen[one].point for one in kept])
    gain = _mixed_gain(
        to_seen=geometry.distances(geometry.coordinates(candidates), places),
        among_seen=geometry.distances(places, places),
        targets=targets[modelled],
        scores=None if scores is None else _spread(scores),
        seen_scores=None if seen_scores is None else _spread(seen_scores[kept]),
    )
    return candidates[_best(gain, rng)]


def telling(targets: Floats) -> NDArray[np.intp]:
    """Return which measured points are modelled: all, or of many the best and, of the others, every so many.

    A model's cost grows with the cube of its points.
    """
    if len(targets) <= MOST_MODELLED:
        return np.arange(len(targets))
    best_first = np.argsort(-targets, kind="stable")
    best, others = np.split(best_first, [MOST_MODELLED // 2])
    evenly = np.linspace(0, len(others) - 1, MOST_MODELLED - len(best)).astype(np.intp)
    return np.sort(np.concatenate([best, np.sort(others)[evenly]]))


def _spread(scores: Floats) -> Floats:
    """Bring places in a ranking, which are even between 0 and 1, to mean 0 and variance 1."""
    return (scores - 0.5) * math.sqrt(12)


def _best(gain: Floats, rng: np.random.Generator) -> int:
    largest = np.flatnonzero(gain >= gain.max() - 1e-12)
    return int(rng.choice(largest))


def _targets(measured: Sequence[Seen], rng: np.random.Generator) -> Floats | None:
    """Join the objectives to one value of mean 0 for each point; None where nothing was measured."""
    known = np.array([one.values for one in measured if one.values is not None], dtype=np.float64)
    if not len(known):
        return None
    low, high = known.min(axis=0), known.max(axis=0)
    weights = rng.dirichlet(np.ones(known.shape[1]))
    if known.shape[1] == 1:
        joined = known[:, 0]
    else:
        parts = (known - low) / np.where(high > low, high - low, 1.0) * weights
        joined = parts.min(axis=1) + 0.05 * parts.sum(axis=1)
    values = np.full(len(measured), joined.min())
    values[[one.values is not None for one in measured]] = joined
    centre = values.mean()
    spread = max(values.std(), _SMALLEST_SPREAD * abs(centre), 1e-12)
    return np.asarray((values - centre) / spread)


def _mixed_gain(
    *,
    to_seen: Floats,
    among_seen: Floats,
    targets: Floats,
    scores: Floats | None,
    seen_scores: Floats | None,
) -> Floats:
    """Average the expected improvement of each candidate over all models, each by its weight.

    Args:
        to_seen: Distances from candidates to seen points, the measured ones of which come first.
        among_seen: Distances among these.
        targets: Values of the measured ones.
        scores: Place of each candidate in the ranking; None without one.
        seen_scores: The same for the seen points.
    """
    measured = len(targets)
    slopes = np.array(_SLOPES if scores is not None else _SLOPES[:1])
    # Shapes (candidates, slopes) and (measured, slopes).
    leads = np.zeros((to_seen.shape[1], 1)) if scores is None else np.outer(scores, slopes)
    seen_leads = np.zeros((measured, 1)) if seen_scores is None else np.outer(seen_scores[:measured], slopes)
    rests = targets[:, None] - seen_leads
    priors = np.array([_log_prior(slope, len(slopes)) for slope in slopes])
    logs, gains = [], []
    for length in _LENGTHS:
        across, alike = _kernel(to_seen, length), _kernel(among_seen, length)
        for noise in _NOISES:
            covariance = alike + (noise**2 + _JITTER) * np.eye(len(alike))
            factor = np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)
            # Running points have no value yet, but little will be learnt next to them.
            spread = np.sqrt(np.maximum(_kernel_at_zero() - _explained(factor, across), 1e-12))
            # The corner of a Cholesky factor is that of the matrix's corner.
            corner = factor[:measured, :measured]
            white = np.linalg.solve(corner, rests)
            weights = np.linalg.solve(corner.T, white)
            means = leads + across[:, :measured] @ weights
            best = (targets[:, None] - noise**2 * weights).max(axis=0)
            logs.append(-0.5 * (white**2).sum(axis=0) - np.log(np.diag(corner)).sum() + priors)
            gains.append(_expected_improvement(means - best, spread[:, None]))
    weighed = np.concatenate(logs)
    shares = np.exp(weighed - weighed.max())
    return np.asarray(np.concatenate(gains, axis=1) @ shares / shares.sum())


def _log_prior(slope: float, slopes: int) -> float:
    if slopes == 1:
        return 0.0
    return math.log(_TRUST / (slopes - 1)) if slope else math.log(1 - _TRUST)


def _kernel(distances: Floats, length: float) -> Floats:
    """Return the covariance of two points from their distances by coordinate."""
    squares = (distances / length) ** 2
    single = np.exp(-0.5 * squares).mean(axis=0)
    together = np.exp(-0.5 * squares.sum(axis=0))
    return np.asarray(_LEVEL_VARIANCE + (1 - _TOGETHER) * single + _TOGETHER * together)


def _kernel_at_zero() -> float:
    return _LEVEL_VARIANCE + 1.0


def _explained(factor: Floats, across: Floats) -> Floats:
    """Return the variance of each candidate that the seen points take away."""
    white = np.linalg.solve(factor, across.T)
    return np.asarray((white**2).sum(axis=0))


def _expected_improvement(ahead: Floats, spread: Floats) -> Floats:
    """Return the mean excess over the best of a normal value, from its lead and its uncertainty."""
    z = ahead / spread
    below = 0.5 * (1 + np.vectorize(math.erf)(z / math.sqrt(2)))
    return np.asarray(ahead * below + spread * np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi))
