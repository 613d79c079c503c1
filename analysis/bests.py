"""Which setting is best: among those that keep every bound, by each objective, and by all of them together.

A setting that breaks a bound is never the best, however fast it is, and what it breaks is said. Bounds are
judged as the search judges them (``goals.objectives``): by the mean at their load point. A finalist is
judged by its second measurement, too. Where there are several objectives no setting need be best in all: the
*front* holds those that no other one beats in one objective without losing in another.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis import answers, load_names, starts, tables
from analysis.records import records
from analysis.study import Series
from sweeper.goals.objectives import counts, objective_value, row_value
from sweeper.goals.objectives import front as objectives_front
from sweeper.intervals import Estimate, estimate
from sweeper.records import SEARCH_SLOS, Constraint, Objective, Scalar, TrialState
from sweeper.records.goal import load_text
from sweeper.records.plurals import amount, percent
from sweeper.store.overrides import overridden as overrides_of
from sweeper.text.numbers import number_text

_SAME = 1e-9
"""Share by which two numbers may differ and be the same one: rounding."""

_BEST = [
    *("objective", "setting", "value", "low", "high", "n", "ties", "runner_up", "runner_up_value"),
    *("verdict", "trial_key"),
]
_MOST_NAMED = 6
_MANY_TIMES = 10
_VALUE = "_value"
_IDENTITY = ("setting", "model", "engine")
_HELD = ("devices", "partition_mode")
_READ = ("request_rate_per_s", "max_concurrency", "dataset", "keeps_prefix_cache")


@dataclass(frozen=True, kw_only=True)
class Breach:
    """A bound that a setting does not keep.

    Attributes:
        constraint: The bound.
        value: What breaks it; None where it was not measured, so that it is unknown whether it is kept.
        was_final: The setting kept it in the search, and broke it when it was measured again.
    """

    constraint: Constraint
    value: float | None
    was_final: bool = False

    @property
    def past(self) -> float:
        """How far it is past the limit, as ``Constraint.violation``; infinite where that is unknown."""
        return math.inf if self.value is None else self.constraint.violation(self.value)

    @property
    def text(self) -> str:
        """The bound, the value, and by how much."""
        if self.value is None:
            return f"{self.constraint.name} (not measured)"
        again = " when measured again" if self.was_final else ""
        return f"{self.constraint.name} (is {number_text(self.value)}{again}{self._share_text})"

    @property
    def _share_text(self) -> str:
        if not self.constraint.limit:
            return ""
        if self.past >= _MANY_TIMES - 1:
            return f", {self.past + 1:,.0f} times the bound"
        share = percent(self.past) if self.past >= 0.02 else percent(self.past, ".2")
        return f", {share} {'over' if self.constraint.is_upper else 'under'}"


def best(
    frame: pd.DataFrame,
    *,
    objectives: Iterable[Objective],
    constraints: Sequence[Constraint] = (),
    series: Mapping[str, Series] | None = None,
    finals: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return the best setting for each objective, and whether it is clearly better than the next.

    Only settings that have a number at every load point that counts take part, that keep every bound, and
    whose answers are not broken (``answers``). A series of second runs does not: it is the same server as
    its first run, answering what it was asked before.

    Args:
        frame: Rows of the store, latest attempts.
        objectives: What is better.
        constraints: What has to be kept.
        series: Labels and order of named series.
        finals: Rows of finalists that were measured again; a bound broken there is broken.

    Returns:
        Columns ``objective``, ``setting``, ``value``, ``low``, ``high``, ``n``, ``ties`` (other settings
        with the same number), ``runner_up`` (the next number), ``runner_up_value``, ``verdict`` and
        ``trial_key``; a row per objective that can be answered. Of equal settings it is the one with the
        fewest overrides. The verdict is ``tie`` where there is an equal one, ``clear`` when the 95 %
        intervals of the first two lie apart, ``inconclusive`` when they touch, ``single start`` when either
        was started only once, ``alone`` when there is no other.
    """
    rows = _feasible(_competing(frame, series), constraints, finals)
    found = [_best_row(rows, objective) for objective in objectives]
    return pd.DataFrame([answer for answer in found if answer is not None], columns=_BEST)


def front(
    frame: pd.DataFrame,
    *,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint] = (),
    series: Mapping[str, Series] | None = None,
    finals: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return the Pareto front: the settings that no other one is better than in every respect.

    Returns:
        Columns ``setting``, the name of each objective (its mean) and ``trial_key``; the best by the first
        objective first. Of those that take part in ``best``, by means alone: intervals that touch may hide
        that two settings are the same.
    """
    rows = _feasible(_competing(frame, series), constraints, finals)
    scores = [_scores(rows, objective) for objective in objectives]
    values = {
        str(setting): tuple(found[setting].mean for found in scores)
        for setting in rows["setting"].unique()
        if all(setting in found for found in scores)
    }
    kept = objectives_front(values, objectives=objectives)
    kept.sort(key=lambda setting: objectives[0].sign * values[setting][0], reverse=True)
    keys = rows.drop_duplicates("setting").set_index("setting")["trial_key"]
    columns = ["setting", *(objective.name for objective in objectives), "trial_key"]
    return pd.DataFrame([(setting, *values[setting], keys[setting]) for setting in kept], columns=columns)


def broken_bounds(
    frame: pd.DataFrame,
    *,
    constraints: Sequence[Constraint],
    series: Mapping[str, Series] | None = None,
    finals: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return which measured settings break a bound, and by how much.

    Returns:
        Columns ``setting`` and ``breaks``: each broken bound in words, with the value that breaks it; a row
        per such setting. A bound that was not measured counts as broken: it is unknown whether it is kept.
    """
    broken = breaches(frame, constraints=constraints, series=series, finals=finals)
    return pd.DataFrame(
        [(setting, "; ".join(breach.text for breach in found)) for setting, found in broken.items()],
        columns=["setting", "breaks"],
    )


def breaches(
    frame: pd.DataFrame,
    *,
    constraints: Sequence[Constraint],
    series: Mapping[str, Series] | None = None,
    finals: pd.DataFrame | None = None,
) -> dict[str, tuple[Breach, ...]]:
    """Return the bounds that each measured setting breaks; one that keeps all is not there."""
    return _breaches(_competing(frame, series), constraints, finals)


def score(
    frame: pd.DataFrame, quantity: Objective | Constraint, series: Mapping[str, Series]
) -> dict[str, float]:
    """Return the mean of an objective or a bound for each setting that has it; bounds do not matter."""
    return {setting: found.mean for setting, found in estimates(frame, quantity, series).items()}


def estimates(
    frame: pd.DataFrame, quantity: Objective | Constraint, series: Mapping[str, Series]
) -> dict[str, Estimate]:
    """Return what ``score`` does, each with the interval that its engine starts allow."""
    return _scores(_competing(frame, series), quantity)


def _competing(frame: pd.DataFrame, series: Mapping[str, Series] | None) -> pd.DataFrame:
    rows = tables.settings(frame, series)
    repeated = {name for name, entry in (series or {}).items() if entry.run == "second"}
    if repeated:
        rows = rows[[name not in repeated for name in rows["series"]]]
    # Fast and wrong is not good: what gives no text any more takes no part.
    broken = answers.broken(rows)
    return rows[~rows["setting"].isin(broken)] if broken else rows


def _feasible(
    rows: pd.DataFrame, constraints: Sequence[Constraint], finals: pd.DataFrame | None
) -> pd.DataFrame:
    return rows[~rows["setting"].isin(_breaches(rows, constraints, finals))] if constraints else rows


def _breaches(
    rows: pd.DataFrame, constraints: Sequence[Constraint], finals: pd.DataFrame | None
) -> dict[str, tuple[Breach, ...]]:
    read = [name for name in rows.columns if str(name).startswith("knob.") or name in _IDENTITY]
    complete = rows.loc[rows["state"] == str(TrialState.COMPLETE), read].drop_duplicates("setting")
    again = _by_knobs(finals)
    scores = [(constraint, _scores(rows, constraint)) for constraint in constraints]
    found: dict[str, tuple[Breach, ...]] = {}
    for row in records(complete):
        setting = str(row["setting"])
        searched = [
            Breach(constraint=constraint, value=mean)
            for constraint, known in scores
            if (mean := known[setting].mean if setting in known else None) is None
            or constraint.violation(mean) > 0
        ]
        later = breaches_of(again.get(_knobs_of(row), ()), constraints)
        seen = {breach.constraint for breach in searched}
        both = [*searched, *(breach for breach in later if breach.constraint not in seen)]
        if both:
            found[setting] = tuple(both)
    return found


def breaches_of(rows: Sequence[Mapping[Any, Any]], constraints: Sequence[Constraint]) -> tuple[Breach, ...]:
    """Return the bounds that a finalist's rows break in the mean; none where there are no rows."""
    means = [(constraint, objective_value(constraint, rows)) for constraint in constraints] if rows else []
    return tuple(
        Breach(constraint=constraint, value=mean, was_final=True)
        for constraint, mean in means
        if mean is None or constraint.violation(mean) > 0
    )


def _by_knobs(finals: pd.DataFrame | None) -> dict[frozenset[Any], list[Mapping[Any, Any]]]:
    """Gather the complete rows of finalists by what they set."""
    found: dict[frozenset[Any], list[Mapping[Any, Any]]] = {}
    if finals is not None and "role" in finals:
        is_final = finals["role"].isin(["finalist", "default"])
        for row in finals[is_final & finals["state"].eq(str(TrialState.COMPLETE))].to_dict("records"):
            found.setdefault(_knobs_of(row), []).append(row)
    return found


def _knobs_of(row: Mapping[Any, Any]) -> frozenset[Any]:
    named = {name: row[name] for name in row if str(name).startswith("knob.") or name in ("model", "engine")}
    return frozenset((name, value) for name, value in named.items() if not pd.isna(value))


def _scores(rows: pd.DataFrame, quantity: Objective | Constraint) -> dict[str, Estimate]:
    """Reduce each setting to its number, with the interval that restarts allow."""
    counted = _counted(rows, quantity)
    points = counted["load_point"].nunique()
    groups = starts.numbers_of(counted, ["setting", "load_point"])
    firsts = counted[~pd.Series(groups, index=counted.index).duplicated()]
    per_setting: dict[str, list[list[float]]] = {}
    for setting, values in zip(firsts["setting"], starts.means(counted, groups, _VALUE), strict=True):
        per_setting.setdefault(str(setting), []).append(values)
    scores = {setting: _score(per_point, points) for setting, per_point in per_setting.items()}
    return {setting: score for setting, score in scores.items() if score is not None}


def _counted(rows: pd.DataFrame, quantity: Objective | Constraint) -> pd.DataFrame:
    """Return the rows that count for an objective or a bound, each with its value."""
    told = tables.of_metric(rows, quantity.metric)
    read = (quantity.metric, *_READ, *SEARCH_SLOS.values(), *_HELD)
    rows_told = records(told[[name for name in read if name in told]])
    values = [row_value(quantity, row) for row in rows_told]
    chosen = [counts(quantity, row) for row in rows_told]
    is_counted: pd.Series[bool] = pd.Series(chosen, index=told.index, dtype=bool)
    # Few columns: grouping copies all that are there.
    narrow = told[["setting", "load_point", "load_axis", "request_rate_per_s", "state", "restart"]]
    return narrow.assign(**{_VALUE: pd.Series(values, index=told.index, dtype="float64")})[is_counted]


def _score(per_point: Sequence[Sequence[float]], points: int) -> Estimate | None:
    """Average over load points within each restart, then over restarts; None unless all have numbers."""
    if len(per_point) < points or not all(per_point):
        return None
    restarts = min(len(values) for values in per_point)
    return estimate([math.fsum(values[k] for values in per_point) / points for k in range(restarts)])


def _best_row(rows: pd.DataFrame, objective: Objective) -> dict[str, object] | None:
    scores = _scores(rows, objective)
    if not scores:
        return None
    ranked = sorted(scores, key=lambda setting: -objective.sign * scores[setting].mean)
    equal = [
        name for name in ranked if math.isclose(scores[name].mean, scores[ranked[0]].mean, rel_tol=_SAME)
    ]
    firsts = {
        str(row["setting"]): row
        for _, row in rows[rows["setting"].isin(equal)].drop_duplicates("setting").iterrows()
    }
    chosen = equal[0] if len(equal) == 1 else min(equal, key=lambda name: overrides(firsts[name]))
    behind = [name for name in ranked if name not in equal]
    first, second = scores[chosen], scores[behind[0]] if behind else None
    return {
        "objective": _objective_text(objective, rows),
        "setting": chosen,
        "value": first.mean,
        "low": first.low,
        "high": first.high,
        "n": first.n,
        "ties": tuple(name for name in equal if name != chosen),
        "runner_up": behind[0] if behind else None,
        "runner_up_value": second.mean if second else None,
        "verdict": "tie" if len(equal) > 1 else _verdict(first, second),
        "trial_key": firsts[chosen]["trial_key"],
    }


def overrides(row: tables.Row | pd.Series[Any]) -> int:
    """Count the knobs that a setting changes: what is known to hold unsaid does not count."""
    return len(overridden(row))


def overridden(row: tables.Row | pd.Series[Any]) -> dict[str, Scalar]:
    """Return the knobs that a setting changes, with their values: not what is known to hold unsaid."""
    return overrides_of({str(name): value for name, value in row.items()})


def _verdict(first: Estimate, second: Estimate | None) -> str:
    if second is None:
        return "alone"
    if first.low is None or first.high is None or second.low is None or second.high is None:
        return "single start"
    return "inconclusive" if first.low <= second.high and second.low <= first.high else "clear"


def _objective_text(objective: Objective, rows: pd.DataFrame) -> str:
    divided = "" if objective.per is None else f" per {objective.per.upper()}"
    kind = "highest" if objective.is_higher_better else "lowest"
    # A search over loads has one answer, at no load point that was chosen beforehand.
    where = "" if objective.metric in SEARCH_SLOS else f", {_where_text(objective, rows)}"
    return f"{kind} {objective.metric}{divided}{where}"


def at_text(point: str) -> str:
    """Put a load point into a sentence: ``at 16 QPS``, ``all at once``."""
    return point if point.startswith(load_names.ALL_AT_ONCE) else f"at {point}"


def _where_text(objective: Objective, rows: pd.DataFrame) -> str:
    """Describe at which load a setting is judged, and how several are combined."""
    named = load_text(
        request_rate_per_s=objective.request_rate_per_s, max_concurrency=objective.max_concurrency
    )
    if named:
        return named
    counted = _counted(rows, objective).drop_duplicates("load_point").to_dict("records")
    points = [load_names.load_point_text(row) for row in counted]
    if len(points) == 1:
        return at_text(points[0])
    if len(points) > _MOST_NAMED:
        first_to_last = f"{points[0]} to {points[-1]}"
        return f"mean over {amount(len(points), 'load point')} ({first_to_last}), each counting the same"
    return f"mean over {', '.join(points[:-1])} and {points[-1]}, each counting the same"
