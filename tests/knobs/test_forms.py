"""Every trap in how a release writes a value: switches, lists, JSON, variables, the shell."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper import knobs
from sweeper.errors import KnobError
from sweeper.records import Scalar
from tests.knobs.asking import only_refusal, words


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
def test_chunked_prefill_is_said_in_form_of_release(release: str, on: str, off: str) -> None:
    assert words({"enable_chunked_prefill": True}, release) == on
    assert words({"enable_chunked_prefill": False}, release) == off


@pytest.mark.parametrize(
    ("release", "off"),
    [("0.6.4.post1", ""), ("0.6.5", "--no-enable-prefix-caching"), ("0.33.0", "--no-enable-prefix-caching")],
)
def test_prefix_caching_is_switched_off_by_silence_until_it_has_twin(release: str, off: str) -> None:
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


def test_switch_without_twin_is_off_by_silence() -> None:
    assert words({"enforce_eager": False}, "0.8.5") == ""
    assert words({"enforce_eager": False}, "0.9.0") == "--no-enforce-eager"
    assert words({"disable_log_stats": False}, "0.32.0") == ""


def test_off_is_refused_where_switch_is_on_by_default_and_has_no_twin() -> None:
    with pytest.raises(
        KnobError, match=r"False cannot be said in vLLM 0\.12\.0, .*on by default there\. Leave"
    ):
        knobs.command_line({"disable_log_requests": False}, release="0.12.0")
    assert only_refusal({"disable_log_requests": False}, "0.12.0").kind == "bad_value"
    assert words({"disable_log_requests": False}, "0.6.2") == ""


def test_word_for_switch_is_refused_because_vllm_would_take_it_for_model() -> None:
    with pytest.raises(KnobError, match="the value is 'False'; expected true or false"):
        knobs.command_line({"enable_chunked_prefill": "False"}, release="0.32.0")
    refusal = only_refusal({"enable_chunked_prefill": "False"}, "0.32.0")
    assert refusal.kind == "bad_value"
    assert refusal.message == (
        "knob 'enable_chunked_prefill' = 'False': it is of type str; expected true or false. "
        "Write it without quotes."
    )


def test_json_stays_one_word_and_list_becomes_several() -> None:
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


def test_value_that_begins_with_dash_is_tied_to_its_flag() -> None:
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


def test_line_survives_shell_unchanged() -> None:
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
def test_order_of_knobs_does_not_change_command(order: list[str]) -> None:
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
