"""Which tokenizer a client loads: its server's, and that server's revision of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sweeper import config
from sweeper.clients import bench_script, vllm_bench
from sweeper.clients.tokenizer import tokenizer_of
from sweeper.engines.environment import client_environment
from sweeper.processes.process import Process
from sweeper.records import Platform, Scalar, TrialSpec
from tests.standin_server import POINT, make_spec


def on_hub(tmp_path: Path, revision: str | None = "v1", **knobs: Scalar) -> TrialSpec:
    spec = make_spec(tmp_path, "python", assignment=dict(knobs))
    return replace(spec, model=replace(spec.model, path="org/kimi", revision=revision))


def cached(cache: Path, repository: str, commit: str, *, ref: str | None = None) -> Path:
    """Lay a revision down as huggingface_hub does; return its folder."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "tokenizer_config.json").write_text("{}")
    if ref is not None:
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / ref).write_text(commit)
    return snapshot


def test_servers_revision_is_taken_from_hubs_cache(tmp_path: Path) -> None:
    cache = tmp_path / "hub"
    by_branch = cached(cache, "org/kimi", "c0ffee", ref="v1")
    by_commit = cached(cache, "org/kimi", "beef")
    around = {"HF_HUB_CACHE": str(cache)}
    assert tokenizer_of(on_hub(tmp_path), environment=around) == str(by_branch)
    assert tokenizer_of(on_hub(tmp_path, "beef"), environment=around) == str(by_commit)
    assert tokenizer_of(on_hub(tmp_path), environment={"HF_HOME": str(tmp_path)}) == str(by_branch)
    # Its name of old, which the hub's library still reads, and takes before its home.
    of_old = {"HUGGINGFACE_HUB_CACHE": str(cache), "HF_HOME": str(tmp_path / "other")}
    assert tokenizer_of(on_hub(tmp_path), environment=of_old) == str(by_branch)
    # What is not there is named by its id.
    assert tokenizer_of(on_hub(tmp_path, "v2"), environment=around) == "org/kimi"
    assert tokenizer_of(on_hub(tmp_path), environment={}) == "org/kimi"
    assert tokenizer_of(on_hub(tmp_path, None), environment=around) == "org/kimi"


def test_tokenizer_of_its_own_goes_before_models_with_its_own_revision(tmp_path: Path) -> None:
    cache = tmp_path / "hub"
    cached(cache, "org/kimi", "c0ffee", ref="v1")
    other = cached(cache, "org/words", "feed", ref="t1")
    around = {"HF_HUB_CACHE": str(cache)}
    assert tokenizer_of(on_hub(tmp_path, tokenizer="org/words"), environment=around) == "org/words"
    asked = on_hub(tmp_path, tokenizer="org/words", tokenizer_revision="t1")
    assert tokenizer_of(asked, environment=around) == str(other)
    assert tokenizer_of(on_hub(tmp_path, tokenizer=str(tmp_path)), environment=around) == str(tmp_path)


@pytest.mark.parametrize("release", ["0.6.5", "0.10.0"])
def test_both_benchmarks_of_vllm_are_told_what_server_was(tmp_path: Path, release: str) -> None:
    spec = on_hub(tmp_path, trust_remote_code=True, tokenizer_mode="slow")
    wanted = ["--tokenizer", "/snapshot", "--tokenizer-mode", "slow", "--trust-remote-code"]
    result = tmp_path / "raw" / "one.json"
    for arguments in (bench_script.script_arguments, vllm_bench.benchmark_arguments):
        words = arguments(
            spec, POINT, base_url="http://here", release=release, result=result, tokenizer="/snapshot"
        )
        place = words.index("--tokenizer")
        assert words[place : place + len(wanted)] == wanted


def test_script_before_0_6_5_is_not_told_mode_it_does_not_know(tmp_path: Path) -> None:
    words = bench_script.script_arguments(
        on_hub(tmp_path, trust_remote_code=True, tokenizer_mode="auto"),
        POINT,
        base_url="http://here",
        release="0.6.4",
        result=tmp_path / "raw" / "one.json",
    )
    assert "--trust-remote-code" in words
    assert "--tokenizer-mode" not in words


def test_client_finds_models_where_its_server_does(tmp_path: Path) -> None:
    spec = on_hub(tmp_path, HF_HOME="/big/hf", NCCL_DEBUG="INFO")
    told = client_environment(
        spec, surroundings={"HF_HOME": "/small"}, python="/venv/bin/python", owner=Process(1, 2), stub=None
    )
    assert told["HF_HOME"] == "/big/hf"
    assert "NCCL_DEBUG" not in told


def test_client_of_running_endpoint_is_told_to_trust_code_by_its_own_key(tmp_path: Path) -> None:
    words = ["workload=random", "engine=attach", "engine.url=http://127.0.0.1:8000", "platform=mi300x"]
    spec = make_spec(tmp_path, "python", assignment={})
    flag = "--trust-remote-code"
    for asked in (False, True):
        composed = config.compose_run([*words, *(["client.trust_remote_code=true"] if asked else [])])
        client = config.settings(composed, platform=Platform.MI300X).client
        told = replace(spec, client=client)
        # It says how the client reads the tokenizer, and is no part of what is measured.
        assert told.key == spec.key
        serve = vllm_bench.benchmark_arguments(
            told, POINT, base_url="http://localhost", release="0.32.0", result=tmp_path / "one.json"
        )
        script = bench_script.script_arguments(
            told, POINT, base_url="http://localhost", release="0.8.4", result=tmp_path / "one.json"
        )
        assert (flag in serve, flag in script) == (asked, asked)
