"""Which setting is best: among those that keep every bound, by each objective, and by all of them together.

A setting that breaks a bound is never the best, however fast it is, and what it breaks is said. Bounds are
judged as the search judges them: by the mean at their load point. Where there are several objectives no
setting need be best in all: the *front* holds those that no other one beats in one objective without losing
in another. optuna-dashboard ranks without looking at bounds, so what counts is what is computed here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from analysis import answers, tables
from analysis.study import Series, Study
from analysis.tables import Estimate
from sweeper.records import MAX_RATE, Constraint, Objective, TrialState, gpus_of_row

_DEVICES = "devices"


def best(
    frame: pd.DataFrame,
    *,
    objectives: Iterable[Objective],
    constraints: Sequence[Constraint] = (),
    series: Mapping[str, Series] | None = None,
) -> pd.DataFrame:
    """Give the best setting for each objective, and whether it is clearly better than the next.

    Only settings that have a number at every load point that counts take part, that keep every bound, and
    whose answers are not broken (``answers``). A series of second runs does not: it is the same server as
    its first run, answering what it was asked before.

    Returns:
        Columns ``objective``, ``setting``, ``value``, ``low``, ``high``, ``n``, ``runner_up``,
        ``runner_up_value``, ``verdict`` and ``trial_key``; a row per objective that can be answered.
        The verdict is ``clear`` when the 95 % intervals of the two lie apart, ``inconclusive`` when they
        touch, ``single start`` when either was started only once, ``alone`` when there is no other.
    """
    rows = _feasible(_competing(frame, series), constraints)
    found = [_best_row(rows, objective) for objective in objectives]
    return pd.DataFrame([answer for answer in found if answer is not None])


def front(
    frame: pd.DataFrame,
    *,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint] = (),
    series: Mapping[str, Series] | None = None,
) -> pd.DataFrame:
    """Give the Pareto front: the settings that no other one is better than in every respect.

    Returns:
        Columns ``setting``, the name of each objective (its mean) and ``trial_key``; the best by the first
        objective first. Of those that take part in ``best``, by means alone: intervals that touch may hide
        that two settings are the same.
    """
    rows = _feasible(_competing(frame, series), constraints)
    scores = [_scores(rows, objective) for objective in objectives]
    known = [setting for setting in rows["setting"].unique() if all(setting in found for found in scores)]
    gains = {
        setting: tuple(_sign(o) * found[setting].mean for o, found in zip(objectives, scores, strict=True))
        for setting in known
    }
    kept = [setting for setting in known if not any(_beats(gains[o], gains[setting]) for o in known)]
    kept.sort(key=lambda setting: gains[setting], reverse=True)
    keys = rows.drop_duplicates("setting").set_index("setting")["trial_key"]
    columns = ["setting", *(objective.name for objective in objectives), "trial_key"]
    return pd.DataFrame(
        [(setting, *(found[setting].mean for found in scores), keys[setting]) for setting in kept],
        columns=columns,
    )


def broken_bounds(
    frame: pd.DataFrame,
    *,
    constraints: Sequence[Constraint],
    series: Mapping[str, Series] | None = None,
) -> pd.DataFrame:
    """Tell which measured settings break a bound, and by how much.

    Returns:
        Columns ``setting`` and ``breaks``: each broken bound in words, with the value that breaks it; a row
        per such setting. A bound that was not measured counts as broken: nobody knows that it is kept.
    """
    broken = _broken(_competing(frame, series), constraints)
    return pd.DataFrame(
        [(setting, "; ".join(bounds)) for setting, bounds in broken.items()], columns=["setting", "breaks"]
    )


def closing_lines(study: Study) -> list[str]:
    """Say in a few lines what the objectives together come to: the front, and who breaks a bound."""
    lines = []
    given = {"constraints": study.constraints, "series": study.series}
    if len(study.objectives) > 1:
        found = front(study.frame, objectives=study.objectives, **given)  # type: ignore[arg-type]
        lines.append(f"front: {len(found)} settings that no other one beats in every objective:")
        lines += [f"  {_front_text(row, study.objectives)}" for row in found.to_dict("records")]
    if study.constraints:
        broken = broken_bounds(study.frame, **given)  # type: ignore[arg-type]
        bounds = ", ".join(constraint.name for constraint in study.constraints)
        settings = _competing(study.frame, study.series)
        measured = settings.loc[settings["state"] == str(TrialState.COMPLETE), "setting"].nunique()
        lines.append(f"bounds ({bounds}): {len(broken)} of {measured} measured settings break one")
    return lines


def _front_text(row: tables.Row, objectives: Sequence[Objective]) -> str:
    numbers = (f"{o.name} {tables.number_text(row[o.name])}" for o in objectives)
    return f"{row['setting']}: {', '.join(numbers)}"


def _competing(frame: pd.DataFrame, series: Mapping[str, Series] | None) -> pd.DataFrame:
    rows = tables.settings(frame, series)
    repeated = {name for name, entry in (series or {}).items() if entry.run == "second"}
    rows = rows[[name not in repeated for name in rows["series"]]]
    # Fast and wrong is not good: what gives no text any more takes no part.
    return rows[~rows["setting"].isin(answers.broken(rows))]


def _feasible(rows: pd.DataFrame, constraints: Sequence[Constraint]) -> pd.DataFrame:
    return rows[~rows["setting"].isin(_broken(rows, constraints))] if constraints else rows


def _broken(rows: pd.DataFrame, constraints: Sequence[Constraint]) -> dict[str, list[str]]:
    complete = rows.loc[rows["state"] == str(TrialState.COMPLETE), "setting"].unique()
    found: dict[str, list[str]] = {str(setting): [] for setting in complete}
    for constraint in constraints:
        scores = _scores(rows, constraint)
        for setting, bounds in found.items():
            score = scores.get(setting)
            if score is None:
                bounds.append(f"{constraint.name} (not measured)")
            elif constraint.violation(score.mean) > 0:
                bounds.append(f"{constraint.name} (is {tables.number_text(score.mean)})")
    return {setting: bounds for setting, bounds in found.items() if bounds}


def _scores(rows: pd.DataFrame, quantity: Objective | Constraint) -> dict[str, Estimate]:
    """Reduce each setting to its number, with the interval that restarts allow."""
    counted = _counted(rows, quantity)
    points = counted["load_point"].nunique()
    return {
        str(setting): score
        for setting, group in counted.groupby("setting", sort=False)
        if (score := _score(group, quantity.metric, points)) is not None
    }


def _counted(rows: pd.DataFrame, quantity: Objective | Constraint) -> pd.DataFrame:
    """Give the rows that count for an objective or a bound, divided as it says."""
    counted = tables.of_metric(rows, quantity.metric)
    if quantity.request_rate_per_s is not None:
        counted = counted[counted["request_rate_per_s"] == quantity.request_rate_per_s]
    if quantity.per is None or quantity.metric not in counted:
        return counted
    gpus = [math.nan if row[_DEVICES] is None else gpus_of_row(row) for row in counted.to_dict("records")]
    return counted.assign(**{quantity.metric: counted[quantity.metric] / gpus})


def _score(group: pd.DataFrame, metric: str, points: int) -> Estimate | None:
    """Average over load points within each restart, then over restarts; None unless all have numbers."""
    per_point = [tables.restart_means(rows, metric) for _, rows in group.groupby("load_point", sort=False)]
    if len(per_point) < points or not all(per_point):
        return None
    starts = min(len(values) for values in per_point)
    return tables.estimate([math.fsum(values[k] for values in per_point) / points for k in range(starts)])


def _best_row(rows: pd.DataFrame, objective: Objective) -> dict[str, object] | None:
    scores = _scores(rows, objective)
    if not scores:
        return None
    ranked = sorted(scores, key=lambda setting: -_sign(objective) * scores[setting].mean)
    first, second = scores[ranked[0]], scores[ranked[1]] if len(ranked) > 1 else None
    return {
        "objective": _objective_text(objective),
        "setting": ranked[0],
        "value": first.mean,
        "low": first.low,
        "high": first.high,
        "n": first.n,
        "runner_up": ranked[1] if second else None,
        "runner_up_value": second.mean if second else None,
        "verdict": _verdict(first, second),
        "trial_key": rows.loc[rows["setting"] == ranked[0], "trial_key"].iloc[0],
    }


def _verdict(first: Estimate, second: Estimate | None) -> str:
    if second is None:
        return "alone"
    if first.low is None or first.high is None or second.low is None or second.high is None:
        return "single start"
    return "inconclusive" if first.low <= second.high and second.low <= first.high else "clear"


def _sign(objective: Objective) -> int:
    return 1 if objective.direction == "maximize" else -1


def _beats(gains: Sequence[float], others: Sequence[float]) -> bool:
    """Tell whether the first is at least as good in everything, and better in something."""
    return all(a >= b for a, b in zip(gains, others, strict=True)) and tuple(gains) != tuple(others)


def _objective_text(objective: Objective) -> str:
    rate = objective.request_rate_per_s
    where = "mean over load points" if rate is None else f"at {rate:g} QPS"
    divided = "" if objective.per is None else f" per {objective.per.upper()}"
    kind = "highest" if objective.direction == "maximize" else "lowest"
    # A search over the rate has one answer, at no load point that was chosen beforehand.
    return f"{kind} {objective.metric}{divided}" + ("" if objective.metric == MAX_RATE else f", {where}")
