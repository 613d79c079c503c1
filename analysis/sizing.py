"""What one instance of each setting of a study serves within bounds, by the load points that were run.

Loads are looked at from the lightest: the highest that keeps the bounds, with none below it that breaks one,
is what an instance serves. With a rate of requests that is the rate offered, where answers kept up with it;
with users it is what they got completed. Loads between two that were run are not guessed at.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from analysis import tables
from analysis.study import Study
from sweeper.errors import ConfigError
from sweeper.goals.sizing import Capacity, keeps_up
from sweeper.intervals import Estimate, estimate
from sweeper.records import Constraint, TrialState, gpus_of_row

_LENGTHS = ("dataset", "input_len", "output_len")
_RPS = "request_throughput_per_s"


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a study says.

    Attributes:
        capacities: One per setting that was run at loads of its own.
        load: What was sent, in words.
        left_out: Why other settings are not there.
    """

    capacities: tuple[Capacity, ...]
    load: str
    left_out: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Point:
    """One load of one setting, and whether the bounds are kept in the mean, surely, and perhaps."""

    load: float
    per_s: float
    is_kept: bool
    is_surely_kept: bool
    may_be_kept: bool


def capacities(
    study: Study, bounds: Sequence[Constraint], *, input_len: int | None = None, output_len: int | None = None
) -> Found:
    """Return what one instance of each setting serves.

    Args:
        study: Of several loads.
        bounds: On latencies, each held at every load.
        input_len: Picks the loads of these prompts, where there are several.
        output_len: The same of answers.

    Raises:
        ConfigError: The study has no load of these lengths, or several kinds of them.
    """
    rows = tables.settings(study.frame, study.series)
    rows = rows[rows["request_rate_per_s"].notna() | rows["max_concurrency"].notna()]
    if "keeps_prefix_cache" in rows:
        rows = rows[~rows["keeps_prefix_cache"].fillna(False).astype(bool)]
    rows = _of_lengths(rows, study, input_len=input_len, output_len=output_len)
    found, left_out = [], []
    for setting, group in rows.groupby("setting", sort=False):
        complete = group[group["state"] == str(TrialState.COMPLETE)]
        one = None if complete.empty else _capacity(str(setting), complete, bounds, study)
        if one is None:
            left_out.append(f"{setting}: has no number for every bound")
        else:
            found.append(one)
    return Found(capacities=tuple(found), load=_load_text(rows), left_out=tuple(left_out))


def _of_lengths(
    rows: pd.DataFrame, study: Study, *, input_len: int | None, output_len: int | None
) -> pd.DataFrame:
    known = _loads(rows)
    for name, wanted in (("input_len", input_len), ("output_len", output_len)):
        if wanted is not None:
            rows = rows[rows[name] == wanted]
    if rows.empty:
        told = "; ".join(known) or "none with a rate or users"
        raise ConfigError(
            f"{study.folder}: has no such loads; expected one of those that were run: {told}. Leave the "
            "lengths out, or measure the study at rates or users of these lengths."
        )
    if len(_loads(rows)) > 1:
        raise ConfigError(
            f"{study.folder}: has loads of several kinds: {'; '.join(known)}; expected one. Choose it by "
            "--input-len and --output-len."
        )
    return rows


def _loads(rows: pd.DataFrame) -> list[str]:
    return [_load_text(group) for _, group in rows.groupby(list(_LENGTHS), dropna=False, sort=False)]


def _load_text(rows: pd.DataFrame) -> str:
    dataset, prompt, answer = (rows.iloc[0][name] for name in _LENGTHS)
    lengths = [
        f"{what} of {int(length)}"
        for what, length in (("prompts", prompt), ("answers", answer))
        if not pd.isna(length)
    ]
    return f"{dataset}{', ' if lengths else ''}{' and '.join(lengths)}{' tokens' if lengths else ''}"


def _capacity(
    setting: str, rows: pd.DataFrame, bounds: Sequence[Constraint], study: Study
) -> Capacity | None:
    """Return what a setting serves by its rates or by its users, whichever is more."""
    gpus = gpus_of_row({str(name): value for name, value in rows.iloc[0].items()})
    provenance = "SIMULATED" if study.is_simulated else "measured"
    what = "the model's intervals" if study.is_simulated else "the 95 % intervals of repeated starts"
    loads = rows.groupby(["request_rate_per_s", "max_concurrency"], dropna=False).ngroups
    has_rate = rows["request_rate_per_s"].notna()
    found = []
    # Rates that are offered to different numbers of users at most are other loads.
    rated = [some for _, some in rows[has_rate].groupby("max_concurrency", dropna=False)]
    axes = [*((some, "request_rate_per_s") for some in rated), (rows[~has_rate], "max_concurrency")]
    for some, axis in axes:
        points = [_point(group, axis, bounds) for _, group in some.groupby(axis)]
        if points and all(point is not None for point in points):
            found.append(_best([point for point in points if point is not None]))
    if not found:
        return None
    per_s, low, high = max(found, key=lambda ends: ends[0])
    return Capacity(
        setting=setting,
        gpus=gpus,
        per_s=per_s,
        low_per_s=low,
        high_per_s=high,
        because=f"{provenance} at {loads} loads; the bad end is where {what} keep the bounds",
    )


def _best(points: Sequence[_Point]) -> tuple[float, float, float | None]:
    """Return what is served before the first load that breaks a bound: in the mean, surely, perhaps."""
    ordered = sorted(points, key=lambda point: point.load)
    kept = _before(ordered, [point.is_kept for point in ordered])
    sure = _before(ordered, [point.is_surely_kept for point in ordered])
    perhaps = [point.may_be_kept for point in ordered]
    middle = max((point.per_s for point in kept), default=0.0)
    low = min(middle, max((point.per_s for point in sure), default=0.0))
    if all(perhaps):
        return middle, low, None
    return middle, low, max(middle, ordered[perhaps.index(False)].per_s)


def _before(points: Sequence[_Point], keeps: Sequence[bool]) -> Sequence[_Point]:
    return points[: keeps.index(False)] if False in keeps else points


def _point(rows: pd.DataFrame, axis: str, bounds: Sequence[Constraint]) -> _Point | None:
    """Judge one load; None where a bounded latency or the throughput is not known."""
    load, served = float(rows.iloc[0][axis]), _estimate(rows, _RPS)
    held = [(bound, _estimate(rows, bound.metric)) for bound in bounds]
    if served is None or any(number is None for _, number in held):
        return None
    ends = [(bound.limit, number) for bound, number in held if number is not None]
    with_rate = axis == "request_rate_per_s"
    is_steady = not with_rate or _keeps_up(rows, load)
    return _Point(
        load=load,
        per_s=load if with_rate and is_steady else served.mean,
        is_kept=is_steady and all(number.mean <= limit for limit, number in ends),
        is_surely_kept=is_steady
        and all(number.high is not None and number.high <= limit for limit, number in ends),
        may_be_kept=is_steady
        and all((number.mean if number.low is None else number.low) <= limit for limit, number in ends),
    )


def _keeps_up(rows: pd.DataFrame, rate_per_s: float) -> bool:
    found = [_estimate(rows, name) for name in ("completed", "duration_s", "median_e2el_ms")]
    completed, duration_s, latency_ms = (None if one is None else one.mean for one in found)
    if completed is None or duration_s is None:
        return True
    return keeps_up(
        completed=completed, duration_s=duration_s, latency_ms=latency_ms or 0.0, rate_per_s=rate_per_s
    )


def _estimate(rows: pd.DataFrame, metric: str) -> Estimate | None:
    values = [value for value in tables.restart_means(rows, metric) if math.isfinite(value)]
    return _modelled(estimate(values), rows, metric) if values else None


def _modelled(found: Estimate, rows: pd.DataFrame, metric: str) -> Estimate:
    """Return an estimate with the ends of the model's interval, where the number is simulated and has one."""
    told = rows["interval_80"].dropna() if "interval_80" in rows else ()
    ends = [json.loads(text).get(metric) for text in told]
    known = [pair for pair in ends if pair is not None]
    if not known:
        return found
    return replace(found, low=min(low for low, _ in known), high=max(high for _, high in known))
