"""Knobs that are gone, to come, misspelt, or taken and ignored: each refused with its release."""

from __future__ import annotations

import pytest

from sweeper import knobs
from sweeper.records import Scalar
from tests.knobs.asking import only_refusal


@pytest.mark.parametrize(
    ("knob", "value", "last", "gone"),
    [
        ("num_scheduler_steps", 1, "0.10.0", "0.10.1"),
        ("max_seq_len_to_capture", 8192, "0.9.1", "0.11.0"),
        ("swap_space", 4, "0.9.1", "0.18.0"),
        ("disable_frontend_multiprocessing", True, "0.9.1", "0.19.0"),
        ("scheduler_delay_factor", 0.5, "0.10.2", "0.11.0"),
        ("preemption_mode", "swap", "0.10.2", "0.11.0"),
        ("disable_async_output_proc", True, "0.10.2", "0.11.0"),
        ("disable_log_requests", True, "0.16.0", "0.17.0"),
        ("speculative_model", "[ngram]", "0.8.2", "0.8.3"),
        ("cuda_graph_sizes", "1,2", "0.12.0", "0.13.0"),
        ("max_context_len_to_capture", 8192, "0.6.3.post1", "0.6.4"),
        ("VLLM_USE_TRITON_FLASH_ATTN", 0, "0.9.1", "0.11.1"),
        ("VLLM_ATTENTION_BACKEND", "TRITON_ATTN", "0.14.1", "0.15.0"),
        ("VLLM_RPC_TIMEOUT", 30000, "0.9.1", "0.23.0"),
        ("VLLM_USE_V1", 1, "0.11.0", "0.11.1"),
    ],
)
def test_removed_knob_is_refused_with_release_that_dropped_it(
    knob: str, value: Scalar, last: str, gone: str
) -> None:
    assert not knobs.check({knob: value}, release=last)
    refusal = only_refusal({knob: value}, gone)
    assert refusal.kind == "removed"
    assert f"{knob} was removed in vLLM {gone}: " in refusal.reason


def test_refusal_of_scheduler_steps_explains_and_names_what_is_nearest() -> None:
    assert only_refusal({"num_scheduler_steps": 10}, "0.32.0").message == (
        "knob 'num_scheduler_steps' = 10: num_scheduler_steps was removed in vLLM 0.10.1: V1 overlaps "
        "the work of the host by itself. Nearest: async_scheduling (0.10.0+, on by itself from 0.14.0); "
        "for output in batches stream_interval (0.11.1+)."
    )


def test_disable_log_requests_is_back_in_0_33_0() -> None:
    assert "It is back from 0.33.0" in only_refusal({"disable_log_requests": True}, "0.32.0").reason
    assert not knobs.check({"disable_log_requests": True}, release="0.33.0")


def test_variable_with_gap_in_its_life_is_refused_in_gap_only() -> None:
    asked: dict[str, Scalar] = {"VLLM_ROCM_USE_AITER": 1, "VLLM_ROCM_USE_AITER_FP4_ASM_GEMM": 1}
    assert not knobs.check(asked, release="0.28.0")
    assert "removed in vLLM 0.29.0. It is back from 0.31.0" in only_refusal(asked, "0.30.0").reason
    assert not knobs.check(asked, release="0.31.0")


@pytest.mark.parametrize(
    ("knob", "value", "release", "expected"),
    [
        (
            "async_scheduling",
            True,
            "0.6.2",
            "came with vLLM 0.10.0; 0.6.2 does not know it. Nearest: num_scheduler_steps",
        ),
        ("num_scheduler_steps", 10, "0.4.3", "came with vLLM 0.5.5"),
        ("data_parallel_size", 2, "0.8.2", "came with vLLM 0.8.3"),
        ("attention_backend", "ROCM_ATTN", "0.12.0", "Nearest: VLLM_ATTENTION_BACKEND (to 0.14.1)"),
        ("VLLM_RPC_TIMEOUT", 30000, "0.6.1", "Nearest: VLLM_RPC_GET_DATA_TIMEOUT_MS"),
    ],
)
def test_knob_from_future_is_refused_with_its_first_release(
    knob: str, value: Scalar, release: str, expected: str
) -> None:
    refusal = only_refusal({knob: value}, release)
    assert refusal.kind == "not_yet"
    assert expected in refusal.reason


@pytest.mark.parametrize(
    ("knob", "release", "meant"),
    [
        # Old guides shorten this one; argparse completes it on some releases and not on others.
        ("num_scheduler_step", "0.6.2", "num_scheduler_steps"),
        ("max_num_seq", "0.32.0", "max_num_seqs"),
        ("tp", "0.32.0", "tensor_parallel_size"),
        ("VLLM_ROCM_USE_AITR", "0.32.0", "VLLM_ROCM_USE_AITER"),
        ("host_numa_balance", "0.32.0", "host_numa_balancing"),
    ],
)
def test_misspelt_name_names_nearest(knob: str, release: str, meant: str) -> None:
    refusal = only_refusal({knob: 1}, release)
    assert refusal.kind == "unknown"
    assert refusal.reason.endswith(f"Did you mean '{meant}'?")


def test_variables_of_others_pass_whatever_their_name() -> None:
    others: dict[str, Scalar] = {
        "NCCL_MIN_NCHANNELS": 112,
        "HIP_FORCE_DEV_KERNARG": 1,
        "TOKENIZERS_PARALLELISM": "false",
    }
    assert not knobs.check(others, release="0.32.0")


def test_variables_of_amds_fork_are_refused_upstream_and_point_to_their_successor() -> None:
    refusal = only_refusal({"VLLM_FP8_PADDING": 1}, "0.32.0")
    assert refusal.kind == "removed"
    assert "AMD's fork of vLLM before 0.8.0" in refusal.reason
    assert refusal.reason.endswith("Did you mean 'VLLM_ROCM_FP8_PADDING'?")


@pytest.mark.parametrize(
    ("knob", "value", "release"),
    [
        ("max_seq_len_to_capture", 16384, "0.9.2"),
        ("swap_space", 16, "0.17.1"),
        ("disable_frontend_multiprocessing", True, "0.18.1"),
        ("VLLM_USE_TRITON_FLASH_ATTN", 0, "0.10.2"),
        ("VLLM_RPC_TIMEOUT", 30000, "0.22.1"),
    ],
)
def test_knob_that_only_v0_read_is_refused_under_v1(knob: str, value: Scalar, release: str) -> None:
    refusal = only_refusal({knob: value}, release)
    assert refusal.kind == "no_effect"
    assert f"accepted by vLLM {release} but does nothing in V1: " in refusal.reason
    assert not knobs.check({knob: value}, release=release, allow_unknown=True)


def test_capture_length_counts_again_when_another_knob_brings_v0_back() -> None:
    # 0.9.2 falls back to V0 for several scheduler steps, and V0 reads the capture length.
    assert not knobs.check({"max_seq_len_to_capture": 16384, "num_scheduler_steps": 10}, release="0.9.2")
    assert not knobs.check({"max_seq_len_to_capture": 16384, "VLLM_USE_V1": 0}, release="0.10.2")
    # CUDA left V0 earlier than ROCm.
    assert only_refusal({"max_seq_len_to_capture": 16384}, "0.8.0", accelerator="cuda").kind == "no_effect"


def test_switches_of_aiter_do_nothing_without_master_switch() -> None:
    assert only_refusal({"VLLM_ROCM_USE_AITER_MHA": 1}, "0.32.0").kind == "no_effect"
    assert not knobs.check({"VLLM_ROCM_USE_AITER": True, "VLLM_ROCM_USE_AITER_MHA": 1}, release="0.32.0")


def test_scheduler_steps_do_nothing_on_cpu() -> None:
    assert only_refusal({"num_scheduler_steps": 10}, "0.8.5", accelerator="cpu").kind == "no_effect"


def test_block_manager_without_choice_does_nothing() -> None:
    assert not knobs.check({"use_v2_block_manager": True}, release="0.6.2")
    assert only_refusal({"use_v2_block_manager": True}, "0.6.4").kind == "no_effect"
