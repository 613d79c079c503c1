"""A page of Prometheus metrics is read as the format's own library reads it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from sweeper.engines.metrics_page import samples, values

# Without the characters other than a line feed that Python takes for the end of a line: no label has them.
LABELS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp")) | st.just("\n"))


@given(LABELS, st.floats(allow_nan=False), st.integers(0, 2**53))
def test_page_of_library_is_read_as_library_reads_it(label: str, gauge: float, count: int) -> None:
    registry = CollectorRegistry()
    Gauge("vllm:num_requests_running", "Running.", ["model_name", "engine"], registry=registry).labels(
        label, "0"
    ).set(gauge)
    Counter("vllm:request_success", "Ended.", ["finished_reason"], registry=registry).labels("stop").inc(
        count
    )
    Histogram("vllm:e2e", "Seconds.", registry=registry).observe(0.3)
    page = generate_latest(registry).decode()

    expected = [
        (sample.name, sample.labels, float(sample.value))
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    ]
    assert samples(page) == expected


def test_line_that_is_no_sample_costs_only_itself() -> None:
    page = "requests 3\n<html>502 Bad Gateway</html>\nwaiting{engine= 4\nrequests many\nrequests 5\n"
    assert values(samples(page), ["requests"]) == [3.0, 5.0]
