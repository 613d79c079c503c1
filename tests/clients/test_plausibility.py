"""What no run can have, and what contradicts itself, is refused before it is stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeper.clients import bench_report, plausibility, vllm_offline
from sweeper.errors import MeasurementError
from sweeper.records import FailureClass, LoadPoint, Measurement

# 4 requests of 64 tokens in and 16 out, in 2 seconds.
POINT = LoadPoint(dataset="random", num_prompts=4, input_len=64, output_len=16)
METRICS: Mapping[str, float | None] = {
    "completed": 4.0,
    "failed": 0.0,
    "duration_s": 2.0,
    "total_input_tokens": 256.0,
    "total_output_tokens": 64.0,
    "request_throughput_per_s": 2.0,
    "output_throughput_tok_per_s": 32.0,
    "total_throughput_tok_per_s": 160.0,
    "request_goodput_per_s": None,
    "mean_ttft_ms": 50.0,
    "mean_e2el_ms": 500.0,
    "p50_e2el_ms": 450.0,
    "p90_e2el_ms": 600.0,
    "p95_e2el_ms": 700.0,
    "p99_e2el_ms": 800.0,
}


def measured(point: LoadPoint = POINT, **changes: Any) -> Measurement:
    return Measurement(
        load_point=point,
        restart=0,
        repeat=0,
        metrics={**METRICS, **changes},
        telemetry={},
        measured_s=2.0,
        client_overhead_s=0.0,
        started_at=0.0,
        ended_at=2.5,
    )


def test_measurement_that_can_be_is_believed() -> None:
    plausibility.check(measured())
    # Answers may end by themselves, and prompts may be tokenized otherwise.
    plausibility.check(
        measured(
            total_output_tokens=40.0,
            total_input_tokens=250.0,
            output_throughput_tok_per_s=20.0,
            total_throughput_tok_per_s=145.0,
        )
    )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"completed": 3.0}, "expected that all of 4 requests completed"),
        ({"completed": 5.0}, "expected that all of 4 requests completed"),
        ({"completed": None}, "completed is not told"),
        ({"failed": 1.0}, "failed 1"),
        ({"total_output_tokens": 3.5}, r"total_output_tokens is 3\.5; expected a whole number"),
        ({"total_output_tokens": 1e30}, r"total_output_tokens is 1e\+30; expected a number"),
        ({"total_output_tokens": 2**63}, "total_output_tokens is a number beyond"),
        ({"total_output_tokens": 10**400}, "total_output_tokens is a number beyond"),
        ({"total_output_tokens": 6400.0}, "total_output_tokens is 6400; expected 1 to 102"),
        ({"total_input_tokens": 25600.0}, "total_input_tokens is 25600; expected 128 to 544"),
        ({"total_input_tokens": 12.0}, "total_input_tokens is 12; expected 128 to 544"),
        ({"mean_ttft_ms": float("nan")}, "mean_ttft_ms is nan"),
        ({"mean_ttft_ms": float("inf")}, "mean_ttft_ms is inf"),
        ({"mean_ttft_ms": -1.0}, r"mean_ttft_ms is -1\.0"),
        ({"mean_ttft_ms": True}, "mean_ttft_ms is True"),
        ({"mean_ttft_ms": "50"}, "mean_ttft_ms is '50'"),
        ({"mean_ttft_ms": 501.0}, "mean_ttft_ms is 501, above mean_e2el_ms"),
        ({"duration_s": 0.0}, "duration_s is 0"),
        ({"duration_s": 1.0, "p99_e2el_ms": 900.0}, "request_throughput_per_s is 2 where 4 in 1 s are 4"),
        ({"output_throughput_tok_per_s": 64.0}, "output_throughput_tok_per_s is 64 where 64 in 2 s are 32"),
        ({"total_throughput_tok_per_s": 32.0}, "total_throughput_tok_per_s is 32"),
        ({"request_goodput_per_s": 3.0}, "request_goodput_per_s is 3, above the 2"),
        ({"p90_e2el_ms": 701.0}, "p90_e2el_ms is 701, above p95_e2el_ms, 700"),
        ({"p99_e2el_ms": 2100.0}, "a e2el of 2100 ms lies in a run of 2 s"),
    ],
)
def test_what_no_run_can_have_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(MeasurementError, match=problem) as raised:
        plausibility.check(measured(**changes))
    assert raised.value.failure is FailureClass.CLIENT


def test_sharegpts_sampler_bounds_what_can_be_sent() -> None:
    point = LoadPoint(dataset="sharegpt", num_prompts=4)
    plausibility.check(measured(point))
    # At most 2048 tokens a conversation: 4 * 2048 * 1.1 and 8 a request aside.
    rate = {"output_throughput_tok_per_s": None, "total_throughput_tok_per_s": None}
    plausibility.check(measured(point, total_output_tokens=8192.0, **rate))
    with pytest.raises(MeasurementError, match="total_output_tokens is 9100; expected 1 to 9043"):
        plausibility.check(measured(point, total_output_tokens=9100.0, **rate))


# What is told of single requests

DETAILS: Mapping[str, Any] = {
    "num_prompts": 2,
    "completed": 2,
    "failed": 0,
    "total_input_tokens": 20,
    "total_output_tokens": 6,
    "input_lens": [10, 10],
    "output_lens": [3, 3],
    "ttfts": [0.1, 0.2],
    "itls": [[0.05, 0.05], [0.1, 0.1]],
    "latencies": [0.2, 0.4],
    "mean_e2el_ms": 300.0,
}


def test_single_requests_that_add_up_are_believed() -> None:
    plausibility.check_single_requests(DETAILS)
    plausibility.check_single_requests({"num_prompts": 2})
    # Several tokens may come in one message.
    plausibility.check_single_requests({**DETAILS, "itls": [[0.1], []], "latencies": [0.2, 0.2]})


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"num_prompts": 3}, "of different lengths"),
        ({"itls": [[0.05]]}, "of different lengths"),
        ({"output_lens": [3, 4]}, "total_output_tokens is 6 and its output_lens add up to 7"),
        ({"input_lens": [10, 11]}, "total_input_tokens is 20 and its input_lens add up to 21"),
        ({"ttfts": [0.1, "0.2"]}, "ttfts has '0.2' at place 1"),
        ({"ttfts": {"0": 1}}, "ttfts is .*; expected a list"),
        ({"itls": [[0.05, None], []]}, "itls of request 0 has None at place 1"),
        ({"itls": 3}, "itls is 3; expected a list for each request"),
        ({"itls": [[0.0001] * 12, []]}, "request 0 has 3 tokens in 13 messages"),
        ({"latencies": [0.2, 0.3]}, r"request 1 ended after 0\.3 s, and its messages came over 0\.4 s"),
        # Of 0.6.2: a stream without its closing mark has a latency of 0; (200 + 0) / 2 = 100.
        ({"latencies": None, "mean_e2el_ms": 100.0}, "some streams never told their end"),
    ],
)
def test_single_requests_that_contradict_totals_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(MeasurementError, match=problem):
        plausibility.check_single_requests({**DETAILS, **changes})


# The engine's own count


def test_engine_has_to_have_answered_what_client_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plausibility, "_COUNTER_PATIENCE_S", 0.0)
    before = {"requests_answered": 10.0}
    plausibility.check_engine_agrees(before, lambda: {"requests_answered": 14.0}, answered=4)
    # One that does not count, or was started anew, says nothing.
    plausibility.check_engine_agrees({}, dict, answered=4)
    plausibility.check_engine_agrees(before, lambda: {"requests_answered": 1.0}, answered=4)
    with pytest.raises(MeasurementError, match=r"counts 4 requests as completed.* answered 3") as raised:
        plausibility.check_engine_agrees(before, lambda: {"requests_answered": 13.0}, answered=4)
    assert raised.value.failure is FailureClass.WRONG_ANSWER


def test_count_that_comes_moment_late_is_waited_for() -> None:
    counts = iter([12.0, 14.0])
    plausibility.check_engine_agrees(
        {"requests_answered": 10.0}, lambda: {"requests_answered": next(counts)}, answered=4
    )


# Each client's own report


@pytest.mark.parametrize("wrong", ["NaN", "Infinity", "-1", "true", '"12"', "[1]", "{}", "1e30", "1" * 400])
def test_serving_report_has_numbers_for_numbers(wrong: str, tmp_path: Path) -> None:
    text = f'{{"completed": 4, "num_prompts": 4, "duration": 2.0, "p99_ttft_ms": {wrong}}}'
    with pytest.raises(MeasurementError, match="p99_ttft_ms is"):
        bench_report.read_report(json.loads(text))


def test_serving_report_of_another_load_is_refused() -> None:
    report = {"completed": 4, "failed": 0, "num_prompts": 5, "duration": 2.0}
    with pytest.raises(MeasurementError, match="num_prompts is 5; expected 4, as asked"):
        bench_report.check_complete(report, wanted=4, log_path=None)


@pytest.mark.parametrize(
    ("report", "problem"),
    [
        ({"latencies": [0.1, "0.2"]}, "latencies has '0.2' at place 1"),
        ({"latencies": [0.1, float("inf")]}, "latencies has inf at place 1"),
        ({"latencies": [0.1, 0.3], "avg_latency": 0.1}, r"avg_latency 0\.1 and latencies of 0\.2"),
    ],
)
def test_latency_report_has_latencies(report: dict[str, Any], problem: str) -> None:
    with pytest.raises(MeasurementError, match=problem):
        vllm_offline.read_report(report, replace(POINT, dataset="latency"), log_path=None)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"elapsed_time": True}, "elapsed_time is True"),
        ({"num_requests": "4"}, "num_requests is '4'"),
        ({"requests_per_second": 3.0}, "requests_per_second 3 where 4 came in 4 s"),
        ({"tokens_per_second": 10.0}, "tokens_per_second 10 where 320 came in 4 s"),
    ],
)
def test_throughput_report_agrees_with_itself(changes: dict[str, Any], problem: str) -> None:
    report = {"elapsed_time": 4.0, "num_requests": 4, "total_num_tokens": 320, "requests_per_second": 1.0}
    point = replace(POINT, dataset="throughput")
    assert vllm_offline.read_report(report, point, log_path=None)["completed"] == 4
    with pytest.raises(MeasurementError, match=problem):
        vllm_offline.read_report({**report, **changes}, point, log_path=None)
