"""Which knobs may change an answer, and why."""

from __future__ import annotations

import pytest

from sweeper import knobs


@pytest.mark.parametrize(
    ("knob", "said"),
    [
        ("kv_cache_dtype", "fewer bits"),
        ("tensor_parallel_size", "another order"),
        ("VLLM_ROCM_USE_AITER", "other kernels"),
        ("PYTORCH_TUNABLEOP_ENABLED", "on the spot"),
    ],
)
def test_knob_that_chooses_other_arithmetic_says_why(knob: str, said: str) -> None:
    assert said in str(knobs.why_answers_may_change(knob))


@pytest.mark.parametrize("knob", ["max_num_seqs", "max_model_len", "gpu_memory_utilization", "NCCL_DEBUG"])
def test_knob_that_only_schedules_changes_no_answer(knob: str) -> None:
    assert knobs.why_answers_may_change(knob) is None


def test_every_flag_of_table_exists_in_some_release() -> None:
    known = {
        name for release in ("0.6.2", "0.8.5", "0.11.0", "0.32.0") for name in knobs.known_names(release)
    }
    flags = {name for name in knobs.MAY_CHANGE_ANSWERS if not knobs.is_variable(name)}
    assert flags <= known, flags - known
