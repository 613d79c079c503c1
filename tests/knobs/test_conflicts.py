"""Knobs that cannot stand together, and from which release to which."""

from __future__ import annotations

from sweeper import knobs
from sweeper.records import Scalar
from tests.knobs.asking import only_refusal


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


BUILD = "0.11.1rc2.dev141"


def test_fact_about_releases_may_not_hold_for_build_between_them() -> None:
    off: dict[str, Scalar] = {"enable_chunked_prefill": False}
    refusal = only_refusal(off, BUILD)
    assert refusal.reason.endswith("0.11.1rc2.dev141 is no release: engine.allow_unknown=true tries it.")
    assert not knobs.check(off, release=BUILD, allow_unknown=True)
    # A build that is only taken for a release may be as different from it.
    stated = only_refusal(off, "0.11.0", build="0.1.dev9453")
    assert "0.1.dev9453 is no release" in stated.reason
    assert not knobs.check(off, release="0.11.0", build="0.1.dev9453", allow_unknown=True)


def test_steps_that_0_6_2_refuses_may_be_tried_on_build_after_it() -> None:
    both = {"enable_chunked_prefill": True, "num_scheduler_steps": 10}
    assert only_refusal(both, "0.6.3.dev116").is_fact
    assert not knobs.check(both, release="0.6.3.dev116", allow_unknown=True)


def test_logic_holds_for_every_build() -> None:
    for asked in (
        {"max_num_batched_tokens": 512, "max_num_seqs": 1024},
        {"enable_chunked_prefill": False, "max_num_batched_tokens": 4096, "max_model_len": 8192},
        {"tensor_parallel_size": 4, "decode_context_parallel_size": 3},
    ):
        assert only_refusal(asked, BUILD, allow_unknown=True).kind == "conflict"


def test_asking_for_v1_with_knob_it_lacks_fails_instead_of_falling_back() -> None:
    refusal = only_refusal({"VLLM_USE_V1": 1, "num_scheduler_steps": 10}, "0.9.2")
    assert refusal.kind == "conflict"
    assert "does not start V1 with num_scheduler_steps" in refusal.reason


def test_v0_cannot_be_asked_for_where_it_is_gone() -> None:
    refusal = only_refusal({"VLLM_USE_V1": 0}, "0.11.0")
    assert refusal.kind == "conflict"
    assert "the V0 engine is gone" in refusal.reason


def test_step_holds_at_least_token_for_every_sequence() -> None:
    refusal = only_refusal({"max_num_batched_tokens": 512, "max_num_seqs": 1024}, "0.6.2")
    assert refusal.kind == "conflict"
    assert "fewer tokens in a step than max_num_seqs = 1024" in refusal.reason
    assert not knobs.check({"max_num_batched_tokens": 1024, "max_num_seqs": 1024}, release="0.6.2")


def test_without_chunks_step_holds_longest_prompt() -> None:
    asked: dict[str, Scalar] = {
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": 4096,
        "max_model_len": 8192,
    }
    assert "max_model_len = 8192" in only_refusal(asked, "0.6.2").reason
    assert not knobs.check({**asked, "enable_chunked_prefill": True}, release="0.6.2")
    # Nothing said about chunks: 0.6.2 leaves them off for a model of 8192 tokens.
    assert only_refusal({"max_num_batched_tokens": 4096, "max_model_len": 8192}, "0.6.2").kind == "conflict"


def test_what_launcher_gives_is_no_knob() -> None:
    assert only_refusal({"port": 8001}, "0.32.0").kind == "conflict"
    assert only_refusal({"port": 8001}, "0.32.0", allow_unknown=True).is_mistake
    assert "whoever starts the server" in only_refusal({"api_key": "x"}, "0.32.0").reason
