"""Environment variables: known families pass, a slip is named, and what nobody reads is refused."""

from __future__ import annotations

import itertools

import pytest

from sweeper import knobs
from sweeper.knobs.runtime_variables import one_slip_from, runtime_variables
from tests.knobs.asking import only_refusal


@pytest.mark.parametrize(
    "name",
    [
        *("NCCL_MIN_NCHANNELS", "HSA_NO_SCRATCH_RECLAIM", "TORCH_BLAS_PREFER_HIPBLASLT", "GPU_MAX_HW_QUEUES"),
        *("HIPBLASLT_TUNING_FILE", "LD_PRELOAD", "PYTHONHASHSEED", "OMP_NUM_THREADS", "MIOPEN_FIND_MODE"),
        *("RCCL_SOMETHING_NEW", "AITER_SOMETHING_NEW"),
    ],
)
def test_variable_of_known_family_passes(name: str) -> None:
    assert not knobs.check({name: 1}, release="0.32.0")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("O", "optimization_level"),
        ("O3", "optimization_level"),
        ("-O3", "optimization_level"),
        ("TP", "tensor_parallel_size"),
        ("-TP", "tensor_parallel_size"),
        ("PP", "pipeline_parallel_size"),
        ("DP", "data_parallel_size"),
        ("EP", "enable_expert_parallel"),
        ("Q", "quantization"),
    ],
)
def test_letter_of_command_line_is_no_variable_whatever_is_allowed(name: str, meant: str) -> None:
    refusal = only_refusal({name: 3}, "0.32.0", allow_unknown=True)
    assert refusal.is_mistake
    assert refusal.reason.endswith(f"Did you mean '{meant}'?")


@pytest.mark.parametrize("name", ["tp", "-tp", "pp", "dp", "ep", "q", "o", "dcp", "pcp", "cc"])
def test_letter_in_small_names_flag(name: str) -> None:
    assert "Did you mean '" in only_refusal({name: 2}, "0.32.0").reason


def test_before_0_12_0_level_is_named_with_release_that_brought_it() -> None:
    assert only_refusal({"O": 3}, "0.11.2").reason.endswith(
        "Did you mean 'optimization_level'? It came with vLLM 0.12.0; earlier ones call "
        "compilation_config -O."
    )


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MAX_NUM_SEQS", "max_num_seqs"),
        ("nccl_min_nchannels", "NCCL_MIN_NCHANNELS"),
        ("max-num-seqs", "max_num_seqs"),
        ("HOST_NUMA_BALANCING", "host_numa_balancing"),
        ("INSTANCES", "instances"),
        ("NCCL_MIN_NCHANNEL", "NCCL_MIN_NCHANNELS"),
        ("HIP_FORCE_DEV_KERNRAG", "HIP_FORCE_DEV_KERNARG"),
        ("HSA_NO_SCRATCH_RECLAIN", "HSA_NO_SCRATCH_RECLAIM"),
        ("VLM_ROCM_USE_AITER", "VLLM_ROCM_USE_AITER"),
    ],
)
def test_name_in_other_letters_or_with_slip_names_one_that_was_meant(name: str, meant: str) -> None:
    refusal = only_refusal({name: 1}, "0.32.0")
    assert refusal.kind == "unknown"
    assert refusal.reason.endswith(f"Did you mean '{meant}'?")


def test_variable_that_nobody_is_known_to_read_passes_only_where_user_says_so() -> None:
    refusal = only_refusal({"MY_FAST_PATH": 1}, "0.32.0")
    assert "one that nobody reads does nothing" in refusal.reason
    assert "engine.allow_unknown=true lets it pass" in refusal.reason
    assert not knobs.check({"MY_FAST_PATH": 1}, release="0.32.0", allow_unknown=True)


def test_variable_of_vllm_without_its_prefix_has_its_releases() -> None:
    assert not knobs.check({"K_SCALE_CONSTANT": 200}, release="0.10.0")
    assert only_refusal({"K_SCALE_CONSTANT": 200}, "0.32.0").kind == "removed"


def test_slip_is_one_letter_left_out_added_replaced_or_swapped() -> None:
    known = {"NCCL_MIN_NCHANNELS"}
    for slip in ("NCCL_MIN_NCHANNEL", "NCCL_MIN_NCHANNELSS", "NCCL_MIN_MCHANNELS", "NCCL_MNI_NCHANNELS"):
        assert one_slip_from(slip, known) == "NCCL_MIN_NCHANNELS"
    assert one_slip_from("NCCL_MAX_NCHANNELS", known) is None
    assert one_slip_from("NCCL_MIN_NCHANNELS", known) is None


def test_no_two_known_names_are_slip_apart() -> None:
    for one, other in itertools.combinations(sorted(runtime_variables()), 2):
        assert one_slip_from(one, {other}) is None or len(one) < 8, (one, other)
