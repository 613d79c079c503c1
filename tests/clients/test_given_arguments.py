"""The user's arguments in a release's words, held against the parser of the real one."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sweeper import knobs
from sweeper.clients import bench_script, given_arguments, requirements, vllm_bench
from sweeper.config import client_arguments
from sweeper.errors import ConfigError
from sweeper.records import ClientSpec, EngineSpec, GivenArgument
from tests.clients.test_sendable import POINTS
from tests.standin_server import make_spec

RELEASE = "0.32.0"
VALUES: dict[str, Any] = {"int": 3, "float": 0.5, "str": "-x", "json": '{"a": 1}'}
# Texts that the real parser takes only some of, and JSON of a kind.
CHOSEN: dict[str, Any] = {
    "lora_assignment": "round-robin",
    "speed_bench_dataset_subset": "qualitative",
    "random_mm_bucket_config": "{(256, 256, 1): 1.0}",
    "bfcl_categories": "simple,multiple",
}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("num_warmups", 3), ["--num-warmups=3"]),
        (("probe_request_rate", 2), ["--probe-request-rate=2"]),
        (("label", "-a b"), ["--label=-a b"]),
        (("label", 7), ["--label=7"]),
        (("profile", True), ["--profile"]),
        (("profile", False), []),
        (("metadata", ("a=1", "b=2")), ["--metadata", "a=1", "b=2"]),
        (("header", "x-user=me"), ["--header", "x-user=me"]),
        (("chat_template_kwargs", '{"thinking": false}'), ['--chat-template-kwargs={"thinking": false}']),
    ],
)
def test_value_is_written_as_the_flag_takes_it(given: GivenArgument, words: list[str]) -> None:
    assert given_arguments.words((given,), release=RELEASE) == words


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("num_warmups", 0.5), r"is 0\.5; expected a whole number, as --num-warmups of vLLM 0\.32\.0 takes"),
        (("num_warmups", True), r"is true; expected a whole number"),
        (("probe_request_rate", "fast"), r"is 'fast'; expected a number,"),
        (("label", ("a", "b")), r"is \('a', 'b'\); expected a text or a number"),
        (("profile", 1), r"is 1; expected true or false, as --profile"),
        (("chat_template_kwargs", "{thinking"), r"is '\{thinking'; expected JSON, or a mapping"),
        (
            ("best_of", 2),
            r"is 2, and vllm bench serve of vLLM 0\.32\.0 has no --best-of \(it is in 0\.8\.5 and later, b",
        ),
    ],
)
def test_value_of_another_kind_is_refused(given: GivenArgument, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^client\.arguments\.{given[0]}: {message}"):
        given_arguments.check((given,), release=RELEASE)


def test_release_without_the_argument_refuses_it_with_the_one_that_brought_it() -> None:
    with pytest.raises(ConfigError, match=r"vLLM 0\.11\.0 has no --num-warmups \(it came with 0\.11\.1\)"):
        given_arguments.check((("num_warmups", 3),), release="0.11.0")
    with pytest.raises(ConfigError, match=r"benchmark_serving\.py of vLLM 0\.6\.2 has no --lora-modules"):
        given_arguments.check((("lora_modules", ("a",)),), release="0.6.2")
    assert given_arguments.words((("best_of", 2),), release="0.6.2") == ["--best-of=2"]


@pytest.mark.parametrize(
    ("release", "client"), [("0.11.0", ClientSpec()), ("0.9.0.1", ClientSpec(script="benchmarks"))]
)
def test_argument_is_refused_before_anything_starts(release: str, client: ClientSpec) -> None:
    asked = ClientSpec(script=client.script, arguments=(("num_warmups", 3),))
    with pytest.raises(
        ConfigError, match=r"client\.arguments\.num_warmups: is 3, and .* has no --num-warmups"
    ):
        requirements.check(asked, [POINTS["random"]], engine=EngineSpec(kind="vllm", release=release))


def test_arguments_stand_in_the_command_of_client_and_script(tmp_path: Path) -> None:
    client = ClientSpec(arguments=(("logprobs", 2), ("metadata", ("a=1",))))
    spec = make_spec(tmp_path, tmp_path / "python", client=client)
    where: dict[str, Any] = {"base_url": "http://127.0.0.1:1", "result": tmp_path / "r.json"}
    command = vllm_bench.benchmark_arguments(spec, POINTS["random"], release=RELEASE, **where)
    plain = POINTS["sharegpt"]
    script = bench_script.script_arguments(spec, plain, release="0.6.2", **where)
    for line in (command, script):
        place = line.index("--logprobs=2")
        assert line[place + 1 : place + 3] == ["--metadata", "a=1"]
        assert line[place + 3].startswith("--")


def may_be_given(release: str) -> list[GivenArgument]:
    """Return every argument of a release that no key of ours sets, with a value of its type."""
    found: list[GivenArgument] = []
    for flag_name in knobs.bench_flags(release):
        flag = knobs.bench_flag(flag_name, release)
        assert flag is not None
        name = flag_name.removeprefix("--").replace("-", "_")
        value = {"none": True, "bool": True, "list": ("a=1", "b=2")}.get(flag.takes, VALUES.get(flag.type))
        try:
            found += client_arguments.of({name: CHOSEN.get(name, value)}, POINTS.values())
        except ConfigError:
            continue
    return found


@pytest.mark.parametrize("release", ["0.9.1", "0.13.0", "0.24.0", "0.33.0"])
def test_every_free_argument_of_a_release_is_written(release: str) -> None:
    free = may_be_given(release)
    assert len(free) >= 6
    words = given_arguments.words(free, release=release)
    assert [word.partition("=")[0] for word in words if word.startswith("--")] == [
        f"--{name.replace('_', '-')}" for name, _ in free
    ]


_PARSER = """
import argparse, json, sys
from vllm.benchmarks.serve import add_cli_args
parser = argparse.ArgumentParser()
add_cli_args(parser)
for line in json.load(sys.stdin):
    parser.parse_args(line)
takes = {"_StoreTrueAction": "none", "BooleanOptionalAction": "bool"}
types = {"int": "int", "float": "float", "loads": "json"}
found = {}
for action in parser._actions:
    for name in action.option_strings:
        kind = takes.get(type(action).__name__) or ("list" if action.nargs in ("*", "+") else "value")
        of = types.get(getattr(action.type, "__name__", ""), "str") if kind == "value" else ""
        found[name] = [kind, of]
print("FLAGS" + json.dumps(found))
"""


@pytest.mark.vllm
def test_real_parser_has_just_these_flags_and_takes_every_argument(vllm_python: str, tmp_path: Path) -> None:
    free = may_be_given(RELEASE)
    lines = [
        ["--model", "m", "--num-prompts", "8", *given_arguments.words((one,), release=RELEASE)]
        for one in free
    ]
    found = subprocess.run(
        [vllm_python, "-c", _PARSER],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        timeout=300,
        # What it imports keeps a cache in the temporary folder.
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert found.returncode == 0, found.stderr[-2000:]
    told = next(line for line in found.stdout.splitlines() if line.startswith("FLAGS"))
    real = json.loads(told.removeprefix("FLAGS"))
    for made_by_argparse in ("-h", "--help", "--no-self-timed"):
        del real[made_by_argparse]
    ours = {name: knobs.bench_flag(name, RELEASE) for name in knobs.bench_flags(RELEASE)}
    assert {name: [flag.takes, flag.type] for name, flag in ours.items() if flag is not None} == real
    assert len(lines) >= 15
