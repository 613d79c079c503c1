"""Charts of a search: what it found in which order, and what its knobs have to do with it.

A search has more settings than bars could show. Here each is a point: over the order of trials (*history*),
over each knob (*slices*), against a second objective or a bound (*trade-offs*, the Pareto front among them),
and a line over all knobs at once (*parallel coordinates*); of two knobs there is a *heat map*. Importance is
Optuna's. Its own pictures know neither our bounds nor that a number is simulated, so they are drawn here; the
marks say in shape as well as in colour which settings break a bound, and which is the best of the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis import bests, figures, leaderboard, search_drawing, style, tables
from analysis.importance import importance
from analysis.page import SIMULATED_BAND, Words
from analysis.study import Study
from sweeper.kinds import SEARCH_METHODS
from sweeper.records import Constraint, Objective
from sweeper.records.goal import load_text
from sweeper.text.numbers import number_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEWEST = 5
"""Settings with a number below which a table says all that a chart could."""

UNSAID = "default"
"""Stands for a knob that a setting does not set."""

_MOST_ACROSS = 24
"""Values of a knob beyond which a heat map is wider than a page, and mostly empty: slices show as much."""

_STEM = "search_"


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One chart: the stem of its files, its title, the figure, and the data that it shows."""

    stem: str
    title: str
    figure: Figure
    data: pd.DataFrame


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What a search found.

    Attributes:
        table: A row per setting that has the first objective, in the leaderboard's order: ``row`` (its row
            there, from 1), ``setting``, each knob of ``knobs``, each objective and each bounded quantity by
            its name (NaN where it was not measured), ``standing``, and ``trial`` (its place in the order in
            which trials ended, from 1).
        knobs: Those that differ among these settings.
    """

    table: pd.DataFrame
    knobs: tuple[str, ...]


def write(study: Study) -> list[Path]:
    """Draw the charts of a search into the ``figures/`` folder; return the files, none for another study."""
    found = found_by(study)
    if found is None:
        return []
    drawn: list[Path] = []
    with style.chart_style():
        for chart in _charts(study, found):
            drawn += figures.save(chart.figure, chart.data, study.folder / "figures" / chart.stem)
    return drawn


def section(study: Study, *, drawn: list[Path]) -> str:
    """Return the report's section with these charts, as Markdown; nothing where none was drawn."""
    pictures = [path for path in drawn if path.suffix == ".png" and path.stem.startswith(_STEM)]
    if not pictures:
        return ""
    shown = [
        f"![{path.stem.removeprefix(_STEM).replace('_', ' ')}]({path.relative_to(study.folder).as_posix()})"
        for path in pictures
    ]
    note = "Numbers at points are rows of the leaderboard. The data of each chart lies beside it as CSV."
    return "\n\n".join(["## Charts of the search", note, *shown])


def found_by(study: Study) -> Found | None:
    """Return what the charts show; None for named series, and for fewer than ``FEWEST`` settings."""
    if study.series or not leaderboard.is_search(study):
        return None
    board = leaderboard.leaderboard(study)
    rows = tables.settings(study.frame, study.series)
    ended = rows.groupby("setting", sort=False)["ended_at"].max().sort_values(na_position="first")
    order = {str(name): place for place, name in enumerate(ended.index, start=1)}
    read = ["setting", *(name for name in rows.columns if str(name).startswith("knob."))]
    firsts = {str(row["setting"]): row for row in rows.drop_duplicates("setting")[read].to_dict("records")}
    quantities: list[Objective | Constraint] = [*study.objectives, *study.constraints]
    values = {one.name: bests.score(study.frame, one, study.series) for one in quantities}
    settings = [
        {
            "row": place,
            "setting": entry.setting,
            **{name: _value(firsts[entry.setting][f"knob.{name}"]) for name in board.knobs},
            **{name: known.get(entry.setting) for name, known in values.items()},
            "standing": entry.standing,
            "trial": order[entry.setting],
        }
        for place, entry in enumerate(board.entries, start=1)
        if entry.values[0] is not None
    ]
    if len(settings) < FEWEST:
        return None
    table = pd.DataFrame(settings)
    return Found(table=table, knobs=tuple(name for name in board.knobs if table[name].nunique() > 1))


def axis_title(quantity: Objective | Constraint) -> str:
    """Name an objective or a bounded metric for an axis, with its unit and its load."""
    where = load_text(
        request_rate_per_s=quantity.request_rate_per_s, max_concurrency=quantity.max_concurrency
    )
    return f"{leaderboard.quantity_title(quantity)}{' ' if where else ''}{where}"


def _charts(study: Study, found: Found) -> Iterator[Chart]:
    objective, table, knobs = study.objectives[0], found.table, list(found.knobs)
    title = axis_title(objective)
    method = SEARCH_METHODS.get(study.method)

    def chart(stem: str, words: str, figure: Figure, data: pd.DataFrame = table) -> Chart:
        return Chart(stem=f"{_STEM}{stem}", title=words, figure=figure, data=data)

    yield from _tradeoffs(study, table)
    if method is not None and not method.is_exhaustive:
        words = _words(study, "History of the search", note=_way(objective))
        figure = search_drawing.history(
            table, y=objective.name, is_higher_better=objective.is_higher_better, title=title, words=words
        )
        yield chart("history", words.title, figure)
        shares = importance(study, objective)
        if shares:
            data = pd.DataFrame(
                [(name.removeprefix("knob."), share) for name, share in shares.items()],
                columns=["knob", "share"],
            )
            words = _words(study, "Importance of knobs", note=f"for {title}", marks=_IMPORTANCE)
            yield chart("importance", words.title, search_drawing.importances(data, words=words), data)
    if len(knobs) == 2 and all(table[knob].nunique() <= _MOST_ACROSS for knob in knobs):
        cross = " Cross: breaks a bound." if study.constraints else ""
        words = _words(
            study, f"{title} over two knobs", note=_way(objective), marks=f"Darker: more. Frame: best.{cross}"
        )
        yield chart(
            "heat", words.title, search_drawing.heat(table, knobs=knobs, y=objective.name, words=words)
        )
    if knobs:
        words = _words(study, f"{title} over each knob", note=_way(objective))
        figure = search_drawing.slices(table, knobs=knobs, y=objective.name, title=title, words=words)
        yield chart("slices", words.title, figure)
    if len(knobs) > 1:
        words = _words(study, "All knobs of each setting", note=_way(objective), marks=_LINES)
        figure = search_drawing.parallel(table, knobs=knobs, y=objective.name, title=title, words=words)
        yield chart("parallel", words.title, figure)


_IMPORTANCE = (
    "PED-ANOVA (Optuna): the share of each knob in what makes a setting one of the best tenth, from all "
    "settings with a number, bounds aside. Of few settings it is a hint, not a proof."
)


_LINES = (
    "A line per setting. Thick orange: best or on the Pareto front; dark blue: the better half of the "
    "leaderboard; pale blue: the others; dashed grey: breaks a bound."
)


def _tradeoffs(study: Study, table: pd.DataFrame) -> Iterator[Chart]:
    """Draw the first objective against every other one and every bounded quantity."""
    first, *further = study.objectives
    others: list[Objective | Constraint] = [*further, *study.constraints]
    for place, other in enumerate(others, start=1):
        shown = table.dropna(subset=[other.name])
        if len(shown) < FEWEST:
            continue
        is_front = isinstance(other, Objective) and len(study.objectives) == 2
        bound = other.limit if isinstance(other, Constraint) else None
        words = _words(
            study,
            "Pareto front" if is_front else f"{axis_title(first)} against {axis_title(other)}",
            more="" if bound is None else f"Red line: the bound, {number_text(bound)}.",
        )
        figure = search_drawing.tradeoff(
            shown,
            x=(other.name, axis_title(other)),
            y=(first.name, axis_title(first)),
            bound=bound,
            is_front=is_front,
            is_right_better=_is_higher_better(other),
            words=words,
        )
        stem = "pareto" if is_front else f"tradeoff_{place}"
        yield Chart(stem=f"{_STEM}{stem}", title=words.title, figure=figure, data=shown)


def _is_higher_better(quantity: Objective | Constraint) -> bool:
    return quantity.is_higher_better if isinstance(quantity, Objective) else not quantity.is_upper


def _way(objective: Objective) -> str:
    return "higher is better" if objective.is_higher_better else "lower is better"


def _words(study: Study, title: str, *, note: str = "", more: str = "", marks: str = "") -> Words:
    origin = "simulated" if study.is_simulated else "measured"
    meaning = marks or (
        "Diamond: best or on the Pareto front. Circle: another setting"
        + (" that keeps the bounds. Cross: breaks a bound." if study.constraints else ".")
    )
    return Words(
        title=title,
        note=note,
        subtitle=study.question or study.name,
        caption=" ".join(filter(None, (f"Study {study.name}, {origin}.", more, meaning))),
        band=SIMULATED_BAND if study.is_simulated else "",
    )


def _value(value: Any) -> Any:
    if value is None or pd.isna(value):
        return UNSAID
    plain = tables.plain(value)
    return (
        plain if isinstance(plain, int | float) and not isinstance(plain, bool) else tables.value_text(plain)
    )
