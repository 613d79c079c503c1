"""Whether a study is worse than another by more than is allowed: the check that a nightly run ends with.

A condition names a metric and a margin: ``request_throughput_per_s worse than 5%``. Which way is worse
follows from the metric. It is held against every setting and load point that the first study has a number
of, by the 95 % interval of the ratio, never by the ratio alone:

* ``worse``: the whole interval lies beyond the margin, or what had a number has failed;
* ``better``: it lies on the good side of no change;
* ``equal``: it keeps within the margin, whichever side of no change it lies on;
* ``inconclusive``: it reaches across the margin, there is none, or the second study has not run this.

An inconclusive check is neither passed nor failed: more engine starts (``repeats``) settle it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import pandas as pd

from analysis import compare, tables
from analysis.page import Metric
from analysis.ratios import Basis
from analysis.study import Study
from sweeper.errors import ConfigError, nearest
from sweeper.records.metrics import BY_NAME


class Outcome(StrEnum):
    """What a check says of one setting at one load point, and of all together."""

    WORSE = "worse"
    INCONCLUSIVE = "inconclusive"
    EQUAL = "equal"
    BETTER = "better"


EXIT_CODES = {Outcome.WORSE: 1, Outcome.INCONCLUSIVE: 5, Outcome.EQUAL: 0, Outcome.BETTER: 0}
"""Of the command; 2 is a mistake, 3 and 4 are those of a sweep."""

_CONDITION = re.compile(r"\s*(?P<metric>\S+)\s+worse\s+than\s+(?P<margin>\S+?)\s*(?P<unit>%?)\s*")
_FORM = "METRIC worse than NUMBER%, such as 'request_throughput_per_s worse than 5%'"


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What must not be.

    Attributes:
        text: As the user wrote it.
        metric: The metric.
        margin: Part of the first study's number by which the second may be worse, above 0 and below 1.
    """

    text: str
    metric: Metric
    margin: float


@dataclass(frozen=True, kw_only=True)
class Point:
    """One setting at one load point.

    Attributes:
        setting: The setting.
        load_point: The load point.
        first: Mean of the first study.
        second: Mean of the second; NaN where it has none.
        first_n: Engine starts of the first.
        second_n: Engine starts of the second.
        ratio: Second over first; NaN where the second has no number.
        low: Lower end of its 95 % interval; NaN where there is none.
        high: Upper end.
        basis: What the interval rests on (``ratios.Basis``); None where there is none.
        outcome: What that means.
        reason: Why, in a sentence without a full stop.
    """

    setting: str
    load_point: str
    first: float
    second: float = math.nan
    first_n: int
    second_n: int = 0
    ratio: float = math.nan
    low: float = math.nan
    high: float = math.nan
    basis: Basis | None = None
    outcome: Outcome
    reason: str

    @property
    def change_text(self) -> str:
        """The change in percent with its interval."""
        if math.isnan(self.ratio):
            return ""
        ends = "" if math.isnan(self.low) else f" ({_percent(self.low)} to {_percent(self.high)})"
        return f"{_percent(self.ratio)}{ends}"


@dataclass(frozen=True, kw_only=True)
class Check:
    """A condition held against two studies."""

    condition: Condition
    first: Study
    second: Study
    points: tuple[Point, ...]

    @property
    def outcome(self) -> Outcome:
        """One that is worse is enough; else one that is not settled; better only where all are."""
        return worst([point.outcome for point in self.points])

    @property
    def sentence(self) -> str:
        """The outcome with its counts."""
        counts = Counter(point.outcome for point in self.points)
        told = ", ".join(f"{counts[each]} {each}" for each in Outcome if counts[each])
        return f"{self.condition.text}: {self.outcome} ({told} of {len(self.points)})"


def worst(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the outcome of several together."""
    return next(outcome for outcome in Outcome if outcome in outcomes)


def read(text: str) -> Condition:
    """Read a condition.

    Raises:
        ConfigError: It has another form, an unknown metric or one without a good side, or no margin between
            0 and 100 %.
    """
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise ConfigError(f"--fail-if: is '{text}'; expected {_FORM}. Correct it.")
    name, margin = found["metric"], _margin(text, found["margin"], found["unit"])
    metric = BY_NAME.get(name)
    if metric is None:
        raise ConfigError(
            f"--fail-if: '{name}' is no metric of a result.{nearest(name, BY_NAME)} See docs/columns.md."
        )
    if metric.is_higher_better is None:
        raise ConfigError(
            f"--fail-if: '{name}' has no good side, so it cannot be worse; expected a throughput or a "
            "latency. Name another."
        )
    shown = Metric(column=name, title=metric.title, is_higher_better=metric.is_higher_better)
    return Condition(text=" ".join(text.split()), metric=shown, margin=margin)


def _margin(text: str, number: str, unit: str) -> float:
    try:
        value = float(number)
    except ValueError:
        raise ConfigError(f"--fail-if: is '{text}'; '{number}' is no number; expected {_FORM}.") from None
    if not unit:
        raise ConfigError(f"--fail-if: is '{text}', without %; expected {_FORM}. Write {number}%.")
    if not 0 < value < 100:
        raise ConfigError(
            f"--fail-if: the margin in '{text}' is {number} %; expected above 0 and below 100. At 0 even two "
            "equal studies would be inconclusive."
        )
    return value / 100


def check(condition: Condition, first: Study, second: Study) -> Check:
    """Hold a condition against two studies.

    Raises:
        ConfigError: The two have no setting and load point in common with a number of this metric.
    """
    metric = condition.metric
    compared = compare.paired(first, second, metric).to_dict("records")
    missing = compare.unmatched(first, second, metric).to_dict("records")
    points = [
        *(_judged(row, condition) for row in compared),
        *(_without_number(row) for row in missing),
    ]
    if not compared and not any(point.outcome is Outcome.WORSE for point in points):
        raise ConfigError(
            f"--fail-if: {first.name} and {second.name} have no setting and load point in common with a "
            f"number of {metric.column}. Compare two studies of one experiment."
        )
    order = list(Outcome)
    points.sort(key=lambda point: order.index(point.outcome))
    return Check(condition=condition, first=first, second=second, points=tuple(points))


def _judged(row: tables.Row, condition: Condition) -> Point:
    outcome, reason = _outcome(row, condition)
    numbers = {name: float(row[name]) for name in ("first", "second", "ratio", "low", "high")}
    return Point(
        setting=str(row["setting"]),
        load_point=str(row["load_point"]),
        first_n=int(row["first_n"]),
        second_n=int(row["second_n"]),
        basis=Basis(str(row["basis"])),
        outcome=outcome,
        reason=reason,
        **numbers,
    )


def _outcome(row: tables.Row, condition: Condition) -> tuple[Outcome, str]:
    low, high, margin = row["low"], row["high"], condition.margin
    if math.isnan(low):
        return (
            Outcome.INCONCLUSIVE,
            "a measured side was started once, so there is no interval; use repeats=3",
        )
    if not condition.metric.is_higher_better:
        low, high = 2 - high, 2 - low  # so that below 1 is worse here, too
    if high < 1 - margin:
        return Outcome.WORSE, "the whole interval lies beyond the margin"
    if low < 1 - margin:
        return Outcome.INCONCLUSIVE, "the interval reaches across the margin"
    if low > 1:
        return Outcome.BETTER, "the interval lies on the good side"
    return Outcome.EQUAL, "the interval keeps within the margin"


def _without_number(row: tables.Row) -> Point:
    has_failed = not pd.isna(row["state"])
    return Point(
        setting=str(row["setting"]),
        load_point=str(row["load_point"]),
        first=float(row["first"]),
        first_n=int(row["first_n"]),
        outcome=Outcome.WORSE if has_failed else Outcome.INCONCLUSIVE,
        reason=f"no number: {row['state']}" if has_failed else "the second study has not run it",
    )


def _percent(ratio: float) -> str:
    return f"{(ratio - 1) * 100:+.1f} %"
