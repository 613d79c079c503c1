"""What the page of a study shows, as plain data that JSON can hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import bests, figures, kept_up, load_names, origins, serving, standings, tables
from analysis.browser import curves, logs, repeating
from analysis.browser.plain import Plain, number
from analysis.facts import FACTS_OF_ONE
from analysis.importance import importance
from analysis.leaderboard import Entry, Leaderboard, is_search, leaderboard
from analysis.leaderboard_text import change_text
from analysis.markdown import bare
from analysis.page import SIMULATED_BAND, Metric
from analysis.records import records
from analysis.search_charts import axis_title
from analysis.study import Study
from sweeper.errors import remedy_of
from sweeper.intervals import Estimate
from sweeper.kinds import SEARCH_METHODS
from sweeper.records import Constraint, Objective, Platform, TrialState
from sweeper.store import description
from sweeper.store.description import Description
from sweeper.store.files import open_folder
from sweeper.text.numbers import number_text
from sweeper.text.printable import LINES, legible
from sweeper.text.reasons import kind_of

UNSAID = "default"
"""Stands for a knob that a setting does not set."""

_KNOB = "knob."
_FURTHER = ("model", "image", "engine")
_WORDS_OF_STATE = {
    str(TrialState.COMPLETE): "",
    str(TrialState.SKIPPED): "stopped early",
    str(TrialState.INFEASIBLE): "refused",
}


def contents(study: Study) -> Plain:
    """Gather what the page shows of a study.

    Args:
        study: The study.

    Returns:
        ``title``, ``name``, ``band`` (of simulated numbers; empty where all are measured), ``provenance``
        and ``facts`` (sentences), ``best`` (an answer per objective, each a ``text`` and ``commands``: a
        ``text`` and a ``line`` each),
        ``bounds``, ``objectives``, ``knobs`` (those that vary), ``same`` (what is equal for all),
        ``columns`` and ``settings`` (a row each, in the leaderboard's order), ``against``, ``curves``,
        ``tradeoffs``, ``metrics`` (a chart each), ``search`` (None for a grid), ``failures``, ``environment``
        and ``commands``. A setting is named elsewhere by its place in ``settings``, from 0. Numbers that are
        not there are None.
    """
    rows = tables.settings(study.frame, study.series)
    board = leaderboard(study)
    places = {entry.setting: place for place, entry in enumerate(board.entries)}
    varying = varying_columns(rows)
    return {
        "title": legible(study.question or study.name),
        "name": legible(study.name),
        "band": SIMULATED_BAND if study.is_simulated else "",
        "provenance": bare(origins.provenance_sentence(study)),
        "facts": [bare(line.removeprefix("- ")) for line in origins.origin(study).splitlines()],
        "best": _best(study, places),
        "bounds": [constraint.name for constraint in study.constraints],
        "objectives": [
            {"title": axis_title(goal), "higher": goal.is_higher_better} for goal in study.objectives
        ],
        "knobs": [_knob_name(column) for column in varying],
        "same": _same(rows, varying),
        "columns": _columns(board),
        "against": _against(board),
        "settings": _settings(study, board, rows, varying),
        "curves": curves.plain(study, places),
        "tradeoffs": _tradeoffs(study, places),
        "metrics": [_metric(study, metric, places) for metric in figures.metrics_of(study)],
        "search": _search(study, rows, places),
        "failures": _failures(study, rows),
        "environment": _environment(study.frame),
        "commands": repeating.commands(study),
    }


def before_results(folder: Path) -> Plain:
    """Return the same of a study that has no results yet: what it asks, and nothing else."""
    about = description.read(open_folder(folder, where="study")) or Description()
    is_simulated = about.platform == str(Platform.SIMULATED)
    return {
        "title": legible(about.question or about.name or folder.name),
        "name": legible(about.name or folder.name),
        "band": SIMULATED_BAND if is_simulated else "",
        "provenance": "Results appear here as they are stored and read.",
        "facts": [legible(about.node)] if about.node else [],
        "bounds": [constraint.name for constraint in about.constraints],
        "objectives": [
            {"title": axis_title(goal), "higher": goal.is_higher_better} for goal in about.objectives
        ],
        "against": "",
        "search": None,
        "commands": repeating.to_run_again(folder),
        **{name: [] for name in _LISTS},
    }


_LISTS = (
    *("best", "knobs", "same", "columns", "settings", "curves", "tradeoffs", "metrics", "failures"),
    "environment",
)


def varying_columns(rows: pd.DataFrame) -> list[str]:
    """Return the columns of knobs that differ between settings; of model, image and engine, too."""
    names = [str(name) for name in rows.columns if str(name).startswith(_KNOB)]
    return [
        name
        for name in [*names, *(further for further in _FURTHER if further in rows)]
        if rows[name].nunique(dropna=False) > 1
    ]


def _knob_name(column: str) -> str:
    return legible(column.removeprefix(_KNOB))


def _value(value: Any) -> Any:
    """Return a knob's value as it is compared: numbers stay numbers, everything else is text."""
    if value is None or (not isinstance(value, str | list) and pd.isna(value)):
        return UNSAID
    plain = tables.plain(value)
    if isinstance(plain, bool):
        return str(plain).lower()
    return plain if isinstance(plain, int | float) else legible(plain)


def _same(rows: pd.DataFrame, varying: Sequence[str]) -> list[list[str]]:
    told = [name for name in map(str, rows.columns) if name.startswith(_KNOB) and name not in varying]
    equal = {name: _value(rows[name].iloc[0]) for name in told}
    return [[_knob_name(name), str(value)] for name, value in equal.items() if value != UNSAID]


def _settings(study: Study, board: Leaderboard, rows: pd.DataFrame, varying: Sequence[str]) -> list[Plain]:
    names = ("setting", "series", *varying, *serving.READ)
    read = [name for name in map(str, rows.columns) if name in names or name.startswith(_KNOB)]
    firsts = {str(row["setting"]): row for row in rows.drop_duplicates("setting")[read].to_dict("records")}
    return [
        {
            "name": legible(entry.setting),
            "series": None if firsts[entry.setting]["series"] is None else legible(entry.setting),
            "trial": entry.trial_key,
            "place": entry.place,
            "isTied": entry.is_tied,
            "standing": entry.standing,
            "breaks": legible(entry.breaks),
            "state": entry.why_none,
            "knobs": [_value(firsts[entry.setting][column]) for column in varying],
            "values": [_estimate(value) for value in entry.values],
            "further": _further(board, entry),
            "command": legible(serving.line_of_row(firsts[entry.setting]), keep=LINES),
        }
        for entry in board.entries
    ]


def _columns(board: Leaderboard) -> list[Plain]:
    """Return the columns beside the objectives: change, bounds, GPUs where they differ, cost for a price."""
    changes = [
        {"title": "change" if len(board.objectives) == 1 else f"change of {axis_title(goal)}"}
        for goal in board.objectives
    ]
    bounds = [
        {"title": f"{axis_title(bound)} {'≤' if bound.is_upper else '≥'} {bound.limit:g}"}
        for bound in board.constraints
    ]
    gpus = [{"title": "GPUs"}] if _gpus_differ(board) else []
    return [*changes, *bounds, *gpus, *([{"title": _cost_title(board)}] if board.has_cost else [])]


def _further(board: Leaderboard, entry: Entry) -> list[list[Any]]:
    """Return a setting's cells of these columns, each a number to sort by and a text."""
    changes = [
        [number(change), change_text(board, entry, position)] for position, change in enumerate(entry.changes)
    ]
    bounds = [
        _bound_cell(constraint, entry.beside[board.beside.index(constraint)], entry)
        for constraint in board.constraints
    ]
    cost = [[entry.cost, "" if entry.cost is None else number_text(entry.cost)]]
    gpus = [[number(entry.gpus), "" if entry.gpus is None else f"{entry.gpus:g}"]]
    return [
        *changes,
        *bounds,
        *(gpus if _gpus_differ(board) else []),
        *(cost if board.has_cost else []),
    ]


def _gpus_differ(board: Leaderboard) -> bool:
    """Return whether settings hold different numbers of GPUs: then a number per GPU needs them beside it."""
    return len({entry.gpus for entry in board.entries} - {None}) > 1


def _bound_cell(constraint: Constraint, mean: float | None, entry: Entry) -> list[Any]:
    for breach in entry.breaches:
        if breach.constraint == constraint:
            told = breach.text.removeprefix(f"{constraint.name} ").strip("()").removeprefix("is ")
            return [number(breach.value), f"× {told}"]
    return [number(mean), "" if mean is None else number_text(mean)]


def _cost_title(board: Leaderboard) -> str:
    return f"cost per million output tokens{f' ({board.currency})' if board.currency else ''}"


def _against(board: Leaderboard) -> str:
    """Say what changes are against, by its place in the table."""
    if board.baseline is None:
        return ""
    place = [entry.setting for entry in board.entries].index(board.baseline) + 1
    what = "which changes none of these knobs" if board.is_default else "which changes the fewest knobs"
    return f"Changes are against #{place}, {what}."


def _estimate(found: Estimate | None) -> list[float | None] | None:
    return None if found is None else [number(found.mean), number(found.low), number(found.high), found.n]


def _best(study: Study, places: Mapping[str, int]) -> list[Plain]:
    found = standings.best(study).to_dict("records")
    answers: list[Plain] = []
    for place, sentence in enumerate(_best_lines(study, places)):
        lines: list[Plain] = []
        if place < len(found):
            key = str(found[place]["trial_key"])
            today = serving.today(study.frame, key)
            lines = [
                {"text": serving.why_no_line(study.frame, key), "line": serving.serve_line(study.frame, key)},
                *([] if today is None else [{"text": today.about, "line": today.line}]),
            ]
        answers.append({"text": legible(sentence), "commands": [_legible(line) for line in lines]})
    # The front's settings stand, marked, in the leaderboard.
    closing = [line.rstrip(":") for line in standings.closing_lines(study) if not line.startswith(" ")]
    closing += kept_up.lines(study)
    return answers + [{"text": legible(line), "commands": []} for line in closing]


def _best_lines(study: Study, places: Mapping[str, int]) -> list[str]:
    """Return who is the best; settings that nobody named are known by their place in the table."""

    def place(setting: str) -> str:
        return f"#{places[setting] + 1}"

    if not is_search(study):
        return standings.best_lines(study)
    return standings.best_lines(study, name=lambda name: f"{place(name)} ({name})", other=place)


def _legible(texts: Plain) -> Plain:
    return {name: legible(text, keep=LINES) for name, text in texts.items()}


def _tradeoffs(study: Study, places: Mapping[str, int]) -> list[Plain]:
    """Return the pairs of quantities that cannot both be had: the first objective against each other one."""
    first, *others = study.objectives
    first_values = bests.score(study.frame, first, study.series)
    pairs: list[Plain] = []
    further: list[Objective | Constraint] = [*others, *study.constraints]
    for other in further:
        values = bests.score(study.frame, other, study.series)
        both = [name for name in places if name in values and name in first_values]
        if len(both) < 2:
            continue
        goal = other if isinstance(other, Objective) else None
        bound = other if isinstance(other, Constraint) else None
        pairs.append(
            {
                "x": axis_title(other),
                "y": axis_title(first),
                "xHigher": goal.is_higher_better if goal else bool(bound and not bound.is_upper),
                "yHigher": first.is_higher_better,
                "bound": number(bound.limit) if bound else None,
                "isFront": goal is not None and len(study.objectives) == 2,
                "points": [[places[n], number(values[n]), number(first_values[n])] for n in both],
            }
        )
    return pairs


def _metric(study: Study, metric: Metric, places: Mapping[str, int]) -> Plain:
    table = figures.chart_table(study, metric)
    table = table[table["setting"].isin(places)]
    rows = records(table)
    points = list(dict.fromkeys(load_names.load_point_text(row) for row in rows))
    return {
        "title": metric.title,
        "higher": metric.is_higher_better,
        "loads": [legible(point) for point in points],
        "axis": next((str(name) for name in table["load_axis"] if name), ""),
        "points": [
            {
                "s": places[str(row["setting"])],
                "l": points.index(load_names.load_point_text(row)),
                "v": [number(row["mean"]), number(row["low"]), number(row["high"]), int(row["n"])],
                "bound": number(row["bound"]),
                "published": number(row["published_value"]),
            }
            for row in rows
            if row["n"]
        ],
    }


def _search(study: Study, rows: pd.DataFrame, places: Mapping[str, int]) -> Plain | None:
    method = SEARCH_METHODS.get(study.method)
    if method is None or method.is_exhaustive:
        return None
    ended = rows.groupby("setting", sort=False)["ended_at"].max().sort_values(na_position="first")
    return {
        "order": [places[str(name)] for name in ended.index if str(name) in places],
        "importance": [
            [_knob_name(column), share] for column, share in importance(study, study.objectives[0]).items()
        ],
    }


def _failures(study: Study, rows: pd.DataFrame) -> list[Plain]:
    """Gather trials without numbers: those of one reason, whatever its numbers, with the first one's log."""
    failed = rows[rows["state"] != str(TrialState.COMPLETE)].drop_duplicates(["setting", "trial_key"])
    found: dict[tuple[str, str, str], Plain] = {}
    for row in failed.to_dict("records"):
        state = str(row["state"])
        kind, message = (_text(row[name]) for name in ("failure_class", "failure_message"))
        reason = (state, kind, kind_of(message))
        entry = found.get(reason)
        if entry is None:
            entry = {
                "state": _WORDS_OF_STATE.get(state, state),
                "class": kind,
                "message": message,
                "remedy": remedy_of(kind),
                "settings": [],
                "log": _text(row["log_path"]),
                "lines": logs.last_lines(study.folder, row["log_path"]),
            }
            found[reason] = entry
        entry["settings"].append(legible(row["setting"]))
    return list(found.values())


def _text(value: Any) -> str:
    return "" if value is None or pd.isna(value) else legible(value, keep=LINES)


def _environment(frame: pd.DataFrame) -> list[list[str]]:
    versions = {c.removeprefix("version."): c for c in map(str, frame.columns) if c.startswith("version.")}
    facts = [
        [words, ", ".join(legible(value) for value in dict.fromkeys(frame[column].dropna()))]
        for words, column in ({"Provenance": "provenance"} | FACTS_OF_ONE | versions).items()
    ]
    starts, ends = frame["started_at"].min(), frame["ended_at"].max()
    if not pd.isna(starts) and not pd.isna(ends):
        facts.append(["Time", f"{starts:%Y-%m-%d %H:%M} to {ends:%Y-%m-%d %H:%M} UTC"])
    return [fact for fact in facts if fact[1]]
