"""Whether the load, and not the setting, gave a throughput: then its numbers do not say which serves more.

Requests that come by the clock, at a rate or at a log's own times, are answered as fast as they come by every
setting that keeps up. All of those have the same throughput, which is the load's own, and per GPU the one on
the fewest GPUs leads, whatever the others could have served. A setting kept up where little was left to
answer once the last request was sent, and where none completed more.
"""

from __future__ import annotations

import math

from analysis import standings, tables
from analysis.study import Study
from sweeper.goals.deciding import BOUNDED_BY_LOAD
from sweeper.goals.objectives import counts
from sweeper.kinds import DATASETS
from sweeper.records import LOAD_COLUMNS, Objective, TrialState
from sweeper.records.plurals import amount

_COMPLETED = "request_throughput_per_s"

_SAME = 0.02
"""By how much the throughputs of two settings that both keep up may differ: what a run's end makes of it."""

_DRAINED = 0.1
"""Share of a run that its last answers may take after the last request was sent."""


def lines(study: Study) -> list[str]:
    """Return a sentence for each objective whose number the load gives; none where settings decide it."""
    return [
        _text(objective, kept=kept, of=of)
        for objective in study.objectives
        for kept, of in [_who_keeps_up(study, objective)]
        if len(kept) > 1 and standings.best_by(study, objective) in kept
    ]


def _text(objective: Objective, *, kept: set[str], of: int) -> str:
    fewest = "; per GPU the one on the fewest GPUs leads" if objective.per else ""
    return (
        f"{objective.metric}: {len(kept)} of {amount(of, 'setting')} answer all that the load sends, as fast "
        f"as it comes{fewest}. So the number is the load's own, and does not say which serves the most. Send "
        "everything at once (workload.request_rate_per_s=[null], a log with workload.dataset=trace_lengths), "
        "or a heavier load (higher rates, a log with workload.options.speed)."
    )


def _who_keeps_up(study: Study, objective: Objective) -> tuple[set[str], int]:
    """Return the settings that keep up with every load that counts, and how many were measured there."""
    rows = tables.settings(study.frame, study.series)
    rows = rows[rows["state"] == str(TrialState.COMPLETE)]
    if objective.metric not in BOUNDED_BY_LOAD or not {_COMPLETED, "drain_s", "duration_s"} <= set(rows):
        return set(), 0
    records = rows.to_dict("records")
    counted = [row for row in records if counts(objective, {str(name): row[name] for name in row})]
    measured = {str(row["setting"]) for row in counted}
    if not counted or not all(_comes_by_the_clock(row) for row in counted):
        return set(), len(measured)
    most: dict[tuple[str, ...], float] = {}
    for row in counted:
        load = _load(row)
        most[load] = max(most.get(load, 0.0), _number(row[_COMPLETED]))
    behind = {
        str(row["setting"])
        for row in counted
        if not _number(row[_COMPLETED]) >= (1 - _SAME) * most[_load(row)]
        or not _number(row["drain_s"]) <= _DRAINED * _number(row["duration_s"])
    }
    return measured - behind, len(measured)


def _comes_by_the_clock(row: tables.Row) -> bool:
    # Whoever waits for an answer before the next request slows the load down, and is no clock.
    if not math.isnan(_number(row["max_concurrency"])):
        return False
    return DATASETS[str(row["dataset"])].times is not None or not math.isnan(
        _number(row["request_rate_per_s"])
    )


def _load(row: tables.Row) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in LOAD_COLUMNS)


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan
