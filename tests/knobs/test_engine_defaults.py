"""What holds when a knob is left out, and where that moved."""

from __future__ import annotations

from typing import Any

import pytest

from sweeper import knobs
from sweeper.records import Assignment, Scalar


def test_defaults_of_article_are_those_it_calls_default() -> None:
    # "chunked prefill on, max_num_batched_tokens 512, max_num_seqs 256", for a model of 131072 positions.
    assert knobs.defaults("0.6.2") == {
        "enable_chunked_prefill": True,
        "max_num_batched_tokens": 512,
        "max_num_seqs": 256,
        "enable_prefix_caching": False,
        "gpu_memory_utilization": 0.9,
    }


def test_defaults_of_today_on_mi300x() -> None:
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


def moved(old: str, new: str, **of: Any) -> dict[str, tuple[Scalar | None, Scalar | None]]:
    """Return the defaults that differ between two releases; None where there is none or none is known."""
    before, after = knobs.defaults(old, **of), knobs.defaults(new, **of)
    names = sorted({*before, *after})
    return {
        name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)
    }


def test_upgrade_of_rocm_from_0_9_1_to_0_9_2_moves_three_defaults() -> None:
    # V0 without chunks takes max(8192, 2048) tokens in a step, which is V1's 8192: that one stays.
    assert moved("0.9.1", "0.9.2", max_positions=8192) == {
        "enable_chunked_prefill": (False, True),
        "enable_prefix_caching": (False, True),
        "max_num_seqs": (256, 1024),
    }


def test_moved_defaults_show_what_one_side_does_not_have() -> None:
    assert moved("0.19.1", "0.20.0") == {"gpu_memory_utilization": (0.9, 0.92)}
    assert moved("0.13.0", "0.14.0") == {"async_scheduling": (False, True)}
    assert moved("0.9.2", "0.10.0") == {"async_scheduling": (None, False)}
    assert moved("0.6.2", "0.6.2") == {}


def test_several_scheduler_steps_cut_no_prompt_and_so_have_a_budget_for_the_longest() -> None:
    asked = {"enable_chunked_prefill": True, "max_model_len": 8192}
    one = knobs.defaults("0.6.6", assignment=asked)
    several = knobs.defaults("0.6.6", assignment={**asked, "num_scheduler_steps": 8})
    assert (one["max_num_batched_tokens"], several["max_num_batched_tokens"]) == (2048, 8192)
