"""Which names hold secrets, and texts without them."""

from __future__ import annotations

import pytest

from sweeper import confidential, knobs


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "S3_ACCESS_KEY_ID", "api_key", "hf_token"]
)
def test_a_name_says_that_it_holds_a_secret(name: str) -> None:
    assert confidential.holds_secret(name)
    assert confidential.may_hold_secret(name)


def test_no_knob_that_changes_the_engine_passes_for_a_secret() -> None:
    taken = {name for name in knobs.known_names("0.32.0") if confidential.holds_secret(name)}
    # S3's are not known to every release; what is left are keys and tokens in earnest.
    assert taken <= {"api_key", "hf_token", "VLLM_API_KEY", "S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"}
    for name in ("max_num_batched_tokens", "VLLM_SHARED_EXPERTS_STREAM_TOKEN_THRESHOLD", "allow_credentials"):
        assert not confidential.holds_secret(name)


def test_a_secret_among_the_words_of_a_command_is_found() -> None:
    assert confidential.assigned_secret(["docker", "run", "-e", "HF_TOKEN=abc"]) == "HF_TOKEN"
    assert confidential.assigned_secret(["docker", "run", "--env=HF_TOKEN=abc"]) == "HF_TOKEN"
    assert confidential.assigned_secret(["program", "--api-key=abc"]) == "api-key"
    assert confidential.assigned_secret(["docker", "run", "--env", "HF_TOKEN", "--ipc=host"]) is None


def test_the_values_of_secrets_are_masked_in_a_text() -> None:
    environment = {"HF_TOKEN": "hf_0123456789", "HOME": "/home/someone", "A_KEY": "short"}
    text = "401 for hf_0123456789 in /home/someone, short"
    assert confidential.redacted(text, environment) == "401 for *** in /home/someone, short"
