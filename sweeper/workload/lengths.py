"""How long prompts and answers of a load point are, before any is sent: to forecast and to judge."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sweeper.errors import ConfigError
from sweeper.kinds import DATASETS
from sweeper.records import LoadPoint
from sweeper.workload.drawing import Ints
from sweeper.workload.requests import Workload, make_workload


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Lengths of a load point's requests, in tokens.

    Attributes:
        mean_input: Of the prompts, what they share included.
        mean_output: Of the answers.
        longest_output: Of the longest answer that usually comes.
        last_arrival_s: When the last request is sent, seconds after the first; 0 where all are sent at once.
        pauses_s: What all users pause between their turns, together.
        conversations: How many there are, each with one request under way at most; None where requests
            are single.
    """

    mean_input: float
    mean_output: float
    longest_output: float
    last_arrival_s: float
    pauses_s: float = 0.0
    conversations: int | None = None


@lru_cache(maxsize=256)
def expected(point: LoadPoint) -> Lengths:
    """Return the lengths that a load point asks for, or those that its dataset is known to have.

    A file is read for them; where it cannot be, the dataset's usual lengths stand in for it.
    """
    kind = DATASETS[point.dataset]
    if kind.is_read_for_lengths:
        try:
            return _drawn(point)
        except ConfigError:
            pass  # what is wrong with the file is said by the check before anything starts
    shared = point.option("prefix_len") if kind.draws_lengths else None
    longest = (
        kind.longest_output_len if point.output_len is None else point.output_len * (1 + point.range_ratio)
    )
    return Lengths(
        mean_input=(kind.mean_input_len if point.input_len is None else point.input_len) + float(shared or 0),
        mean_output=_mean_output(point),
        longest_output=longest,
        last_arrival_s=_last_arrival_s(point),
    )


def _mean_output(point: LoadPoint) -> float:
    usual = DATASETS[point.dataset].mean_output_len if point.output_len is None else point.output_len
    return min(usual, float(point.option("mean_output_len") or usual))


@lru_cache(maxsize=256)
def of_requests(point: LoadPoint) -> Ints | None:
    """Return the tokens of each request, prompt and answer together, ascending; None where nothing tells."""
    try:
        sent = make_workload(point, seed=point.client_seed)
    except ConfigError:
        # What is wrong with a file is said by the check before anything starts.
        return None
    return np.sort(sent.input_tokens + sent.output_tokens)


def _drawn(point: LoadPoint) -> Lengths:
    sent = make_workload(point, seed=point.client_seed)
    return Lengths(
        mean_input=float(sent.input_tokens.mean()),
        mean_output=float(sent.output_tokens.mean()),
        longest_output=float(sent.output_tokens.max()),
        last_arrival_s=_last_arrival_s(point, sent),
        pauses_s=0.0 if sent.turns is None else float(sent.turns.pause_s.sum()),
        conversations=None if sent.turns is None else int((~sent.turns.follows).sum()),
    )


def _last_arrival_s(point: LoadPoint, sent: Workload | None = None) -> float:
    if point.ramp is None and DATASETS[point.dataset].times is None:
        rate = point.request_rate_per_s
        return 0.0 if rate is None else point.num_prompts / rate
    sent = sent or make_workload(point, seed=point.client_seed)
    return float(sent.arrival_s[-1]) if sent.requests else 0.0
