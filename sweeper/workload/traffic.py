"""What a log of requests says of the traffic, and the workload that is made of it.

The workload is a trace in Mooncake's layout, which holds times, lengths and numbers of equal blocks, and no
text: dataset ``timed_trace`` replays it, ``trace_lengths`` sends its lengths at rates of one's choice.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sweeper.workload.logs import BLOCK_TOKENS, Log, LoggedRequest

_PER_MINUTE_S = 60.0

EVEN = 1000.0
"""Burstiness of gaps that differ by 3 %, and of those that differ less."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a log says.

    Attributes:
        layout: As it was read.
        requests: How many count.
        left_out: Why others do not, to how many.
        span_s: From the first to the last, seconds; None without times.
        rate_per_s: Mean of the arrivals; None without times.
        busiest_per_s: Mean of the busiest minute; None without times, or in a log of less.
        burstiness: Shape of the Gamma distribution with the gaps' mean and variance: 1 is Poisson, below 1
            comes in bursts, ``EVEN`` is evenly spaced and the most; None without times, or with
            fewer than two gaps.
        input_tokens: Mean, median, 99th percentile and largest of the prompts.
        output_tokens: The same of the answers.
        shared_frac: Part of all prompt tokens that lie in blocks which an earlier prompt began with, too;
            None where the log says nothing of contents.
    """

    layout: str
    requests: int
    left_out: Mapping[str, int]
    span_s: float | None
    rate_per_s: float | None
    busiest_per_s: float | None
    burstiness: float | None
    input_tokens: tuple[float, float, float, int]
    output_tokens: tuple[float, float, float, int]
    shared_frac: float | None


def summarize(log: Log) -> Summary:
    """Describe the traffic of a log."""
    times = _times_s(log)
    span = None if times is None or len(times) < 2 else float(times[-1] - times[0])
    return Summary(
        layout=log.layout,
        requests=len(log.requests),
        left_out=log.left_out,
        span_s=span,
        rate_per_s=None if not span else (len(log.requests) - 1) / span,
        busiest_per_s=None if times is None or not span or span < _PER_MINUTE_S else _busiest_per_s(times),
        burstiness=None if times is None or not span else _burstiness(times),
        input_tokens=_lengths([request.input_tokens for request in log.requests]),
        output_tokens=_lengths([request.output_tokens for request in log.requests]),
        shared_frac=_shared_frac(log.requests) if log.has_blocks else None,
    )


def trace(log: Log) -> str:
    """Return the trace of a log: a JSON object per request, times from 0 on in milliseconds, no text.

    A log without times gets 0 everywhere, so that only its lengths can be sent.
    """
    times = _times_s(log)
    first = 0.0 if times is None else float(times[0])
    own = _fresh_numbers(log)
    lines = []
    for place, request in enumerate(log.requests):
        wanted = math.ceil(request.input_tokens / BLOCK_TOKENS)
        # Blocks that the log says nothing of are nobody else's.
        blocks = [*request.blocks[:wanted], *(next(own) for _ in range(wanted - len(request.blocks)))]
        moment = 0 if times is None else round((float(times[place]) - first) * 1000)
        content = {
            "timestamp": moment,
            "input_length": request.input_tokens,
            "output_length": request.output_tokens,
            "hash_ids": blocks,
        }
        lines.append(json.dumps(content))
    return "\n".join(lines) + "\n"


def drawn_lengths(log: Log, *, count: int) -> str:
    """Return a trace of so many requests with the lengths of a log's, in an order drawn at random, no times.

    Any part from the front on is a fair sample. All of the log come once before one comes again, and none
    begins like another, so that one that comes again is not found in a prefix cache.
    """
    rng, lines = np.random.default_rng(0), list[str]()
    while len(lines) < count:
        for place in rng.permutation(len(log.requests))[: count - len(lines)]:
            request = log.requests[place]
            content = {
                "timestamp": 0,
                "input_length": request.input_tokens,
                "output_length": request.output_tokens,
            }
            lines.append(json.dumps(content))
    return "\n".join(lines) + "\n"


def _times_s(log: Log) -> NDArray[np.float64] | None:
    if not log.has_times:
        return None
    return np.array([request.time_s for request in log.requests], np.float64)


def _busiest_per_s(times: NDArray[np.float64]) -> float:
    ends = np.searchsorted(times, times + _PER_MINUTE_S, side="left")
    return float(np.max(ends - np.arange(len(times))) / _PER_MINUTE_S)


def _burstiness(times: NDArray[np.float64]) -> float | None:
    gaps = np.diff(times)
    variance = float(np.var(gaps))
    if len(gaps) < 2:
        return None
    return min(EVEN, float(np.mean(gaps)) ** 2 / variance) if variance else EVEN


def _lengths(values: Sequence[int]) -> tuple[float, float, float, int]:
    array = np.array(values)
    median, high = np.percentile(array, (50, 99))
    return float(array.mean()), float(median), float(high), int(array.max())


def _shared_frac(requests: Sequence[LoggedRequest]) -> float:
    seen: set[int] = set()
    shared = 0
    for request in requests:
        known = 0
        for block in request.blocks:
            if block not in seen:
                break
            known += 1
        shared += min(known * BLOCK_TOKENS, request.input_tokens)
        seen.update(request.blocks)
    return shared / sum(request.input_tokens for request in requests)


def _fresh_numbers(log: Log) -> Iterator[int]:
    used = max((block for request in log.requests for block in request.blocks), default=-1)
    return itertools.count(used + 1)
