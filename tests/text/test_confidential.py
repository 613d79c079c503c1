"""Which names hold secrets, and texts without them."""

from __future__ import annotations

import pytest

from sweeper import knobs
from sweeper.text import confidential


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "S3_ACCESS_KEY_ID", "api_key", "hf_token"]
)
def test_name_says_that_it_holds_secret(name: str) -> None:
    assert confidential.holds_secret(name)
    assert confidential.may_hold_secret(name)


def test_no_knob_that_changes_engine_passes_for_secret() -> None:
    taken = {name for name in knobs.known_names("0.32.0") if confidential.holds_secret(name)}
    # S3's are not known to every release; what is left are keys and tokens in earnest.
    assert taken <= {"api_key", "hf_token", "VLLM_API_KEY", "S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"}
    for name in ("max_num_batched_tokens", "VLLM_SHARED_EXPERTS_STREAM_TOKEN_THRESHOLD", "allow_credentials"):
        assert not confidential.holds_secret(name)


def test_secret_among_words_of_command_is_found() -> None:
    assert confidential.assigned_secret(["docker", "run", "-e", "HF_TOKEN=abc"]) == "HF_TOKEN"
    assert confidential.assigned_secret(["docker", "run", "--env=HF_TOKEN=abc"]) == "HF_TOKEN"
    assert confidential.assigned_secret(["program", "--api-key=abc"]) == "api-key"
    assert confidential.assigned_secret(["program", "--api-key", "abc"]) == "--api-key"
    assert confidential.assigned_secret(["env", "A=hf_AbCdEfGhIjKlMnOpQrSt"]) == "A"
    assert confidential.assigned_secret(["docker", "run", "--env", "HF_TOKEN", "--ipc=host"]) is None
    assert confidential.assigned_secret(["docker", "-v", "/etc/secret:/etc/secret", "--api-key"]) is None


def test_values_of_secrets_are_masked_in_text() -> None:
    environment = {"HF_TOKEN": "hf_0123456789", "HOME": "/home/someone", "A_KEY": "short"}
    text = "401 for hf_0123456789 in /home/someone, short"
    assert confidential.redacted(text, environment) == "401 for *** in /home/someone, short"


# URLs


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("postgresql+psycopg://me:pa/ss@host/db", "postgresql+psycopg://me:***@host/db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://host/db?user=me&password=x&a=1", "postgresql://host/db?user=me&password=***&a=1"),
        ("study.storage=postgresql://me:x@host/db", "study.storage=postgresql://me:***@host/db"),
        ("s3://key:hidden@bucket/folder", "s3://key:***@bucket/folder"),
        ("outputs/a:b@c", "outputs/a:b@c"),
    ],
)
def test_passwords_are_masked_and_rest_is_kept(given: str, shown: str) -> None:
    assert confidential.masked(given) == shown
    assert confidential.has_password(given) is (given != shown)


def test_nested_content_is_masked_everywhere() -> None:
    content = {"study": {"storage": "a://u:p@h", "trials": 3}, "list": ["a://u:p@h", None, True]}
    assert confidential.masked(content) == {
        "study": {"storage": "a://u:***@h", "trials": 3},
        "list": ["a://u:***@h", None, True],
    }


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("amqp://user:pa@ss@host/x", "amqp://user:***@host/x"),
        ("redis://:hidden@host:6379/0", "redis://:***@host:6379/0"),
        ("http://me@firm.com:hidden@proxy:3128", "http://me@firm.com:***@proxy:3128"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
    ],
)
def test_passwords_of_any_kind_of_url_are_masked(given: str, shown: str) -> None:
    assert confidential.masked(given) == shown


# What others say

SAID = [
    ("cannot log in: pwd='hidden-of-bob'", "cannot log in: pwd=***"),
    ('{"user": "bob", "token": "hidden4of4bob"}', '{"user": "bob", "token": ***}'),
    ("export TOKEN=hidden-of-bob", "export TOKEN=***"),
    ("Password for user bob: hidden-of-bob", "Password for user bob: ***"),
    (
        "OperationalError: postgresql+psycopg://sweeper:hunter2x@db:5432/studies refused",
        "OperationalError: postgresql+psycopg://sweeper:***@db:5432/studies refused",
    ),
    ("cannot reach mongodb://root:S3cr3t/x@h1,h2/db", "cannot reach mongodb://root:***@h1,h2/db"),
    ("ProxyError: https_proxy=http://me:hidden1@proxy:80", "ProxyError: https_proxy=http://me:***@proxy:80"),
    ("git clone https://abcdef0123456789abcd@host/x", "git clone https://***@host/x"),
    ("GET https://store/x?sig=abc%2Fdef&v=1", "GET https://store/x?sig=***&v=1"),
    ("{'Authorization': 'Bearer abc.def-123'}", "{'Authorization': ***}"),
    ("Authorization: Basic dXNlcjpwYXNz refused", "Authorization: *** refused"),
    ("sent bearer 0123456789abcdef", "sent bearer ***"),
    ("api_server.py: error: --api-key my-own-key is not", "api_server.py: error: --api-key *** is not"),
    ("args: Namespace(api_key='my-own-key', port=1)", "args: Namespace(api_key=***, port=1)"),
    ('{"password": "hunter2", "user": "me"}', '{"password": ***, "user": "me"}'),
    ("password=hunter2 host=db", "password=*** host=db"),
    ("DB_PASS=hunter2; HF_TOKEN=abc", "DB_PASS=***; HF_TOKEN=***"),
    ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG", "aws_secret_access_key = ***"),
    ("key AKIAIOSFODNN7EXAMPLE is not known", "key *** is not known"),
    ("401 for hf_AbCdEfGhIjKlMnOpQrStUvWx", "401 for ***"),
    ("sk-proj-0123456789abcdefghij is wrong", "*** is wrong"),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "***"),
    ("eyJhbGciOiJIUzI1.eyJzdWIiOiIx.c2ln", "***"),
]


@pytest.mark.parametrize(("said", "kept"), SAID)
def test_what_has_form_of_secret_is_masked_in_what_others_say(said: str, kept: str) -> None:
    assert confidential.redacted(said, {}) == kept
    # Once more changes nothing.
    assert confidential.redacted(kept, {}) == kept


@pytest.mark.parametrize(
    "said",
    [
        "OSError: pwd=/work/run, PWD: ./here",
        '{"token": "<|endoftext|>", "token_count": 12}',
        "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 2.00 GiB",
        "ValueError: max_num_batched_tokens (2048) is smaller than max_model_len (4096)",
        "KeyError: 'model.layers.0.self_attn.q_proj.weight'",
        "eos_token='</s>', pad_token: <pad>, token_ids=[1, 2], tokens: 128",
        'FATAL: password authentication failed for user "me"',
        "ValueError: Free memory on device (3.49/191.98 GiB) on startup is less than desired",
        "unexpected key in state dict: lm_head.weight",
        "http://127.0.0.1:8000/v1/completions answered 500",
        "api_key=None, hf_token=None",
        "hf_overrides, hf_config_path and hf_quantization_config differ",
        "basic arithmetic and bearer of news",
        "tokenizer: meta-llama/Llama-3.1-8B, mode auto",
    ],
)
def test_what_tells_cause_is_kept_as_it_was_said(said: str) -> None:
    assert confidential.redacted(said, {"PWD": "/home/someone/x", "HOME": "/home/someone"}) == said


def test_passwords_in_urls_of_environment_are_masked_alone() -> None:
    environment = {"DATABASE_URL": "postgresql://me:correcthorse@db/x", "PGPASSWORD": "batterystaple"}
    said = "FATAL: correcthorse is not batterystaple, says the server with k3y-0123456789"
    told = confidential.redacted(said, environment, known=["k3y-0123456789"])
    assert told == "FATAL: *** is not ***, says the server with ***"
