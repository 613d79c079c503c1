"""Every command that the source documents print, as one assignment and one line."""

from __future__ import annotations

import re

import pytest

from sweeper import knobs
from sweeper.records import Assignment, Scalar
from tests.knobs.asking import words

ARTICLE = "0.6.2"


ARTICLE_ENVIRONMENT = {"VLLM_USE_TRITON_FLASH_ATTN": 0, "VLLM_RPC_TIMEOUT": 30000}


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
def test_series_of_article_become_flags_of_its_release(assignment: Assignment, expected: str) -> None:
    assert words(assignment, ARTICLE) == expected
    assert not knobs.check({**assignment, **ARTICLE_ENVIRONMENT}, release=ARTICLE)


def test_quick_start_of_article_is_one_line_to_paste() -> None:
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
    # The line says under which name it serves; a knob may not, since the sweeper says so itself.
    (refusal,) = knobs.check(tuned, release=ARTICLE)
    assert refusal.knob == "served_model_name"


def test_405b_command_of_article_has_its_environment_in_front() -> None:
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


def test_amd_environment_of_case_5_leaves_host_out_of_server() -> None:
    case5 = {"host_numa_balancing": False, "NCCL_MIN_NCHANNELS": 112, "max_num_seqs": 256}
    assert knobs.environment(case5, release=ARTICLE) == {"NCCL_MIN_NCHANNELS": "112"}
    assert words(case5, ARTICLE) == "--max-num-seqs 256"
    assert knobs.serve_line(case5, release=ARTICLE, model="m") == (
        "# needs: sysctl kernel.numa_balancing=0\n"
        "NCCL_MIN_NCHANNELS=112 vllm serve m --port 8000 --max-num-seqs 256"
    )
    assert not knobs.check(case5, release=ARTICLE)


def test_validation_recipe_of_0_4_3_uses_module_and_amds_own_variables() -> None:
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


def test_several_gpus_of_validation_recipe_use_processes() -> None:
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


def test_tgi_comparison_ran_on_development_build() -> None:
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
