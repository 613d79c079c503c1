"""A workload that the user chose by name is served as its file says, whatever experiment stands beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from yaml import safe_load

from sweeper import config
from sweeper.errors import ConfigError
from sweeper.prepare.platform import compose_for_platform
from sweeper.records import Platform

RANDOM = safe_load((config.conf_folder() / "workload" / "random.yaml").read_text(encoding="utf-8"))


def composed(*overrides: str, config_dir: Path | None = None) -> config.Settings:
    content = config.compose_run([*overrides, "platform=simulated"], config_dir=config_dir)
    return config.settings(content, platform=Platform.SIMULATED)


@pytest.mark.parametrize("experiment", config.groups()["experiment"])
def test_every_experiment_sends_the_named_workload_or_says_why_not(experiment: str) -> None:
    try:
        found = composed(f"+experiment={experiment}", "workload=random")
    except ConfigError as exc:
        # mad_report has no server to send to, endpoint_load no address, Locust needs a rate.
        assert experiment in ("mad_report", "endpoint_load", "serving_locust")
        assert str(exc).startswith(("workload.dataset", "engine.", "client.kind"))
        return
    lengths = {(point.dataset, point.input_len, point.output_len) for point in found.load_points}
    assert lengths == {("random", RANDOM["input_len"], RANDOM["output_len"])}
    assert {point.num_prompts for point in found.load_points} == {RANDOM["num_prompts"]}


def test_keys_that_another_dataset_lacks_go_with_the_experiments_load() -> None:
    # cpx_density says input_len and output_len, which recorded conversations bring along themselves.
    found = composed("+experiment=cpx_density", "workload=sharegpt")
    assert {(point.dataset, point.input_len) for point in found.load_points} == {("sharegpt", None)}
    assert found.left_out[0] == (
        "workload=sharegpt: in place of num_prompts, request_rate_per_s, input_len, output_len of "
        "experiment/cpx_density.yaml"
    )


def test_single_keys_and_typed_overlays_are_laid_over_the_named_workload() -> None:
    words = ("+experiment=cpx_density", "workload=random", "+overlay=users")
    found = composed(*words, "workload.output_len=7")
    assert {(point.input_len, point.output_len) for point in found.load_points} == {(RANDOM["input_len"], 7)}
    assert [point.max_concurrency for point in found.load_points] == [1, 4, 16, 64, 256]


def test_rates_that_an_objective_names_stay() -> None:
    found = composed("+experiment=tune_70b_slo", "workload=random")
    assert [point.request_rate_per_s for point in found.load_points] == [8, 1000]
    assert found.left_out[0] == (
        "workload=random: with the experiment's request_rate_per_s, which the objective names"
    )


def test_what_an_experiment_asks_of_any_load_stays() -> None:
    found = composed("+experiment=case3_prefix_caching", "workload=random")
    assert {point.keeps_prefix_cache for point in found.load_points} == {False, True}


def test_overlay_that_only_the_platform_asked_for_yields() -> None:
    # cpu_tune shortens the load of tune for a CPU, unless the user says which load it is to be.
    overlaid, _ = compose_for_platform(["+experiment=tune", "platform=cpu"], config_dir=None)
    named, _ = compose_for_platform(["+experiment=tune", "workload=random", "platform=cpu"], config_dir=None)
    assert overlaid["workload"]["input_len"] < RANDOM["input_len"]
    assert named["workload"]["input_len"] == RANDOM["input_len"]
    # Everything else of the overlay still holds.
    assert named["model"]["path"] == overlaid["model"]["path"]


def test_workload_and_experiment_of_a_users_own_folder(tmp_path: Path) -> None:
    for group in ("experiment", "workload"):
        (tmp_path / group).mkdir()
    (tmp_path / "workload" / "mine.yaml").write_text(
        "dataset: random\nnum_prompts: 3\nrequest_rate_per_s: [2]\ninput_len: 5\noutput_len: 6\n"
    )
    (tmp_path / "experiment" / "own.yaml").write_text(
        "# @package _global_\nstudy: {experiment: own}\nspace: {knobs: {max_num_seqs: [1, 2]}}\n"
        "workload: {dataset: random, points: [{input_len: 50}, {input_len: 60}], output_len: 70}\n"
    )
    found = composed("+experiment=own", "workload=mine", config_dir=tmp_path)
    sent = [(p.num_prompts, p.request_rate_per_s, p.input_len, p.output_len) for p in found.load_points]
    assert sent == [(3, 2, 5, 6)]
