"""The table of metrics: what it says agrees with itself and with what clients really report."""

from __future__ import annotations

import numpy as np
import pytest

from sweeper.clients.vllm_bench import read_report
from sweeper.metrics import RequestRecords, batch_metrics, summarize
from sweeper.records import metrics
from sweeper.records.metrics import Benchmark, Metric, reported_by

UNIT_ENDINGS = {
    "1/s": "_per_s",
    "tokens/s": "_tok_per_s",
    "ms": "_ms",
    "s": "_s",
    "tokens": "_tokens",
    "requests": "",
    "users": "_users",
}


@pytest.mark.parametrize("metric", metrics.METRICS, ids=lambda metric: metric.name)
def test_unit_ends_name(metric: Metric) -> None:
    assert metric.name.endswith(UNIT_ENDINGS[metric.unit])


def test_names_are_unique() -> None:
    assert len(metrics.BY_NAME) == len(metrics.METRICS)


def test_report_of_serving_benchmark() -> None:
    told = {source: 3.0 for metric in metrics.METRICS for source in metric.reported_as}
    assert set(read_report(told)) == set(reported_by(Benchmark.SERVING))
    assert set(read_report(told).values()) == {3.0}


def test_numbers_from_single_requests() -> None:
    records = RequestRecords(
        arrival_s=np.array([0.0]),
        first_token_s=np.array([0.5]),
        last_token_s=np.array([2.0]),
        input_tokens=np.array([4]),
        output_tokens=np.array([4]),
        inter_token_s=np.array([0.5, 0.5, 0.5]),
    )
    assert set(summarize(records)) == set(reported_by(Benchmark.SERVING))


def test_numbers_of_batch() -> None:
    found = batch_metrics(np.array([1.0, 2.0]), requests=4, input_len=8, output_len=8)
    assert set(found) == set(reported_by(Benchmark.LATENCY))
