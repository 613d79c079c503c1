"""Whether the numbers of a study are those of a steady load: the middle of each run beside the whole of it.

A run begins with an empty engine and ends with the last answers alone; its middle is what a service that
never stops sees. Nothing is said where the two agree. Where they differ by more than noise, where latencies
still moved within the middle, or where the run was too short to tell, the report says so, for a comparison
of short runs compares how they begin and end.

Left out are loads that are sent all at once: they begin and end, and nothing lies between.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis import load_names, starts, tables
from analysis.ratios import NOISE
from analysis.study import Study
from sweeper.intervals import NORMAL_975, estimate
from sweeper.kinds import DATASETS
from sweeper.records import TrialState
from sweeper.records.plurals import amount, percent

_COMPARED = {
    "request_throughput_per_s": ("requests per second", None),
    "output_throughput_tok_per_s": ("output tokens per second", None),
    "mean_ttft_ms": ("mean TTFT (ms)", "std_ttft_ms"),
    "mean_tpot_ms": ("mean TPOT (ms)", "std_tpot_ms"),
}
"""Metrics of the whole run that the middle has, too; their words, and what says how far requests spread."""

_COLUMNS = ["setting", "load point", "metric", "whole run", "steady part", "difference"]
_MOST_ROWS = 12
_MOST_NAMED = 4
_RATE = "steady_request_throughput_per_s"
_PLACE = "_place"
_READ = (
    *("setting", "load_point", "load_axis", "dataset", "request_rate_per_s", "arrivals", "max_concurrency"),
    *("num_prompts", "state", "restart", "completed", "ramp_s", "steady_s", "drain_s", "steady_drifts"),
)


@dataclass(frozen=True, kw_only=True)
class Steadiness:
    """What the middles of a study's runs say.

    Attributes:
        known: Settings at a load point of whose runs the times of single requests are known.
        too_short: Those of which a run was too short to say, as setting and load point.
        drifting: Those whose latencies moved from the first to the last third of the middle.
        differing: A row for each metric in which a middle that is steady differs from the whole by more than
            noise, the largest difference first: ``setting``, ``load point``, ``metric``, ``whole run``,
            ``steady part``, ``difference`` (of the steady part from the whole, as a share of the whole).
        edges_frac: Share of the runs that was ramp and drain, in the mean; None where no run had a middle.
    """

    known: int
    too_short: tuple[tuple[str, str], ...]
    drifting: tuple[tuple[str, str], ...]
    differing: pd.DataFrame
    edges_frac: float | None


def steadiness(study: Study) -> Steadiness:
    """Hold the middle of every run against the whole of it."""
    rows, places = _timed(study)
    short = set(rows.loc[rows["steady_s"].isna(), _PLACE])
    drifting = set(rows.loc[rows["steady_drifts"].eq(1.0), _PLACE])
    may_differ = set(rows.loc[_moved(rows), _PLACE]) - short - drifting
    lines = [
        {"setting": places[number][0], "load point": places[number][1], **line}
        for number, group in rows[rows[_PLACE].isin(may_differ)].groupby(_PLACE)
        for line in _differences(group)
    ]
    differing = pd.DataFrame(lines, columns=_COLUMNS)
    largest = differing["difference"].abs().sort_values(ascending=False, kind="stable").index
    return Steadiness(
        known=len(places),
        too_short=tuple(place for number, place in places.items() if number in short),
        drifting=tuple(place for number, place in places.items() if number in drifting),
        differing=differing.loc[largest].reset_index(drop=True),
        edges_frac=_edges(rows),
    )


def section(study: Study) -> str:
    """Return the report's section on the steady part of the runs; nothing where it says nothing else."""
    found = steadiness(study)
    sentences = [
        _differ_text(found),
        _many_text(
            found.drifting,
            "latencies still moved from the first to the last third of the steady part: the load had not "
            "settled. Warm up for longer (`workload.warmup_prompts`), or send more",
        ),
        _many_text(
            found.too_short,
            "the run was too short to tell its steady part from its beginning and end. Send more "
            "(`workload.num_prompts`, or `workload.prompts_per_user` for a number of users)",
        ),
    ]
    parts = [sentences[0], _table(found.differing), *sentences[1:]]
    shown = [part for part in parts if part]
    return "\n\n".join(["## Steady state", *shown]) if shown else ""


def _timed(study: Study) -> tuple[pd.DataFrame, dict[Any, tuple[str, str]]]:
    """Return complete rows where the times of single requests are known, and their settings and load points.

    Returns:
        The rows, of which ``_PLACE`` is the number of setting and load point; these by number, in order.
    """
    rows = tables.of_metric(tables.settings(study.frame, study.series), _RATE)
    read = [*_READ, *_COMPARED, *(f"steady_{metric}" for metric in _COMPARED)]
    read += [spread for _, spread in _COMPARED.values() if spread is not None]
    rows = rows.reindex(columns=list(dict.fromkeys(read)))
    complete = rows[rows["state"].eq(str(TrialState.COMPLETE)) & rows["ramp_s"].notna()]
    numbers = starts.numbers_of(complete, ["setting", "load_point"])
    complete = complete.assign(**{_PLACE: numbers})
    firsts = complete.drop_duplicates(_PLACE).to_dict("records")
    places: dict[Any, tuple[str, str]] = {
        int(first[_PLACE]): (str(first["setting"]), load_names.load_point_text(first))
        for first in firsts
        if not _is_all_at_once(first)
    }
    return complete[complete[_PLACE].isin(places)], places


def _moved(rows: pd.DataFrame) -> pd.Series[bool]:
    """Return where the middle of a run is further from the whole than any interval may excuse."""
    found = pd.Series(False, index=rows.index)
    for metric in _COMPARED:
        share = rows[f"steady_{metric}"] / rows[metric].where(rows[metric].gt(0))
        found |= share.sub(1).abs().gt(NOISE).fillna(False).astype(bool)
    return found


def _is_all_at_once(row: tables.Row) -> bool:
    """Return whether every request is sent when the first is, so that there is no middle."""
    kind = DATASETS.get(str(row["dataset"]))
    has_times = kind is not None and kind.times is not None
    is_paced = has_times or _is_given(row["request_rate_per_s"]) or _is_given(row["arrivals"])
    limit = float(row["max_concurrency"]) if _is_given(row["max_concurrency"]) else math.inf
    return not is_paced and limit >= float(row["num_prompts"])


def _is_given(value: Any) -> bool:
    return not pd.isna(value)


def _differences(rows: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Yield the metrics in which the middle differs from the whole by more than noise."""
    for metric, (words, spread) in _COMPARED.items():
        both = rows[rows[metric].gt(0) & rows[f"steady_{metric}"].notna()]
        if both.empty:
            continue
        shares = both.assign(_share=both[f"steady_{metric}"] / both[metric])
        moved = estimate(tables.restart_means(shares, "_share"))
        half = _noise(both, metric, spread) if moved.high is None else moved.high - moved.mean
        if abs(moved.mean - 1) > max(NOISE, half):
            yield {
                "metric": words,
                "whole run": both[metric].mean(),
                "steady part": both[f"steady_{metric}"].mean(),
                "difference": moved.mean - 1,
            }


def _noise(rows: pd.DataFrame, metric: str, spread: str | None) -> float:
    """Return half of the 95 % range of middle over whole, of one engine start.

    The requests of the middle are some of all, so the mean of the middle scatters about that of all with a
    variance of spread**2 * (1 / middle - 1 / all). A count of requests scatters as its root, which is a
    spread of 1; in a closed loop it scatters less.
    """
    middle = float((rows[_RATE] * rows["steady_s"]).sum())
    every = float(rows["completed"].sum())
    known = spread is not None and rows[spread].notna().all()
    relative = float((rows[spread] / rows[metric]).mean()) if known else 1.0
    if not middle > 0 or not every > middle:
        return 0.0
    return NORMAL_975 * relative * math.sqrt(1 / middle - 1 / every)


def _edges(rows: pd.DataFrame) -> float | None:
    shares = (1 - rows["steady_s"] / (rows["ramp_s"] + rows["steady_s"] + rows["drain_s"])).dropna().to_list()
    return math.fsum(map(float, shares)) / len(shares) if shares else None


# ---- words ----


def _differ_text(found: Steadiness) -> str:
    if found.differing.empty:
        return ""
    places = set(zip(found.differing["setting"], found.differing["load point"], strict=True))
    edges = (
        "" if found.edges_frac is None else f"; {percent(found.edges_frac)} of the runs was ramp and drain"
    )
    return (
        f"In {len(places)} of {amount(found.known, 'pair')} of setting and load point the steady part of "
        f"the run differs from the whole run by more than noise{edges}. The charts show the whole run, as "
        "vLLM's benchmark does."
    )


def _table(differing: pd.DataFrame) -> str:
    if differing.empty:
        return ""
    first = differing.head(_MOST_ROWS)
    shown = first.assign(difference=[f"{share * 100:+.1f} %" for share in first["difference"]])
    more = len(differing) - len(first)
    rest = f"\n\nAnd {more} more, less far apart: columns `steady_*` of `measurements/`." if more else ""
    return f"{tables.to_markdown(shown)}{rest}"


def _many_text(places: tuple[tuple[str, str], ...], what: str) -> str:
    """Say of how many settings and load points something holds, and name the load points."""
    if not places:
        return ""
    points = list(dict.fromkeys(point for _, point in places))
    named = ", ".join(points[:_MOST_NAMED])
    more = len(points) - _MOST_NAMED
    of = f"{named} and {more} more load points" if more > 0 else named
    times = "once" if len(places) == 1 else f"{len(places)} times"
    return f"At {of} ({times}) {what}."
