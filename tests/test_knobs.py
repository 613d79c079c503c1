"""Every trap in the history of vLLM's knobs, each as a command line or a refusal."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from sweeper import knobs
from sweeper.errors import ConfigError, KnobError
from sweeper.records import Assignment, Scalar

ARTICLE = "0.6.2"
ARTICLE_ENVIRONMENT = {"VLLM_USE_TRITON_FLASH_ATTN": 0, "VLLM_RPC_TIMEOUT": 30000}


def words(assignment: Assignment, release: str) -> str:
    return " ".join(knobs.command_line(assignment, release=release))


def only_refusal(assignment: Assignment, release: str, **more: object) -> knobs.Refusal:
    refusals = knobs.check(assignment, release=release, **more)  # type: ignore[arg-type]
    assert len(refusals) == 1, refusals
    return refusals[0]


def rows(name: str) -> list[dict[str, str]]:
    text = resources.files("sweeper").joinpath("data", name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


# --- releases


def test_releases_are_ordered_as_they_appeared() -> None:
    in_order = [
        "pre-0.4.3",
        "0.4.3",
        "0.6.2",
        "0.6.3.dev116+g151ef4ef",
        "0.6.3rc1",
        "0.6.3",
        "0.6.3.post1",
        "0.6.4",
        "0.9.2",
        "0.10.0",
        "0.32.0+cpu",
        "0.33.0",
    ]
    backwards = in_order[::-1]
    assert sorted(backwards, key=knobs.release_key) == in_order


def test_what_follows_a_plus_sign_and_trailing_zeros_do_not_count() -> None:
    assert knobs.release_key("0.32.0+cpu") == knobs.release_key("0.32.0") == knobs.release_key("v0.32")


VERSIONS = st.builds(
    lambda numbers, suffix: ".".join(map(str, numbers)) + suffix,
    st.lists(st.integers(0, 12), min_size=2, max_size=3),
    st.sampled_from(["", ".post1", ".post2", "rc1", "rc2", ".dev3", ".post1.dev4", "+rocm620"]),
)


@given(VERSIONS, VERSIONS)
def test_releases_are_ordered_as_the_packaging_library_orders_them(one: str, other: str) -> None:
    def public(text: str) -> Version:
        return Version(Version(text).public)

    assert (knobs.release_key(one) < knobs.release_key(other)) == (public(one) < public(other))


def test_a_text_that_is_no_release_is_refused_with_an_example() -> None:
    with pytest.raises(
        ConfigError, match=r"'latest' is no release of vLLM; expected a version such as 0\.6\.2"
    ):
        knobs.release_key("latest")


def test_covered_releases_are_sorted_and_span_the_tables() -> None:
    known = knobs.releases()
    assert known[0] == "0.4.2"
    assert known[-1] == "0.33.0"
    assert list(known) == sorted(known, key=Version)


def test_a_development_build_counts_as_the_release_before_it() -> None:
    # --scheduling-policy came with 0.6.3; a build 116 commits after 0.6.2 may lack it.
    refusal = only_refusal({"scheduling_policy": "priority"}, "0.6.3.dev116+g151ef4ef")
    assert refusal.kind == "not_yet"
    assert not knobs.check({"scheduling_policy": "priority"}, release="0.6.3")


# --- the commands of the source documents


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        (
            # "Default", the same in every case.
            {
                "tensor_parallel_size": 4,
                "enable_chunked_prefill": True,
                "max_num_batched_tokens": 512,
                "num_scheduler_steps": 1,
                "max_seq_len_to_capture": 8192,
                "max_num_seqs": 256,
            },
            "--enable-chunked-prefill=True --max-num-batched-tokens 512 --max-num-seqs 256 "
            "--max-seq-len-to-capture 8192 --num-scheduler-steps 1 --tensor-parallel-size 4",
        ),
        (
            # Case 2 and Case 4.
            {"enable_chunked_prefill": False, "num_scheduler_steps": 10, "max_seq_len_to_capture": 131072},
            "--enable-chunked-prefill=False --max-seq-len-to-capture 131072 --num-scheduler-steps 10",
        ),
        (
            # Case 3: prefix caching has no negative form yet, so off is silence.
            {"enable_chunked_prefill": True, "enable_prefix_caching": False},
            "--enable-chunked-prefill=True",
        ),
        (
            {"enable_chunked_prefill": False, "enable_prefix_caching": True},
            "--enable-chunked-prefill=False --enable-prefix-caching",
        ),
        # Case 6 and Case 7.
        (
            {"kv_cache_dtype": "fp8", "tensor_parallel_size": 8},
            "--kv-cache-dtype fp8 --tensor-parallel-size 8",
        ),
    ],
)
def test_series_of_the_article_become_flags_of_its_release(assignment: Assignment, expected: str) -> None:
    assert words(assignment, ARTICLE) == expected
    assert not knobs.check({**assignment, **ARTICLE_ENVIRONMENT}, release=ARTICLE)


def test_quick_start_of_the_article_is_one_line_to_paste() -> None:
    tuned: dict[str, Scalar] = {
        "VLLM_USE_TRITON_FLASH_ATTN": 0,
        "tensor_parallel_size": 4,
        "max_num_seqs": 1024,
        "max_seq_len_to_capture": 16384,
        "served_model_name": "meta-llama/Llama-3.1-70B-Instruct",
        "enable_chunked_prefill": False,
        "num_scheduler_steps": 15,
    }
    line = knobs.serve_line(tuned, release=ARTICLE, model="meta-llama/Llama-3.1-70B-Instruct", host="0.0.0.0")
    assert line == (
        "VLLM_USE_TRITON_FLASH_ATTN=0 vllm serve meta-llama/Llama-3.1-70B-Instruct --host 0.0.0.0 "
        "--port 8000 --enable-chunked-prefill=False --max-num-seqs 1024 --max-seq-len-to-capture 16384 "
        "--num-scheduler-steps 15 --served-model-name meta-llama/Llama-3.1-70B-Instruct "
        "--tensor-parallel-size 4"
    )
    assert not knobs.check(tuned, release=ARTICLE)


def test_405b_command_of_the_article_has_its_environment_in_front() -> None:
    default = {
        **ARTICLE_ENVIRONMENT,
        "tensor_parallel_size": 8,
        "max_num_seqs": 1024,
        "max_num_batched_tokens": 1024,
    }
    assert knobs.serve_line(default, release=ARTICLE, model="Llama-3.1-405B-Instruct", port=None) == (
        "VLLM_RPC_TIMEOUT=30000 VLLM_USE_TRITON_FLASH_ATTN=0 vllm serve Llama-3.1-405B-Instruct "
        "--max-num-batched-tokens 1024 --max-num-seqs 1024 --tensor-parallel-size 8"
    )


def test_amd_environment_of_case_5_leaves_the_host_out_of_the_server() -> None:
    case5 = {"host_numa_balancing": False, "NCCL_MIN_NCHANNELS": 112, "max_num_seqs": 256}
    assert knobs.environment(case5, release=ARTICLE) == {"NCCL_MIN_NCHANNELS": "112"}
    assert words(case5, ARTICLE) == "--max-num-seqs 256"
    assert knobs.serve_line(case5, release=ARTICLE, model="m") == (
        "# needs: sysctl kernel.numa_balancing=0\n"
        "NCCL_MIN_NCHANNELS=112 vllm serve m --port 8000 --max-num-seqs 256"
    )
    assert not knobs.check(case5, release=ARTICLE)


def test_validation_recipe_of_0_4_3_uses_the_module_and_amds_own_variables() -> None:
    recipe: dict[str, Scalar] = {
        "dtype": "float16",
        "enforce_eager": True,
        "gpu_memory_utilization": 0.9,
        "quantization": "fp8",
        "kv_cache_dtype": "fp8",
        "HIP_FORCE_DEV_KERNARG": 1,
        "VLLM_USE_ROCM_CUSTOM_PAGED_ATTN": True,
        "VLLM_INSTALL_PUNICA_KERNELS": 1,
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_SCHED_PREFILL_KVC_FREEPCT": 31.0,
    }
    assert knobs.serve_line(recipe, release="0.4.3", model="meta-llama/Meta-Llama-3.1-8B-Instruct") == (
        "HIP_FORCE_DEV_KERNARG=1 TOKENIZERS_PARALLELISM=false VLLM_INSTALL_PUNICA_KERNELS=1 "
        "VLLM_SCHED_PREFILL_KVC_FREEPCT=31.0 VLLM_USE_ROCM_CUSTOM_PAGED_ATTN=1 "
        "python -m vllm.entrypoints.openai.api_server --model meta-llama/Meta-Llama-3.1-8B-Instruct "
        "--port 8000 --dtype float16 --enforce-eager --gpu-memory-utilization 0.9 "
        "--kv-cache-dtype fp8 --quantization fp8"
    )
    assert not knobs.check(recipe, release="0.4.3")


def test_several_gpus_of_the_validation_recipe_use_processes() -> None:
    assert words({"distributed_executor_backend": "mp"}, "0.4.3") == "--distributed-executor-backend mp"


def test_serving_guide_of_0_6_4_is_taken_as_it_stands() -> None:
    guide: dict[str, Scalar] = {
        "swap_space": 16,
        "disable_log_requests": True,
        "tensor_parallel_size": 1,
        "distributed_executor_backend": "mp",
        "num_scheduler_steps": 10,
        "dtype": "float16",
        "gpu_memory_utilization": 0.9,
        "enable_chunked_prefill": False,
        "max_num_seqs": 1000,
        "max_model_len": 8192,
        "max_num_batched_tokens": 65536,
        "HIP_FORCE_DEV_KERNARG": 1,
        "VLLM_USE_TRITON_FLASH_ATTN": 0,
        "host_numa_balancing": False,
    }
    assert words(guide, "0.6.4") == (
        "--disable-log-requests --distributed-executor-backend mp --dtype float16 "
        "--enable-chunked-prefill=False --gpu-memory-utilization 0.9 --max-model-len 8192 "
        "--max-num-batched-tokens 65536 --max-num-seqs 1000 --num-scheduler-steps 10 "
        "--swap-space 16 --tensor-parallel-size 1"
    )
    assert not knobs.check(guide, release="0.6.4")
    # The same command on a release of two years later: four of its knobs are gone, each with its release.
    gone = {refusal.knob: refusal.reason for refusal in knobs.check(guide, release="0.32.0")}
    assert {knob: re.findall(r"removed in vLLM (\S+?)[:.] ", reason) for knob, reason in gone.items()} == {
        "swap_space": ["0.18.0"],
        "disable_log_requests": ["0.17.0"],
        "num_scheduler_steps": ["0.10.1"],
        "VLLM_USE_TRITON_FLASH_ATTN": ["0.11.1"],
    }


def test_tgi_comparison_ran_on_a_development_build() -> None:
    asked: dict[str, Scalar] = {
        "tensor_parallel_size": 8,
        "disable_log_requests": True,
        "disable_frontend_multiprocessing": True,
    }
    assert not knobs.check(asked, release="0.6.3.dev116+g151ef4ef")
    assert words(asked, "0.6.3.dev116+g151ef4ef") == (
        "--disable-frontend-multiprocessing --disable-log-requests --tensor-parallel-size 8"
    )


def test_command_of_today_turns_every_switch_by_its_twin() -> None:
    tuned: dict[str, Scalar] = {
        "tensor_parallel_size": 4,
        "enable_chunked_prefill": False,
        "enable_prefix_caching": False,
        "async_scheduling": False,
        "enforce_eager": False,
        "cudagraph_capture_sizes": "1,2,4",
        "VLLM_ROCM_USE_AITER": True,
    }
    assert knobs.serve_line(tuned, release="0.32.0", model="org/model") == (
        "VLLM_ROCM_USE_AITER=1 vllm serve org/model --port 8000 --no-async-scheduling "
        "--cudagraph-capture-sizes 1 2 4 --no-enable-chunked-prefill --no-enable-prefix-caching "
        "--no-enforce-eager --tensor-parallel-size 4"
    )
    assert not knobs.check(tuned, release="0.32.0")


# --- how a value is said


@pytest.mark.parametrize(
    ("release", "on", "off"),
    [
        ("0.4.3", "--enable-chunked-prefill", ""),
        ("0.5.2", "--enable-chunked-prefill", ""),
        ("0.5.3", "--enable-chunked-prefill=True", "--enable-chunked-prefill=False"),
        ("0.8.4", "--enable-chunked-prefill=True", "--enable-chunked-prefill=False"),
        ("0.8.5", "--enable-chunked-prefill", "--no-enable-chunked-prefill"),
        ("0.33.0", "--enable-chunked-prefill", "--no-enable-chunked-prefill"),
    ],
)
def test_chunked_prefill_is_said_in_the_form_of_the_release(release: str, on: str, off: str) -> None:
    assert words({"enable_chunked_prefill": True}, release) == on
    assert words({"enable_chunked_prefill": False}, release) == off


@pytest.mark.parametrize(
    ("release", "off"),
    [("0.6.4.post1", ""), ("0.6.5", "--no-enable-prefix-caching"), ("0.33.0", "--no-enable-prefix-caching")],
)
def test_prefix_caching_is_switched_off_by_silence_until_it_has_a_twin(release: str, off: str) -> None:
    assert words({"enable_prefix_caching": False}, release) == off
    assert words({"enable_prefix_caching": True}, release) == "--enable-prefix-caching"


@pytest.mark.parametrize(
    ("release", "off"),
    [
        ("0.6.2", ""),
        ("0.6.3", "--multi-step-stream-outputs=False"),
        ("0.8.4", "--multi-step-stream-outputs=False"),
        ("0.8.5", "--no-multi-step-stream-outputs"),
    ],
)
def test_streaming_of_steps_has_three_forms_of_off(release: str, off: str) -> None:
    assert words({"multi_step_stream_outputs": False}, release) == off


def test_a_switch_without_a_twin_is_off_by_silence() -> None:
    assert words({"enforce_eager": False}, "0.8.5") == ""
    assert words({"enforce_eager": False}, "0.9.0") == "--no-enforce-eager"
    assert words({"disable_log_stats": False}, "0.32.0") == ""


def test_off_is_refused_where_a_switch_is_on_by_default_and_has_no_twin() -> None:
    with pytest.raises(
        KnobError, match=r"False cannot be said in vLLM 0\.12\.0, .*on by default there\. Leave"
    ):
        knobs.command_line({"disable_log_requests": False}, release="0.12.0")
    assert only_refusal({"disable_log_requests": False}, "0.12.0").kind == "bad_value"
    assert words({"disable_log_requests": False}, "0.6.2") == ""


def test_a_word_for_a_switch_is_refused_because_vllm_would_take_it_for_the_model() -> None:
    with pytest.raises(KnobError, match="the value is 'False'; expected true or false"):
        knobs.command_line({"enable_chunked_prefill": "False"}, release="0.32.0")
    refusal = only_refusal({"enable_chunked_prefill": "False"}, "0.32.0")
    assert refusal.kind == "bad_value"
    assert refusal.message == (
        "knob 'enable_chunked_prefill' = 'False': it is of type str; expected true or false. "
        "Write it without quotes."
    )


def test_json_stays_one_word_and_a_list_becomes_several() -> None:
    config = '{"cudagraph_mode": "PIECEWISE"}'
    assert knobs.command_line({"compilation_config": config}, release="0.32.0") == (
        "--compilation-config",
        config,
    )
    for sizes in ("1,2,4", "1 2 4", "[1, 2, 4]"):
        assert knobs.command_line({"cuda_graph_sizes": sizes}, release="0.11.0") == (
            "--cuda-graph-sizes",
            "1",
            "2",
            "4",
        )


def test_a_value_that_begins_with_a_dash_is_tied_to_its_flag() -> None:
    assert words({"max_model_len": -1}, "0.32.0") == "--max-model-len=-1"


def test_whole_floats_are_written_as_whole_numbers() -> None:
    # --swap-space took whole numbers only through 0.5.4.
    assert words({"swap_space": 16.0}, "0.4.3") == "--swap-space 16"
    assert not knobs.check({"swap_space": 16.0}, release="0.4.3")
    assert "fractions came with 0.5.5" in only_refusal({"swap_space": 0.5}, "0.4.3").reason
    assert not knobs.check({"swap_space": 0.5}, release="0.5.5")


def test_old_spellings_are_kept() -> None:
    assert words({"preemption_mode": "swap"}, "0.5.0") == "--preemption_mode swap"
    assert words({"preemption_mode": "swap"}, "0.5.1") == "--preemption-mode swap"


def test_a_line_survives_the_shell_unchanged() -> None:
    config = """{"method": "ngram", "note": "it's $HOME"}"""
    line = knobs.serve_line(
        {"speculative_config": config, "VLLM_LOGGING_PREFIX": "two words"},
        release="0.32.0",
        model="/my models/m",
    )
    assert shlex.split(line) == [
        "VLLM_LOGGING_PREFIX=two words",
        *["vllm", "serve", "/my models/m", "--port", "8000", "--speculative-config", config],
    ]


def test_variables_are_text_and_flags_are_not_among_them() -> None:
    mixed: dict[str, Scalar] = {
        "VLLM_USE_V1": True,
        "NCCL_DEBUG": "INFO",
        "VLLM_ROCM_USE_AITER": False,
        "max_num_seqs": 2,
        "host_x": 1,
    }
    assert knobs.environment(mixed, release="0.10.0") == {
        "NCCL_DEBUG": "INFO",
        "VLLM_ROCM_USE_AITER": "0",
        "VLLM_USE_V1": "1",
    }


@given(st.permutations(["max_num_seqs", "VLLM_USE_V1", "enable_prefix_caching", "NCCL_DEBUG", "block_size"]))
def test_order_of_knobs_does_not_change_the_command(order: list[str]) -> None:
    values: dict[str, Scalar] = {"max_num_seqs": 8, "enable_prefix_caching": True, "block_size": 16}
    shuffled = {name: values.get(name, 1) for name in order}
    assert knobs.serve_line(shuffled, release="0.10.0", model="m") == (
        "NCCL_DEBUG=1 VLLM_USE_V1=1 vllm serve m --port 8000 --block-size 16 --enable-prefix-caching "
        "--max-num-seqs 8"
    )


@pytest.mark.parametrize(
    ("release", "expected"), [("0.4.3", "module"), ("0.5.1", "module"), ("0.5.2", "command")]
)
def test_serve_command_exists_from_0_5_2(release: str, expected: str) -> None:
    assert knobs.launcher(release) == expected


def test_kinds_of_names_are_told_apart() -> None:
    assert knobs.is_variable("NCCL_MIN_NCHANNELS")
    assert not knobs.is_variable("max_num_seqs")
    assert knobs.is_host_setting("host_numa_balancing")
    assert not knobs.is_host_setting("max_num_seqs")


# --- refusals


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
def test_a_removed_knob_is_refused_with_the_release_that_dropped_it(
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


def test_a_variable_with_a_gap_in_its_life_is_refused_in_the_gap_only() -> None:
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
def test_a_knob_from_the_future_is_refused_with_its_first_release(
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
def test_a_misspelt_name_names_the_nearest(knob: str, release: str, meant: str) -> None:
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
def test_a_knob_that_only_v0_read_is_refused_under_v1(knob: str, value: Scalar, release: str) -> None:
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


def test_switches_of_aiter_do_nothing_without_the_master_switch() -> None:
    assert only_refusal({"VLLM_ROCM_USE_AITER_MHA": 1}, "0.32.0").kind == "no_effect"
    assert not knobs.check({"VLLM_ROCM_USE_AITER": True, "VLLM_ROCM_USE_AITER_MHA": 1}, release="0.32.0")


def test_scheduler_steps_do_nothing_on_a_cpu() -> None:
    assert only_refusal({"num_scheduler_steps": 10}, "0.8.5", accelerator="cpu").kind == "no_effect"


def test_a_block_manager_without_a_choice_does_nothing() -> None:
    assert not knobs.check({"use_v2_block_manager": True}, release="0.6.2")
    assert only_refusal({"use_v2_block_manager": True}, "0.6.4").kind == "no_effect"


def test_a_forked_build_may_have_what_the_tables_do_not() -> None:
    fork: dict[str, Scalar] = {"num_scheduler_steps": 8, "amd_special_flag": 3, "kv_cache_dtype": "fp6"}
    assert {refusal.kind for refusal in knobs.check(fork, release="0.32.0")} == {
        "removed",
        "unknown",
        "bad_value",
    }
    assert not knobs.check(fork, release="0.32.0", allow_unknown=True)
    assert words({"amd_special_flag": 3}, "0.32.0") == "--amd-special-flag 3"
    with pytest.raises(KnobError, match="its default there is not known"):
        knobs.command_line({"amd_special_flag": False}, release="0.32.0")


def test_flags_of_other_engines_pass_and_the_simulated_one_is_held_to_vllm() -> None:
    tgi: dict[str, Scalar] = {"num_shard": 8}
    assert not knobs.check(tgi, release="2.3.1", engine="tgi")
    assert only_refusal(tgi, "0.6.2", engine="simulated").kind == "unknown"


# --- values


@pytest.mark.parametrize(
    ("knob", "value", "expected"),
    [
        ("max_num_seqs", 0, "at least 1"),
        ("max_num_seqs", "256", "it is of type str; expected a whole number"),
        ("max_num_seqs", True, "it is of type bool; expected a whole number"),
        ("gpu_memory_utilization", 1.2, "more than 0 and at most 1"),
        ("gpu_memory_utilization", 0, "more than 0"),
        ("gpu_memory_utilization", float("nan"), "expected a number"),
        ("enforce_eager", 1, "expected true or false"),
        ("attention_backend", 16, "it is of type int; expected text"),
        ("dtype", "fp16", "expected one of auto, bfloat16, float, float16, float32, half"),
        ("speculative_config", "ngram", "it is not JSON"),
    ],
)
def test_a_value_of_the_wrong_kind_or_range_is_refused(knob: str, value: Scalar, expected: str) -> None:
    refusal = only_refusal({knob: value}, "0.32.0")
    assert refusal.kind == "bad_value"
    assert expected in refusal.reason


@pytest.mark.parametrize(
    ("value", "release", "accelerator", "expected"),
    [
        ("fp8", "0.4.3", "rocm", None),
        ("fp8", "0.32.0", "cpu", None),
        ("bfloat16", "0.11.0", "rocm", None),
        ("bfloat16", "0.10.2", "rocm", "the value came with vLLM 0.11.0, and this is 0.10.2"),
        ("fp8_e5m2", "0.6.2", "cuda", None),
        ("fp8_e5m2", "0.6.2", "rocm", "does not run it on rocm; expected one of auto, fp8, fp8_e4m3."),
        ("nvfp4", "0.20.0", "cuda", None),
        ("nvfp4", "0.20.0", "rocm", "does not run it on rocm"),
        ("fp9", "0.32.0", "rocm", "no such value"),
        ("my_own_format", "0.33.0", "rocm", None),
    ],
)
def test_formats_of_the_kv_cache_follow_release_and_accelerator(
    value: str, release: str, accelerator: str, expected: str | None
) -> None:
    refusals = knobs.check({"kv_cache_dtype": value}, release=release, accelerator=accelerator)  # type: ignore[arg-type]
    assert [expected in refusal.reason for refusal in refusals if expected] == ([True] if expected else [])
    assert bool(refusals) == (expected is not None)


def test_a_value_that_was_dropped_names_the_release() -> None:
    refusal = only_refusal({"load_format": "bitsandbytes"}, "0.28.0")
    assert "the value was removed in vLLM 0.28.0" in refusal.reason


def test_a_typo_in_an_open_list_is_caught_though_the_parser_would_take_it() -> None:
    refusal = only_refusal({"load_format": "safetensor"}, "0.32.0")
    assert "'safetensors' is close" in refusal.reason
    assert not knobs.check({"load_format": "my_loader"}, release="0.32.0")


@pytest.mark.parametrize(
    ("config", "release", "expected"),
    [
        ('{"level": 3}', "0.6.5", None),
        ('{"level": 3}', "0.17.1", None),
        ('{"level": 3}', "0.18.0", "key 'level' was last taken by vLLM 0.17.1"),
        ('{"mode": 3}', "0.11.0", "key 'mode' came with vLLM 0.11.1"),
        ('{"full_cuda_graph": true}', "0.11.1", "Use cudagraph_mode"),
        ('{"cudagraph_mode": "FULL"}', "0.10.0", "came with vLLM 0.10.1"),
        ("3", "0.8.5.post1", None),
        ("3", "0.9.0", "a bare level is taken through 0.8.5.post1"),
    ],
)
def test_keys_of_the_compilation_config_follow_the_release(
    config: str, release: str, expected: str | None
) -> None:
    refusals = knobs.check({"compilation_config": config}, release=release)
    assert [expected in refusal.reason for refusal in refusals if expected] == ([True] if expected else [])
    assert bool(refusals) == (expected is not None)


# --- conflicts


def test_steps_and_chunks_exclude_each_other_through_0_6_2() -> None:
    both = {"enable_chunked_prefill": True, "num_scheduler_steps": 10}
    for release in ("0.5.5", "0.6.2"):
        refusal = only_refusal(both, release)
        assert refusal.kind == "conflict"
        assert (
            "vLLM 0.5.5 to 0.6.2 refuse several scheduler steps together with chunked prefill"
            in refusal.reason
        )
    assert not knobs.check(both, release="0.6.3")
    assert "pipeline stages" in only_refusal({**both, "pipeline_parallel_size": 2}, "0.6.3").reason
    assert not knobs.check({**both, "num_scheduler_steps": 1}, release="0.6.2")


def test_steps_and_speculation_exclude_each_other() -> None:
    refusal = only_refusal({"num_scheduler_steps": 10, "speculative_model": "[ngram]"}, "0.6.2")
    assert refusal.kind == "conflict"


def test_chunked_prefill_cannot_be_switched_off_in_v1_through_0_11_0() -> None:
    off = {"enable_chunked_prefill": False}
    for release in ("0.9.2", "0.10.2", "0.11.0"):
        refusal = only_refusal(off, release, allow_unknown=True)
        assert refusal.kind == "conflict"
        assert "forces chunked prefill on through vLLM 0.11.0" in refusal.reason
    assert not knobs.check(off, release="0.9.1")
    assert not knobs.check({**off, "num_scheduler_steps": 10}, release="0.9.2")
    assert not knobs.check(off, release="0.11.1")


def test_asking_for_v1_with_a_knob_it_lacks_fails_instead_of_falling_back() -> None:
    refusal = only_refusal({"VLLM_USE_V1": 1, "num_scheduler_steps": 10}, "0.9.2")
    assert refusal.kind == "conflict"
    assert "does not start V1 with num_scheduler_steps" in refusal.reason


def test_v0_cannot_be_asked_for_where_it_is_gone() -> None:
    refusal = only_refusal({"VLLM_USE_V1": 0}, "0.11.0")
    assert refusal.kind == "conflict"
    assert "the V0 engine is gone" in refusal.reason


def test_a_step_holds_at_least_a_token_for_every_sequence() -> None:
    refusal = only_refusal({"max_num_batched_tokens": 512, "max_num_seqs": 1024}, "0.6.2")
    assert refusal.kind == "conflict"
    assert "fewer tokens in a step than max_num_seqs = 1024" in refusal.reason
    assert not knobs.check({"max_num_batched_tokens": 1024, "max_num_seqs": 1024}, release="0.6.2")


def test_without_chunks_a_step_holds_the_longest_prompt() -> None:
    asked: dict[str, Scalar] = {
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": 4096,
        "max_model_len": 8192,
    }
    assert "max_model_len = 8192" in only_refusal(asked, "0.6.2").reason
    assert not knobs.check({**asked, "enable_chunked_prefill": True}, release="0.6.2")
    # Nothing said about chunks: 0.6.2 leaves them off for a model of 8192 tokens.
    assert only_refusal({"max_num_batched_tokens": 4096, "max_model_len": 8192}, "0.6.2").kind == "conflict"


def test_what_the_launcher_gives_is_no_knob() -> None:
    assert only_refusal({"port": 8001}, "0.32.0").kind == "conflict"
    assert "whoever starts the server" in only_refusal({"api_key": "x"}, "0.32.0").reason


# --- generations and defaults


@pytest.mark.parametrize(
    ("release", "accelerator", "assignment", "expected"),
    [
        ("0.6.2", "rocm", {}, "v0"),
        ("0.6.3", "rocm", {"VLLM_USE_V1": 1}, "v0"),  # the variable came with 0.6.4
        ("0.6.4", "rocm", {"VLLM_USE_V1": 1}, "v1"),
        ("0.7.3", "cuda", {}, "v0"),
        ("0.8.0", "cuda", {}, "v1"),
        ("0.8.0", "cuda", {"scheduling_policy": "priority"}, "v0"),
        ("0.9.2", "cuda", {"scheduling_policy": "priority"}, "v1"),
        ("0.9.1", "rocm", {}, "v0"),
        ("0.9.2", "rocm", {}, "v1"),
        ("0.9.2", "rocm", {"num_scheduler_steps": 10}, "v0"),
        ("0.9.2", "rocm", {"num_scheduler_steps": 1}, "v1"),
        ("0.10.2", "rocm", {"preemption_mode": "swap"}, "v0"),
        ("0.10.2", "rocm", {"VLLM_USE_V1": False}, "v0"),
        ("0.11.0", "rocm", {"VLLM_USE_V1": False}, "v1"),
        ("0.32.0", "cpu", {}, "v1"),
    ],
)
def test_generation_follows_release_accelerator_and_knobs(
    release: str, accelerator: str, assignment: Assignment, expected: str
) -> None:
    found = knobs.engine_generation(release, accelerator=accelerator, assignment=assignment)  # type: ignore[arg-type]
    assert found == expected


def test_defaults_of_the_article_are_those_it_calls_default() -> None:
    # "chunked prefill on, max_num_batched_tokens 512, max_num_seqs 256", for a model of 131072 positions.
    assert knobs.defaults("0.6.2") == {
        "enable_chunked_prefill": True,
        "max_num_batched_tokens": 512,
        "max_num_seqs": 256,
        "enable_prefix_caching": False,
        "gpu_memory_utilization": 0.9,
    }


def test_defaults_of_today_on_an_mi300x() -> None:
    assert knobs.defaults("0.32.0") == {
        "enable_chunked_prefill": True,
        "max_num_batched_tokens": 16384,  # 192 GiB >= 160 GiB
        "max_num_seqs": 1024,
        "enable_prefix_caching": True,
        "gpu_memory_utilization": 0.92,
        "async_scheduling": True,
    }


@pytest.mark.parametrize(
    ("release", "accelerator", "assignment", "seqs", "tokens"),
    [
        ("0.6.2", "rocm", {"enable_chunked_prefill": False}, 256, 131072),  # max(131072, 2048)
        ("0.6.2", "rocm", {"max_model_len": 1024}, 256, 2048),  # short: no chunks, max(1024, 2048)
        ("0.6.5", "rocm", {}, 256, 2048),  # a chunk is 2048 from 0.6.5
        ("0.8.0", "rocm", {}, 256, 131072),  # the rule for long models left ROCm in 0.8.0
        ("0.8.0", "rocm", {"VLLM_USE_V1": 1}, 1024, 2048),
        ("0.8.4", "rocm", {"VLLM_USE_V1": 1}, 256, 2048),
        ("0.8.4", "cuda", {}, 1024, 8192),
        ("0.9.1", "rocm", {}, 256, 131072),
        ("0.9.2", "rocm", {}, 1024, 8192),
        ("0.27.1", "rocm", {}, 1024, 8192),
        ("0.28.0", "rocm", {}, 1024, 16384),
        ("0.28.0", "cuda", {}, 1024, 8192),
        ("0.28.0", "rocm", {"performance_mode": "throughput"}, 2048, 32768),
        ("0.28.0", "rocm", {"max_num_seqs": 4, "max_model_len": 1024}, 1024, 4096),  # 4 x 1024
        ("0.28.0", "rocm", {"max_num_batched_tokens": 512}, 512, 16384),
        ("0.28.0", "rocm", {"enable_chunked_prefill": False}, 1024, 131072),
        ("0.32.0", "cpu", {"tensor_parallel_size": 2}, 256, 4096),  # 2 x 128, 2 x 2048
    ],
)
def test_default_batch_follows_release_device_and_knobs(
    release: str, accelerator: str, assignment: Assignment, seqs: int, tokens: int
) -> None:
    found = knobs.defaults(release, accelerator=accelerator, assignment=assignment)  # type: ignore[arg-type]
    assert (found["max_num_seqs"], found["max_num_batched_tokens"]) == (seqs, tokens)


def test_defaults_that_are_not_known_are_absent() -> None:
    assert "async_scheduling" not in knobs.defaults("0.9.2")
    assert "max_num_batched_tokens" not in knobs.defaults("0.6.5", assignment={"VLLM_USE_V1": 1})
    assert "max_num_seqs" not in knobs.defaults("0.12.0", accelerator="cpu")


def test_an_upgrade_of_rocm_from_0_9_1_to_0_9_2_moves_three_defaults() -> None:
    # V0 without chunks takes max(8192, 2048) tokens in a step, which is V1's 8192: that one stays.
    assert knobs.moved_defaults("0.9.1", "0.9.2", max_positions=8192) == {
        "enable_chunked_prefill": (False, True),
        "enable_prefix_caching": (False, True),
        "max_num_seqs": (256, 1024),
    }


def test_moved_defaults_show_what_one_side_does_not_have() -> None:
    assert knobs.moved_defaults("0.19.1", "0.20.0") == {"gpu_memory_utilization": (0.9, 0.92)}
    assert knobs.moved_defaults("0.13.0", "0.14.0") == {"async_scheduling": (False, True)}
    assert knobs.moved_defaults("0.9.2", "0.10.0") == {"async_scheduling": (None, False)}
    assert knobs.moved_defaults("0.6.2", "0.6.2") == {}


# --- names


def test_known_names_follow_the_release() -> None:
    old, new = knobs.known_names("0.6.2"), knobs.known_names("0.32.0")
    assert {"num_scheduler_steps", "max_num_seqs", "VLLM_RPC_TIMEOUT", "host_numa_balancing"} <= old
    assert {"async_scheduling", "max_num_seqs", "api_key", "host_numa_balancing"} <= new
    assert "num_scheduler_steps" not in new
    assert "async_scheduling" not in old


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("enable_chunked_prefill", bool),
        ("max_num_seqs", int),
        ("gpu_memory_utilization", float),
        ("kv_cache_dtype", str),
        ("VLLM_RPC_TIMEOUT", int),
        ("host_numa_balancing", bool),
        ("max_lora_rank", int),  # from the parser, not declared
        ("disable_cascade_attn", bool),
        ("no_such_knob", None),
    ],
)
def test_types_of_knobs_are_known_without_a_value(name: str, expected: type | None) -> None:
    assert knobs.knob_type(name) is expected


def test_a_description_gives_meaning_unit_releases_and_source() -> None:
    assert knobs.describe("num_scheduler_steps") == (
        "num_scheduler_steps: decode steps planned at once (V0) [steps]; in vLLM 0.5.5 to 0.10.0; "
        "source: vLLM engine arguments"
    )
    assert knobs.describe("enable_lora") == "enable_lora: in vLLM 0.4.2 to 0.33.0"
    assert knobs.describe("no_such_knob") == "no_such_knob: not known"


# --- the client


@pytest.mark.parametrize(
    ("release", "expected"), [("0.6.2", "script"), ("0.9.0.1", "script"), ("0.9.1", "command")]
)
def test_client_is_the_script_until_the_command_has_the_datasets(release: str, expected: str) -> None:
    assert knobs.bench_client(release) == expected


@pytest.mark.parametrize(
    ("flag", "release", "expected"),
    [
        ("--request-rate", "0.6.2", True),
        ("--max-concurrency", "0.6.3.post1", False),
        ("--max-concurrency", "0.6.4", True),
        ("--ignore-eos", "0.6.2", False),
        ("--temperature", "0.8.4", True),
        ("--random-output-len", "0.32.0", True),
        ("--sonnet-prefix-len", "0.31.0", True),
        ("--sonnet-prefix-len", "0.32.0", False),
        ("--endpoint-type", "0.11.1", False),
        ("--no-such-flag", "0.32.0", False),
    ],
)
def test_flags_of_the_client_follow_the_release(flag: str, release: str, expected: bool) -> None:
    assert knobs.client_flag_exists(flag, release) is expected


# --- the tables as a whole

EXPERIMENT_VALUES: dict[str, tuple[Scalar, ...]] = {
    "tensor_parallel_size": (1, 8),
    "data_parallel_size": (2,),
    "max_num_seqs": (256, 1024),
    "max_num_batched_tokens": (512, 65536),
    "max_model_len": (8192,),
    "enable_chunked_prefill": (True, False),
    "enable_prefix_caching": (True, False),
    "num_scheduler_steps": (1, 15),
    "async_scheduling": (True, False),
    "max_seq_len_to_capture": (4096, 131072),
    "cudagraph_capture_sizes": ("1 2 4",),
    "cuda_graph_sizes": ("512",),
    "kv_cache_dtype": ("auto", "fp8"),
    "swap_space": (16,),
    "dtype": ("float16",),
    "quantization": ("fp8",),
    "enforce_eager": (True, False),
    "gpu_memory_utilization": (0.9,),
    "distributed_executor_backend": ("mp",),
    "disable_log_requests": (True,),
    "disable_frontend_multiprocessing": (True,),
    "VLLM_USE_TRITON_FLASH_ATTN": (0,),
    "VLLM_RPC_TIMEOUT": (30000,),
    "VLLM_INSTALL_PUNICA_KERNELS": (1,),
    "NCCL_MIN_NCHANNELS": (112,),
    "HIP_FORCE_DEV_KERNARG": (1,),
}


@pytest.mark.parametrize("release", knobs.releases())
def test_every_knob_of_the_experiments_is_said_or_refused_with_a_release(release: str) -> None:
    order = [row["release"] for row in rows("vllm_releases.csv")]

    def holds(row: dict[str, str]) -> bool:
        first, last = row["first_version"], row["last_version"] or order[-1]
        begins = 0 if first.startswith("pre-") else order.index(first)
        return begins <= order.index(release) <= order.index(last)

    present = {
        row["name"] for table in ("vllm_flags.csv", "vllm_env_vars.csv") for row in rows(table) if holds(row)
    }
    for knob, values in EXPERIMENT_VALUES.items():
        for value in values:
            refusals = knobs.check({knob: value}, release=release)
            for refusal in refusals:
                assert re.search(r"\b0\.\d+\.\d+", refusal.reason), refusal
            if refusals or knob in ("NCCL_MIN_NCHANNELS", "HIP_FORCE_DEV_KERNARG"):
                continue
            said = [
                *knobs.command_line({knob: value}, release=release),
                *knobs.environment({knob: value}, release=release),
            ]
            if value is False and not said:
                continue  # off by silence
            name = said[0].partition("=")[0]
            positive = name.replace("--no-", "--", 1)
            assert positive in present, (release, knob, value, said)


def test_runs_in_the_tables_are_releases_in_order_and_do_not_overlap() -> None:
    order = [row["release"] for row in rows("vllm_releases.csv")]
    for table, key in (("vllm_flags.csv", "name"), ("vllm_env_vars.csv", "name")):
        ends: dict[str, int] = {}
        for row in rows(table):
            first = 0 if row["first_version"].startswith("pre-") else order.index(row["first_version"])
            last = order.index(row["last_version"]) if row["last_version"] else len(order) - 1
            assert ends.get(row[key], -1) < first <= last, row
            ends[row[key]] = last


def test_history_and_flag_table_agree_on_when_a_knob_went() -> None:
    flags: dict[str, list[dict[str, str]]] = {}
    for row in rows("vllm_flags.csv"):
        flags.setdefault(row["name"], []).append(row)
    order = [row["release"] for row in rows("vllm_releases.csv")]
    for told in rows("vllm_knob_history.csv"):
        if told["kind"] == "flag" and told["version_removed"]:
            last = order[order.index(told["version_removed"]) - 1]
            assert last in {row["last_version"] for row in flags[told["knob"]]}, told["knob"]


def test_importing_reads_no_table() -> None:
    code = "import sweeper.knobs as k, sys; print(k._table.cache_info().currsize, 'csv' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    assert done.stdout.split() == ["0", "False"]


# --- the real parser

PARSE = """
import json, sys
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.entrypoints.launchers.cli_args import make_arg_parser

lines, answers = json.load(sys.stdin), []
for line in lines:
    parsed = vars(make_arg_parser(FlexibleArgumentParser()).parse_args(line["words"]))
    answers.append({"model_tag": parsed["model_tag"], **{n: parsed[n] for n in line["names"]}})
json.dump(answers, open(sys.argv[1], "w"), default=str)
"""


@pytest.mark.vllm
@pytest.mark.slow
def test_the_real_parser_reads_what_was_meant(vllm_python: Path | str, tmp_path: Path) -> None:
    # The CPU build is distributed under another name; vLLM asks for its own to find the platform.
    stub = tmp_path / "vllm-0.32.0+cpu.dist-info"
    stub.mkdir()
    (stub / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n", encoding="utf-8"
    )
    meant: list[dict[str, Scalar]] = [
        {"enable_chunked_prefill": True, "enable_prefix_caching": True, "async_scheduling": True},
        {"enable_chunked_prefill": False, "enable_prefix_caching": False, "async_scheduling": False},
        {"enforce_eager": True, "max_num_seqs": 1024, "max_num_batched_tokens": 65536, "block_size": 128},
        {"enforce_eager": False, "disable_log_stats": False, "use_tqdm_on_load": False},
        {"gpu_memory_utilization": 0.9, "kv_cache_dtype": "fp8", "dtype": "float16", "load_format": "dummy"},
        {"tensor_parallel_size": 2, "data_parallel_size": 2, "distributed_executor_backend": "mp"},
        {"max_model_len": 8192, "kv_cache_memory_bytes": 1 << 30, "cpu_offload_gb": 2, "stream_interval": 4},
        {"max_cudagraph_capture_size": 64, "performance_mode": "throughput", "scheduling_policy": "priority"},
    ]
    lines = [{"words": ["m", *knobs.command_line(a, release="0.32.0")], "names": list(a)} for a in meant]
    lists = {
        "cudagraph_capture_sizes": "1,2,4",
        "speculative_config": '{"method": "ngram", "num_speculative_tokens": 3}',
    }
    lines.append({"words": ["m", *knobs.command_line(lists, release="0.32.0")], "names": list(lists)})
    answer = tmp_path / "answer.json"
    # The environment is the caller's, so that the interpreter finds its libraries.
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "VLLM_LOGGING_LEVEL": "ERROR"}
    done = subprocess.run(
        [str(vllm_python), "-c", PARSE, str(answer)],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers = json.loads(answer.read_text(encoding="utf-8"))
    expected: list[dict[str, object]] = [{"model_tag": "m", **assignment} for assignment in meant]
    spoken = {"method": "ngram", "num_speculative_tokens": 3}
    expected.append({"model_tag": "m", "cudagraph_capture_sizes": [1, 2, 4], "speculative_config": spoken})
    assert answers == expected
