"""What a client needs is missed before anything starts, in one sentence that says how to get it."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.clients import conversations, requirements
from sweeper.errors import ConfigError, MissingFileError
from sweeper.records import ClientSpec, EngineSpec, LoadPoint
from sweeper.workload import sharegpt
from tests.standin_benchmarks import write_scripts
from tests.standin_server import POINT, make_spec

NOW = EngineSpec(kind="vllm", release="0.32.0", python="python")
OLD = replace(NOW, release="0.6.2")
SHAREGPT = LoadPoint(dataset="sharegpt", num_prompts=10)
LATENCY = LoadPoint(dataset="latency", num_prompts=1, input_len=8, output_len=1)


def test_missing_sharegpt_file_is_told_with_its_source_and_its_substitute(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        requirements.check(ClientSpec(), [SHAREGPT], engine=NOW)
    assert str(caught.value) == (
        "workload.dataset_path: is not given; expected a file in ShareGPT's format for dataset sharegpt. "
        "Make one with the same lengths: python -m sweeper sharegpt sharegpt.json (or download "
        "ShareGPT_V3_unfiltered_cleaned_split.json from https://huggingface.co/datasets/"
        "anon8231489123/ShareGPT_Vicuna_unfiltered/resolve/main/ShareGPT_V3_unfiltered_cleaned_split.json). "
        "Then set workload.dataset_path=sharegpt.json."
    )
    path = tmp_path / "share.json"
    with pytest.raises(MissingFileError, match=rf"there is no file .*python -m sweeper sharegpt {path} "):
        requirements.check_sharegpt_file(str(path))
    sharegpt.write(path, count=3, seed=0)
    requirements.check_sharegpt_file(str(path))
    requirements.check(ClientSpec(), [replace(SHAREGPT, dataset_path=str(path))], engine=NOW)


@pytest.mark.parametrize(
    ("damaged", "told"),
    [
        (lambda text: text[:-200], "is cut off: its list of conversations has no end"),
        (lambda text: text.rstrip()[:-1], "is cut off: its list of conversations has no end"),
        (lambda text: text.replace('"gpt"', '"gp', 1), "is no JSON within its first"),
        (lambda text: text + text, "goes on after the end of its list"),
        (lambda text: "<html>not found</html>", "is no JSON list of conversations"),
        (lambda text: "", "is no JSON list of conversations"),
        (lambda text: '{"conversations": []}', "is no JSON list of conversations"),
        (lambda text: "[" * 5000, "is no JSON within its first"),
        (lambda text: "[]", "is an empty list"),
        (lambda text: text.replace('"conversations"', '"messages"'), 'has two turns under "conversations"'),
        (lambda text: text.replace('"value"', '"content"'), 'has a turn without a text under "value"'),
        (lambda text: '["a conversation"]', "is a str; expected an object"),
        (lambda text: '[{"conversations": "value"}]', "has conversations that are no list of turns"),
    ],
)
def test_file_that_is_no_whole_sharegpt_is_refused(
    tmp_path: Path, damaged: Callable[[str], str], told: str
) -> None:
    path = tmp_path / "share.json"
    sharegpt.write(path, count=3, seed=0)
    path.write_text(damaged(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        requirements.check_sharegpt_file(str(path))
    assert str(caught.value).startswith(f"workload.dataset_path: {path} ")
    assert told in str(caught.value)


def write_conversations(path: Path, turns: list[list[str]]) -> Path:
    content = [{"conversations": [{"from": "x", "value": text} for text in texts]} for texts in turns]
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


LONG = "how does a cache keep what it has seen"


def test_file_of_which_sampler_keeps_nothing_is_refused(tmp_path: Path) -> None:
    questions = write_conversations(tmp_path / "questions.json", [[LONG]] * 40)
    with pytest.raises(ConfigError, match=r"has 40 entries, none of which has two turns"):
        requirements.check_sharegpt_file(str(questions))
    short = write_conversations(tmp_path / "short.json", [[f"x {i}", f"x {i}"] for i in range(40)])
    with pytest.raises(ConfigError, match=r"has 40 conversations, all too short or too long"):
        requirements.check_sharegpt_file(str(short))
    endless = write_conversations(tmp_path / "endless.json", [["word " * 1025, LONG]])
    with pytest.raises(ConfigError, match=r"has 1 conversation, all too short or too long"):
        requirements.check_sharegpt_file(str(endless))
    # Answers of a given length need none of their own.
    answers = write_conversations(tmp_path / "answers.json", [[LONG, "yes"]])
    requirements.check_sharegpt_file(str(answers), output_len=16)
    with pytest.raises(ConfigError, match="too short"):
        requirements.check_sharegpt_file(str(answers))


def test_what_is_no_utf8_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "share.json"
    path.write_bytes('[{"conversations": [{"value": "Gr\u00fc\u00dfe"}]}]'.encode("latin-1"))
    with pytest.raises(ConfigError, match="is not UTF-8"):
        requirements.check_sharegpt_file(str(path))


def test_file_larger_than_piece_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Pieces that cut names, escapes and letters of several bytes in two.
    monkeypatch.setattr(conversations, "_CHUNK_BYTES", 7)
    path = tmp_path / "share.json"
    entry = (
        '{"conversations": [{"value": "\\u00e9\\n \u00e9 eight bytes"}, {"value": "and eight more"}], '
        '"n": -1.5e3}'
    )
    path.write_text(f"\n[ {', '.join([entry] * 50)}\n]\n", encoding="utf-8")
    assert conversations.contents(path) == conversations.Contents(entries=50, two_turns=50, usable=50)


def test_fewer_conversations_than_requests_are_told(tmp_path: Path) -> None:
    path = write_conversations(tmp_path / "few.json", [[LONG, LONG]] * 5 + [["x", "y"]])
    point = replace(SHAREGPT, num_prompts=12, dataset_path=str(path))
    assert requirements.repeated_prompts(point) == 7
    (sentence,) = requirements.repetitions([point, replace(point, request_rate_per_s=1.0)], engine=NOW)
    assert f"{path} has conversations for 5 of 12 requests at most" in sentence
    assert requirements.repeated_prompts(replace(point, num_prompts=5)) is None
    assert requirements.repetitions([POINT], engine=NOW) == ()
    # Scripts of early releases send no more than there is: such a run could never be complete.
    script = ClientSpec(script=str(write_scripts(tmp_path / "benchmarks")))
    with pytest.raises(ConfigError, match=r"num_prompts: is 12, and .* has at most 5 conversations"):
        requirements.check(script, [point], engine=OLD)
    requirements.check(script, [replace(point, num_prompts=5)], engine=OLD)


def test_simulated_engine_needs_nothing() -> None:
    simulated = EngineSpec(kind="simulated", release="0.6.2")
    requirements.check(ClientSpec(), [SHAREGPT], engine=simulated)
    requirements.check(ClientSpec(kind="offline"), [LATENCY], engine=simulated)


def test_old_release_needs_its_script(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"client\.script: is not given, and vLLM 0\.6\.2"):
        requirements.check(ClientSpec(), [POINT], engine=OLD)
    with pytest.raises(ConfigError, match=r"benchmark_latency\.py"):
        requirements.check(ClientSpec(kind="offline"), [LATENCY], engine=OLD)
    with_scripts = ClientSpec(script=str(write_scripts(tmp_path)))
    requirements.check(with_scripts, [POINT], engine=OLD)
    requirements.check(replace(with_scripts, kind="offline"), [LATENCY], engine=OLD)
    with pytest.raises(ConfigError, match="cannot cap the requests under way"):
        requirements.check(with_scripts, [replace(POINT, max_concurrency=2)], engine=OLD)
    requirements.check(ClientSpec(), [POINT], engine=NOW)
    requirements.check(ClientSpec(kind="offline"), [LATENCY], engine=NOW)


@pytest.mark.parametrize(
    ("release", "client", "expected"),
    [
        ("0.6.2", ClientSpec(), True),
        ("0.6.2", ClientSpec(script="benchmarks", python="py"), True),
        # A newer environment's command can load an older server.
        ("0.6.2", ClientSpec(python="newer/bin/python"), False),
        ("0.9.1", ClientSpec(script="benchmarks"), False),
    ],
)
def test_benchmark_is_script_where_there_is_no_command(
    tmp_path: Path, release: str, client: ClientSpec, expected: bool
) -> None:
    spec = make_spec(tmp_path, "python")
    asked = replace(spec, engine=replace(spec.engine, release=release), client=client)
    assert requirements.is_script(asked) is expected


def test_locust_is_asked_for_by_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'mi300x-sweeper\[locust\]'"):
        requirements.check_locust()
    with pytest.raises(ConfigError, match="the package locust is not installed"):
        requirements.check(ClientSpec(kind="locust"), [POINT], engine=NOW)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    requirements.check(ClientSpec(kind="locust"), [POINT], engine=NOW)


@pytest.mark.parametrize(("kind", "point"), [("vllm_bench", POINT), ("offline", LATENCY)])
def test_script_beside_command_is_refused(kind: str, point: LoadPoint) -> None:
    with pytest.raises(
        ConfigError, match=r"client.script: is 'b', and vLLM 0.32.0 has the benchmark as a com"
    ):
        requirements.check(ClientSpec(kind=kind, script="b"), [point], engine=NOW)
