"""The load generator that goes with a release."""

from __future__ import annotations

import pytest

from sweeper import knobs


@pytest.mark.parametrize(
    ("release", "expected"), [("0.6.2", "script"), ("0.9.0.1", "script"), ("0.9.1", "command")]
)
def test_client_is_script_until_command_has_datasets(release: str, expected: str) -> None:
    assert knobs.bench_client(release) == expected


@pytest.mark.parametrize(
    ("flag", "release", "expected"),
    [
        ("--request-rate", "0.6.2", True),
        ("--max-concurrency", "0.6.3.post1", False),
        ("--max-concurrency", "0.6.4", True),
        ("--ignore-eos", "0.6.2", False),
        ("--temperature", "0.8.4", True),
        ("--random-output-len", "0.32.0", True),
        ("--sonnet-prefix-len", "0.31.0", True),
        ("--sonnet-prefix-len", "0.32.0", False),
        ("--endpoint-type", "0.11.1", False),
        ("--no-such-flag", "0.32.0", False),
    ],
)
def test_flags_of_client_follow_release(flag: str, release: str, expected: bool) -> None:
    assert knobs.client_flag_exists(flag, release) is expected
