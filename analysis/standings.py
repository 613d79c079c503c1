"""How the settings of a study stand: the order to show them in, which are marked, and why none is the best.

Everything that names, colours or ranks a best setting (charts, the terminal, the report, the article, the
dashboard's note) takes it from here, so that they agree and none shows a setting first that breaks a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import pandas as pd

from analysis import bests, tables
from analysis.bests import Breach
from analysis.study import Study
from sweeper.goals.objectives import is_at, objective_value
from sweeper.records import MAX_RATE, MAX_USERS, SEARCH_SLOS, Constraint, Objective, TrialState
from sweeper.records.plurals import amount
from sweeper.text.numbers import number_text

BEST = "best"
FRONT = "front"
BREAKS = "breaks a bound"


@dataclass(frozen=True, kw_only=True)
class Standings:
    """How settings stand.

    Attributes:
        order: All settings: those that keep every bound, the best by the first objective first; then those
            that break one; then those without a number.
        marked: The best settings, or the Pareto front where there are several objectives; each keeps every
            bound.
        breaches: Bounds that a setting does not keep.
    """

    order: tuple[str, ...]
    marked: tuple[str, ...]
    breaches: Mapping[str, tuple[Breach, ...]]
    is_front: bool

    def of(self, setting: str) -> str:
        """Describe in a word how a setting stands: ``BEST``, ``FRONT``, ``BREAKS`` or nothing."""
        if setting in self.breaches:
            return BREAKS
        if setting not in self.marked:
            return ""
        return FRONT if self.is_front else BEST

    def breaks(self, setting: str) -> str:
        """Name the bounds that a setting breaks, and by how much; empty where it keeps them."""
        return "; ".join(breach.text for breach in self.breaches.get(setting, ()))


@lru_cache(maxsize=8)
def standings(study: Study) -> Standings:
    """Rank the settings of a study; worked out once, since every chart and table asks for it."""
    found = bests.breaches(
        study.frame, constraints=study.constraints, series=study.series, finals=study.every_row
    )
    objective = study.objectives[0]
    scores = bests.score(study.frame, objective, study.series)
    names = [str(name) for name in dict.fromkeys(tables.settings(study.frame, study.series)["setting"])]
    order = sorted(
        names,
        key=lambda name: (name not in scores, name in found, -objective.sign * scores.get(name, 0.0)),
    )
    is_front = len(study.objectives) > 1
    marked = front(study) if is_front else best(study)
    # Of equal settings the chosen one stands first.
    first = [str(name) for name in marked["setting"]]
    if not is_front:
        order.sort(key=lambda name: name not in first)
    return Standings(order=tuple(order), marked=tuple(first), breaches=found, is_front=is_front)


def best(study: Study) -> pd.DataFrame:
    """Return ``bests.best`` of a study."""
    return _best(study, tuple(study.objectives)).copy()


def best_by(study: Study, objective: Objective) -> str | None:
    """Return the best setting by one objective; None where it has no answer."""
    found = _best(study, (objective,))
    return None if found.empty else str(found["setting"].iloc[0])


@lru_cache(maxsize=32)
def _best(study: Study, objectives: tuple[Objective, ...]) -> pd.DataFrame:
    """Work it out once: the terminal, the report and the page ask for it several times each."""
    return bests.best(
        study.frame,
        objectives=objectives,
        constraints=study.constraints,
        series=study.series,
        finals=study.every_row,
    )


def front(study: Study) -> pd.DataFrame:
    """Return ``bests.front`` of a study."""
    return bests.front(
        study.frame,
        objectives=study.objectives,
        constraints=study.constraints,
        series=study.series,
        finals=study.every_row,
    )


def best_lines(
    study: Study, *, name: Callable[[str], str] = str, other: Callable[[str], str] | None = None
) -> list[str]:
    """Return a sentence on the best setting by each objective, or on why there is none.

    Args:
        study: The study.
        name: Names a setting, such as by its row of a table that stands above.
        other: Names the others that are as good, where not as the best is named.
    """
    found = best(study)
    if found.empty:
        return [f"none: {why}" for why in no_best_lines(study)]
    return [_best_text(study, answer, name, other or name) for answer in found.to_dict("records")]


def _best_text(
    study: Study, answer: tables.Row, name: Callable[[str], str], other: Callable[[str], str]
) -> str:
    ties = ties_text(answer, name=other)
    return (
        f"{name(answer['setting'])}: {answer['objective']}: {value_text(study, answer)} ({answer['verdict']})"
        + (f"; {ties}" if ties else "")
    )


def value_text(study: Study, answer: tables.Row) -> str:
    """Write the number of a row of ``best``; of what a search found also what was completed at it."""
    metric = metric_of(answer)
    text = tables.metric_text(answer["value"], metric)
    if metric not in SEARCH_SLOS:
        return text
    completed = completed_at_heaviest(study, metric).get(str(answer["setting"]))
    if metric == MAX_RATE:
        return f"{number_text(completed)} completed, {text} offered" if completed else text
    return f"{text}, {completed_text(metric, completed)}" if completed else text


def metric_of(answer: tables.Row) -> str:
    """Return the metric that a row of ``best`` is about, which its objective names after its direction."""
    return str(answer["objective"]).split()[1]


def completed_text(metric: str, completed: float) -> str:
    """Write what was completed at the load that a search found, requests per second."""
    return f"{number_text(completed)} completed{' per second' if metric == MAX_USERS else ''}"


def ties_text(answer: tables.Row, *, name: Callable[[str], str] = str) -> str:
    """Name the settings that have the same number as the best one; empty where none has."""
    if not answer["ties"]:
        return ""
    named = list(map(name, answer["ties"]))
    if name is not str:
        # Rows of a table, by their numbers.
        named.sort(key=lambda row: (len(row), row))
    return f"the same number has {' | '.join(named)}; recommended is the one with the fewest overrides"


def completed_at_heaviest(study: Study, answer: str) -> dict[str, float]:
    """Return, for each setting, the requests completed per second at the heaviest load that kept its bounds.

    A rate is what is offered; the last requests of a run end after it, so what is completed is less.

    Args:
        study: The study.
        answer: Metric that the search finds: ``max_rate_per_s`` or ``max_users``.
    """
    rows = tables.settings(study.frame, study.series)
    if answer not in rows:
        return {}
    rows = rows[rows[answer].notna() & rows["request_throughput_per_s"].notna()]
    means = rows.groupby("setting", sort=False)["request_throughput_per_s"].mean()
    return {str(setting): float(value) for setting, value in means.items()}


def no_best_lines(study: Study) -> list[str]:
    """Explain why no setting is the best: which bound none keeps, and which setting comes nearest."""
    shares = _shares(study)
    if not shares:
        return [_unmeasured_text(study)]
    kept_by_none = [
        constraint
        for place, constraint in enumerate(study.constraints)
        if not any(breaches[place].past <= 0 for breaches in shares.values())
    ]
    nearest = min(shares, key=lambda setting: max(breach.past for breach in shares[setting]))
    worst = [breach.text for breach in shares[nearest] if breach.past > 0]
    if not worst:
        return [f"no setting that keeps every bound has a number at every load point; {nearest} keeps them"]
    why = (
        f"nobody keeps {' or '.join(constraint.name for constraint in kept_by_none)}"
        if kept_by_none
        else "no setting keeps every bound at once"
    )
    return [f"{why}; nearest is {nearest}, which breaks {'; '.join(worst)}"]


def _unmeasured_text(study: Study) -> str:
    """Say what has no number: what is to be made better, or else what the bounds are on."""
    has_values = bool(bests.score(study.frame, study.objectives[0], study.series))
    if not has_values or not study.constraints:
        return "no setting has a number at every load point yet"
    bounds = [constraint for constraint in study.constraints if _has_no_value(study, constraint)]
    metrics = " and ".join(dict.fromkeys(constraint.metric for constraint in bounds))
    return (
        f"no setting has a number for {metrics or 'what the bounds are on'}, so none is known to keep "
        f"{' and '.join(constraint.name for constraint in bounds) or 'them'}"
    )


def _has_no_value(study: Study, constraint: Constraint) -> bool:
    return constraint.metric not in study.frame or bool(study.frame[constraint.metric].isna().all())


def _shares(study: Study) -> dict[str, list[Breach]]:
    """Return how each setting stands to every bound, also those that were stopped early for breaking one."""
    rows = tables.settings(study.frame, study.series)
    rows = rows[rows["state"].isin([str(TrialState.COMPLETE), str(TrialState.SKIPPED)])]
    found: dict[str, list[Breach]] = {}
    for setting, group in rows.groupby("setting", sort=False) if study.constraints else ():
        records = [{str(name): value for name, value in row.items()} for row in group.to_dict("records")]
        values = [objective_value(bound, records, is_partial=True) for bound in study.constraints]
        if any(value is not None for value in values):
            found[str(setting)] = [
                Breach(constraint=constraint, value=value)
                for constraint, value in zip(study.constraints, values, strict=True)
            ]
    return found


def closing_lines(study: Study, *, has_front: bool = True) -> list[str]:
    """Summarise all objectives together in a few lines: the front, and which settings break a bound.

    Args:
        study: The study.
        has_front: Whether the settings of the front are named, too.
    """
    lines = []
    if len(study.objectives) > 1:
        found = front(study)
        lines.append(f"front: {amount(len(found), 'setting')} that no other one beats in every objective")
        if has_front:
            lines[-1] += ":"
            lines += [f"  {_front_text(row, study)}" for row in found.to_dict("records")]
    if study.constraints:
        broken = standings(study).breaches
        bounds = ", ".join(constraint.name for constraint in study.constraints)
        rows = tables.settings(study.frame, study.series)
        measured = rows.loc[rows["state"] == str(TrialState.COMPLETE), "setting"].nunique()
        numbered = amount(measured, "setting")
        unknown = [name for name, found in broken.items() if all(one.value is None for one in found)]
        told = f"bounds ({bounds}): {len(broken) - len(unknown)} of {numbered} with numbers break one"
        more = f"; of {len(unknown)} it is not known: what a bound is on was not measured"
        lines.append(told + (more if unknown else ""))
    return lines


def _front_text(row: tables.Row, study: Study) -> str:
    values = (f"{o.name} {tables.metric_text(row[o.name], o.metric)}" for o in study.objectives)
    return f"{row['setting']}: {', '.join(values)}"


def bound_at(
    constraints: Sequence[Constraint],
    *,
    metric: str,
    request_rate_per_s: float | None,
    max_concurrency: float | None,
    is_only_load: bool,
) -> float | None:
    """Return the limit of a metric at a load point, to be drawn there; None where it has none."""
    for constraint in constraints:
        names_load = (constraint.request_rate_per_s, constraint.max_concurrency) != (None, None)
        is_here = (names_load or is_only_load) and is_at(
            constraint, request_rate_per_s=request_rate_per_s, max_concurrency=max_concurrency
        )
        if constraint.metric == metric and constraint.per is None and is_here:
            return constraint.limit
    return None
