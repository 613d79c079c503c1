"""What server and client are told alike."""

from __future__ import annotations

import pytest

from sweeper import knobs
from sweeper.records import Scalar


def test_client_is_told_of_tokenizer_what_server_was() -> None:
    asked: dict[str, Scalar] = {"trust_remote_code": True, "tokenizer_mode": "slow", "max_num_seqs": 8}
    assert knobs.client_arguments(asked, release="0.32.0", tokenizer="/models/kimi") == (
        *("--tokenizer", "/models/kimi"),
        *("--tokenizer-mode", "slow"),
        "--trust-remote-code",
    )
    off = knobs.client_arguments({"trust_remote_code": False}, release="0.32.0", tokenizer="kimi")
    assert off == ("--tokenizer", "kimi")


def test_tgis_variable_is_heeded_as_its_flag_is() -> None:
    told = knobs.client_arguments({"TRUST_REMOTE_CODE": "true"}, release="0.32.0", tokenizer="kimi")
    assert "--trust-remote-code" in told


def test_mode_that_release_cannot_be_told_is_refused() -> None:
    asked: dict[str, Scalar] = {"tokenizer_mode": "mistral"}
    (refusal,) = knobs.refuse_unshared(asked, release="0.6.4", client="vllm_bench")
    assert "it has --tokenizer-mode from 0.6.5" in refusal.reason
    assert not list(knobs.refuse_unshared(asked, release="0.6.5", client="vllm_bench"))
    # Locust sends token ids and has no tokenizer.
    assert not list(knobs.refuse_unshared(asked, release="0.6.4", client="locust"))


@pytest.mark.parametrize(("client", "refusals"), [("vllm_bench", 1), ("locust", 1), ("offline", 0)])
def test_server_without_tokenizer_answers_no_text(client: str, refusals: int) -> None:
    asked: dict[str, Scalar] = {"skip_tokenizer_init": True}
    assert len(list(knobs.refuse_unshared(asked, release="0.32.0", client=client))) == refusals


def test_where_models_are_looked_up_is_told_to_both() -> None:
    asked: dict[str, Scalar] = {"HF_HOME": "/big/hf", "VLLM_USE_MODELSCOPE": True, "NCCL_DEBUG": "INFO"}
    assert knobs.client_variables(asked, release="0.32.0") == {
        "HF_HOME": "/big/hf",
        "VLLM_USE_MODELSCOPE": "1",
    }
