"""Load points that are named one by one, and the clients that can send them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeper import config
from sweeper.config import workload
from sweeper.errors import ConfigError
from sweeper.records import ClientSpec, LoadPoint, Platform

BATCH = LoadPoint(dataset="latency", num_prompts=1, input_len=8, output_len=1)
RANDOM = LoadPoint(dataset="random", num_prompts=1, input_len=8, output_len=1)


def settings(*overrides: str) -> config.Settings:
    composed = config.compose_run([*overrides, "platform=simulated"])
    return config.settings(composed, platform=Platform.SIMULATED)


def given(kind: str, **more: str) -> dict[str, Any]:
    usual = {"script": None, "python": None, "start_timeout_s": 600.0, "trust_remote_code": False}
    usual["arguments"] = {}
    return {"kind": kind, **usual, **more}


def test_points_replace_parts_of_workload_and_multiply_with_its_lists() -> None:
    found = settings(
        "workload=random",
        "client=offline",
        "workload.input_len=[128,2048]",
        "workload.points=[{dataset: latency, output_len: 1, num_prompts: [1, 2]},"
        "{dataset: throughput, num_prompts: 3000, input_len: 64}]",
    ).load_points
    # The first point leaves the two lengths to the workload: 2 batches x 2 lengths. The second sets its own.
    assert [(p.dataset, p.num_prompts, p.input_len, p.output_len) for p in found] == [
        ("latency", 1, 128, 1),
        ("latency", 1, 2048, 1),
        ("latency", 2, 128, 1),
        ("latency", 2, 2048, 1),
        ("throughput", 3000, 64, 128),
    ]


def test_equal_points_are_refused() -> None:
    with pytest.raises(ConfigError, match="two load points are equal"):
        settings("workload=random", "workload.points=[{input_len: 8}, {input_len: 8}]")


def test_without_points_there_is_one_that_replaces_nothing() -> None:
    assert workload.variants(None) == [{}]
    assert workload.variants([{"dataset": "latency"}]) == [{"dataset": "latency"}]


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([], "workload.points: is an empty list; expected at least one value."),
        ([7], "workload.points[0]: is 7; expected such as {input_len: 128, output_len: 1}."),
        (
            [{"input_len": 8}, {"inputlen": 8}],
            "workload.points[1]: 'inputlen' is not part of a load point; expected one of num_prompts, "
            "input_len, output_len, max_concurrency, request_rate_per_s, dataset, dataset_path, range_ratio, "
            "ignore_eos, client_seed, max_rate, max_users, options, prompts_per_user, burstiness, "
            "ramp_up, endpoint, sampling, extra_body. Did you mean 'input_len'?",
        ),
        (
            [{"client_seed": True}],
            "workload.points[0].client_seed: is True; expected a single value of type int.",
        ),
        (
            [{"dataset": ["latency"]}],
            "workload.points[0].dataset: is ['latency']; expected a single value of type str.",
        ),
        (
            [{"dataset_path": 3}],
            "workload.points[0].dataset_path: is 3; expected a single value of type str or null.",
        ),
    ],
)
def test_point_that_makes_no_sense_says_which_and_why(points: list[Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        workload.variants(points)
    assert str(caught.value) == message


def test_client_keeps_its_script_and_interpreter() -> None:
    found = workload.client(given("vllm_bench", script="benchmarks", python="py"), [RANDOM])
    assert found == ClientSpec(kind="vllm_bench", script="benchmarks", python="py")
    assert workload.client(given("offline"), [BATCH]).kind == "offline"


@pytest.mark.parametrize(
    ("kind", "point", "message"),
    [
        ("vllm_benhc", RANDOM, "client.kind: 'vllm_benhc' is not allowed; .*Did you mean 'vllm_bench'"),
        ("vllm_bench", BATCH, "is 'latency' with client 'vllm_bench', which sends sharegpt and random"),
        ("offline", RANDOM, "is 'random' with client 'offline', which sends latency and throughput"),
        (
            "locust",
            RANDOM,
            "locust is given dataset 'random' at request_rate_per_s None; expected random at a",
        ),
    ],
)
def test_client_that_cannot_send_load_point_is_refused(kind: str, point: LoadPoint, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        workload.client(given(kind), [point])


def test_dataset_is_named_by_path_that_holds_in_every_folder() -> None:
    (point,) = settings("workload.dataset_path=share.json", "workload.request_rate_per_s=1").load_points
    assert point.dataset_path == str(Path("share.json").absolute())
