"""The steady part of a run: on records whose ramp, window and drain are known, and where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sweeper.clients.steady_state import Steadiness, window
from sweeper.metrics import RequestRecords


def records(
    arrival_s: NDArray[np.float64], *, latency_s: np.ndarray | float, tokens: int = 11
) -> RequestRecords:
    latency = np.broadcast_to(np.asarray(latency_s, np.float64), arrival_s.shape)
    count = len(arrival_s)
    return RequestRecords(
        arrival_s=arrival_s,
        first_token_s=arrival_s + 0.1 * latency,
        last_token_s=arrival_s + latency,
        input_tokens=np.full(count, 8),
        output_tokens=np.full(count, tokens),
        inter_token_s=np.zeros(0),
    )


def test_ramp_window_and_drain_of_even_arrivals_are_those_that_were_made() -> None:
    # 10 requests a second for 60 s, each 4 s long: 40 under way from 4 s on, and 4 s of drain.
    run = records(np.arange(600) / 10, latency_s=4.0)
    found = window(run)
    assert found is not None and found.state is Steadiness.STEADY
    assert found.ramp_s == pytest.approx(3.5, abs=0.2), "36 of 40 are there after 3.5 s"
    assert found.drain_s == pytest.approx(4.0, abs=0.11)
    assert found.numbers["steady_request_throughput_per_s"] == pytest.approx(10.0, rel=0.01)
    assert found.numbers["steady_output_throughput_tok_per_s"] == pytest.approx(110.0, rel=0.01)
    assert found.numbers["steady_mean_ttft_ms"] == pytest.approx(400.0)
    assert found.numbers["steady_mean_tpot_ms"] == pytest.approx(360.0)
    whole = 600 / float(run.last_token_s.max())
    assert whole < 0.95 * 10, "the run as a whole is slower by its ramp and its drain"


def test_closed_loop_of_users_has_rate_of_users_over_latency() -> None:
    # 8 users, each with one request of 0.5 s after another: 16 a second.
    starts = np.sort(np.concatenate([user * 0.01 + np.arange(60) * 0.5 for user in range(8)]))
    found = window(records(starts, latency_s=0.5))
    assert found is not None and found.state is Steadiness.STEADY
    assert found.numbers["steady_request_throughput_per_s"] == pytest.approx(16.0, rel=0.02)


def test_users_who_begin_at_once_are_steady_when_their_first_answers_are_there() -> None:
    # The first answer of each of 8 users takes 4 s, every later one 0.5 s: 60 of these end at 34 s.
    later = np.concatenate([np.full(8, 4.0 + 0.5 * place) for place in range(60)])
    starts = np.concatenate([np.zeros(8), later])
    latency = np.concatenate([np.full(8, 4.0), np.full(480, 0.5)])
    found = window(records(starts, latency_s=latency))
    assert found is not None and found.state is Steadiness.STEADY
    assert (found.begin_s, found.ramp_s) == (4.0, 4.0)
    assert found.numbers["steady_p99_ttft_ms"] == pytest.approx(50.0), "of 0.5 s; the first waits 400 ms"
    assert found.numbers["steady_request_throughput_per_s"] == pytest.approx(16.0, rel=0.02)


def test_everything_at_once_has_no_steady_part() -> None:
    found = window(records(np.zeros(100), latency_s=np.linspace(1, 20, 100)))
    assert found is not None and found.state is Steadiness.TOO_SHORT and found.numbers == {}
    assert (found.ramp_s, found.drain_s) == (0.0, pytest.approx(20.0))


def test_queue_that_grows_is_no_steady_load() -> None:
    arrival = np.arange(600) / 10
    found = window(records(arrival, latency_s=1.0 + arrival / 5))
    assert found is not None and found.state is Steadiness.DRIFTS


def test_few_requests_say_nothing_and_none_say_none() -> None:
    found = window(records(np.arange(12) / 1.0, latency_s=1.0))
    assert found is not None and found.state is Steadiness.TOO_SHORT
    failed = RequestRecords(
        arrival_s=np.zeros(2),
        first_token_s=np.full(2, np.nan),
        last_token_s=np.full(2, np.nan),
        input_tokens=np.full(2, 8),
        output_tokens=np.zeros(2, np.int64),
        inter_token_s=np.zeros(0),
    )
    assert window(failed) is None


def test_users_who_begin_together_and_fall_out_of_step_have_sum_of_their_rates() -> None:
    # 8 users begin at once with requests of 1.5 to 2.9 s: at first none has done anything, at the end each
    # is somewhere within a request. Whole ones would count half a request of each too few, 4 of some 70.
    lengths = [1.5 + 0.2 * user for user in range(8)]
    sent = sorted((start, length) for length in lengths for start in np.arange(0, 20, length))
    found = window(records(np.array([s for s, _ in sent]), latency_s=np.array([n for _, n in sent])))
    assert found is not None and found.state is Steadiness.STEADY
    rate = sum(1 / length for length in lengths)
    assert found.numbers["steady_request_throughput_per_s"] == pytest.approx(rate, rel=0.01)
