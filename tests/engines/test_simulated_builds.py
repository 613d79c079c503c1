"""The simulated engine on presets of other builds than Llama's, as a study starts it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from sweeper.calibrate.public import block_of, trial_of
from sweeper.engines.simulated import SimulatedEngine, SimulatedServer
from sweeper.errors import EngineError
from sweeper.records import FailureClass, LoadPoint, Scalar, TrialSpec
from sweeper.workload.requests import make_workload

LOAD = LoadPoint(dataset="sharegpt", num_prompts=50)


def trial(model: str, devices: int, **knobs: Scalar) -> TrialSpec:
    spec = trial_of(
        model=model,
        device="mi300x",
        release="0.32.0",
        knobs={"tensor_parallel_size": devices, **knobs},
        load=LOAD,
    )
    replicas = int(knobs.get("data_parallel_size", 1))
    return replace(spec, devices_wanted=devices * replicas)


def start(spec: TrialSpec) -> SimulatedServer:
    return SimulatedEngine().start(spec, block_of(spec), restart=0, cancelled=lambda: False)


def duration_s(spec: TrialSpec) -> float:
    return float(start(spec).serve(make_workload(LOAD, seed=0)).records.last_token_s.max())


@pytest.mark.parametrize(
    ("model", "devices"),
    [
        ("mixtral_8x7b_instruct", 2),
        ("qwen3_235b_a22b", 4),
        ("qwen3_235b_a22b_fp8", 4),
        ("deepseek_r1", 8),
        ("gpt_oss_120b", 1),
        ("gemma_3_27b_it", 1),
        ("qwen3_next_80b_a3b_instruct", 2),
        ("glm_4_5", 8),
    ],
)
def test_preset_of_any_build_serves_sharegpt(model: str, devices: int) -> None:
    server = start(trial(model, devices))
    assert int(server.effective["num_gpu_blocks"]) > 0
    assert server.ignored_knobs == ()
    served = server.serve(make_workload(LOAD, seed=0))
    assert len(served.records.last_token_s) == 50
    assert 0 < served.records.last_token_s.max() < 600


def test_expert_parallelism_is_modelled_where_there_are_experts_and_ignored_elsewhere() -> None:
    knobs: Mapping[str, Scalar] = {"enable_expert_parallel": True}
    mixture = trial("deepseek_r1", 8, **knobs)
    assert start(mixture).ignored_knobs == ()
    assert start(mixture).effective["enable_expert_parallel"] is True
    assert duration_s(mixture) > duration_s(trial("deepseek_r1", 8))
    dense = start(trial("llama_3_1_8b_instruct", 1, **knobs))
    assert dense.ignored_knobs == ("enable_expert_parallel",)
    assert "enable_expert_parallel" not in dense.effective


def test_replicas_of_mixture_share_its_experts() -> None:
    """Eight replicas of one device hold what one replica of eight does, but for attention."""
    spread = start(trial("deepseek_r1", 1, data_parallel_size=8, enable_expert_parallel=True))
    sliced = start(trial("deepseek_r1", 8))
    assert spread.start_s < 1.5 * sliced.start_s
    served = spread.serve(make_workload(LOAD, seed=0))
    assert (served.records.output_tokens > 0).all()


def test_model_that_fits_no_device_is_refused() -> None:
    with pytest.raises(EngineError, match="does not fit a device of MI300X") as caught:
        start(trial("deepseek_r1", 1))
    assert caught.value.failure is FailureClass.OUT_OF_MEMORY


def test_skew_of_experts_is_a_parameter_of_the_calibration() -> None:
    even = trial("gpt_oss_120b", 1)
    assert duration_s(replace(even, calibration={"expert_skew": 1.5})) < duration_s(even)
