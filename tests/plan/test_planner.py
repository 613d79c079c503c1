"""The plan: which jobs a space becomes, in which order, and what is refused before a start."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.errors import ConfigError, KnobError
from sweeper.plan.planner import Planner, devices_wanted, point_label
from sweeper.records import FailureClass, Model, Platform, Scalar
from sweeper.space.domains import Choice
from sweeper.space.rules import Rule
from sweeper.space.space import Point, Space
from tests.stand_ins import planner_of_three_series


@pytest.fixture
def planner(tmp_path: Path, llama_70b: Model) -> Planner:
    return planner_of_three_series(tmp_path, llama_70b)


def test_points_of_equal_assignment_become_one_job_that_serves_them_all(planner: Planner) -> None:
    small, large = planner.grid()
    assert (small.spec.series, large.spec.series) == (("small",), ("large", "same"))
    assert [point.series for point in large.points] == ["large", "same"]
    assert large.spec.label == "large, same"
    assert large.spec.folder == f"{planner.trials_folder}/{large.spec.key}"
    assert (small.refusal, large.refusal) == (None, None)


def test_jobs_that_need_more_devices_come_first(planner: Planner) -> None:
    space = Space(
        base={"max_model_len": 4096, "quantization": "fp8"},
        domains={"tensor_parallel_size": Choice(values=(2, 8, 4))},
    )
    jobs = replace(planner, space=space).grid()
    assert [job.spec.devices_wanted for job in jobs] == [8, 4, 2]


def test_point_that_cannot_run_here_is_planned_with_its_reason(planner: Planner) -> None:
    ruled = replace(planner, space=Space(base={}, rules=(Rule(text="max_num_seqs < 64"),)))
    assignment = {"max_num_seqs": 64, "tensor_parallel_size": 4}
    job = ruled.job(Point(choices={}, assignment=assignment, series=None))
    assert str(job.refusal) == "breaks the rule of the space: max_num_seqs < 64"
    assert job.refusal is not None
    assert job.refusal.failure is FailureClass.BAD_ARGUMENT


def test_grid_leaves_out_what_breaks_rule_but_plans_series_that_does(planner: Planner) -> None:
    rule = Rule(text="tensor_parallel_size * instances <= node_devices", message="one node")
    domains = {"tensor_parallel_size": Choice(values=(4, 8)), "instances": Choice(values=(1, 2))}
    searched = replace(planner, space=Space(base={"max_model_len": 4096}, domains=domains, rules=(rule,)))
    # The node has 8 devices: 8 x 2 is no point of the space.
    assert [job.spec.devices_wanted for job in searched.grid()] == [8, 8, 4]
    named = replace(planner.space, rules=(Rule(text="max_num_seqs < 64"),))
    refusals = [job.refusal for job in replace(planner, space=named).grid()]
    assert any(refusal is not None and refusal.is_rule for refusal in refusals)


def test_rule_that_no_point_keeps_is_mistake(planner: Planner) -> None:
    space = Space(domains={"max_num_seqs": Choice(values=(1, 2))}, rules=(Rule(text="max_num_seqs > 5"),))
    with pytest.raises(ConfigError, match=r"space: none of its points keeps the rules; .*max_num_seqs > 5"):
        replace(planner, space=space).grid()


def test_knob_of_another_release_is_mistake_and_no_plan(planner: Planner) -> None:
    today = replace(planner, engine=replace(planner.engine, release="0.32.0"))
    with pytest.raises(KnobError, match=r"vLLM 0\.32\.0: .*num_scheduler_steps"):
        today.job(Point(choices={}, assignment={"num_scheduler_steps": 10}, series=None))


def test_trial_is_named_by_what_its_point_chose() -> None:
    assert point_label(Point(choices={"series": "a", "n": 4}, assignment={"n": 4}, series="a")) == "a n=4"
    assert point_label(Point(choices={"n": 4, "m": 2}, assignment={}, series=None)) == "n=4 m=2"
    assert point_label(Point(choices={}, assignment={"n": 4}, series=None)) == "the only setting"


def test_devices_are_product_of_parallel_sizes() -> None:
    assert devices_wanted({}) == 1
    assert devices_wanted({"tensor_parallel_size": 4, "data_parallel_size": 2}) == 8
    with pytest.raises(KnobError, match=r"knobs\.tensor_parallel_size: is 'four'"):
        devices_wanted({"tensor_parallel_size": "four"})


def test_instances_multiply_devices_and_are_asked_of_release_as_what_they_become(
    planner: Planner,
) -> None:
    today = replace(planner, engine=replace(planner.engine, release="0.32.0"))
    assignment = {"tensor_parallel_size": 4, "instances": 2, "max_model_len": 8192}
    job = today.job(Point(choices={}, assignment=assignment, series=None))
    assert job.refusal is None
    assert job.spec.devices_wanted == 8
    assert job.spec.assignment["instances"] == 2
    # 0.6.2 has no data parallelism, so there are two servers, and it has nothing to refuse.
    old = planner.job(Point(choices={}, assignment=assignment, series=None))
    assert old.refusal is None
    three = planner.job(Point(choices={}, assignment={**assignment, "instances": 3}, series=None))
    assert three.refusal is not None
    assert three.refusal.message.startswith("needs 12 devices")
    assert three.refusal.failure is FailureClass.UNSUPPORTED


def test_context_parallel_ranks_take_devices_of_their_own(planner: Planner) -> None:
    today = replace(planner, engine=replace(planner.engine, release="0.32.0"))
    assignment = {"tensor_parallel_size": 2, "prefill_context_parallel_size": 2, "max_model_len": 8192}
    job = today.job(Point(choices={}, assignment=assignment, series=None))
    assert job.refusal is None
    assert job.spec.devices_wanted == 4


def test_size_that_cannot_share_out_model_is_refused_with_those_that_can(planner: Planner) -> None:
    job = planner.job(Point(choices={}, assignment={"tensor_parallel_size": 3}, series=None))
    assert job.refusal is not None
    assert job.refusal.failure is FailureClass.UNSUPPORTED
    assert str(job.refusal) == (
        "tensor_parallel_size = 3 cannot share out 64 attention heads, 8 KV heads and an MLP of 28672; "
        "expected one of 1, 2, 4, 8, 16, 32, 64 (meta-llama/Llama-3.1-70B-Instruct). Choose one."
    )


@pytest.mark.parametrize(
    ("knob", "value", "instead"),
    [
        ("served_model_name", "mine", "it is model.name"),
        ("HIP_VISIBLE_DEVICES", "4,5", "platform.device_ids"),
        ("TP", 8, "Did you mean 'tensor_parallel_size'"),
        ("load_format", "dummy", "Set model.is_dummy=true"),
        ("skip_tokenizer_init", True, "answers no text"),
    ],
)
def test_what_can_never_be_setting_is_mistake_whatever_is_allowed(
    planner: Planner, knob: str, value: Scalar, instead: str
) -> None:
    engine = replace(planner.engine, kind="vllm", release="0.32.0")
    real = replace(planner, engine=engine, platform=Platform.MI300X, allow_unknown=True)
    with pytest.raises(KnobError, match=re.escape(instead)):
        real.job(Point(choices={}, assignment={knob: value, "max_model_len": 8192}, series=None))


def test_flag_that_tgi_lacks_is_mistake(planner: Planner) -> None:
    real = replace(planner, engine=replace(planner.engine, kind="tgi"), platform=Platform.MI300X)
    with pytest.raises(KnobError, match=r"TGI: knob 'num_shards' = 8: .*Did you mean 'num_shard'\?"):
        real.job(Point(choices={}, assignment={"num_shards": 8}, series=None))


def test_endpoint_that_runs_is_not_weighed_against_this_nodes_memory(planner: Planner) -> None:
    attached = replace(planner, engine=replace(planner.engine, kind="attach"), platform=Platform.MI300X)
    # 70B in bfloat16 would not fit on the one device that is held for it here.
    assert attached.job(Point(choices={}, assignment={}, series=None)).refusal is None
