"""The curve: tokens per second per GPU against tokens per second per user, over the users at once.

The more users share a GPU, the more it gives in all and the less it gives to each: every setting is a curve
between the two, and which one is best depends on where on it a service wants to be. *Users* are the requests
under way at once, in a closed loop: each sends its next request when the last is answered.

What a GPU gives is the output tokens per second of the whole run over the GPUs that the setting holds. What a
user gets is told in two ways, for the tools of the field tell it in two:

* *while the answer streams*: 1000 over the median time per output token in milliseconds (InferenceX). Waiting
  for the first token does not count, so a setting that lets few in at a time and makes the others wait looks
  as fast as with few users;
* *over the whole request*: output tokens per second of the run over the users (vLLM). Waiting counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pandas as pd

from analysis import answers, load_names, predicted, standings, starts, tables
from analysis.bests import Breach
from analysis.ratios import NOISE
from analysis.study import Study
from sweeper.goals.objectives import counts, objective_value
from sweeper.goals.objectives import front as objectives_front
from sweeper.intervals import Estimate, estimate
from sweeper.kinds import ENGINES
from sweeper.records import Constraint, Objective, TrialState, gpus_of_row

FEWEST_USERS = 3
"""Numbers of users of one setting, from which on a study has a curve."""

PER_GPU = "output_tok_per_s_per_gpu"
STREAMING = "streaming_tok_per_s_per_user"
OVERALL = "overall_tok_per_s_per_user"
SPEEDS = (STREAMING, OVERALL)
"""What a user gets, in the two ways."""

_FASTER, _WAITED = 2.0, 5.0
"""Tokens came in bunches where a user's stream is that many times as fast as any setting's is with its fewest
users, who have the engine to themselves, and that many times as fast as the whole request."""

BROKEN = "answers are broken"
"""Says of a setting that its answers are no text (``answers``): it takes part in no frontier."""

_OUTPUT = "output_throughput_tok_per_s"
_TOTAL = "total_throughput_tok_per_s"
_TPOT = "median_tpot_ms"
_TTFT = "median_ttft_ms"
_PROMPTS = "num_prompts"
_KEY = "load_key"
_RUN = "keeps_prefix_cache"

_NUMBERS = (PER_GPU, STREAMING, OVERALL)
_COLUMNS = [
    *("study", "setting", "load", "users"),
    *(f"{name}{end}" for name in _NUMBERS for end in ("", "_low", "_high")),
    *("total_tok_per_s_per_gpu", _TPOT, _TTFT, "gpus", "n", "state", "reason", "breaks", "is_bunched"),
    *("is_streaming_frontier", "is_overall_frontier"),
    *("provenance", "trial_key"),
    *(f"{name}_{end}" for name in _NUMBERS for end in (predicted.LOW, predicted.HIGH)),
]
_READ = (
    *("setting", "users", "restart", "state", "failure_class", "engine", "provenance", "trial_key"),
    *("max_rate_slo", "devices", "partition_mode", "partitions_per_gpu", _RUN, *load_names.LOAD_POINT),
    *(_OUTPUT, _TOTAL, _TPOT, _TTFT, predicted.COLUMN),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """The points of one load, of one study or of several.

    Attributes:
        load: What else than the users tells this load from the others of the studies; empty where it is the
            only one.
        points: What ``points`` gave, of this load; settings in the order of the studies' standings.
        bounds: Bounds that every point is held against: those of all the studies, at no load of their own.
        unit: What output tokens are counted per: ``GPU``, ``CPU core``, or ``endpoint`` for an engine whose
            devices are not known.
    """

    load: str
    points: pd.DataFrame
    bounds: tuple[Constraint, ...]
    unit: str

    @property
    def bunched(self) -> pd.DataFrame:
        """The points whose tokens reached the client in bunches, so that nothing is known of the stream."""
        return self.points[self.points["is_bunched"].astype(bool)]

    def known(self, speed: str) -> pd.DataFrame:
        """Return the points that have a number for a GPU and, by one of ``SPEEDS``, for a user."""
        return self.points[is_known(self.points, speed)]

    @property
    def is_simulated(self) -> bool:
        """Whether any of it comes from a model and not from a machine."""
        return bool((self.points["provenance"] != "measured").any())

    def frontier(self, speed: str) -> pd.DataFrame:
        """Return the points that no other of their study is better than in both, in the order of a speed."""
        return self.points[self.points[frontier_column(speed)]].sort_values(speed, kind="stable")

    def best(self, study: str) -> Mapping[Any, Any] | None:
        """Return the point of a study that gives the most per GPU within the bounds; None where none does.

        Of those within ``NOISE`` of the most it is the one whose users get the most over the whole request:
        past the users that an engine takes in, more of them add nothing and wait.
        """
        known = self.known(OVERALL)
        within = known[(known["study"] == study) & (known["breaks"] == "")]
        near = within[within[PER_GPU] >= (1 - NOISE) * within[PER_GPU].max()]
        return None if near.empty else near.loc[near[OVERALL].idxmax()].to_dict()


def curves(studies: Sequence[Study], *, names: Sequence[str] = ()) -> list[Curve]:
    """Return the curves of a study, or those that several have in common: one per load.

    Args:
        studies: One, or those to be drawn into one chart.
        names: What to call them, each by another name; by default as they are called.

    Returns:
        A curve for each load (lengths, dataset, rate and so on) at which a setting was measured with at
        least ``FEWEST_USERS`` numbers of users; of several studies, at which each of two or more was.
    """
    return list(_curves(tuple(studies), tuple(names) or tuple(study.name for study in studies)))


@lru_cache(maxsize=4)
def _curves(studies: tuple[Study, ...], names: tuple[str, ...]) -> tuple[Curve, ...]:
    bounds = _common([study.constraints for study in studies])
    every = pd.concat(
        [points(study, bounds).assign(study=name) for study, name in zip(studies, names, strict=True)],
        ignore_index=True,
    )
    by_load = {key: every[[key == other for other in every[_KEY]]] for key in dict.fromkeys(every[_KEY])}
    chosen = {key: group for key, group in by_load.items() if _has_curve(group, min(2, len(studies)))}
    words = _load_words(list(chosen))
    unit = _unit(studies)
    found = []
    for key, group in chosen.items():
        loaded = group.assign(load=words[key], is_bunched=_are_bunched(group))
        everywhere = tuple(bound for bound in bounds if all(bound.name in names for names in group["judged"]))
        found.append(
            Curve(
                load=words[key],
                points=_with_frontiers(loaded)[_COLUMNS].reset_index(drop=True),
                bounds=everywhere,
                unit=unit,
            )
        )
    return tuple(found)


def points(study: Study, bounds: Sequence[Constraint]) -> pd.DataFrame:
    """Return every setting of a study at every number of users.

    Args:
        study: The study.
        bounds: What each point is held against, by itself.

    Returns:
        A row per setting, load and number of users, of closed loops alone: ``setting``, ``users``, the three
        numbers of the curve in tokens per second with their 95 % intervals over engine starts and the
        predicted ones (``_interval_80_low`` and ``_high``; NaN where measured),
        ``total_tok_per_s_per_gpu`` (with the prompts'), ``median_tpot_ms``, ``median_ttft_ms``, ``gpus``,
        ``n`` (engine starts), ``state``, ``reason``, ``breaks`` (in words), ``provenance``, ``trial_key``;
        and what ``curves`` needs to tell loads apart.

    Source:
        InferenceX, ``utils/process_result.py``: interactivity is 1000 / TPOT in milliseconds, throughput per
        GPU is ``total_token_throughput`` or ``output_throughput`` over the GPUs. vLLM 0.32.0,
        ``vllm/benchmarks/sweep/plot_pareto.py``: ``output_throughput`` over the users and over the GPUs.
    """
    rows = _closed_loops(tables.of_metric(tables.settings(study.frame, study.series), _OUTPUT))
    broken = answers.broken(rows)
    key = _key_columns(rows)
    # Few columns: each group is read row by row.
    read = [*_READ, *(bound.metric for bound in bounds)]
    narrow = rows[[name for name in dict.fromkeys(read) if name in rows]]
    keys = [_key(row, key) for row in rows[key].to_dict("records")]
    keyed = narrow.assign(**{_KEY: pd.Series(keys, index=rows.index, dtype=object)})
    found = pd.DataFrame([_point(group, bounds, broken) for group in _groups(keyed)])
    if found.empty:
        return pd.DataFrame(columns=[*_COLUMNS, _KEY, "judged", "is_broken"])
    place = {name: number for number, name in enumerate(standings.standings(study).order)}
    order = found.assign(_place=found["setting"].map(place)).sort_values(["_place", "users"], kind="stable")
    return order.drop(columns="_place").reset_index(drop=True)


def _closed_loops(rows: pd.DataFrame) -> pd.DataFrame:
    """Keep the rows in which so many requests were under way at once, and say how many those were.

    Where a rate or the file says when requests come, ``max_concurrency`` is a limit that is perhaps never
    reached.
    """
    users = [load_names.users_at(row) for row in rows[list(load_names.LOAD_POINT)].to_dict("records")]
    every = rows.assign(users=pd.array(users, dtype="Int64"))
    closed = every[every["users"].notna()]
    # No more can be under way than are sent.
    return closed.assign(users=closed[["users", _PROMPTS]].min(axis=1).astype(int))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Group:
    """The rows of a setting at one load and number of users.

    Attributes:
        rows: The rows.
        means: Metric to the means of engine starts.
        expected: Metric to the ends of the interval that the model expects; NaN where it is measured.
    """

    rows: Sequence[tables.Row]
    means: Mapping[str, Sequence[float]]
    expected: Mapping[str, tuple[float, float]]


def _groups(keyed: pd.DataFrame) -> list[_Group]:
    """Group rows into points, all at once: asking each by itself takes 20 ms a point."""
    numbers = starts.numbers_of(keyed, ["setting", _KEY, "users"])
    means = {name: starts.means(keyed, numbers, name) for name in (_OUTPUT, _TOTAL, _TPOT, _TTFT)}
    expected = {name: predicted.ends(keyed, numbers, name) for name in (_OUTPUT, _TPOT)}
    rows: list[list[tables.Row]] = [[] for _ in range(int(numbers.max(initial=-1)) + 1)]
    for number, row in zip(numbers, keyed.to_dict("records"), strict=True):
        rows[number].append(row)
    return [
        _Group(
            rows=own,
            means={name: each[number] for name, each in means.items()},
            expected={name: each[number] for name, each in expected.items()},
        )
        for number, own in enumerate(rows)
    ]


def _point(group: _Group, bounds: Sequence[Constraint], broken: frozenset[str]) -> dict[str, object]:
    first = group.rows[0]
    users, gpus = int(first["users"]), _divisor(first)
    output = group.means[_OUTPUT]
    streaming = [1000 / value for value in group.means[_TPOT] if value > 0]
    is_broken = str(first["setting"]) in broken
    judged, breaks = _judge(group.rows, bounds)
    return {
        "setting": str(first["setting"]),
        _KEY: first[_KEY],
        "users": users,
        **_estimated(PER_GPU, [value / gpus for value in output]),
        **_estimated(STREAMING, streaming),
        **_estimated(OVERALL, [value / users for value in output]),
        **_predicted(group, users=users, gpus=gpus),
        "total_tok_per_s_per_gpu": _mean(group.means[_TOTAL], lambda value: value / gpus),
        _TPOT: _mean(group.means[_TPOT]),
        _TTFT: _mean(group.means[_TTFT]),
        "gpus": gpus,
        "n": len(output),
        "state": first["state"],
        "reason": None if pd.isna(first["failure_class"]) else first["failure_class"],
        "judged": judged,
        "breaks": "; ".join([*breaks, *([BROKEN] if is_broken else [])]),
        "is_broken": is_broken,
        "provenance": first["provenance"],
        "trial_key": first["trial_key"],
    }


def _judge(group: Sequence[tables.Row], bounds: Sequence[Constraint]) -> tuple[frozenset[str], list[str]]:
    """Return the names of the bounds that a point is held against, and in words those that it breaks."""
    rows = [{str(name): value for name, value in row.items()} for row in group]
    held = [bound for bound in bounds if any(counts(bound, row) for row in rows)]
    complete = [row for row in rows if row["state"] == str(TrialState.COMPLETE)]
    values = [(bound, objective_value(bound, complete)) for bound in held] if complete else []
    broken = [
        Breach(constraint=bound, value=value).text
        for bound, value in values
        if value is None or bound.violation(value) > 0
    ]
    return frozenset(bound.name for bound in held), broken


def _with_frontiers(points: pd.DataFrame) -> pd.DataFrame:
    return points.assign(**{frontier_column(speed): _on_frontier(points, speed) for speed in SPEEDS})


def _on_frontier(points: pd.DataFrame, speed: str) -> list[bool]:
    """Tell which points of a load no other of the same study is better than in both."""
    both = tuple(Objective(metric=name, direction="maximize") for name in (speed, PER_GPU))
    takes_part = points[is_known(points, speed) & ~points["is_broken"].astype(bool)]
    kept: set[Any] = set()
    for _, group in takes_part.groupby("study", sort=False):
        values = {place: (row[speed], row[PER_GPU]) for place, row in group.to_dict("index").items()}
        kept |= set(objectives_front(values, objectives=both))
    return [place in kept for place in points.index]


def _are_bunched(points: pd.DataFrame) -> list[bool]:
    """Tell of which points the tokens reached the client in bunches: no engine streams as fast as they say.

    A client that gets no processor reads many tokens at once, the first of them late: the time to the first
    token has what the time per token lacks.
    """
    fewest = points.sort_values("users").dropna(subset=[STREAMING]).groupby(["study", "setting"])[STREAMING]
    # Of all settings: the first run of one may have been slow for a reason of its own.
    alone = fewest.first().groupby("study").max()
    return [
        row[STREAMING] > _FASTER * alone.get(row["study"], math.inf)
        and row[STREAMING] > _WAITED * row[OVERALL]
        for row in points.to_dict("records")
    ]


def is_known(points: pd.DataFrame, speed: str) -> pd.Series[bool]:
    """Tell which points have a number for a GPU and, by one of ``SPEEDS``, for a user."""
    is_told = points[PER_GPU].notna() & points[speed].notna()
    return is_told & ~points["is_bunched"].astype(bool) if speed == STREAMING else is_told


def frontier_column(speed: str) -> str:
    """Name the column that tells which points are on the frontier by a speed."""
    return f"is_{speed.partition('_')[0]}_frontier"


def _estimated(name: str, values: Sequence[float]) -> dict[str, float | None]:
    found = estimate(values) if values else Estimate(mean=float("nan"), low=None, high=None, n=0)
    return {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}


def _predicted(group: _Group, *, users: int, gpus: float) -> dict[str, float]:
    """Return what the model expects of the three numbers of a point; NaN where they are measured."""
    low, high = group.expected[_OUTPUT]
    shortest, longest = group.expected[_TPOT]
    nan = float("nan")  # a run of single tokens has a TPOT of 0
    ends = {
        PER_GPU: (low / gpus, high / gpus),
        STREAMING: (1000 / longest, 1000 / shortest) if shortest > 0 else (nan, nan),
        OVERALL: (low / users, high / users),
    }
    return {
        f"{name}_{column}": value
        for name, values in ends.items()
        for column, value in zip((predicted.LOW, predicted.HIGH), values, strict=True)
    }


def _mean(values: Sequence[float], of: Callable[[float], float] = float) -> float:
    return estimate([of(value) for value in values]).mean if values else float("nan")


def _divisor(row: Mapping[Any, Any]) -> float:
    """Return the GPUs of a setting; 1 where nobody knows them, as behind an address."""
    held = 0.0 if row["devices"] is None else gpus_of_row(row)
    return held if held and _knows_devices(row["engine"]) else 1.0


def _knows_devices(engine: object) -> bool:
    kind = ENGINES.get(str(engine))
    return kind is None or kind.is_started_by_us


def _unit(studies: Sequence[Study]) -> str:
    engines = {engine for study in studies for engine in study.frame["engine"].dropna()}
    if not all(map(_knows_devices, engines)):
        return "endpoint"
    platforms = {platform for study in studies for platform in study.frame["platform"]}
    return "CPU core" if platforms == {"cpu"} else "GPU"


# ---- loads ----


def _key_columns(rows: pd.DataFrame) -> list[str]:
    """Name the columns in which loads differ besides the users; how many prompts follows from these."""
    names = [name for name in load_names.LOAD_POINT if name not in ("max_concurrency", _PROMPTS)] + [_RUN]
    same = rows.groupby(["setting", *names, "users"], dropna=False, sort=False)[_PROMPTS]
    return [*names, _PROMPTS] if (same.nunique() > 1).any() else names


def _key(row: Mapping[Any, Any], names: Sequence[str]) -> tuple[tuple[str, object], ...]:
    return tuple((name, None if pd.isna(row[name]) else row[name]) for name in names)


def _load_words(keys: Sequence[tuple[tuple[str, object], ...]]) -> dict[Any, str]:
    """Name each load by what differs between them; nothing where there is one."""
    rows: list[dict[Hashable, Any]] = [dict(key) for key in keys]
    names = list(dict.fromkeys(name for key in keys for name, _ in key))
    varying = [name for name in names if len({row.get(name) for row in rows}) > 1]
    return {key: load_names.load_words(row, varying) for key, row in zip(keys, rows, strict=True)}


def _has_curve(points: pd.DataFrame, fewest_studies: int) -> bool:
    users = points[is_known(points, OVERALL)].groupby(["study", "setting"], sort=False)["users"].nunique()
    wide = users[users >= FEWEST_USERS]
    return wide.index.get_level_values("study").nunique() >= fewest_studies if len(wide) else False


def _common(bounds: Sequence[tuple[Constraint, ...]]) -> tuple[Constraint, ...]:
    return tuple(bound for bound in bounds[0] if all(bound in others for others in bounds[1:]))
