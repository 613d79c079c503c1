"""How sure a simulated number is: an interval that held four fifths of the numbers that were not seen.

The errors are those of predictions of published numbers by calibrations that had not seen them: of another
stack, of another model, of a source that nothing was fitted to. Their spread depends on what the number is,
its *family*, and on how far the run's stack is from one that is known, its *kind*. Few numbers are known of
some pairs of the two, so the typical error is a product: a size for each family times a size for each kind,
which all families share, and a farther stack is never the surer one. The interval is that of split conformal
prediction with errors divided by their typical size, on the logarithm and even on both sides.

Numbers of one source err together, so many of them say less than as many sources would: the rank of the
quantile, (n + 1) times the level, takes for n what they count as.

Source:
    Split conformal prediction: Vovk, Gammerman and Shafer (2005); with errors divided by a scale: Lei and
    others, Distribution-Free Predictive Inference for Regression (2018), section 5.2. What n numbers in
    clusters count as: Kish, Survey Sampling (1965), the design effect 1 + (m - 1) rho.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ERRORS = Path(__file__).parent / "data" / "unseen_errors.csv"
"""Every prediction of an unseen number, as ``python -m sweeper calibrate --published errors`` writes it."""

LEVEL = 0.8
"""Share of unseen numbers that an interval is to hold."""

_NEAR = 3.0
_SAME = 0.05
KINDS = ("same", "near", "far")
"""How far a run's stack is from the calibration's: the same one; less than three minor releases, or another
type of weights; farther, or another device or engine."""

_FAMILIES: Mapping[str, tuple[str, ...]] = {
    "throughput": ("_throughput_per_s", "_throughput_tok_per_s", "goodput_per_s"),
    "TTFT": ("_ttft_ms",),
    "TPOT": ("_tpot_ms", "_itl_ms"),
    "latency": ("_e2el_ms", "_batch_latency_ms", "duration_s"),
}


@dataclass(frozen=True, kw_only=True)
class Unseen:
    """One prediction of a number that its calibration had not seen.

    Attributes:
        source: Where the number stands.
        metric: A metric column of the store.
        distance: From the run's stack to the calibration's (``stack.Stack.distance``).
        published: The number.
        predicted: What the model said.
    """

    source: str
    metric: str
    distance: float
    published: float
    predicted: float

    @property
    def off(self) -> float:
        """How far off it is, as a logarithm; above 0 where too little was predicted."""
        return math.log(self.published / self.predicted)

    @property
    def kind(self) -> str:
        """One of ``KINDS``."""
        return kind_of(self.distance)


def kind_of(distance: float) -> str:
    """Return which of ``KINDS`` a distance between stacks is."""
    if distance <= _SAME:
        return KINDS[0]
    return KINDS[1] if distance < _NEAR else KINDS[2]


@cache
def family_of(metric: str) -> str | None:
    """Return the kind of a metric whose errors are alike: throughput, TTFT, TPOT or latency; else None."""
    return next((name for name, ends in _FAMILIES.items() if metric.endswith(ends)), None)


@cache
def known() -> tuple[Unseen, ...]:
    """Return every stored prediction of an unseen number."""
    return read(ERRORS)


def read(path: Path) -> tuple[Unseen, ...]:
    """Read predictions of unseen numbers from a file."""
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(
            Unseen(
                source=row["source"],
                metric=row["metric"],
                distance=float(row["distance"]),
                published=float(row["published"]),
                predicted=float(row["predicted"]),
            )
            for row in csv.DictReader(file)
        )


def factor(metric: str, distance: float, errors: Sequence[Unseen] | None = None) -> float | None:
    """Return by what factor a number of this kind is off at most, in four of five cases.

    Args:
        metric: A metric column of the store.
        distance: From the run's stack to the calibration's.
        errors: To take them from; None is all that are stored.

    Returns:
        Above 1; the interval goes from the prediction over it to the prediction times it. None where nothing
        is known of this metric.
    """
    family, kind = family_of(metric), kind_of(distance)
    if family is None:
        return None
    return (_known_factors() if errors is None else factors(errors)).get((family, kind))


@cache
def _known_factors() -> Mapping[tuple[str, str], float]:
    """Every number of every row asks, and there are a dozen answers."""
    return factors(known())


def factors(errors: Sequence[Unseen]) -> dict[tuple[str, str], float]:
    """Return by what factor numbers are off at most, in four of five cases.

    Args:
        errors: Predictions of unseen numbers, of any families and kinds.

    Returns:
        Family and kind to the factor; every kind, of each family that there are errors of.
    """
    told = [(family, each) for each in errors if (family := family_of(each.metric)) is not None]
    sizes = _typical_sizes(told)
    scaled = [(family, each.source, each.off / sizes[family, each.kind]) for family, each in told]
    alike = _likeness(scaled)
    return {
        (family, kind): math.exp(size * _quantile([one for one in scaled if one[0] == family], alike))
        for (family, kind), size in sizes.items()
    }


_LEAST_SIZE = 1e-9
"""Typical error where all are 0, so that nothing is divided by it."""

_ROUNDS = 20
"""Of fitting sizes in turn; ten settle six digits of the stored errors'."""


def _typical_sizes(told: Sequence[tuple[str, Unseen]]) -> dict[tuple[str, str], float]:
    """Return the mean absolute error of each family and kind as a product of one size for each of the two.

    Maximum likelihood for errors whose sizes are exponentially distributed, the two in turn. A kind of which
    there are no errors has the size of the next nearer one, else of the next farther.
    """
    sums: dict[tuple[str, str], tuple[float, int]] = {}
    for family, each in told:
        total, count = sums.get((family, each.kind), (0.0, 0))
        sums[family, each.kind] = (total + abs(each.off), count + 1)
    families = {family: 1.0 for family, _ in sums}
    kinds = {kind: 1.0 for kind in KINDS if any(kind == other for _, other in sums)}
    for _ in range(_ROUNDS):
        for family in families:
            families[family] = _mean_size(
                [
                    (total / kinds[kind], count)
                    for (own, kind), (total, count) in sums.items()
                    if own == family
                ]
            )
        for kind in kinds:
            kinds[kind] = _mean_size(
                [
                    (total / families[family], count)
                    for (family, own), (total, count) in sums.items()
                    if own == kind
                ]
            )
    grown, size = {}, min(kinds.values(), default=1.0) if KINDS[0] not in kinds else 0.0
    for kind in KINDS:
        size = grown[kind] = max(size, kinds.get(kind, 0.0))
    return {(family, kind): own * grown[kind] for family, own in families.items() for kind in KINDS}


def _mean_size(sums: Sequence[tuple[float, int]]) -> float:
    return max(math.fsum(total for total, _ in sums) / sum(count for _, count in sums), _LEAST_SIZE)


def _likeness(scaled: Sequence[tuple[str, str, float]]) -> float:
    """Return how far the errors of one source and family go together: 0 not at all, 1 they are all the same.

    The share of the errors' mean square that does not lie within sources; a shift that all share counts, too.
    """
    groups: dict[tuple[str, str], list[float]] = {}
    for family, source, off in scaled:
        groups.setdefault((family, source), []).append(off)
    degrees = len(scaled) - len(groups)
    square = math.fsum(off**2 for *_, off in scaled)
    if degrees == 0 or square == 0:
        return 0.0
    within = math.fsum(
        math.fsum(off**2 for off in group) - math.fsum(group) ** 2 / len(group) for group in groups.values()
    )
    return min(max(0.0, 1 - within / degrees * len(scaled) / square), 1.0)


def _quantile(scaled: Sequence[tuple[str, str, float]], alike: float) -> float:
    """Return the absolute error at the conformal rank, of errors that count as fewer than they are."""
    sizes = sorted(abs(off) for *_, off in scaled)
    counts = Counter(source for _, source, _ in scaled)
    worth = math.fsum(count / (1 + (count - 1) * alike) for count in counts.values())
    place = math.ceil(round(LEVEL * (worth + 1) / worth * len(sizes), 9))
    return sizes[min(len(sizes), place) - 1]


def interval(metric: str, value: float | None, distance: float) -> tuple[float, float] | None:
    """Return the interval of a simulated number; None where there is no number, or nothing is known."""
    wide = None if value is None or not math.isfinite(value) else factor(metric, distance)
    return None if wide is None or value is None else (value / wide, value * wide)


def coverage(
    errors: Iterable[Unseen], *, alike: Callable[[Unseen, Unseen], bool]
) -> dict[str, tuple[int, int]]:
    """Count how many unseen numbers lie in an interval made without their likes.

    Args:
        errors: All of them.
        alike: Whether two are of one source, so that the one must not tell of the other.

    Returns:
        Kind of metric to how many lie inside, and how many there are.
    """
    pool = list(errors)
    found: dict[str, tuple[int, int]] = {}
    for each in pool:
        family = family_of(each.metric)
        wide = factor(each.metric, each.distance, [other for other in pool if not alike(each, other)])
        if family is None or wide is None:
            continue
        inside, count = found.get(family, (0, 0))
        found[family] = (inside + (abs(each.off) <= math.log(wide)), count + 1)
    return found
