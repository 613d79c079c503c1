"""What may be written on the command line: texts as they are, and entries with names of one's own."""

from __future__ import annotations

from typing import Any

import pytest

from sweeper.config import compose_run
from sweeper.errors import ConfigError

CASE_2 = "+experiment=case2_sched_steps"


def composed(*words: str) -> dict[str, Any]:
    return compose_run([CASE_2, *words])


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/sweeps?region=eu-central-1",
        "a folder with spaces",
        "it's",
        "50%41#c",
        "a=b, or [c] {d}",
        "postgresql+psycopg://me@host/studies?connect_timeout=5",
    ],
)
def test_text_needs_no_quotes_of_its_own(text: str) -> None:
    assert composed(f"study.outputs={text}")["study"]["outputs"] == text


def test_quotes_that_are_there_are_read_as_before() -> None:
    assert composed("study.question='Is it so?'")["study"]["question"] == "Is it so?"


def test_bound_can_be_added_key_by_key() -> None:
    found = composed("objective.wait.metric=mean_ttft_ms", "objective.wait.at_most=5")["objective"]["wait"]
    assert (found["metric"], found["at_most"], found["direction"]) == ("mean_ttft_ms", 5.0, None)


def test_series_can_be_added_key_by_key() -> None:
    series = composed("space.series.extra.knobs.num_scheduler_steps=3", "space.series.extra.label=Extra")
    assert series["space"]["series"]["extra"]["knobs"] == {"num_scheduler_steps": 3}
    assert set(series["space"]["series"]) > {"extra", "default"}


def test_objective_can_be_taken_out() -> None:
    found = composed("objective=throughput_slo", "~objective.tpot_slo")["objective"]
    assert set(found) == {"throughput", "ttft_slo"}


def test_unknown_key_of_entry_is_named() -> None:
    with pytest.raises(ConfigError, match=r"objective\.wait\.metrc.*is not a key of the configuration"):
        composed("objective.wait.metrc=mean_ttft_ms")


@pytest.mark.parametrize("sign", ["", "+", "++"])
def test_whole_ramp_and_search_can_be_given_at_once(sign: str) -> None:
    ramp = composed(sign + "workload.ramp_up={strategy: linear, start_per_s: 1, end_per_s: 9}")
    assert ramp["workload"]["ramp_up"] == {"strategy": "linear", "start_per_s": 1, "end_per_s": 9}
    search = composed(sign + "workload.max_rate={low: 1, high: 2, bounds: {p99_ttft_ms: 100}}")
    assert search["workload"]["max_rate"]["bounds"] == {"p99_ttft_ms": 100.0}
