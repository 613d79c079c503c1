"""Which load decides is the one that an objective names, or a mean over all that is said aloud."""

from __future__ import annotations

from dataclasses import replace

from sweeper.goals.deciding import clocked_texts, counted_points, deciding_texts
from sweeper.records import LoadPoint, Objective, RateSearch

RPS = "request_throughput_per_s"
RATES = [LoadPoint(dataset="sharegpt", num_prompts=10, request_rate_per_s=rate) for rate in (8.0, 1000.0)]
ANY = Objective(metric=RPS, direction="maximize")
NAMED = Objective(metric=RPS, direction="maximize", request_rate_per_s=1000.0)


def test_mean_over_loads_that_nobody_chose_is_said_with_the_key_that_chooses() -> None:
    assert deciding_texts([ANY], RATES) == [
        "request_throughput_per_s: the mean over 2 load points (8 QPS; 1000 QPS), each counting the same, "
        "because the objective names no load. To let one decide, name it in the objective, such as "
        "request_rate_per_s: 1000"
    ]


def test_users_are_named_where_load_points_differ_in_users() -> None:
    users = [
        LoadPoint(dataset="random", num_prompts=8, input_len=8, output_len=8, max_concurrency=n)
        for n in (4, 16)
    ]
    (said,) = deciding_texts([ANY], users)
    assert said.endswith("such as max_concurrency: 16")


def test_load_that_objective_names_decides_alone() -> None:
    assert deciding_texts([NAMED], RATES) == [
        "request_throughput_per_s: 1000 QPS alone, as the objective says"
    ]
    assert counted_points(NAMED, RATES) == RATES[1:]


def test_single_load_point_needs_no_word() -> None:
    assert deciding_texts([ANY], RATES[:1]) == []


def test_search_over_loads_decides_by_what_it_finds() -> None:
    search = RateSearch(low=1.0, high=4.0, resolution=1.0, bounds=(("p99_ttft_ms", 2000.0),))
    point = LoadPoint(dataset="sharegpt", num_prompts=10, request_rate_per_s=1.0, rate_search=search)
    found = Objective(metric="max_rate_per_s", direction="maximize")
    assert deciding_texts([found], [*RATES, point]) == ["max_rate_per_s: what the search over loads finds"]
    assert counted_points(ANY, [*RATES, point]) == RATES


def test_throughput_of_a_log_at_its_own_times_is_said_to_be_the_loads() -> None:
    replayed = LoadPoint(dataset="timed_trace", num_prompts=8, dataset_path="log.jsonl")
    tokens = Objective(metric="output_throughput_tok_per_s", direction="maximize", per="gpu")
    (said,) = clocked_texts([tokens], [replayed])
    assert "settings that keep up have the same" in said and "workload.dataset=trace_lengths" in said
    # A latency does tell settings apart, and so does a throughput of everything at once.
    assert clocked_texts([Objective(metric="p99_ttft_ms", direction="minimize")], [replayed]) == []
    assert clocked_texts([tokens], [replace(replayed, dataset="trace_lengths")]) == []
