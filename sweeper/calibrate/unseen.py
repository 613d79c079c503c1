"""Predictions of numbers by calibrations that have not seen them: what intervals are made of."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

from sweeper.calibrate import anchoring, article, public, shipping
from sweeper.calibrate.figures import VALIDATION, Figure, predict
from sweeper.errors import SweeperError
from sweeper.simulation import calibration, stacks
from sweeper.simulation.intervals import Unseen, read

ANCHORED = Path(__file__).parent / "data" / "anchored_errors.csv"
"""What was predicted of each source from a few of its own numbers."""

COLUMNS = ("source", "metric", "distance", "published", "predicted")


def collect(tell: Callable[[str], object] = lambda _: None) -> Iterator[Unseen]:
    """Predict what is published from calibrations that were fitted without it.

    Each stack from the nearest other one, the larger model of each stack from the smaller, the article's
    figures that nothing was fitted to, and every other source from the stack nearest to it.
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
    for source in public.sources():
        if source.get("stack") is None:
            tell(source["name"])
            yield from _of_source(source["name"], public.source_figures(source))


def collect_anchored(tell: Callable[[str], object] = lambda _: None) -> Iterator[Unseen]:
    """Predict what each source says beyond two to four of its own numbers.

    A table of a known stack starts from the nearest other one, fitted without it.
    """
    for source in public.sources():
        figures = public.source_figures(source)
        if len(figures) < anchoring.FEWEST:
            continue
        tell(source["name"])
        asked = stacks.asked_of(figures[0].spec)
        basis = stacks.nearest(asked)
        if source.get("stack") is not None:
            name, found = shipping.nearest_without(source["stack"])
            basis = replace(calibration.load(name), values=asdict(found))
        assert basis.stack is not None
        try:
            told = anchoring.unseen(figures, basis=basis)
        except SweeperError:
            continue
        for figure, predicted in told:
            yield _unseen(source["name"], figure, predicted, basis.stack.distance(asked))


def anchored() -> tuple[Unseen, ...]:
    """Return what ``collect_anchored`` found when it was last written."""
    return read(ANCHORED)


def _of_source(name: str, figures: list[Figure]) -> Iterator[Unseen]:
    asked = stacks.asked_of(figures[0].spec)
    basis = stacks.nearest(asked)
    assert basis.stack is not None
    try:
        told = predict(figures, asdict(basis.calibration))
    except SweeperError:
        return
    for figure, predicted in zip(figures, told, strict=True):
        yield _unseen(name, figure, predicted, basis.stack.distance(asked))


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
