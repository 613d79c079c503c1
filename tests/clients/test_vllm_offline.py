"""vLLM's latency and throughput benchmarks: their reports, and whole trials without a server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.clients import vllm_offline
from sweeper.clients.vllm_offline import OfflineClient
from sweeper.engines.vllm_offline import OfflineEngine
from sweeper.errors import EngineError, MeasurementError
from sweeper.records import ClientSpec, EngineSpec, FailureClass, LoadPoint, TrialSpec, TrialState
from sweeper.trial import trial
from tests.standin_benchmarks import QuietServer, write_old_interpreter, write_scripts
from tests.standin_server import PLACEMENT, make_spec, never

LATENCY = LoadPoint(dataset="latency", num_prompts=8, input_len=128, output_len=2)
THROUGHPUT = LoadPoint(dataset="throughput", num_prompts=100, input_len=30, output_len=10)


def make(tmp_path: Path, *, release: str, points: tuple[LoadPoint, ...]) -> TrialSpec:
    python = write_old_interpreter(tmp_path / "bin", release=release)
    return replace(
        make_spec(tmp_path / "outputs", python),
        engine=EngineSpec(
            kind="vllm", release=release, python=str(python), start_timeout_s=15, load_timeout_s=15
        ),
        load_points=points,
        client=ClientSpec(kind="offline"),
    )


@pytest.fixture
def spec(tmp_path: Path) -> TrialSpec:
    return make(tmp_path, release="0.11.0", points=(LATENCY, THROUGHPUT))


def test_latency_report_becomes_statistics_of_batch() -> None:
    metrics = vllm_offline.read_report({"latencies": [0.1, 0.2, 0.3]}, LATENCY, log_path=None)
    assert metrics["mean_batch_latency_ms"] == pytest.approx(200.0)
    assert metrics["median_batch_latency_ms"] == pytest.approx(200.0)
    # Linear between 200 and 300 ms at 2 * 0.99 = 1.98 steps: 298 ms.
    assert metrics["p99_batch_latency_ms"] == pytest.approx(298.0)
    assert metrics["duration_s"] == pytest.approx(0.6)
    assert metrics["completed"] == 8
    # 8 prompts of 128 tokens in and 2 out, in one round.
    assert (metrics["total_input_tokens"], metrics["total_output_tokens"]) == (1024, 16)


def test_throughput_report_becomes_rates() -> None:
    report = {"elapsed_time": 4.0, "num_requests": 100, "total_num_tokens": 4000}
    assert vllm_offline.read_report(report, THROUGHPUT, log_path=None) == {
        "completed": 100.0,
        "failed": 0,
        "duration_s": 4.0,
        "request_throughput_per_s": 25.0,
        # 100 answers of 10 tokens in 4 s; with the 30 of each prompt 4000 tokens.
        "output_throughput_tok_per_s": 250.0,
        "total_throughput_tok_per_s": 1000.0,
        "total_input_tokens": 3000.0,
        "total_output_tokens": 1000,
    }


@pytest.mark.parametrize(
    ("report", "point", "message"),
    [
        ({"latencies": []}, LATENCY, "has no latencies"),
        ({"elapsed_time": 4.0}, THROUGHPUT, "has no elapsed_time and total_num_tokens"),
        (
            {"elapsed_time": 4.0, "num_requests": 99, "total_num_tokens": 3960},
            THROUGHPUT,
            r"has 99\.0 requests in place of 100",
        ),
        (
            # Lengths of 1024 and 128 in place of 30 and 10: another load under this one's name.
            {"elapsed_time": 4.0, "num_requests": 100, "total_num_tokens": 115_200},
            THROUGHPUT,
            "has 115200 tokens in place of 4000",
        ),
    ],
)
def test_report_of_something_else_is_not_read(
    report: dict[str, object], point: LoadPoint, message: str
) -> None:
    with pytest.raises(MeasurementError, match=message):
        vllm_offline.read_report(report, point, log_path=None)


def test_whole_trial_runs_without_server(spec: TrialSpec) -> None:
    result = trial.run(spec, PLACEMENT, cancelled=never)
    assert result.failure_message is None
    assert result.state is TrialState.COMPLETE
    batch, load = result.measurements
    # The stand-in's rounds of 0.1, 0.2, 0.2, 0.2 and 0.3 s, and its 4 s for everything.
    assert batch.metrics["mean_batch_latency_ms"] == pytest.approx(200.0)
    assert batch.measured_s == pytest.approx(1.0)
    assert load.metrics["request_throughput_per_s"] == 25.0
    assert result.sanity_fingerprint is None
    assert result.effective["max_num_seqs"] == 8
    assert result.effective["device_mask"] == "VLLM_CPU_OMP_THREADS_BIND=0", "as the kernel showed it"
    assert result.command[1:5] == ("-m", "vllm.entrypoints.cli.main", "bench", "latency")


def test_old_release_is_measured_by_its_scripts(tmp_path: Path) -> None:
    spec = make(tmp_path, release="0.6.2", points=(LATENCY,))
    scripts = write_scripts(tmp_path / "benchmarks")
    result = trial.run(
        replace(spec, client=ClientSpec(kind="offline", script=str(scripts))), PLACEMENT, cancelled=never
    )
    assert result.state is TrialState.COMPLETE, result.failure_message
    assert result.command[1] == str(scripts / "benchmark_latency.py")
    without = trial.run(spec, PLACEMENT, cancelled=never)
    assert without.failure_class is FailureClass.BAD_ARGUMENT
    assert "client.script: is not given, and vLLM 0.6.2" in str(without.failure_message)


@pytest.mark.parametrize(
    ("fault", "failure", "message"),
    [
        ("die", FailureClass.OUT_OF_MEMORY, "HIP out of memory"),
        ("stubborn", FailureClass.WRONG_ENGINE, "max_num_seqs: asked 8, runs 999"),
        ("lose-one", FailureClass.CLIENT, "99.0 requests in place of 100"),
    ],
)
def test_failed_run_leaves_its_reason(
    spec: TrialSpec, monkeypatch: pytest.MonkeyPatch, fault: str, failure: FailureClass, message: str
) -> None:
    monkeypatch.setenv("STANDIN", fault)
    monkeypatch.setenv(
        "STANDIN_LAST_WORDS", "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 2 GiB"
    )
    result = trial.run(replace(spec, load_points=(THROUGHPUT,)), PLACEMENT, cancelled=never)
    assert result.failure_class is failure
    assert message in str(result.failure_message)
    assert result.log_path is not None
    assert Path(result.log_path).is_file()


def test_client_of_its_own_kind_of_server_only(spec: TrialSpec) -> None:
    client = OfflineClient(spec, PLACEMENT)
    with pytest.raises(EngineError, match="got a server of type QuietServer"):
        client.measure(QuietServer(), LATENCY, restart=0, repeat=0, cancelled=never)
    server = OfflineEngine().start(spec, PLACEMENT, restart=0, cancelled=never)
    assert client.warm_up(server, LATENCY, prompts=4, cancelled=never) == 0.0
    with pytest.raises(EngineError, match="stopped on request"):
        client.measure(server, LATENCY, restart=0, repeat=0, cancelled=lambda: True)
    client.close()
