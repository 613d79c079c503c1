"""How sure a simulated number is: an interval that held four fifths of the numbers that were not seen.

The errors are those of predictions of published numbers by calibrations that had not seen them: of another
stack, of another model, of a source that nothing was fitted to. Their spread depends on what the number is
and on how far the run's stack is from one that is known, so each kind has its own. The interval is that of
split conformal prediction (Vovk, Gammerman and Shafer, 2005), on the logarithm and even on both sides.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ERRORS = Path(__file__).parent / "data" / "unseen_errors.csv"
"""Every prediction of an unseen number, as ``python -m sweeper calibrate --published errors`` writes it."""

LEVEL = 0.8
"""Share of unseen numbers that an interval is to hold."""

FEWEST = 8
"""Errors of one kind below which those of the next farther kind are taken as well."""

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
    return _known_factor(family, kind) if errors is None else _factor(family, kind, errors)


@cache
def _known_factor(family: str, kind: str) -> float | None:
    """Every number of every row asks, and there are a dozen answers."""
    return _factor(family, kind, known())


def _factor(family: str, kind: str, errors: Sequence[Unseen]) -> float | None:
    of_family = [each for each in errors if family_of(each.metric) == family]
    if not of_family:
        return None
    wanted = KINDS.index(kind)
    taken = [each for each in of_family if each.kind == kind]
    for other in (*KINDS[wanted + 1 :], *reversed(KINDS[:wanted])):
        if len(taken) >= FEWEST:
            break
        taken += [each for each in of_family if each.kind == other]
    sizes = sorted(abs(each.off) for each in taken)
    place = min(len(sizes), math.ceil(LEVEL * (len(sizes) + 1)))
    return math.exp(sizes[place - 1])


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
