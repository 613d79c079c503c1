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
    assert (knobs.bench_flag(flag, release) is not None) is expected


def test_script_and_command_each_have_their_own_flags() -> None:
    # benchmark_serving.py of 0.9.0.1 has no --backend's predecessor; the command of 0.9.1 has no other.
    assert knobs.bench_name("0.9.0.1") == "benchmark_serving.py"
    assert knobs.bench_flag("--endpoint-type", "0.9.0.1") is None
    assert knobs.bench_flag("--endpoint-type", "0.9.1") is not None
    assert knobs.bench_flag("--best-of", "0.7.3") == knobs.BenchFlag(
        name="--best-of", takes="value", type="int"
    )
    assert knobs.bench_flag("--best-of", "0.8.0") is None


def test_flags_of_other_programs_beside_the_benchmark_are_not_its_own() -> None:
    # vllm bench sweep and the maker of text slices lie in the same folder of vLLM.
    known = knobs.every_bench_flag()
    assert not known & {"--serve-params", "--link-vars", "--input", "--output", "--num-runs", "--range-ratio"}
    assert {"--num-warmups", "--best-of", "--common-prefix-len"} <= known


def test_every_flag_says_what_follows_it() -> None:
    for release in ("0.6.2", "0.9.0.1", "0.9.1", "0.13.0", "0.32.0", "0.33.0"):
        for name in knobs.bench_flags(release):
            flag = knobs.bench_flag(name, release)
            assert flag is not None
            assert flag.takes in ("value", "list", "none", "bool")
            assert (flag.type in ("int", "float", "str", "json")) is (flag.takes == "value"), flag
