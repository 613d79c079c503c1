"""Objectives, bounds, goodput and the search for a rate, as people write them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from sweeper import config
from sweeper.config import objective
from sweeper.config.schema import ObjectiveConfig
from sweeper.errors import ConfigError
from sweeper.records import Constraint, LoadPoint, Objective, Platform, RateSearch, UserSearch

CASE_2 = "+experiment=case2_sched_steps"
AT_16 = (LoadPoint(dataset="sharegpt", num_prompts=8, request_rate_per_s=16.0),)
SEARCHED = ("+overlay=max_rate",)


def entry(**given: Any) -> dict[str, Any]:
    return asdict(ObjectiveConfig(**given))


def settings(*overrides: str) -> config.Settings:
    composed = config.compose_run([*overrides, "platform=simulated"])
    return config.settings(composed, platform=Platform.SIMULATED)


def test_entry_with_bound_is_constraint_and_any_other_objective() -> None:
    found = settings("+experiment=tune_70b_slo")
    assert found.objectives == (
        Objective(metric="request_throughput_per_s", direction="maximize", request_rate_per_s=1000.0),
    )
    assert found.constraints == (
        Constraint(metric="p99_ttft_ms", limit=2000.0, is_upper=True, request_rate_per_s=8.0),
        Constraint(metric="p99_tpot_ms", limit=150.0, is_upper=True, request_rate_per_s=8.0),
    )
    (floor,) = objective.constraints({"low": entry(at_least=3.0)}, AT_16)
    assert floor.name == "request_throughput_per_s >= 3"


def test_what_is_searched_per_gpu_says_so() -> None:
    assert [o.name for o in settings("+experiment=tune_70b_pareto").objectives] == [
        "request_throughput_per_s per GPU",
        "p99_tpot_ms",
    ]


def test_goodput_bounds_reach_every_load_point() -> None:
    found = settings(CASE_2, "workload.goodput.tpot_ms=100", "workload.goodput.ttft_ms=2000")
    assert {point.goodput_bounds for point in found.load_points} == {"tpot:100 ttft:2000"}
    assert {point.goodput_bounds for point in settings(CASE_2).load_points} == {None}


def test_load_points_without_new_parts_keep_their_old_identity() -> None:
    (first, *_) = settings(CASE_2).load_points
    assert not {"goodput_ms", "rate_search"} & set(first.identity)
    (bounded, *_) = settings(CASE_2, "workload.goodput.ttft_ms=1").load_points
    assert bounded.identity["goodput_ms"] == (("ttft_ms", 1.0),)


def test_load_point_can_search_for_rate_beside_others_at_their_own() -> None:
    (point,) = settings(CASE_2, *SEARCHED).load_points
    bounds = (("p99_ttft_ms", 2000.0), ("p99_tpot_ms", 200.0))
    assert point.rate_search == RateSearch(low=1.0, high=64.0, resolution=1.0, bounds=bounds)
    assert point.label == "highest rate with p99_ttft_ms <= 2000, p99_tpot_ms <= 200"
    both = settings(
        CASE_2,
        "workload.request_rate_per_s=null",
        "workload.points=[{request_rate_per_s: 16}, {max_rate: {high: 8, bounds: {p99_ttft_ms: 5}}}]",
    ).load_points
    assert [(p.request_rate_per_s, p.rate_search is None) for p in both] == [(16.0, True), (None, False)]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["objective.throughput.per=node"], "throughput.per: 'node' is not allowed; expected one of gpu"),
        (["objective.throughput.request_rate_per_s=5"], "is 5, and no load point has .* 16, 32, 1000"),
        (["workload.goodput.ttft=5"], "workload.goodput: 'ttft' is not allowed; .* Did you mean 'ttft_ms'"),
        (["workload.goodput.ttft_ms=0"], "workload.goodput.ttft_ms: is 0"),
        (
            [*SEARCHED, "objective.throughput.metric=mean_ttft_ms"],
            "every load point searches for the heaviest load; expected max_rate_per_s",
        ),
        ([*SEARCHED, "workload.max_rate.high=0.5"], "workload.max_rate: has low=1 above high=0.5"),
        ([*SEARCHED, "workload.points=[{max_rate: {high: 8}}]"], "workload.max_rate.bounds: is empty"),
        ([*SEARCHED, "workload.points=[{max_rate: {high: x}}]"], "max_rate: high: is 'x'; expected a single"),
        ([*SEARCHED, "workload.points=[{max_rate: {hi: 8}}]"], "workload.max_rate: 'hi' is not allowed"),
        ([*SEARCHED, "workload.max_rate.resolution=0"], "workload.max_rate: resolution: is 0"),
        ([*SEARCHED, "workload.max_rate.bounds.ttft=5"], "workload.max_rate.bounds: 'ttft' is not allowed"),
        ([*SEARCHED, "workload.request_rate_per_s=[8]"], "the search chooses the rates"),
    ],
)
def test_mistake_is_said_in_one_sentence(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(CASE_2, *overrides)


USERS = (
    *("workload.request_rate_per_s=null", "workload.max_concurrency=[1,4,64]"),
    "workload.prompts_per_user=10",
)
MOST_USERS = ("+overlay=max_users", "workload.max_users.high=64")


def test_entry_singles_out_load_point_by_users() -> None:
    found = settings(CASE_2, *USERS, "objective.throughput.max_concurrency=64")
    (wanted,) = found.objectives
    assert (wanted.name, wanted.max_concurrency) == ("request_throughput_per_s at 64 users", 64)
    assert [(point.label, point.num_prompts) for point in found.load_points] == [
        ("1 user", 10),
        ("4 users", 40),
        ("64 users", 640),
    ]


def test_users_are_searched_for_beside_others() -> None:
    (point,) = settings(CASE_2, *MOST_USERS).load_points
    bounds = (("steady_p99_ttft_ms", 2000.0), ("steady_p99_tpot_ms", 100.0))
    assert point.user_search == UserSearch(low=4, high=64, resolution=1, bounds=bounds, prompts_per_user=10)
    assert (point.num_prompts, point.max_concurrency) == (640, None)
    both = settings(
        CASE_2,
        "workload.request_rate_per_s=null",
        "workload.points=[{max_concurrency: 16}, {max_users: {high: 8, bounds: {p99_ttft_ms: 5}}}]",
    ).load_points
    assert [(p.users, p.max_users_slo) for p in both] == [(16, None), (None, "p99_ttft_ms <= 5")]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            [*USERS, "objective.throughput.max_concurrency=16"],
            "throughput.max_concurrency: is 16, .*; expected one of 1, 4, 64. Choose one, or add it "
            "to workload.max_concurrency",
        ),
        (
            ["objective.throughput.max_concurrency=16"],
            r"max_concurrency: is 16, .* expected one of none \(no load point has a limit\)",
        ),
        (
            [
                "workload.points=[{max_concurrency: 4}, {request_rate_per_s: 8, max_concurrency: 6}]",
                *("objective.throughput.max_concurrency=4", "objective.throughput.request_rate_per_s=8"),
            ],
            "names request_rate_per_s 8 and max_concurrency 4, which no load point has together",
        ),
        ([*MOST_USERS, "workload.max_users.high=0"], "workload.max_users: high: is 0"),
        ([*MOST_USERS, "workload.max_users.low=65"], "workload.max_users: has low=65 above high=64"),
        ([*MOST_USERS, "workload.points=[{max_users: {high: 8}}]"], "workload.max_users.bounds: is empty"),
        (
            [*MOST_USERS, "workload.points=[{max_users: {high: 8.5, bounds: {p99_ttft_ms: 5}}}]"],
            "workload.max_users: high: is 8.5; expected a single value of type int",
        ),
        (
            [*MOST_USERS, "workload.max_users.bounds.ttft=5"],
            "workload.max_users.bounds: 'ttft' is not allowed",
        ),
        (
            [*MOST_USERS, "workload.max_concurrency=[8]"],
            r"given with max_concurrency \[8\]; .* chooses the users",
        ),
        ([*MOST_USERS, "workload.request_rate_per_s=[8]"], "given with request_rate_per_s"),
        (
            [*MOST_USERS, "workload.max_users.low=3"],
            "has steady_p99_ttft_ms, and 3 users of 10 prompts send 30; expected 40 or more",
        ),
        ([*MOST_USERS, "workload.second_run=true"], "workload.max_users: is given with second_run"),
        (
            [*SEARCHED, "workload.max_users.high=8", "workload.max_users.bounds.p99_ttft_ms=5"],
            "workload: has max_rate and max_users; expected one of them",
        ),
        (
            [*MOST_USERS, "objective.throughput.metric=max_rate_per_s"],
            "is max_rate_per_s, which a search over the rate finds; expected workload.max_rate",
        ),
        (
            [*USERS, "objective.throughput.metric=max_users"],
            "is max_users, which a search over users finds; expected workload.max_users",
        ),
        (
            [*MOST_USERS, "objective.throughput.metric=mean_ttft_ms"],
            "every load point searches for the heaviest load; expected max_users, or a load point that is",
        ),
        ([*MOST_USERS, "client=locust"], "expected .* at a rate|reports no single requests"),
    ],
)
def test_mistake_about_users_is_said_in_one_sentence(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(CASE_2, *overrides)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (entry(at_most=3.0, direction="minimize"), "objective.a: has a direction and a bound"),
        (entry(at_most=3.0, at_least=1.0), "objective.a: has at_most and at_least; expected one bound"),
        (entry(at_most=float("nan")), "objective.a.at_most: is nan; expected a number"),
        (entry(at_most=1.0, metric="max_rate_per_s"), "max_rate_per_s, which a search over the rate finds"),
        (entry(at_least=1.0, metric="request_goodput_per_s"), "a.metric: .*, and workload.goodput is empty"),
    ],
)
def test_wrong_bound_is_said_in_one_sentence(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        objective.constraints({"a": given}, AT_16)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["+experiment=mad_report", "objective.throughput.metric=p99_ttft_ms"],
            "objective.throughput.metric: is p99_ttft_ms, which dataset latency and throughput does not "
            "tell; expected a dataset that is sent to a server, or another metric.",
        ),
        (
            [CASE_2, "objective.throughput.metric=mean_batch_latency_ms"],
            "is mean_batch_latency_ms, which dataset sharegpt does not tell; expected dataset latency,",
        ),
    ],
)
def test_metric_that_no_benchmark_tells_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(*overrides)
    assert message in str(caught.value)


def test_batchs_latency_may_be_asked_of_batches() -> None:
    found = settings("+experiment=mad_report", "objective.throughput.metric=mean_batch_latency_ms")
    assert found.objectives[0].metric == "mean_batch_latency_ms"


def test_same_objective_twice_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"objective\.b: asks for .*per_s, as objective\.a does\. Remove one"
    ):
        objective.objectives({"a": entry(), "b": entry(direction="minimize")}, AT_16)


def test_study_of_bounds_alone_has_nothing_to_make_better() -> None:
    with pytest.raises(ConfigError, match="objective: has nothing to make better"):
        objective.objectives({"low": entry(at_most=3.0)}, AT_16)


def test_conditions_and_rules_with_messages_are_read() -> None:
    space = settings("+experiment=tune_70b_pareto").space
    assert space.conditions["max_num_batched_tokens"].text == "enable_chunked_prefill == true"
    assert str(space.rules[0]) == (
        "all instances must fit on one node (tensor_parallel_size * instances <= node_devices)"
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("space.knobs.max_num_seqs={choices: [1, 2], when: 5}", r"max_num_seqs.when: is 5; expected a comp"),
        ("space.knobs.max_num_seqs={choices: [1, 2], when: 'a ='}", r"seqs.when: 'a =' is not an expr"),
        (
            "space.knobs.max_num_seqs={choices: [1], when: nothing}",
            r"when: names 'nothing', which is no knob",
        ),
        ("space.rules=[{rule: 'a > 1'}]", r"space.rules\[0\]: has rule; expected a rule and a message"),
        ("space.rules=[[a]]", r"space.rules\[0\]: is \['a'\]; expected a comparison"),
    ],
)
def test_wrong_condition_or_rule_is_said_in_one_sentence(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(CASE_2, override)
