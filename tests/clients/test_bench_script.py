"""benchmark_serving.py: the flags of each release, what an old one cannot send, and whole runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.clients import bench_script
from sweeper.clients.bench_script import BenchScriptClient
from sweeper.errors import ConfigError, EngineError, MeasurementError
from sweeper.records import ClientSpec, EngineSpec, FailureClass, LoadPoint, TrialSpec, TrialState
from sweeper.trial import trial
from tests.standin_benchmarks import API_KEY, QuietServer, ReadyEngine, write_old_interpreter, write_scripts
from tests.standin_server import PLACEMENT, POINT, make_spec, never

RANDOM = replace(POINT, range_ratio=0.25, input_len=1000, output_len=100)


def arguments(tmp_path: Path, point: LoadPoint, *, release: str) -> dict[str, str]:
    """Each flag with the word after it."""
    words = bench_script.script_arguments(
        make_spec(tmp_path, "python"),
        point,
        base_url="http://127.0.0.1:4321",
        release=release,
        result=tmp_path / "raw" / "one.json",
    )
    return {word: after for word, after in zip(words, [*words[1:], ""], strict=True) if word.startswith("--")}


def test_script_of_0_6_2_is_told_what_it_knows(tmp_path: Path) -> None:
    point = LoadPoint(dataset="sharegpt", num_prompts=1000, request_rate_per_s=16, dataset_path="/share.json")
    assert arguments(tmp_path, point, release="0.6.2") == {
        "--backend": "vllm",
        "--base-url": "http://127.0.0.1:4321",
        "--endpoint": "/v1/completions",
        # No --served-model-name yet: the requests carry --model, the files are found by --tokenizer.
        "--model": "tiny",
        "--tokenizer": str(tmp_path),
        "--dataset-name": "sharegpt",
        "--dataset-path": "/share.json",
        "--num-prompts": "1000",
        "--request-rate": "16",
        "--seed": "0",
        "--percentile-metrics": "ttft,tpot,itl,e2el",
        "--metric-percentiles": "50,90,95,99",
        "--disable-tqdm": "--save-result",
        "--save-result": "--result-dir",
        "--result-dir": str(tmp_path / "raw"),
        "--result-filename": "one.json",
    }


def test_later_scripts_are_told_more(tmp_path: Path) -> None:
    point = replace(RANDOM, max_concurrency=8, ignore_eos=True)
    told = arguments(tmp_path, point, release="0.8.5")
    assert told["--model"] == str(tmp_path)
    assert told["--served-model-name"] == "tiny"
    assert told["--max-concurrency"] == "8"
    assert told["--temperature"] == "0"
    assert "--ignore-eos" in told
    assert told["--request-rate"] == "inf"
    assert "--temperature" not in arguments(tmp_path, RANDOM, release="0.8.3")


def test_range_of_lengths_means_same_in_older_and_newer_words(tmp_path: Path) -> None:
    # Newer: 1000 * (1 +/- 0.25). Older: from ratio * len to len, so len = 1250 and ratio = 750 / 1250.
    newer = arguments(tmp_path, RANDOM, release="0.8.4")
    assert (newer["--random-range-ratio"], newer["--random-input-len"]) == ("0.25", "1000")
    older = arguments(tmp_path, RANDOM, release="0.8.3")
    assert (older["--random-range-ratio"], older["--random-input-len"]) == ("0.6", "1250")
    assert older["--random-output-len"] == "125"
    # Fixed lengths are ratio 0 now and were ratio 1.
    fixed = arguments(tmp_path, replace(RANDOM, range_ratio=0.0), release="0.8.3")
    assert (fixed["--random-range-ratio"], fixed["--random-input-len"]) == ("1", "1000")


@pytest.mark.parametrize(
    ("point", "release", "message"),
    [
        (replace(POINT, max_concurrency=4), "0.6.3", r"max_concurrency: is 4, .* from 0\.6\.4"),
        (replace(POINT, ignore_eos=True), "0.6.2", r"ignore_eos: is true, .* from 0\.6\.3"),
        (replace(POINT, goodput_ms=(("ttft_ms", 5.0),)), "0.6.3", r"workload\.goodput: .* from 0\.6\.4"),
    ],
)
def test_what_old_script_cannot_send_is_refused_with_reason(
    tmp_path: Path, point: LoadPoint, release: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        bench_script.check_point(point, release=release)
    with pytest.raises(ConfigError, match=message):
        arguments(tmp_path, point, release=release)
    bench_script.check_point(point, release="0.6.4")


def test_script_is_found_by_its_folder_or_by_its_neighbour(tmp_path: Path) -> None:
    folder = write_scripts(tmp_path / "benchmarks")
    serving = folder / "benchmark_serving.py"
    assert bench_script.find_script(str(folder), "benchmark_serving.py", release="0.6.2") == serving
    neighbour = bench_script.find_script(str(serving), "benchmark_latency.py", release="0.6.2")
    assert neighbour == folder / "benchmark_latency.py"
    with pytest.raises(
        ConfigError, match=r"there is no .*benchmark_throughput\.py; expected .* tag v0\.6\.2"
    ):
        bench_script.find_script(str(folder), "benchmark_throughput.py", release="0.6.2")
    with pytest.raises(ConfigError, match=r"client\.script: is not given, and vLLM 0\.6\.2 has no command"):
        bench_script.find_script(None, "benchmark_serving.py", release="0.6.2")


def test_result_without_total_throughput_gets_it_from_its_parts(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"input_throughput": 300.0, "output_throughput": 100.0}))
    report = bench_script.read_result(path)
    assert report is not None
    assert report["total_token_throughput"] == 400.0
    assert bench_script.read_result(tmp_path / "missing.json") is None
    path.write_text("[]")
    assert bench_script.read_result(path) is None


# Whole runs


@pytest.fixture
def spec(tmp_path: Path) -> TrialSpec:
    python = write_old_interpreter(tmp_path / "bin", release="0.6.4")
    made = make_spec(tmp_path / "outputs", python)
    return replace(
        made,
        engine=EngineSpec(kind="vllm", release="0.6.4", python=str(python), load_timeout_s=30),
        client=ClientSpec(script=str(write_scripts(tmp_path / "benchmarks"))),
    )


def test_load_point_is_measured_by_script(spec: TrialSpec) -> None:
    client = BenchScriptClient(spec, PLACEMENT)
    measured = client.measure(QuietServer(), POINT, restart=1, repeat=0, cancelled=never)
    client.close()
    # The stand-in reports 4 requests in 2 seconds, in the words of 0.6.4.
    assert measured.metrics["request_throughput_per_s"] == 2.0
    assert measured.metrics["request_goodput_per_s"] == 1.5
    assert measured.metrics["failed"] == 0.0
    # 64 tokens in and 16 out for each of 4.
    assert measured.metrics["total_throughput_tok_per_s"] == 160.0
    assert measured.measured_s == 2.0
    assert measured.restart == 1
    assert measured.telemetry["preemptions"] == 0.0
    assert measured.raw_path is not None
    assert json.loads(Path(measured.raw_path).read_text())["duration"] == 2.0


def test_key_of_server_is_in_no_file(spec: TrialSpec) -> None:
    BenchScriptClient(spec, PLACEMENT).measure(QuietServer(), POINT, restart=0, repeat=0, cancelled=never)
    files = [path for path in Path(spec.folder).rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if API_KEY in path.read_text()]


def test_warm_up_sends_other_prompts_at_once(spec: TrialSpec) -> None:
    slow = replace(POINT, request_rate_per_s=0.001)
    client = BenchScriptClient(spec, PLACEMENT)
    assert client.warm_up(QuietServer(), slow, prompts=2, cancelled=never) > 0
    log = (Path(spec.folder) / "client-1-warm-up.log").read_text().splitlines()[0]
    sent = json.loads(log.removeprefix("arguments "))
    assert sent[sent.index("--num-prompts") + 1] == "2"
    assert sent[sent.index("--request-rate") + 1] == "inf"
    assert sent[sent.index("--seed") + 1] == "1000003"


def test_lost_request_spoils_run(spec: TrialSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN", "lose-one")
    with pytest.raises(MeasurementError, match="3 of 4 requests completed"):
        BenchScriptClient(spec, PLACEMENT).measure(QuietServer(), POINT, restart=0, repeat=0, cancelled=never)


def test_script_that_fails_says_why(spec: TrialSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN", "die")
    monkeypatch.setenv("STANDIN_LAST_WORDS", "ModuleNotFoundError: No module named 'aiohttp'")
    with pytest.raises(EngineError, match=r"exit code 1 .* last line: ModuleNotFound") as caught:
        BenchScriptClient(spec, PLACEMENT).measure(QuietServer(), POINT, restart=0, repeat=0, cancelled=never)
    assert caught.value.failure is FailureClass.CLIENT


def test_opening_refuses_what_cannot_be_sent(spec: TrialSpec) -> None:
    old = replace(spec, engine=replace(spec.engine, release="0.6.2"))
    capped = replace(old, load_points=(replace(POINT, max_concurrency=4),))
    with pytest.raises(ConfigError, match="cannot cap the requests under way"):
        BenchScriptClient(capped, PLACEMENT)
    with pytest.raises(ConfigError, match="is not given"):
        BenchScriptClient(replace(spec, client=ClientSpec()), PLACEMENT)


def test_trial_of_old_release_is_loaded_by_script(spec: TrialSpec) -> None:
    result = trial.run(spec, PLACEMENT, cancelled=never, engine=ReadyEngine(QuietServer()))
    assert result.state is TrialState.COMPLETE, result.failure_message
    assert result.measurements[0].metrics["request_goodput_per_s"] == 1.5
