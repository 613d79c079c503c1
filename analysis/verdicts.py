"""Finalists judged: is a setting better than the default, and which one is worth its overrides?

Only engine starts that were made for this purpose count, after the search (rows of role ``finalist`` and
``default``): the number that made a setting the winner is the largest of many noisy ones, and too good. Each
start gives one value; logarithms of the values of two settings are compared by Welch's t-test. Several
comparisons are made at once, so each interval is widened until all of them hold together in 95 % of studies
(Bonferroni's correction).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis import bests, serving, tables
from analysis.markdown import code_block, escaped
from analysis.ratios import NOISE
from analysis.study import Study
from sweeper.goals.objectives import counts, load_key, row_value
from sweeper.intervals import variance_of_mean, welch_half
from sweeper.records import Constraint, Objective, Provenance, TrialState
from sweeper.records.plurals import amount, percent
from sweeper.text.numbers import number_text

FAMILY_LEVEL = 0.05
"""Chance, over all comparisons of a study, that an interval misses what is true."""

_LEAST_STARTS = 2


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One setting against another.

    Attributes:
        ratio: Geometric mean of the first over that of the second.
        low: Lower end of its interval; None where either has fewer than two starts.
        high: Upper end.
        verdict: ``better``, ``worse`` or ``inconclusive``: what the first is.
    """

    ratio: float
    low: float | None
    high: float | None
    verdict: str

    @property
    def interval_text(self) -> str:
        """The ratio with its interval, for a table."""
        if self.low is None or self.high is None:
            return f"{self.ratio:.3f} (no interval)"
        return f"{self.ratio:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """A setting that was measured again.

    Attributes:
        name: What it sets other than the default, or ``default``.
        overrides: How many knobs that is.
        starts: One value of the objective per engine start.
        trial_key: One of its trials.
        against_default: None for the default itself, and where there is none.
        against_best: Against the best that keeps every bound; None for that one itself.
        broken: Bounds of the study that it did not keep now.
    """

    name: str
    overrides: int
    starts: tuple[float, ...]
    trial_key: str
    against_default: Comparison | None
    against_best: Comparison | None
    broken: tuple[str, ...] = ()

    @property
    def mean(self) -> float:
        """Geometric mean over the engine starts."""
        return math.exp(math.fsum(map(math.log, self.starts)) / len(self.starts))


def compare(
    first: Sequence[float],
    second: Sequence[float],
    *,
    is_higher_better: bool,
    comparisons: int = 1,
    margin: float = 0.0,
) -> Comparison:
    """Compare two settings by their engine starts.

    Args:
        first: A positive value per start.
        second: The same of the other setting.
        is_higher_better: Whether a ratio above 1 is better.
        comparisons: How many are made at once and have to hold together.
        margin: No interval is narrower to either side, as a share: a model's starts have no noise, and its
            numbers no such precision.

    Source:
        Welch (1947): t-interval of a difference of means with unequal variances, degrees of freedom by Welch
        and Satterthwaite, rounded down; of logarithms, so that the difference is one of ratios. Bonferroni:
        each of k intervals at the level 1 - 0.05 / k.
    """
    logs = [[math.log(value) for value in values] for values in (first, second)]
    means = [math.fsum(values) / len(values) for values in logs]
    difference = means[0] - means[1]
    if min(len(first), len(second)) < _LEAST_STARTS:
        return Comparison(ratio=math.exp(difference), low=None, high=None, verdict="inconclusive")
    half = welch_half(
        [(variance_of_mean(values), len(values)) for values in logs],
        probability=1 - FAMILY_LEVEL / 2 / comparisons,
    )
    half = max(half, math.log1p(margin))
    return Comparison(
        ratio=math.exp(difference),
        low=math.exp(difference - half),
        high=math.exp(difference + half),
        verdict=_verdict(difference, half, is_higher_better=is_higher_better),
    )


def finalists(study: Study, objective: Objective) -> list[Finalist]:
    """Judge the settings that were measured again.

    Args:
        study: Its rows with a role of ``finalist`` or ``default``.
        objective: What is compared.

    Returns:
        Best first; none where nothing was measured again. A setting of which no start has a number is left
        out.
    """
    rows = study.every_row
    if "role" not in rows:
        return []
    rows = rows[rows["role"].isin(["finalist", "default"]) & rows["state"].eq(str(TrialState.COMPLETE))]
    if rows.empty:
        return []
    knobs = [column for column in rows.columns if str(column).startswith("knob.")]
    default_rows = rows[rows["role"].eq("default")]
    base = None if default_rows.empty else default_rows.iloc[0]
    found = []
    for _, group in rows.groupby([*knobs, "model", "engine"], dropna=False, sort=False):
        values = start_values(group, objective)
        if values:
            found.append((group.iloc[0], values, _broken(group, study.constraints)))
    return _judged(found, base, knobs, is_higher_better=objective.is_higher_better)


def start_values(rows: pd.DataFrame, objective: Objective | Constraint) -> list[float]:
    """Return an objective's value for each engine start: runs averaged first, then load points.

    A start without a number at one of the load points has none, as in ``objective_value``.
    """
    found: dict[tuple[str, int], dict[tuple[object, ...], list[float]]] = {}
    for cells in rows.to_dict("records"):
        row = {str(name): cell for name, cell in cells.items()}
        if counts(objective, row):
            start = found.setdefault((row["trial_key"], row["restart"]), {})
            seen = start.setdefault(load_key(objective, row), [])
            value = row_value(objective, row)
            seen += [] if value is None else [value]
    starts = [
        statistics.fmean(map(statistics.fmean, points.values()))
        for _, points in sorted(found.items())
        if all(points.values())
    ]
    return [value for value in starts if value > 0]


def recommended(judged: Sequence[Finalist]) -> Finalist | None:
    """Return the setting with the fewest overrides among those that are not shown to be worse than the best.

    Of equally few it is the better one. An override that brings nothing that can be shown costs the user who
    keeps it, and may cost speed on another day. None where no setting keeps the bounds.
    """
    close = [
        one
        for one in judged
        if not one.broken and (one.against_best is None or one.against_best.verdict != "worse")
    ]
    return min(close, key=lambda one: one.overrides, default=None)


def section(study: Study) -> str:
    """Return the report's section on the finalists, as Markdown; nothing where none was measured again."""
    parts = []
    for objective in study.objectives:
        judged = finalists(study, objective)
        if judged:
            parts.append(_objective_text(study, objective, judged))
    return "\n\n".join(["## Finalists", *parts]) if parts else ""


def sentences(study: Study) -> list[str]:
    """Describe of each objective what is recommended and why, and give the line that serves with it."""
    told = []
    for objective in study.objectives:
        judged = finalists(study, objective)
        if judged:
            told += [_recommendation(objective, judged), *_serve_lines(study, judged)]
    return told


_Measured = tuple["pd.Series[Any]", list[float], tuple[str, ...]]
"""A setting's first row, its values per start, and the bounds it broke."""


def _judged(
    found: Sequence[_Measured],
    base: pd.Series[Any] | None,
    knobs: Sequence[str],
    *,
    is_higher_better: bool,
) -> list[Finalist]:
    def geometric(values: Sequence[float]) -> float:
        return math.fsum(map(math.log, values)) / len(values)

    ranked = sorted(found, key=lambda one: geometric(one[1]), reverse=is_higher_better)
    default = next((values for row, values, _ in ranked if row["role"] == "default"), None)
    best = next((values for _, values, broken in ranked if not broken), ranked[0][1])
    # Which one is the best is seen only now, so every pair may be the one that is looked at.
    comparisons = max(1, len(ranked) * (len(ranked) - 1) // 2)
    margin = NOISE if ranked[0][0]["provenance"] == str(Provenance.SIMULATED) else 0.0
    judged = []
    for row, values, broken in ranked:
        is_default = row["role"] == "default"

        def against(
            other: Sequence[float] | None, *, is_itself: bool, mine: Sequence[float] = values
        ) -> Comparison | None:
            if other is None or is_itself:
                return None
            return compare(
                mine, other, is_higher_better=is_higher_better, comparisons=comparisons, margin=margin
            )

        names = (
            [] if base is None or is_default else [name for name in knobs if _differs(row[name], base[name])]
        )
        judged.append(
            Finalist(
                name="default" if is_default else _name(row, names or knobs),
                overrides=len(names) if base is not None else int(row[list(knobs)].notna().sum()),
                starts=tuple(values),
                trial_key=str(row["trial_key"]),
                against_default=against(default, is_itself=is_default),
                against_best=against(best, is_itself=values is best),
                broken=broken,
            )
        )
    return judged


def _broken(rows: pd.DataFrame, constraints: Sequence[Constraint]) -> tuple[str, ...]:
    """Return the bounds that a setting's starts do not keep on average, or that were not measured."""
    found = bests.breaches_of(rows.to_dict("records"), constraints)
    return tuple(breach.constraint.name for breach in found)


def _objective_text(study: Study, objective: Objective, judged: Sequence[Finalist]) -> str:
    shown = pd.DataFrame(
        {
            "setting": [one.name for one in judged],
            "overrides": [str(one.overrides) for one in judged],
            "mean": [number_text(one.mean) for one in judged],
            "starts": [str(len(one.starts)) for one in judged],
            "against the default": [_comparison_text(one.against_default) for one in judged],
            "against the best": [_comparison_text(one.against_best) for one in judged],
            "breaks": ["; ".join(one.broken) for one in judged],
        }
    )
    if not any(one.broken for one in judged):
        shown = shown.drop(columns="breaks")
    pairs = len(judged) * (len(judged) - 1) // 2
    method = (
        "Measured again after the search, one engine start after another in an order that changes from round "
        "to round; what the search itself measured does not count here. Ratios of geometric means with "
        f"Welch's interval of the logarithm; {amount(pairs, 'pair')} can be looked at, so each "
        "interval is widened until all hold together in 95 % of studies (Bonferroni)."
    )
    if study.is_simulated:
        method += (
            f" A model's starts hardly differ: no interval is taken to be narrower than {percent(NOISE)}."
        )
    serve = [code_block(line) for line in _serve_lines(study, judged)]
    return "\n\n".join(
        [
            f"### {objective.name}",
            tables.to_markdown(shown),
            method,
            escaped(_recommendation(objective, judged)),
            *serve,
        ]
    )


def _recommendation(objective: Objective, judged: Sequence[Finalist]) -> str:
    choice = recommended(judged)
    if choice is None:
        return f"{objective.name}: no finalist keeps every bound when it is measured again."
    best = next(one for one in judged if one.against_best is None)
    said = f"{objective.name}: recommended is {choice.name}"
    if choice.against_default is not None:
        said += (
            f", {choice.against_default.verdict} against the default: {choice.against_default.interval_text}"
        )
    if choice.against_best is None:
        return f"{said}. It is the best" + (" that keeps every bound." if judged[0].broken else ".")
    return (
        f"{said}. The best by its mean, {best.name}, is not shown to be better than it "
        f"({choice.against_best.interval_text} of it), and has more overrides."
    )


def _serve_lines(study: Study, judged: Sequence[Finalist]) -> list[str]:
    choice = recommended(judged)
    line = "" if choice is None else serving.serve_line(study.every_row, choice.trial_key)
    if choice is None or not line:
        return []
    today = serving.today(study.every_row, choice.trial_key)
    return [line, *([] if today is None else filter(None, (f"# {today.about}", today.line)))]


def _comparison_text(comparison: Comparison | None) -> str:
    return "" if comparison is None else f"{comparison.interval_text}: {comparison.verdict}"


def _verdict(difference: float, half: float, *, is_higher_better: bool) -> str:
    if abs(difference) <= half:
        return "inconclusive"
    return "better" if (difference > 0) == is_higher_better else "worse"


def _differs(one: object, other: object) -> bool:
    is_missing = [bool(pd.isna(value)) for value in (one, other)]  # type: ignore[call-overload]
    return one != other if not any(is_missing) else is_missing[0] != is_missing[1]


def _name(row: pd.Series[Any], names: Sequence[str]) -> str:
    known = [name for name in names if not pd.isna(row[name])]
    gone = [name for name in names if pd.isna(row[name])]
    return ", ".join(
        [
            *(f"{name.removeprefix('knob.')}={row[name]}" for name in known),
            *(f"{name.removeprefix('knob.')} unset" for name in gone if len(names) > len(known)),
        ]
    )
