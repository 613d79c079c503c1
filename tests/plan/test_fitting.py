"""What a space takes of model, devices and release where it says ``fits``, and what is said of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeper.config.space import parse_condition, parse_fitting
from sweeper.errors import ConfigError
from sweeper.plan.fitting import fitted
from sweeper.plan.planner import Planner
from sweeper.records import LoadPoint, Model, Platform, Scalar
from sweeper.records.architecture import Architecture, Attention, Experts, Layer
from sweeper.space.domains import Choice
from sweeper.space.rules import Rule
from sweeper.space.space import Point, Space
from tests.stand_ins import planner_of_three_series

EXPERTS = Architecture(  # Qwen3-235B-A22B: 94 layers of 128 experts, 64 heads and 4 KV heads
    model_type="qwen3_moe",
    hidden=4096,
    vocab=151936,
    max_positions=40960,
    layers=(
        Layer(
            attention=Attention(heads=64, kv_heads=4, head_dim=128),
            mlp=Experts(count=128, per_token=8, intermediate=1536),
        ),
    )
    * 94,
)


@pytest.fixture
def planner(tmp_path: Path, llama_70b: Model) -> Planner:
    """Eight MI300X that are measured, with vLLM 0.32.0."""
    found = planner_of_three_series(tmp_path, llama_70b)
    engine = replace(found.engine, kind="vllm", release="0.32.0")
    return replace(found, engine=engine, platform=Platform.MI300X)


def space(knobs: Mapping[str, Any], *rules: str, **base: Scalar) -> Space:
    """A space as its YAML is read."""
    parsed = {name: parse_condition(f"space.knobs.{name}", value) for name, value in knobs.items()}
    taken = {name: parse_fitting(f"space.knobs.{name}", value) for name, (value, _) in parsed.items()}
    return Space(
        base={"max_model_len": 8192, **base},
        domains={name: domain for name, (domain, _) in taken.items()},
        conditions={name: condition for name, (_, condition) in parsed.items() if condition},
        fittings={name: fitting for name, (_, fitting) in taken.items() if fitting},
        rules=tuple(Rule(text=rule) for rule in rules),
    )


def values(planner: Planner) -> dict[str, tuple[Scalar, ...]]:
    return {n: d.values for n, d in planner.space.domains.items() if isinstance(d, Choice)}


def test_sizes_are_those_that_node_model_and_memory_allow(planner: Planner) -> None:
    found = fitted(replace(planner, space=space({"tensor_parallel_size": "fits"})))
    # 131 GiB of weights fit one MI300X.
    assert values(found) == {"tensor_parallel_size": (1, 2, 4, 8)}
    assert (found.left_out, found.space.fittings) == ((), {})

    shape = planner.model.shape
    assert shape is not None
    # 405B in 16 bits: 756 GiB. A node of 8 x 192 GiB holds it on all eight only.
    large = replace(
        planner.model, shape=replace(shape, layers=126, hidden=16384, heads=128, intermediate=53248)
    )
    found = fitted(replace(planner, model=large, space=space({"tensor_parallel_size": "fits"})))
    assert (values(found), found.space.base["tensor_parallel_size"]) == ({}, 8)
    (sentence,) = found.left_out
    assert sentence.startswith(
        "tensor_parallel_size 1, 2, 4: even 4 does not fit in memory: weights 189.0 GiB"
    )


def test_size_that_cannot_share_out_heads_is_left_out_with_those_that_can(planner: Planner) -> None:
    shape = planner.model.shape
    assert shape is not None
    seven_b = replace(  # Qwen2-7B: 28 heads, 4 KV heads
        planner.model, shape=replace(shape, layers=28, hidden=3584, heads=28, kv_heads=4, intermediate=18944)
    )
    found = fitted(replace(planner, model=seven_b, space=space({"tensor_parallel_size": "fits"})))
    assert values(found) == {"tensor_parallel_size": (1, 2, 4)}
    assert "tensor_parallel_size 8: tensor_parallel_size = 8 cannot share out 28 attention heads" in str(
        found.left_out
    )


def test_sizes_that_fit_alone_and_not_together_are_no_point(planner: Planner) -> None:
    both = space({"tensor_parallel_size": "fits", "data_parallel_size": "fits"})
    found = fitted(replace(planner, space=both))
    assert values(found)["data_parallel_size"] == (1, 2, 4, 8)
    points = {
        (job.spec.assignment["tensor_parallel_size"], job.spec.assignment["data_parallel_size"])
        for job in found.grid()
    }
    assert points == {(t, d) for t in (1, 2, 4, 8) for d in (1, 2, 4, 8) if t * d <= 8}
    assert all(job.refusal is None for job in found.grid())


def test_size_counts_as_fitting_where_other_knobs_make_room_for_it(planner: Planner) -> None:
    # With 64K tokens of a step the logits and activations of a 70B leave one device of 160 GiB no cache.
    small = replace(planner.node, devices=tuple(replace(d, memory_gib=149.0) for d in planner.node.devices))
    narrow = replace(planner, node=small)
    knobs = {"tensor_parallel_size": "fits", "max_num_batched_tokens": [2048, 65536]}
    found = fitted(replace(narrow, space=space(knobs)))
    assert 1 in values(found)["tensor_parallel_size"]
    refused = [job for job in found.grid() if job.refusal is not None]
    assert [job.spec.assignment["max_num_batched_tokens"] for job in refused] == [65536]


def test_expert_parallelism_is_for_models_with_experts(planner: Planner) -> None:
    knobs = {
        "tensor_parallel_size": "fits",
        "enable_expert_parallel": {"fits": True, "choices": [False, True], "needs": "experts"},
    }
    dense = fitted(replace(planner, space=space(knobs)))
    assert dense.left_out == ("enable_expert_parallel: the model has no experts",)
    assert "enable_expert_parallel" not in dense.space.knob_names()

    model = replace(planner.model, shape=None, architecture=EXPERTS, dtype="fp8")
    found = fitted(replace(planner, model=model, space=space(knobs)))
    assert values(found)["enable_expert_parallel"] == (False, True)
    # 219 GiB of weights in one byte each.
    assert values(found)["tensor_parallel_size"] == (2, 4, 8)

    unknown = replace(planner.model, shape=None, no_shape_because="no config.json")
    found = fitted(replace(planner, model=unknown, space=space(knobs)))
    assert "not known whether the model has experts" in str(found.left_out)
    assert values(found) == {"tensor_parallel_size": (1, 2, 4, 8)}


def test_switches_of_another_vendor_and_of_another_release_are_left_out(planner: Planner) -> None:
    knobs = {
        "max_num_seqs": [64, 128],
        "VLLM_ROCM_USE_AITER": {"fits": True, "choices": [0, 1], "needs": "amd"},
        "VLLM_ROCM_USE_AITER_MOE": {
            **{"fits": True, "choices": [0, 1], "needs": ["amd", "experts"]},
            "when": "VLLM_ROCM_USE_AITER == 1",
        },
        "num_scheduler_steps": {"fits": True, "choices": [1, 10]},
    }
    given = space(knobs, "max_num_seqs > 1", "num_scheduler_steps < max_num_seqs")
    found = fitted(replace(planner, accelerator="cuda", space=given))
    assert values(found) == {"max_num_seqs": (64, 128)}
    assert found.left_out == (
        "VLLM_ROCM_USE_AITER, VLLM_ROCM_USE_AITER_MOE: no AMD device",
        "num_scheduler_steps: vLLM 0.32.0 has no such knob",
    )
    # A rule about what is not there goes with it.
    assert [rule.text for rule in found.space.rules] == ["max_num_seqs > 1"]

    amd = fitted(replace(planner, space=given))
    assert values(amd)["VLLM_ROCM_USE_AITER"] == (0, 1)
    assert "VLLM_ROCM_USE_AITER_MOE: the model has no experts" in amd.left_out


def test_knob_goes_with_the_one_that_it_depends_on(planner: Planner) -> None:
    knobs = {
        "VLLM_ROCM_USE_AITER": {"fits": True, "choices": [0, 1], "needs": "experts"},
        "VLLM_ROCM_USE_AITER_LINEAR": {"choices": [0, 1], "when": "VLLM_ROCM_USE_AITER == 1"},
        "max_num_seqs": [64, 128],
    }
    found = fitted(replace(planner, space=space(knobs)))
    assert values(found) == {"max_num_seqs": (64, 128)}
    assert "VLLM_ROCM_USE_AITER_LINEAR: it depends on VLLM_ROCM_USE_AITER" in found.left_out


def test_value_that_release_refuses_is_left_out_with_its_reason(planner: Planner) -> None:
    # A part of AITER is read only beside its master switch: its condition is kept while it is looked at.
    knobs = {
        "VLLM_ROCM_USE_AITER": [0, 1],
        "VLLM_ROCM_USE_AITER_LINEAR": {"fits": True, "choices": [0, 1], "when": "VLLM_ROCM_USE_AITER == 1"},
        "quantization": {"fits": True, "choices": ["fp8", "ptpc_fp8"]},
    }
    found = fitted(replace(planner, space=space(knobs)))
    assert values(found)["VLLM_ROCM_USE_AITER_LINEAR"] == (0, 1)
    assert found.space.base["quantization"] == "fp8"
    (sentence,) = found.left_out
    assert sentence.startswith("quantization ptpc_fp8: ")


def test_what_is_not_modelled_is_not_searched_on_simulated_platform(planner: Planner) -> None:
    engine = replace(planner.engine, kind="simulated")
    knobs = {
        "max_num_seqs": [64, 128],
        "VLLM_ROCM_USE_AITER": {"fits": True, "choices": [0, 1], "needs": "amd"},
    }
    modelled = replace(planner, platform=Platform.SIMULATED, engine=engine, space=space(knobs))
    found = fitted(modelled)
    assert values(found) == {"max_num_seqs": (64, 128)}
    assert found.left_out == (
        "VLLM_ROCM_USE_AITER: it is not modelled: each value would give the same numbers",
    )


def test_model_that_fits_nowhere_is_refused_with_the_arithmetic(planner: Planner) -> None:
    small = replace(planner.node, devices=tuple(replace(d, memory_gib=12.0) for d in planner.node.devices))
    with pytest.raises(
        ConfigError, match=r"fits, and none does on 8 devices: 8 does not fit in memory: weig"
    ):
        fitted(replace(planner, node=small, space=space({"tensor_parallel_size": "fits"})))


def test_requests_that_are_too_long_are_the_loads_fault_and_not_of_sizes(planner: Planner) -> None:
    load = LoadPoint(dataset="random", num_prompts=8, input_len=131072, output_len=16)
    with pytest.raises(
        ConfigError, match=r"^workload: is longer than max_model_len = 8192 tokens: 8 of the .*N"
    ):
        fitted(replace(planner, load_points=(load,), space=space({"tensor_parallel_size": "fits"})))


def test_space_without_the_word_stays_as_it_is(planner: Planner) -> None:
    assert fitted(planner) is planner
    point = Point(choices={}, assignment={}, series=None)
    assert fitted(planner).job(point).spec.assignment == {}


@pytest.mark.parametrize(
    ("knob", "given", "message"),
    [
        ("max_num_seqs", "fits", r"space\.knobs\.max_num_seqs: says fits and no values; expected choices"),
        ("max_num_seqs", {"fits": False, "choices": [1]}, r"max_num_seqs\.fits: is False; expected true"),
        ("max_num_seqs", {"choices": [1], "needs": "amd"}, r"max_num_seqs\.fits: is None; expected true"),
        (
            "max_num_seqs",
            {"fits": True, "choices": [1], "needs": "nvlink"},
            r"needs: 'nvlink' is not allowed",
        ),
    ],
)
def test_word_is_read_with_what_belongs_to_it(knob: str, given: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_fitting(f"space.knobs.{knob}", given)
