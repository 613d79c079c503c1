"""The engine inside vLLM's offline benchmarks: its command for each release, its proof, its death."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.engines import vllm_offline
from sweeper.engines.vllm_offline import OfflineEngine, OfflineServer
from sweeper.errors import ConfigError, EngineError, MeasurementError
from sweeper.records import EngineSpec, FailureClass, LoadPoint, Provenance, TrialSpec
from tests.standin_benchmarks import write_old_interpreter
from tests.standin_server import PLACEMENT, make_spec, never

LATENCY = LoadPoint(dataset="latency", num_prompts=8, input_len=2048, output_len=1, client_seed=7)
RESULT = Path("/raw/one.json")
THROUGHPUT = LoadPoint(dataset="throughput", num_prompts=3000, input_len=128, output_len=2048)


def no_scripts(name: str) -> Path:
    raise ConfigError(f"{name} is missing")


@pytest.fixture
def spec(tmp_path: Path) -> TrialSpec:
    python = write_old_interpreter(tmp_path / "bin", release="0.11.0")
    engine = EngineSpec(kind="vllm", release="0.11.0", python=str(python))
    return replace(make_spec(tmp_path / "outputs", python), engine=engine)


@pytest.fixture
def server(spec: TrialSpec) -> OfflineServer:
    return OfflineEngine().start(spec, PLACEMENT, restart=0, cancelled=never)


def test_latency_benchmark_is_told_batch_lengths_and_rounds(tmp_path: Path) -> None:
    words = vllm_offline.benchmark_arguments(
        make_spec(tmp_path, "python"), LATENCY, result=RESULT, has_random_lengths=False
    )
    assert " ".join(words) == (
        f"--model {tmp_path} --load-format dummy --batch-size 8 --input-len 2048 --output-len 1 "
        # The benchmark draws token ids below 10000; the stand-in model has 8.
        '--num-iters-warmup 3 --num-iters 5 --hf-overrides {"vocab_size": 10000} --seed 7 '
        "--output-json /raw/one.json --max-num-seqs 8"
    )


def test_throughput_benchmark_is_told_prompts_and_lengths(tmp_path: Path) -> None:
    spec = replace(
        make_spec(tmp_path, "python"), assignment={"seed": 3, "max_num_seqs": 8, "disable_log_requests": True}
    )
    words = vllm_offline.benchmark_arguments(spec, THROUGHPUT, result=RESULT, has_random_lengths=False)
    # A seed among the knobs is the engine's and the benchmark's; request logging is a server's affair.
    assert " ".join(words) == (
        f"--model {tmp_path} --load-format dummy --num-prompts 3000 --input-len 128 --output-len 2048 "
        "--output-json /raw/one.json --max-num-seqs 8 --seed 3"
    )


def test_lengths_are_told_by_flag_that_release_obeys(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, "python")
    words = vllm_offline.benchmark_arguments(spec, THROUGHPUT, result=RESULT, has_random_lengths=True)
    told = " ".join(words)
    assert "--dataset-name random --random-input-len 128 --random-output-len 2048" in told
    assert "--input-len" not in words
    batch = vllm_offline.benchmark_arguments(spec, LATENCY, result=RESULT, has_random_lengths=True)
    assert "--input-len" in batch


@pytest.mark.parametrize(
    ("text", "expected"),
    [("add_random_dataset_base_args(parser)", True), ('"--random-input-len"', True), ("--input-len", False)],
)
def test_installed_benchmark_tells_which_flag_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: bool
) -> None:
    package = tmp_path / "site" / "vllm"
    (package / "benchmarks").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "benchmarks" / "throughput.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    vllm_offline.takes_random_lengths.cache_clear()
    assert vllm_offline.takes_random_lengths(sys.executable) is expected
    vllm_offline.takes_random_lengths.cache_clear()


def test_model_with_weights_keeps_its_vocabulary(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, "python")
    real = replace(spec, model=replace(spec.model, is_dummy=False, path="org/model", revision="abc"))
    words = vllm_offline.benchmark_arguments(real, LATENCY, result=RESULT, has_random_lengths=False)
    assert words[:4] == ("--model", "org/model", "--revision", "abc")
    assert not {"--hf-overrides", "--load-format"} & set(words)


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("0.6.2", ("python", "/vllm/benchmarks/benchmark_latency.py")),
        ("0.8.4", ("python", "/vllm/benchmarks/benchmark_latency.py")),
        ("0.8.5", ("python", "-m", "vllm.entrypoints.cli.main", "bench", "latency")),
        ("0.32.0", ("python", "-m", "vllm.entrypoints.cli.main", "bench", "latency")),
    ],
)
def test_benchmark_is_script_until_it_is_command(release: str, expected: tuple[str, ...]) -> None:
    def scripts(name: str) -> Path:
        return Path("/vllm/benchmarks") / name

    found = vllm_offline.benchmark_launcher(LATENCY, python="python", release=release, scripts=scripts)
    assert found == expected


def test_starting_proves_environment_and_starts_nothing(spec: TrialSpec, server: OfflineServer) -> None:
    assert server.provenance is Provenance.MEASURED
    assert server.versions["vllm"] == "0.11.0"
    assert server.base_url == ""
    assert server.api_key == ""
    assert server.start_s == 0.0
    assert server.command == ()
    assert server.counters() == {}
    server.check_alive()
    assert server.stop() == 0.0
    assert not list(Path(spec.folder).glob("*.log"))


def test_another_release_than_planned_is_refused(spec: TrialSpec) -> None:
    planned = replace(spec, engine=replace(spec.engine, release="0.12.0"))
    with pytest.raises(MeasurementError, match=r"has vLLM 0\.11\.0; expected 0\.12\.0") as caught:
        OfflineEngine().start(planned, PLACEMENT, restart=0, cancelled=never)
    assert caught.value.failure is FailureClass.WRONG_ENGINE
    with pytest.raises(ConfigError, match=r"engine\.python: it is empty"):
        nowhere = replace(spec, engine=replace(spec.engine, python=None))
        OfflineEngine().start(nowhere, PLACEMENT, restart=0, cancelled=never)
    with pytest.raises(EngineError, match="stopped on request"):
        OfflineEngine().start(spec, PLACEMENT, restart=0, cancelled=lambda: True)


def test_program_has_devices_of_server_and_none_of_its_secrets(
    spec: TrialSpec, server: OfflineServer
) -> None:
    program = server.program(LATENCY, name="1-0-0-ab", scripts=no_scripts)
    assert program.env["VLLM_CPU_OMP_THREADS_BIND"] == "0"
    assert not {"VLLM_API_KEY", "VLLM_SERVER_DEV_MODE"} & set(program.env)
    assert program.result == Path(spec.folder).resolve() / "raw" / "1-0-0-ab.json"
    stored = json.loads((Path(spec.folder) / "offline-1-0-0-ab.command.json").read_text())
    assert stored["argv"] == list(program.command) == list(server.command)
    assert server.log_path == str(program.log_path)


def test_engine_that_reports_another_configuration_is_no_proof(server: OfflineServer) -> None:
    program = server.program(LATENCY, name="a", scripts=no_scripts)
    program.log_path.write_text("INFO [engine] non-default args: {'max_num_seqs': 8}\n")
    server.prove(program)
    assert server.effective == {"max_num_seqs": 8}
    program.log_path.write_text("INFO [engine] non-default args: {'max_num_seqs': 16}\n")
    with pytest.raises(MeasurementError, match="max_num_seqs: asked 8, runs 16") as caught:
        server.prove(program)
    assert caught.value.failure is FailureClass.WRONG_ENGINE


def test_what_differs_between_runs_is_told_of_none_of_them(server: OfflineServer) -> None:
    program = server.program(LATENCY, name="a", scripts=no_scripts)
    for caching in (False, True):
        said = f"INFO [engine] non-default args: {{'max_num_seqs': 8, 'enable_prefix_caching': {caching}}}\n"
        program.log_path.write_text(said)
        server.prove(program)
    assert server.effective == {"max_num_seqs": 8}


def test_death_is_told_in_engines_own_words(server: OfflineServer) -> None:
    program = server.program(LATENCY, name="a", scripts=no_scripts)
    program.log_path.write_text(
        "loading\ntorch.OutOfMemoryError: HIP out of memory. Tried to allocate 2 GiB\n"
    )
    death = server.death(program, exit_code=1)
    assert death.failure is FailureClass.OUT_OF_MEMORY
    assert str(death) == "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 2 GiB"
    assert death.log_path == str(program.log_path)
