"""The part of a run in which the load was steady, and its numbers beside those of the whole.

A run begins with an empty engine and ends with the last answers alone. Both belong to the benchmark's
numbers, and neither is what a service that never stops sees. From the times of single requests the part
between is found: it begins when the requests under way first reach nine tenths of their usual number, and
ends with the last request sent. Users of a closed loop all begin at once, so that number is there from the
start; but their first prompts wait for each other as they never will again, and the part begins when those
have been answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from sweeper.clients.single_requests import has_times, joined
from sweeper.metrics import Bools, Floats, RequestRecords, statistics_ms, tpot_ms, ttft_ms
from sweeper.records.metrics import FEWEST_STEADY_REQUESTS

REACHED_FRAC = 0.9
"""Of the usual number of requests under way, from which on the load counts as reached."""

FEWEST_LATENCIES = 3.0
"""Of the median request fit into the window, or it is a part of one wave."""

_AT_ONCE_FRAC = 0.5
"""Of the median latency, within which requests have begun together if the load is reached by then."""

_DRIFT_ERRORS, _DRIFT_FRAC = 3.0, 0.1
"""The window drifts where its thirds differ by more standard errors, and by more of the mean, than these."""

_REPORTED = ("mean_{}_ms", "median_{}_ms", "p99_{}_ms")


class Steadiness(StrEnum):
    """What is known of the middle of a run."""

    STEADY = "steady"
    DRIFTS = "drifts"
    TOO_SHORT = "too short"


@dataclass(frozen=True, kw_only=True)
class Window:
    """The steady part of a run.

    Attributes:
        begin_s: On the records' clock.
        end_s: The same.
        ramp_s: From the first request sent to the window.
        drain_s: From the window to the last token.
        state: Whether it is one.
        numbers: Of the window, by the names of the whole run with ``steady_`` before them; empty where the
            run is too short to say. Rates count requests by the part of their time that lies within it, and
            the tokens produced within it: of a closed loop every user has a request under way when the window
            begins and when it ends, and whole ones would count half a request of each too few.
    """

    begin_s: float
    end_s: float
    ramp_s: float
    drain_s: float
    state: Steadiness
    numbers: dict[str, float | None]

    @property
    def length_s(self) -> float:
        """Seconds of the window."""
        return max(0.0, self.end_s - self.begin_s)


def columns(reports: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Return the columns of a run's steady part, of the reports of its clients.

    Returns:
        Number by column; empty where a report has no times of single requests.
    """
    if not all(has_times(report) for report in reports):
        return {}
    return of_records(joined(reports))


def of_records(records: RequestRecords) -> dict[str, float | None]:
    """Return the columns of a run's steady part; those of its numbers are missing where it is too short."""
    found = window(records)
    if found is None:
        return {}
    is_known = found.state is not Steadiness.TOO_SHORT
    return {
        "ramp_s": found.ramp_s,
        "drain_s": found.drain_s,
        "steady_s": found.length_s if is_known else None,
        "steady_drifts": float(found.state is Steadiness.DRIFTS) if is_known else None,
        **found.numbers,
    }


def window(records: RequestRecords) -> Window | None:
    """Find the steady part of a run.

    Args:
        records: All requests of one run.

    Returns:
        The window with its numbers; None where nothing was completed.
    """
    done = records.is_complete
    if not done.any():
        return None
    first, last = float(records.arrival_s.min()), float(records.last_token_s[done].max())
    end = float(records.arrival_s.max())
    latency = float(np.median((records.last_token_s - records.arrival_s)[done]))
    begin = min(_begin_s(records, reached=_reached_s(records, until=end), latency=latency), end)
    inside = done & (records.last_token_s >= begin) & (records.last_token_s <= end)
    sent_inside = done & (records.arrival_s >= begin) & (records.arrival_s <= end)
    is_short = inside.sum() < FEWEST_STEADY_REQUESTS or end - begin < FEWEST_LATENCIES * latency
    state = Steadiness.TOO_SHORT if is_short else _steadiness(records, sent_inside)
    numbers = {} if is_short else _numbers(records, sent_inside, begin=begin, end=end)
    return Window(
        begin_s=begin, end_s=end, ramp_s=begin - first, drain_s=last - end, state=state, numbers=numbers
    )


def _begin_s(records: RequestRecords, *, reached: float, latency: float) -> float:
    """Return when the load has been reached, and the requests that reached it at once have been answered."""
    first = records.arrival_s <= reached
    if reached - float(records.arrival_s.min()) > _AT_ONCE_FRAC * latency:
        return reached
    answered = records.last_token_s[first & records.is_complete]
    return float(answered.max()) if len(answered) else reached


def _reached_s(records: RequestRecords, *, until: float) -> float:
    """Return when the requests under way first reach their usual number, weighted by time up to the end."""
    done = records.is_complete
    moments = np.concatenate([records.arrival_s, records.last_token_s[done]])
    steps = np.concatenate([np.ones(len(records.arrival_s)), -np.ones(int(done.sum()))])
    order = np.lexsort((-steps, moments))
    moments, under_way = moments[order], np.cumsum(steps[order])
    lengths = np.diff(np.minimum(np.append(moments, moments[-1]), until))
    usual = _weighted_median(under_way, np.maximum(lengths, 0.0))
    return float(moments[np.argmax(under_way >= REACHED_FRAC * usual)])


def _weighted_median(values: Floats, weights: Floats) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    if not total[-1]:
        return float(values.max())
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def _steadiness(records: RequestRecords, sent_inside: Bools) -> Steadiness:
    """Compare the latencies of the requests sent in the first and the last third of the window."""
    order = np.argsort(records.arrival_s[sent_inside])
    latencies = (records.last_token_s - records.arrival_s)[sent_inside][order]
    # Longer answers take longer: by their tokens two thirds are compared that asked for different lengths.
    per_token = latencies / np.maximum(records.output_tokens[sent_inside][order], 1)
    third = len(per_token) // 3
    if third < 2:
        return Steadiness.STEADY
    early, late = per_token[:third], per_token[-third:]
    error = float(np.hypot(early.std(ddof=1), late.std(ddof=1)) / np.sqrt(third))
    moved = abs(float(late.mean() - early.mean()))
    drifts = moved > _DRIFT_ERRORS * error and moved > _DRIFT_FRAC * float(per_token.mean())
    return Steadiness.DRIFTS if drifts else Steadiness.STEADY


def _numbers(
    records: RequestRecords, sent_inside: Bools, *, begin: float, end: float
) -> dict[str, float | None]:
    length_s = end - begin
    found: dict[str, float | None] = {
        "steady_request_throughput_per_s": _requests_within(records, begin, end) / length_s,
        "steady_output_throughput_tok_per_s": _tokens_within(records, begin, end) / length_s,
    }
    for name, values in (("ttft", ttft_ms(records)), ("tpot", tpot_ms(records))):
        all_of_them = statistics_ms(name, values[sent_inside])
        found |= {f"steady_{full.format(name)}": all_of_them[full.format(name)] for full in _REPORTED}
    return found


def _requests_within(records: RequestRecords, begin: float, end: float) -> float:
    """Count the requests of a window, each by the part of its time that lies within."""
    done = records.is_complete
    first, last = records.arrival_s[done], records.last_token_s[done]
    span = np.maximum(last - first, np.finfo(float).tiny)
    overlap = np.clip(np.minimum(last, end) - np.maximum(first, begin), 0.0, None)
    return float(np.minimum(overlap / span, 1.0).sum())


def _tokens_within(records: RequestRecords, begin: float, end: float) -> float:
    """Count the tokens that came in a window: the first at its time, the others evenly after it."""
    done = records.is_complete
    first, last = records.first_token_s[done], records.last_token_s[done]
    later = np.maximum(records.output_tokens[done] - 1, 0)
    span = np.maximum(last - first, np.finfo(float).tiny)
    overlap = np.clip(np.minimum(last, end) - np.maximum(first, begin), 0.0, None)
    is_within = (first >= begin) & (first <= end)
    return float((later * np.minimum(overlap / span, 1.0)).sum() + is_within.sum())
