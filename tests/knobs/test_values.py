"""Values of the wrong kind, out of range, or that a release does not list."""

from __future__ import annotations

import pytest

from sweeper import knobs
from sweeper.records import Scalar
from tests.knobs.asking import only_refusal


@pytest.mark.parametrize(
    ("knob", "value", "expected"),
    [
        ("max_num_seqs", 0, "at least 1"),
        ("max_num_seqs", "256", "it is of type str; expected a whole number. Write it without quotes."),
        ("max_num_seqs", "many", "it is of type str; expected a whole number. Correct it."),
        ("max_num_seqs", 1.5, "it is of type float; expected a whole number. Correct it."),
        ("enable_prefix_caching", "on", "it is of type str; expected true or false. Correct it."),
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
def test_value_of_wrong_kind_or_range_is_refused(knob: str, value: Scalar, expected: str) -> None:
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
def test_formats_of_kv_cache_follow_release_and_accelerator(
    value: str, release: str, accelerator: str, expected: str | None
) -> None:
    refusals = knobs.check({"kv_cache_dtype": value}, release=release, accelerator=accelerator)  # type: ignore[arg-type]
    assert [expected in refusal.reason for refusal in refusals if expected] == ([True] if expected else [])
    assert bool(refusals) == (expected is not None)


def test_value_that_was_dropped_names_release() -> None:
    refusal = only_refusal({"load_format": "bitsandbytes"}, "0.28.0")
    assert "the value was removed in vLLM 0.28.0" in refusal.reason


def test_typo_in_open_list_is_caught_though_parser_would_take_it() -> None:
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
def test_keys_of_compilation_config_follow_release(config: str, release: str, expected: str | None) -> None:
    refusals = knobs.check({"compilation_config": config}, release=release)
    assert [expected in refusal.reason for refusal in refusals if expected] == ([True] if expected else [])
    assert bool(refusals) == (expected is not None)
