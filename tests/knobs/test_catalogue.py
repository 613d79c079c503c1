"""What is known of a knob without its value."""

from __future__ import annotations

import pytest

from sweeper import knobs


def test_known_names_follow_release() -> None:
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
def test_types_of_knobs_are_known_without_value(name: str, expected: type | None) -> None:
    assert knobs.knob_type(name) is expected


def test_description_gives_meaning_unit_releases_and_source() -> None:
    assert knobs.describe("num_scheduler_steps") == (
        "num_scheduler_steps: decode steps planned at once (V0) [steps]; in vLLM 0.5.5 to 0.10.0; "
        "source: vLLM engine arguments"
    )
    assert knobs.describe("enable_lora") == "enable_lora: in vLLM 0.4.2 to 0.33.0"
    assert knobs.describe("VLLM_REQUEST_BODY_LOG_LEVEL") == "VLLM_REQUEST_BODY_LOG_LEVEL: in vLLM 0.33.0"
    assert knobs.describe("no_such_knob") == "no_such_knob: not known"
