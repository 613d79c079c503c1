"""Measuring an endpoint that somebody else started: proven, asked, and left alone."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper import cli
from sweeper.engines import attach
from sweeper.engines.attach import AttachEngine
from sweeper.engines.endpoint import Answer, Endpoint
from sweeper.errors import ConfigError, EngineError, MeasurementError
from sweeper.processes.ports import ReservedPort
from sweeper.records import EngineSpec, FailureClass, Provenance, TrialSpec
from tests.standin_server import PLACEMENT, RELEASE, make_spec, never, write_interpreter
from tests.surroundings import running as running_program

KEY = "a-key-that-nobody-may-see"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """An endpoint that runs, and its process."""
    with ReservedPort() as reserved:
        command = [
            *(str(write_interpreter(tmp_path / "bin")), "-m", "vllm.entrypoints.openai.api_server"),
            *("--served-model-name", "tiny", "--port", str(reserved.port), "--max-num-seqs", "8"),
        ]
        with running_program(command, env={**os.environ, "VLLM_API_KEY": KEY}) as process:
            url = f"http://127.0.0.1:{reserved.port}"
            wait_until_it_answers(url)
            yield url, process


def wait_until_it_answers(url: str) -> None:
    for _ in range(200):
        try:
            urllib.request.urlopen(f"{url}/health").close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("the stand-in does not answer")


def attached_spec(tmp_path: Path, url: str, **changes: object) -> TrialSpec:
    spec = make_spec(tmp_path, "python", assignment={}, **changes)
    engine = replace(spec.engine, kind="attach", url=url, api_key_env="ENDPOINT_KEY")
    return replace(spec, engine=engine)


def test_endpoint_that_runs_is_proven_asked_and_left_running(
    tmp_path: Path, running: tuple[str, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDPOINT_KEY", KEY)
    url, process = running
    server = AttachEngine().start(attached_spec(tmp_path, url), PLACEMENT, restart=0, cancelled=never)
    assert server.effective == {"max_num_batched_tokens": 2048, "max_num_seqs": 8}
    assert server.versions == {"vllm": RELEASE}
    assert server.provenance is Provenance.MEASURED
    assert server.sanity() == " Paris, said after 'The capital of France is'"
    # One question was asked: the stand-in counts 100 tokens looked up and 25 found for each.
    assert server.counters()["prefix_cache_hits"] == 25.0
    server.check_alive()
    assert server.stop() == 0.0
    assert process.poll() is None


def test_key_of_endpoint_stands_in_nothing_that_can_be_stored(
    tmp_path: Path, running: tuple[str, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDPOINT_KEY", KEY)
    spec = attached_spec(tmp_path, running[0])
    server = AttachEngine().start(spec, PLACEMENT, restart=0, cancelled=never)
    there = attach.endpoint(spec.engine, surroundings=os.environ)
    assert KEY not in repr((spec, server.effective, server.versions, server.command, there))
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(KEY not in path.read_text(errors="replace") for path in written)


def test_wrong_key_gets_no_answer_and_no_number(
    tmp_path: Path, running: tuple[str, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDPOINT_KEY", "another")
    server = AttachEngine().start(attached_spec(tmp_path, running[0]), PLACEMENT, restart=0, cancelled=never)
    with pytest.raises(MeasurementError, match="with status 401"):
        server.sanity()


def test_endpoint_of_another_model_or_release_is_not_measured(
    tmp_path: Path, running: tuple[str, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDPOINT_KEY", KEY)
    spec = attached_spec(tmp_path, running[0])
    other = replace(spec, model=replace(spec.model, name="llama"))
    with pytest.raises(MeasurementError, match=r"serves \['tiny'\]; expected 'llama'") as caught:
        AttachEngine().start(other, PLACEMENT, restart=0, cancelled=never)
    assert caught.value.failure is FailureClass.WRONG_ENGINE
    later = replace(spec, engine=replace(spec.engine, release="0.33.0"))
    with pytest.raises(MeasurementError, match=r"says it is vLLM 0.32.0; expected 0.33.0"):
        AttachEngine().start(later, PLACEMENT, restart=0, cancelled=never)


def test_endpoint_that_goes_away_is_noticed(
    tmp_path: Path, running: tuple[str, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDPOINT_KEY", KEY)
    url, process = running
    server = AttachEngine().start(attached_spec(tmp_path, url), PLACEMENT, restart=0, cancelled=never)
    process.kill()
    process.wait()
    with pytest.raises(EngineError, match="is gone") as caught:
        server.check_alive()
    assert caught.value.failure is FailureClass.CRASH


def test_release_is_asked_of_endpoint(running: tuple[str, subprocess.Popen[bytes]]) -> None:
    engine = EngineSpec(kind="attach", release="0.33.0", url=running[0])
    assert attach.find_release(engine, surroundings={}) == RELEASE


def test_what_is_missing_is_said_before_anything_is_asked() -> None:
    with pytest.raises(ConfigError, match=r"engine.url: is not given"):
        attach.endpoint(EngineSpec(kind="attach", release="0.33.0"), surroundings={})
    keyed = EngineSpec(kind="attach", release="0.33.0", url="http://127.0.0.1:1", api_key_env="MY_KEY")
    with pytest.raises(ConfigError, match="the variable MY_KEY is not set"):
        attach.endpoint(keyed, surroundings={})
    with pytest.raises(ConfigError, match=r"nobody answers at http://127.0.0.1:1"):
        attach.find_release(keyed, surroundings={"MY_KEY": "x"})


def test_endpoint_that_is_started_anew_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = attached_spec(tmp_path, "http://127.0.0.1:1")
    server = attach.AttachedServer(spec, Endpoint(base_url="http://127.0.0.1:1"))
    pages = {"/metrics": "process_start_time_seconds 1.7e9\n", "/v1/models": '{"data": [{"id": "tiny"}]}'}
    monkeypatch.setattr(
        Endpoint, "get", lambda self, path, timeout_s=0.0: Answer(status=200, text=pages.get(path, "{}"))
    )
    server.prove()
    server.prove_ours()
    monkeypatch.setattr(server, "check_alive", lambda: None)
    pages["/metrics"] = "process_start_time_seconds 1.8e9\n"
    with pytest.raises(MeasurementError, match="as before the load") as told:
        server.prove_ours()
    assert told.value.failure is FailureClass.WRONG_ENGINE


def test_sweep_of_endpoint_ends_with_what_was_measured_and_no_line_to_serve_with(
    tmp_path: Path,
    running: tuple[str, subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ENDPOINT_KEY", KEY)
    monkeypatch.chdir(tmp_path)
    url, process = running
    asked = ["+experiment=endpoint_load", "platform=cpu", "model.name=tiny", "model.path=tiny"]
    engine = ["engine=attach", f"engine.url={url}", "engine.api_key_env=ENDPOINT_KEY"]
    load = ["workload.num_prompts=4", "workload.request_rate_per_s=[null]", "executor=inline"]
    python = f"engine.python={tmp_path / 'bin' / 'python'}"
    assert cli.main([*asked, *engine, *load, python]) == cli.OK
    told = capsys.readouterr().out
    assert "model: tiny, prompts by the tokenizer of " in told
    assert f"Measured at an endpoint that already ran and serves tiny by vLLM {RELEASE}" in told
    assert "vllm serve" not in told
    assert "vllm serve" not in Path("outputs/endpoint_load-cpu/report.md").read_text(encoding="utf-8")
    assert process.poll() is None


def test_answer_that_is_no_object_has_no_content_however_deep_it_is() -> None:
    for text in ("[" * 100_000, '{"a":' * 100_000, "null", "\x00", "[]"):
        answer = Answer(status=200, text=text)
        assert answer.content == {}
        assert answer.first_text == ""


def test_version_without_end_is_told_as_far_as_a_message_can_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = EngineSpec(kind="attach", release="0.33.0", url="http://127.0.0.1:1")
    told = '{"version": "0.32.0' + "9" * 5000 + '+cpu"}'
    monkeypatch.setattr(Endpoint, "get", lambda self, path, timeout_s=0.0: Answer(status=200, text=told))
    found = attach.find_release(engine, surroundings={})
    assert found.startswith("0.32.09")
    assert len(found) <= 100
