"""Predictions of numbers by calibrations that have not seen them: what intervals are made of."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path

from sweeper.calibrate import anchoring, article, pooled, public, shipping, sourced
from sweeper.calibrate import stacks as stacks_fitted
from sweeper.calibrate.figures import VALIDATION, Figure, predict
from sweeper.errors import SweeperError
from sweeper.simulation import calibration, stacks
from sweeper.simulation.calibration import NamedCalibration
from sweeper.simulation.intervals import Unseen, read
from sweeper.simulation.stack import Asked

ANCHORED = Path(__file__).parent / "data" / "anchored_errors.csv"
"""What was predicted of each source from a few of its own numbers."""

COLUMNS = ("source", "metric", "distance", "published", "predicted")


def collect(tell: Callable[[str], object] = lambda _: None) -> Iterator[Unseen]:
    """Predict what is published from calibrations that were fitted without it.

    Each stack from the nearest other one, the larger model of each stack from the smaller, the article's
    figures that nothing was fitted to, and every other source from the stack nearest to it; a source that
    this one was fitted to, from a fit without the source's model.
    """
    for left in (*shipping.without_each_stack(), *shipping.without_large_model()):
        own = calibration.load(left.basis).stack
        assert own is not None
        tell(f"{left.name} without that {left.kind}, from {left.basis}")
        for figure, predicted in zip(left.figures, left.predicted, strict=True):
            distance = own.distance(stacks.asked_of(figure.spec))
            yield _unseen(f"{left.name} ({left.kind} left out)", figure, predicted, distance)
    judged = [figure for figure in article.article_figures() if figure.role == VALIDATION]
    tell("the article's figures that nothing was fitted to")
    for figure, predicted in zip(
        judged, predict(judged, asdict(calibration.load().calibration)), strict=True
    ):
        yield _unseen(f"article {figure.experiment}", figure, predicted, 0.0)
    pooled.fit_all()
    yield from _side_by_side(_of_source, _other_names(), tell)


def collect_anchored(tell: Callable[[str], object] = lambda _: None) -> Iterator[Unseen]:
    """Predict what each source says beyond two to four of its own numbers.

    A table of a known stack starts from the nearest of another release, fitted without it, and a source of a
    stack of several from a fit without the source's model.
    """
    bases = {table.name: shipping.nearest_without(table.name) for table in stacks_fitted.TABLES}
    known = [source for source in public.sources() if source.get("stack") is not None]
    for source in known:
        tell(source["name"])
        name, found = bases[source["stack"]]
        yield from _anchored_to(source["name"], replace(calibration.load(name), values=asdict(found)))
    pooled.fit_all()
    yield from _side_by_side(_anchored_to, _other_names(), tell)


def _other_names() -> list[str]:
    """Return the names of all sources that no stack was fitted to alone."""
    fitted = sourced.fitted_names()
    return [
        source["name"]
        for source in public.sources()
        if source.get("stack") is None and source["name"] not in fitted
    ]


def _side_by_side(
    predicted: Callable[[str], list[Unseen]], names: Sequence[str], tell: Callable[[str], object]
) -> Iterator[Unseen]:
    """Predict sources on all cores; each stands for itself."""
    with ProcessPoolExecutor(mp_context=get_context("fork")) as pool:
        for name, found in zip(names, pool.map(predicted, names), strict=True):
            tell(name)
            yield from found


def _nearest(name: str, asked: Asked) -> NamedCalibration:
    """Return the stack nearest to a source; one that was fitted to it, without the source's model."""
    return pooled.without_model_of(name) if name in pooled.fitted_names() else stacks.nearest(asked)


def _of_source(name: str) -> list[Unseen]:
    """Predict a source from the nearest stack as it is."""
    return _told(
        name, lambda figures, basis: zip(figures, predict(figures, asdict(basis.calibration)), strict=True)
    )


def _anchored_to(name: str, basis: NamedCalibration | None = None) -> list[Unseen]:
    """Predict a source from a few of its own numbers, which move the nearest stack, or that of ``basis``."""
    return _told(name, lambda figures, basis: anchoring.unseen(figures, basis=basis), basis)


_Predict = Callable[[Sequence[Figure], NamedCalibration], Iterable[tuple[Figure, float]]]


def _told(name: str, predicted: _Predict, basis: NamedCalibration | None = None) -> list[Unseen]:
    """Return what is predicted of a source from a stack, the nearest where none is given.

    Nothing where the model refuses a run.
    """
    figures = public.figures_of(name)
    asked = stacks.asked_of(figures[0].spec)
    basis = basis or _nearest(name, asked)
    assert basis.stack is not None
    try:
        found = list(predicted(figures, basis))
    except SweeperError:
        return []
    distance = basis.stack.distance(asked)
    return [_unseen(name, figure, value, distance) for figure, value in found]


def anchored() -> tuple[Unseen, ...]:
    """Return what ``collect_anchored`` found when it was last written."""
    return read(ANCHORED)


def _unseen(source: str, figure: Figure, predicted: float, distance: float) -> Unseen:
    return Unseen(
        source=source,
        metric=figure.metric,
        distance=distance,
        published=figure.value,
        predicted=predicted,
    )


def write(path: Path, found: Iterable[Unseen]) -> None:
    """Write predictions of unseen numbers, as ``simulation.intervals`` reads them."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for each in found:
            rows.writerow((each.source, each.metric, *(f"{getattr(each, name):.6g}" for name in COLUMNS[2:])))
