"""The calibrations that come with the package, made anew from AMD's tables, each with its errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import cache

from sweeper.calibrate import stacks
from sweeper.calibrate.figures import FIT, VALIDATION, Figure
from sweeper.calibrate.judging import compared_of, errors_as
from sweeper.simulation.calibration import Calibration, NamedCalibration
from sweeper.simulation.stack import Asked

LARGE = "405B"
"""Part of the names of the models that leave-one-model-out leaves out."""


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """What the calibrations say of numbers that they have not seen.

    Attributes:
        kind: ``stack`` or ``model``: what was left out.
        name: Of the stack that the numbers are of.
        basis: Stack whose calibration predicted them.
        figures: The numbers.
        predicted: What was predicted of each.
    """

    kind: str
    name: str
    basis: str
    figures: Sequence[Figure]
    predicted: Sequence[float]


@cache
def nearest_without(name: str) -> tuple[str, Calibration]:
    """Return the stack that is nearest to one of whose release nothing is known, fitted without it.

    All images of that release are left out, since they are nearly the same.
    """
    table = next(table for table in stacks.TABLES if table.name == name)
    alike = [other.name for other in stacks.TABLES if other.stack.release == table.stack.release]
    found = stacks.fit_all(without_stacks=alike)
    asked = Asked(
        release=table.stack.release,
        generation=table.stack.generation,
        device=table.stack.device,
        weights=table.stack.weights[0],
        aiter=bool(table.stack.aiter),
    )
    basis = stacks.nearest_of(found, asked)
    return basis, found[basis]


def without_each_stack() -> Iterator[LeftOut]:
    """Predict the tables of each stack from the nearest of other releases, fitted without it."""
    for table in stacks.TABLES:
        basis, found = nearest_without(table.name)
        yield _left_out("stack", table.name, basis, stacks.table_figures(table.name), found)


def without_large_model(halves: Sequence[float] = stacks.HALVES) -> Iterator[LeftOut]:
    """Predict the larger model of each stack from fits that have not seen it, of any stack.

    Args:
        halves: Values of ``stacks.HALF`` to choose from.
    """
    found = stacks.fit_all(without_models=(LARGE,), halves=halves)
    for name, each in found.items():
        figures = [figure for figure in stacks.table_figures(name) if LARGE in figure.spec.model.name]
        if figures:
            yield _left_out("model", name, name, figures, each)


def _left_out(kind: str, name: str, basis: str, figures: Sequence[Figure], found: Calibration) -> LeftOut:
    return LeftOut(kind=kind, name=name, basis=basis, figures=figures, predicted=stacks.told(figures, found))


def made(*, date_made: date, tell: Callable[[str], object]) -> Iterator[NamedCalibration]:
    """Make the calibration of every stack with tables.

    Args:
        date_made: Day of the fit.
        tell: Called with a line for each stack.
    """
    found = stacks.with_single(stacks.fit_all(tell=tell))
    unseen = {left.name: left for left in (*without_each_stack(), *without_large_model())}
    for table in stacks.TABLES:
        figures = stacks.table_figures(table.name)
        left = unseen[table.name]
        errors = {
            FIT: errors_as(FIT, figures, stacks.told(figures, found[table.name])),
            VALIDATION: errors_as(VALIDATION, left.figures, left.predicted),
        }
        fitted = _fitted(table)
        yield NamedCalibration(
            name=table.name,
            about=_about(table, left),
            made=date_made.isoformat(),
            values=asdict(found[table.name]),
            fitted=fitted,
            errors_pct=errors,
            compared=compared_of(figures),
            stack=table.stack,
            taken=_taken(fitted, generation=table.stack.generation),
        )


def _about(table: stacks.Table, left: LeftOut) -> str:
    unseen = (
        "405B predicted from fits to 70B alone"
        if left.kind == "model"
        else f"its tables predicted from {left.basis}, fitted without it"
    )
    return (
        f"vLLM {table.stack.release} ({table.stack.generation.upper()}) on 8 MI300X, {table.stack.image}, "
        f"AITER off, after AMD's validation tables (ROCm/vllm, docs/dev-docker); runs not fitted: {unseen}."
    )


def _fitted(table: stacks.Table) -> dict[str, str]:
    own = f"AMD's validation tables of {table.stack.release}"
    fitted = dict.fromkeys(table.parameters, own)
    fitted[stacks.HALF] = "AMD's validation tables of all its stacks"
    if table.stack.generation == "v0":
        fitted[stacks.SINGLE[0]] = f"{stacks.SINGLE[1]}, taken over by every V0"
    return fitted


def _taken(fitted: Mapping[str, str], *, generation: str) -> dict[str, str]:
    taken = {name: "article_0_6_2" for name in Calibration.__dataclass_fields__ if name not in fitted}
    if generation == "v1":
        taken |= dict.fromkeys(stacks.SINCE_V1, "assumed")
    return taken | {name: source for name, (_, source) in stacks.SHARED.items()}
