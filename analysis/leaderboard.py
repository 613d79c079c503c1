"""The settings of a study as a leaderboard: a place, the knobs that vary, what was reached, and at what cost.

Only settings that keep every bound have a place. With one objective places go by its mean, and settings with
the same number share a place, the one with the fewest overrides first. With several objectives the place is
that of the Pareto front: 1 for settings that no other one beats, 2 for those that only these beat, and so on.
What is equal for all settings is said once. How it is laid out as text is ``leaderboard_text``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import pandas as pd

from analysis import bests, costs, standings, tables
from analysis.bests import Breach
from analysis.study import Study
from sweeper.goals.objectives import fronts
from sweeper.intervals import Estimate
from sweeper.records import SEARCH_SLOS, Constraint, Objective, TrialState, derived
from sweeper.records.derived import title_of

SERIES = "series"
"""Names the column of named series, where a study has any."""

_KNOB = "knob."
_OUTPUT_TOKENS = "output_throughput_tok_per_s"
_SAME = 1e-9
_SHORT_NAME = 40
_READ = frozenset(
    {
        *("setting", "series", "trial_key", "state", "failure_class", "started_at"),
        *("version.vllm", "platform", "modelled_device"),
    }
)
_BESIDE = ("mean_ttft_ms", "mean_tpot_ms", "accuracy", "accuracy_low")
"""Shown where they were measured and are neither an objective nor a bound."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A setting's line.

    Attributes:
        place: From 1, shared by settings with the same number; of several objectives, the number of the
            Pareto front. None for one that breaks a bound or has no number.
        setting: Its name, as charts and tables have it.
        trial_key: One of its trials.
        knobs: Value of each knob that varies in the study, as text; ``default`` where it is not set.
        values: Each objective's mean with its interval over engine starts; None where it has none.
        changes: Each objective's change against ``Leaderboard.baseline``, as a share of it; None where
            either has no number.
        beside: Mean of each further quantity (``Leaderboard.beside``); None where it was not measured.
        breaches: Bounds that it does not keep.
        standing: ``standings.BEST``, ``FRONT``, ``BREAKS`` or empty.
        is_tied: Another setting that keeps every bound has the same number.
        overrides: Knobs that it changes, among those that vary; what holds unsaid does not count.
        gpus: GPUs it holds; None where it never held any.
        cost: Of a million output tokens at the load of the first objective, in the study's currency; None
            without a price.
        completed_per_s: At the heaviest load within bounds, the requests completed per second; None where
            no search for it was made.
        why_none: Why there is no number; empty where there is one.
    """

    place: int | None
    setting: str
    trial_key: str
    knobs: Mapping[str, str]
    values: tuple[Estimate | None, ...]
    changes: tuple[float | None, ...]
    beside: tuple[float | None, ...]
    breaches: tuple[Breach, ...]
    standing: str
    is_tied: bool
    overrides: int
    gpus: float | None
    cost: float | None
    completed_per_s: float | None
    why_none: str

    @property
    def breaks(self) -> str:
        """The bounds that it breaks, and by how much; empty where it keeps them."""
        return "; ".join(breach.text for breach in self.breaches)


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """All settings of a study in order, and what they have in common.

    Attributes:
        objectives: What is better; the first orders settings of the same front.
        constraints: Bounds; each is among ``beside``.
        beside: What is shown beside the objectives: the metric of each bound, then usual latencies at the
            load of the first objective.
        knobs: Knobs that vary, by name; ``SERIES`` first where settings belong to named series.
        same: Knobs that are equal for all settings, with their value.
        entries: Those with a place, then those that break a bound, then those without a number.
        baseline: Setting that ``changes`` are against: the one with the fewest overrides that has a number;
            None where none has one.
        is_default: Whether that one changes none of the knobs that vary.
        currency: Of ``cost``; may be empty.
        is_simulated: Whether any number comes from a model.
    """

    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    beside: tuple[Objective | Constraint, ...]
    knobs: tuple[str, ...]
    same: Mapping[str, str]
    entries: tuple[Entry, ...]
    baseline: str | None
    is_default: bool
    currency: str
    is_simulated: bool

    @property
    def is_front(self) -> bool:
        """Whether places are fronts: there are several objectives."""
        return len(self.objectives) > 1

    def number(self, setting: str) -> int:
        """Return the row of a setting, from 1; unlike a place, no two share it."""
        return self._rows[setting]

    def row_name(self, setting: str) -> str:
        """Name a setting by its row, and by its knobs where they are few."""
        row = f"row {self.number(setting)}"
        return f"{row} ({setting})" if len(setting) <= _SHORT_NAME else row

    def entry(self, setting: str) -> Entry:
        """Return a setting's line."""
        return self.entries[self._rows[setting] - 1]

    @cached_property
    def has_cost(self) -> bool:
        """Whether it is known of any setting what its tokens cost."""
        return any(entry.cost is not None for entry in self.entries)

    @cached_property
    def _rows(self) -> Mapping[str, int]:
        return {entry.setting: row for row, entry in enumerate(self.entries, start=1)}


def is_search(study: Study) -> bool:
    """Return whether a study's settings are told apart by knobs, not by names that somebody gave them."""
    rows = tables.settings(study.frame, study.series)
    unnamed = rows[[name is None for name in rows["series"]]]
    return bool(unnamed["setting"].nunique() > 1)


@lru_cache(maxsize=8)
def leaderboard(study: Study) -> Leaderboard:
    """Return the leaderboard of a study; worked out once, since page, report and terminal ask for it."""
    rows = tables.settings(study.frame, study.series).drop_duplicates("setting")
    rows = rows[[name for name in rows.columns if name in _READ or str(name).startswith(_KNOB)]]
    records = rows.to_dict("records")
    varying, same = _knobs(rows)
    beside = _beside(study)
    facts = _Facts(
        study=study,
        values=[bests.estimates(study.frame, objective, study.series) for objective in study.objectives],
        beside=[bests.score(study.frame, quantity, study.series) for quantity in beside],
        overrides=_overrides(records, varying),
        starts=dict(zip(rows["setting"].astype(str), rows["started_at"], strict=True)),
    )
    places = _places(facts)
    baseline = _baseline(facts)
    shared = {place for place, settings in Counter(places.values()).items() if settings > 1}
    entries = [_entry(row, varying, facts, places, shared, baseline) for row in records]
    entries.sort(key=lambda entry: _order(entry, study.objectives[0]))
    return Leaderboard(
        objectives=study.objectives,
        constraints=study.constraints,
        beside=beside,
        knobs=varying,
        same=same,
        entries=tuple(entries),
        baseline=baseline,
        is_default=baseline is not None and facts.overrides[baseline] == 0,
        currency=study.currency,
        is_simulated=study.is_simulated,
    )


class _Facts:
    """What is known of each setting of a study, by its name."""

    def __init__(
        self,
        *,
        study: Study,
        values: Sequence[Mapping[str, Estimate]],
        beside: Sequence[Mapping[str, float]],
        overrides: Mapping[str, int],
        starts: Mapping[str, Any],
    ) -> None:
        self.study = study
        self.values = values
        self.beside = beside
        self.overrides = overrides
        self.starts = starts
        self.stand = standings.standings(study)
        self.gpus = costs.gpus_of(study)
        self.tokens = self._tokens()
        metric = study.objectives[0].metric
        self.completed = standings.completed_at_heaviest(study, metric) if metric in SEARCH_SLOS else {}

    def means(self, setting: str) -> tuple[float, ...] | None:
        """Return a setting's objectives; None where one is missing."""
        found = [known[setting].mean for known in self.values if setting in known]
        return tuple(found) if len(found) == len(self.values) else None

    def cost(self, setting: str) -> float | None:
        """Return what a million output tokens of a setting cost; None where that is not known."""
        price, gpus, rate = self.study.price_per_gpu_hour, self.gpus.get(setting), self.tokens.get(setting)
        return None if price is None or not gpus or not rate else derived.cost(price, gpus=gpus, per_s=rate)

    def _tokens(self) -> Mapping[str, float]:
        """Return the output tokens per second at the load that decides."""
        first = self.study.objectives[0]
        if self.study.price_per_gpu_hour is None or first.metric in SEARCH_SLOS:
            return {}
        return bests.score(self.study.frame, _at_its_load(first, _OUTPUT_TOKENS), self.study.series)


def _at_its_load(objective: Objective, metric: str) -> Objective:
    return Objective(
        metric=metric,
        direction="maximize",
        request_rate_per_s=objective.request_rate_per_s,
        max_concurrency=objective.max_concurrency,
    )


def _beside(study: Study) -> tuple[Objective | Constraint, ...]:
    """Return what is shown beside the objectives, each quantity once."""
    shown = {(one.metric, one.request_rate_per_s, one.max_concurrency, one.per) for one in study.objectives}
    found: list[Objective | Constraint] = list(study.constraints)
    shown |= {(one.metric, one.request_rate_per_s, one.max_concurrency, one.per) for one in study.constraints}
    first = study.objectives[0]
    if first.metric not in SEARCH_SLOS:
        known = [name for name in _BESIDE if name in study.frame and study.frame[name].notna().any()]
        usual = [_at_its_load(first, metric) for metric in known]
        found += [
            one
            for one in usual
            if (one.metric, one.request_rate_per_s, one.max_concurrency, None) not in shown
        ]
    return tuple(found)


def _knobs(rows: pd.DataFrame) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the knobs in which settings differ, and the value of the others."""
    columns = [str(name) for name in rows.columns if str(name).startswith(_KNOB)]
    varying = [name for name in columns if rows[name].nunique(dropna=False) > 1]
    same = {
        name.removeprefix(_KNOB): tables.value_text(rows[name].iloc[0])
        for name in columns
        if name not in varying and not pd.isna(rows[name].iloc[0])
    }
    is_named = any(name is not None for name in rows["series"])
    names = tuple(name.removeprefix(_KNOB) for name in varying)
    return ((SERIES, *names) if is_named else names), same


def _overrides(rows: Sequence[tables.Row], varying: Sequence[str]) -> dict[str, int]:
    return {str(row["setting"]): len(set(bests.overridden(row)) & set(varying)) for row in rows}


def _places(facts: _Facts) -> dict[str, int]:
    """Return the place of each setting that keeps every bound and has a number for each objective."""
    known = {
        setting: means
        for setting in facts.overrides
        if setting not in facts.stand.breaches and (means := facts.means(setting)) is not None
    }
    objectives = facts.study.objectives
    return _fronts(known, objectives) if len(objectives) > 1 else _ranks(known, objectives[0])


def _ranks(known: Mapping[str, tuple[float, ...]], objective: Objective) -> dict[str, int]:
    """Rank by one objective; of equal settings each has the place of the first."""
    ranked = sorted(known, key=lambda setting: -objective.sign * known[setting][0])
    places: dict[str, int] = {}
    for number, setting in enumerate(ranked, start=1):
        before = ranked[number - 2] if number > 1 else None
        is_equal = before is not None and math.isclose(known[before][0], known[setting][0], rel_tol=_SAME)
        places[setting] = places[before] if is_equal and before is not None else number
    return places


def _fronts(known: Mapping[str, tuple[float, ...]], objectives: Sequence[Objective]) -> dict[str, int]:
    """Number the Pareto fronts: each holds what no other one beats once those before it are set aside."""
    found = fronts(known, objectives=objectives)
    return {setting: number for number, members in enumerate(found, start=1) for setting in members}


def _baseline(facts: _Facts) -> str | None:
    """Return the setting with the fewest overrides that has a number; of several the one started first."""
    known = [setting for setting in facts.overrides if setting in facts.values[0]]
    return min(known, key=lambda setting: (facts.overrides[setting], facts.starts[setting]), default=None)


def _entry(
    row: tables.Row,
    varying: Sequence[str],
    facts: _Facts,
    places: Mapping[str, int],
    shared: Collection[int],
    baseline: str | None,
) -> Entry:
    setting = str(row["setting"])
    values = tuple(known.get(setting) for known in facts.values)
    place = places.get(setting)
    is_tied = len(facts.values) == 1 and place in shared
    return Entry(
        place=place,
        setting=setting,
        trial_key=str(row["trial_key"]),
        knobs={name: _knob_text(row, name, facts.study) for name in varying},
        values=values,
        changes=tuple(_change(known, setting, baseline) for known in facts.values),
        beside=tuple(known.get(setting) for known in facts.beside),
        breaches=facts.stand.breaches.get(setting, ()),
        standing=facts.stand.of(setting),
        is_tied=is_tied,
        overrides=facts.overrides[setting],
        gpus=facts.gpus.get(setting),
        cost=facts.cost(setting),
        completed_per_s=facts.completed.get(setting),
        why_none="" if values[0] is not None else _why_none(row),
    )


def _knob_text(row: tables.Row, name: str, study: Study) -> str:
    if name != SERIES:
        return tables.value_text(row[f"{_KNOB}{name}"])
    series = row["series"]
    return study.series[series].label if series in study.series else str(series or "")


def _change(known: Mapping[str, Estimate], setting: str, baseline: str | None) -> float | None:
    if baseline is None or setting not in known or baseline not in known or not known[baseline].mean:
        return None
    return known[setting].mean / known[baseline].mean - 1


def _why_none(row: tables.Row) -> str:
    if row["state"] == str(TrialState.COMPLETE):
        return "no value"
    failure = row["failure_class"]
    kind = tables.short_state({"state": row["state"], "reason": failure})
    return f"{kind}: {failure}" if kind == str(TrialState.FAILED) and isinstance(failure, str) else kind


def _order(entry: Entry, first: Objective) -> tuple[bool, bool, float, float, int]:
    """Return what entries are sorted by: places, then what breaks a bound, then what has no number."""
    value = entry.values[0]
    return (
        value is None,
        bool(entry.breaches),
        entry.place or math.inf,
        0.0 if value is None else -first.sign * round_to_same(value.mean),
        entry.overrides,
    )


def round_to_same(value: float) -> float:
    """Return a value to nine digits, so that two that differ by rounding alone sort as equal."""
    return float(f"{value:.9g}")


def quantity_title(quantity: Objective | Constraint) -> str:
    """Name a quantity in words, without its load: ``p99 TPOT (ms)``, ``Requests per second per GPU``."""
    divided = "" if quantity.per is None else f" per {quantity.per.upper()}"
    return f"{title_of(quantity.metric)}{divided}"
