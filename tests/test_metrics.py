from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.errors import MeasurementError
from sweeper.metrics import RequestRecords, batch_metrics, e2el_ms, statistics_ms, summarize, tpot_ms, ttft_ms

# Three requests: sent at 0, 1, 2; first tokens at 0.5, 2, 2.25; last at 2.5, 2, 4.25; 5, 1 and 3 tokens.
RECORDS = RequestRecords(
    arrival_s=np.array([0.0, 1.0, 2.0]),
    first_token_s=np.array([0.5, 2.0, 2.25]),
    last_token_s=np.array([2.5, 2.0, 4.25]),
    input_tokens=np.array([10, 20, 30]),
    output_tokens=np.array([5, 1, 3]),
    inter_token_s=np.array([0.5, 0.5, 0.5, 0.5, 1.0, 1.0]),
)
# The second request failed.
ONE_FAILED = RequestRecords(
    arrival_s=RECORDS.arrival_s,
    first_token_s=np.array([0.5, np.nan, 2.25]),
    last_token_s=np.array([2.5, np.nan, 4.25]),
    input_tokens=RECORDS.input_tokens,
    output_tokens=np.array([5, 0, 3]),
    inter_token_s=RECORDS.inter_token_s,
)


def test_time_to_first_token_counts_from_sending() -> None:
    assert ttft_ms(RECORDS).tolist() == [500.0, 1000.0, 250.0]


def test_end_to_end_latency_counts_from_sending_to_last_token() -> None:
    assert e2el_ms(RECORDS).tolist() == [2500.0, 1000.0, 2250.0]


def test_time_per_output_token_leaves_first_token_out() -> None:
    first, second, third = tpot_ms(RECORDS)
    # (2.5 - 0.5) s / 4 and (4.25 - 2.25) s / 2; a single token has none.
    assert (first, third) == (500.0, 1000.0)
    assert np.isnan(second)


def test_rates_are_per_second_from_first_request_to_last_token() -> None:
    numbers = summarize(RECORDS)
    # 4.25 s; 3 requests, 9 tokens out, 60 in.
    assert numbers["duration_s"] == 4.25
    assert numbers["request_throughput_per_s"] == pytest.approx(3 / 4.25)
    assert numbers["output_throughput_tok_per_s"] == pytest.approx(9 / 4.25)
    assert numbers["total_throughput_tok_per_s"] == pytest.approx(69 / 4.25)
    assert (numbers["total_input_tokens"], numbers["total_output_tokens"]) == (60, 9)
    assert (numbers["completed"], numbers["failed"]) == (3, 0)


def test_every_latency_has_its_statistics() -> None:
    numbers = summarize(RECORDS)
    assert numbers["mean_ttft_ms"] == pytest.approx(1750 / 3)
    assert numbers["median_ttft_ms"] == 500.0
    assert numbers["mean_tpot_ms"] == 750.0
    assert numbers["std_tpot_ms"] == 250.0
    # Gaps 500 four times and 1000 twice: 4000 / 6.
    assert numbers["mean_itl_ms"] == pytest.approx(4000 / 6)
    assert numbers["mean_e2el_ms"] == pytest.approx(5750 / 3)


def test_percentiles_interpolate_between_values() -> None:
    numbers = statistics_ms("ttft", np.array([0.0, 10.0, 20.0, 30.0, 40.0]))
    # Rank of 90 % among 5 values is 3.6, between 30 and 40; of 99 % it is 3.96.
    assert numbers["p50_ttft_ms"] == 20.0
    assert numbers["p90_ttft_ms"] == pytest.approx(36.0)
    assert numbers["p95_ttft_ms"] == pytest.approx(38.0)
    assert numbers["p99_ttft_ms"] == pytest.approx(39.6)
    # Deviations -20, -10, 0, 10, 20: the root of their mean square, 200.
    assert numbers["std_ttft_ms"] == pytest.approx(200**0.5)


def test_failed_request_counts_as_failed_and_nowhere_else() -> None:
    numbers = summarize(ONE_FAILED)
    assert (numbers["completed"], numbers["failed"]) == (2, 1)
    assert (numbers["total_input_tokens"], numbers["total_output_tokens"]) == (40, 8)
    assert numbers["mean_ttft_ms"] == 375.0
    assert ONE_FAILED.is_complete.tolist() == [True, False, True]


def test_client_that_stops_counting_misses_what_is_answered_later() -> None:
    numbers = summarize(RECORDS.answered_within(2.5))
    assert (numbers["completed"], numbers["failed"]) == (2, 1)
    assert (numbers["total_output_tokens"], numbers["duration_s"]) == (6, 2.5)
    assert numbers["mean_ttft_ms"] == 750.0
    assert numbers["mean_tpot_ms"] == 500.0
    # Not even by a later count are they there again.
    assert summarize(RECORDS.answered_within(2.5).answered_within(9.0))["completed"] == 2


def test_without_requests_statistics_are_unknown_and_counts_are_zero() -> None:
    nothing = np.empty(0)
    counts = np.empty(0, np.int64)
    numbers = summarize(
        RequestRecords(
            arrival_s=nothing,
            first_token_s=nothing,
            last_token_s=nothing,
            input_tokens=counts,
            output_tokens=counts,
            inter_token_s=nothing,
        )
    )
    assert (numbers["completed"], numbers["total_output_tokens"]) == (0, 0)
    assert numbers["duration_s"] is None
    assert numbers["request_throughput_per_s"] is None
    assert numbers["p99_itl_ms"] is None


def test_goodput_counts_requests_that_keep_every_bound() -> None:
    # TTFT 500, 1000, 250; TPOT 500, none, 1000: the first keeps both, the others one each.
    numbers = summarize(RECORDS, goodput_bounds_ms={"ttft_ms": 600, "tpot_ms": 600})
    assert numbers["request_goodput_per_s"] == pytest.approx(1 / 4.25)


def test_single_token_keeps_any_bound_on_tpot_and_latency_equal_to_its_bound_is_good() -> None:
    # vLLM: TPOT counts as 0 for one token. The first answers at 1 s with one token, the second at 2 s with
    # 3 tokens 1 s apart: TPOT (4 - 2) / (3 - 1) = 1 s. Both took 4 s in all.
    records = RequestRecords(
        arrival_s=np.array([0.0, 0.0]),
        first_token_s=np.array([1.0, 2.0]),
        last_token_s=np.array([1.0, 4.0]),
        input_tokens=np.array([4, 4]),
        output_tokens=np.array([1, 3]),
        inter_token_s=np.array([1.0, 1.0]),
    )
    good = {
        bound: summarize(records, goodput_bounds_ms={"tpot_ms": bound})["request_goodput_per_s"]
        for bound in (999.0, 1000.0)
    }
    assert good == {999.0: 1 / 4, 1000.0: 2 / 4}
    e2el = summarize(records, goodput_bounds_ms={"e2el_ms": 1000.0, "tpot_ms": 1000.0})
    assert e2el["request_goodput_per_s"] == 1 / 4


def test_goodput_is_unknown_without_bounds() -> None:
    assert summarize(RECORDS)["request_goodput_per_s"] is None


def test_goodput_bound_on_unknown_latency_is_refused() -> None:
    with pytest.raises(
        MeasurementError, match=r"bound on 'ttft'; expected ttft_ms, .* Did you mean 'ttft_ms'\?"
    ):
        summarize(RECORDS, goodput_bounds_ms={"ttft": 600})


@pytest.mark.parametrize(
    ("first_s", "last_s", "message"),
    [
        (-1.0, 2.0, "request 0: got a first token before it was sent"),
        (1.0, 0.5, "a last token before its first"),
    ],
)
def test_times_out_of_order_are_refused(first_s: float, last_s: float, message: str) -> None:
    one = np.array([1])
    with pytest.raises(MeasurementError, match=message):
        RequestRecords(
            arrival_s=np.array([0.0]),
            first_token_s=np.array([first_s]),
            last_token_s=np.array([last_s]),
            input_tokens=one,
            output_tokens=one,
            inter_token_s=np.empty(0),
        )


@given(st.permutations(range(3)))
def test_order_of_records_does_not_matter(order: list[int]) -> None:
    shuffled = RequestRecords(
        arrival_s=RECORDS.arrival_s[order],
        first_token_s=RECORDS.first_token_s[order],
        last_token_s=RECORDS.last_token_s[order],
        input_tokens=RECORDS.input_tokens[order],
        output_tokens=RECORDS.output_tokens[order],
        inter_token_s=RECORDS.inter_token_s[::-1],
    )
    numbers = summarize(shuffled)
    assert numbers == {name: pytest.approx(value) for name, value in summarize(RECORDS).items()}


def test_batch_that_is_served_again_and_again_has_statistics_of_its_rounds() -> None:
    metrics = batch_metrics(np.array([0.1, 0.2, 0.6]), requests=4, input_len=100, output_len=10)
    assert metrics["mean_batch_latency_ms"] == pytest.approx(300.0)
    assert metrics["median_batch_latency_ms"] == pytest.approx(200.0)
    assert metrics["duration_s"] == pytest.approx(0.9)
    # 4 prompts of 100 tokens, 10 tokens each in answer: those of one round.
    assert (metrics["total_input_tokens"], metrics["total_output_tokens"]) == (400, 40)
    assert (metrics["completed"], metrics["failed"]) == (4, 0)
