"""What a client needs is missed before anything starts, in one sentence that says how to get it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper import sharegpt
from sweeper.clients import requirements
from sweeper.errors import ConfigError
from sweeper.records import ClientSpec, EngineSpec, LoadPoint
from tests.standin_benchmarks import write_scripts
from tests.standin_server import POINT, make_spec

NOW = EngineSpec(kind="vllm", release="0.32.0", python="python")
OLD = replace(NOW, release="0.6.2")
SHAREGPT = LoadPoint(dataset="sharegpt", num_prompts=10)
LATENCY = LoadPoint(dataset="latency", num_prompts=1, input_len=8, output_len=1)


def test_a_missing_sharegpt_file_is_told_with_its_source_and_its_substitute(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        requirements.check(ClientSpec(), [SHAREGPT], engine=NOW)
    assert str(caught.value) == (
        "workload.dataset_path: is not given; expected a file in ShareGPT's format for dataset sharegpt. "
        "Download ShareGPT_V3_unfiltered_cleaned_split.json from https://huggingface.co/datasets/"
        "anon8231489123/ShareGPT_Vicuna_unfiltered/resolve/main/ShareGPT_V3_unfiltered_cleaned_split.json, "
        "or make a file with the same lengths: python -m sweeper sharegpt sharegpt.json. "
        "Then set workload.dataset_path=PATH."
    )
    path = tmp_path / "share.json"
    with pytest.raises(ConfigError, match=r"there is no file .*share\.json"):
        requirements.check_sharegpt_file(str(path))
    sharegpt.write(path, count=3, seed=0)
    requirements.check_sharegpt_file(str(path))
    requirements.check(ClientSpec(), [replace(SHAREGPT, dataset_path=str(path))], engine=NOW)


@pytest.mark.parametrize(
    ("damaged", "told"),
    [
        (lambda text: text[:-200], "is cut off: its last character is no ']'"),
        (lambda text: "<html>not found</html>", "is no JSON list of conversations"),
        (lambda text: "[]", "is no JSON list of conversations"),
    ],
)
def test_a_file_that_is_no_whole_sharegpt_is_refused(
    tmp_path: Path, damaged: Callable[[str], str], told: str
) -> None:
    path = tmp_path / "share.json"
    sharegpt.write(path, count=3, seed=0)
    path.write_text(damaged(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        requirements.check_sharegpt_file(str(path))
    assert told in str(caught.value)


def test_the_simulated_engine_needs_nothing() -> None:
    simulated = EngineSpec(kind="simulated", release="0.6.2")
    requirements.check(ClientSpec(), [SHAREGPT], engine=simulated)
    requirements.check(ClientSpec(kind="offline"), [LATENCY], engine=simulated)


def test_an_old_release_needs_its_script(tmp_path: Path) -> None:
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
def test_the_benchmark_is_the_script_where_there_is_no_command(
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
def test_a_script_beside_a_command_is_refused(kind: str, point: LoadPoint) -> None:
    with pytest.raises(
        ConfigError, match=r"client.script: is 'b', and vLLM 0.32.0 has the benchmark as a com"
    ):
        requirements.check(ClientSpec(kind=kind, script="b"), [point], engine=NOW)
