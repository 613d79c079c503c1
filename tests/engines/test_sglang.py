"""Starting, proving and ending SGLang: against a stand-in that speaks its protocol."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper import knobs
from sweeper.clients.measuring import empty_prefix_cache
from sweeper.engines import contained, sglang, sglang_environment, sglang_reports
from sweeper.engines.sglang import SglangEngine, SglangServer
from sweeper.errors import ConfigError, EngineError, MeasurementError
from sweeper.knobs import sglang_flags
from sweeper.processes import ports, process
from sweeper.processes.process import Process
from sweeper.records import FailureClass, Platform, TrialSpec
from tests.standin_server import PLACEMENT, never
from tests.standin_sglang import RELEASE, engine_spec, sglang_spec, write_interpreter

FLAGS = sglang_flags(RELEASE)
HERE = Path(__file__).parent
# What 0.5.23 answered on a CPU (--max-total-tokens 20000, else as it comes), of which these keys are kept.
INFO = json.loads((HERE / "sglang_server_info.json").read_text(encoding="utf-8"))


@contextmanager
def started(spec: TrialSpec) -> Iterator[SglangServer]:
    server = SglangEngine().start(spec, PLACEMENT, restart=0, cancelled=never)
    try:
        yield server
    finally:
        server.stop()


def test_command_names_what_is_served_and_knobs_as_its_parser_takes_them(tmp_path: Path) -> None:
    asked = {
        "tp_size": 4,
        "chunked_prefill_size": -1,
        "disable_radix_cache": True,
        "enable_mixed_chunk": False,
        "cuda_graph_bs_decode": "1 2 4",
        "lora_strict_loading": False,
        "SGLANG_USE_AITER": 1,
        "instances": 2,
    }
    spec = sglang_spec(tmp_path, assignment=asked)
    command = sglang.server_command(spec, python="python", port=8000, flags=FLAGS)
    assert command == (
        *("python", "-m", "sglang.launch_server"),
        *("--model-path", spec.model.path, "--served-model-name", "tiny"),
        *("--host", "127.0.0.1", "--port", "8000", "--enable-metrics", "--load-format", "dummy"),
        *("--device", "cpu", "--chunked-prefill-size", "-1", "--cuda-graph-bs-decode", "1", "2", "4"),
        *("--disable-radix-cache", "--no-lora-strict-loading", "--tp-size", "4"),
    )
    on_gpu = replace(spec, platform=Platform.MI300X, model=replace(spec.model, is_dummy=False))
    written = sglang.server_command(on_gpu, python="python", port=1, flags=FLAGS)
    assert not {"--device", "--load-format"} & set(written)


@pytest.mark.parametrize(
    ("platform", "mask"),
    [
        (Platform.MI300X, "HIP_VISIBLE_DEVICES=0,1"),
        (Platform.CUDA, "CUDA_VISIBLE_DEVICES=0,1"),
        (Platform.CPU, "SGLANG_CPU_OMP_THREADS_BIND=0|1"),
    ],
)
def test_server_gets_one_mask_and_its_variables(tmp_path: Path, platform: Platform, mask: str) -> None:
    spec = sglang_spec(tmp_path, assignment={"tp_size": 2, "SGLANG_USE_AITER": True}, platform=platform)
    env = sglang_environment.server_environment(
        spec,
        replace(PLACEMENT, devices=(1, 0)),
        surroundings={"PATH": "/usr/bin", "ROCR_VISIBLE_DEVICES": "3", "CUDA_VISIBLE_DEVICES": "7"},
        python="/opt/sglang/bin/python",
        owner=Process(1, 2),
    )
    name, _, value = mask.partition("=")
    assert env[name] == value
    assert env["SWEEPER_DEVICE_MASK"] == mask
    masks = {"HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"} & set(env)
    assert masks == {name} - {"SGLANG_CPU_OMP_THREADS_BIND"}
    assert env["SGLANG_USE_AITER"] == "1"
    assert "VLLM_API_KEY" not in env


def test_started_sglang_is_proven_asked_emptied_and_ended_with_all_of_it(tmp_path: Path) -> None:
    spec = sglang_spec(tmp_path, assignment={"max_running_requests": 8, "chunked_prefill_size": 512})
    with started(spec) as server:
        assert server.versions["sglang"] == RELEASE
        assert server.versions["torch"] == "2.14.1"
        kept = {name: server.effective[name] for name in ("max_running_requests", "chunked_prefill_size")}
        assert kept == {"max_running_requests": 8, "chunked_prefill_size": 512}
        assert server.effective["context_length"] == 4096
        assert server.effective["max_total_num_tokens"] == 20000
        assert server.sanity().strip()
        assert server.counters() == {
            **{"requests_running": 0.0, "requests_waiting": 0.0, "kv_cache_usage": 0.25},
            **{"requests_answered": 32.0, "requests_succeeded": 32.0, "preemptions": 2.0},
            **{"prefix_cache_queries": 100.0, "prefix_cache_hits": 25.0},
        }
        assert empty_prefix_cache(server, cancelled=never)
        with urllib.request.urlopen(f"{server.base_url}/flushes") as answer:
            assert json.load(answer) == 1
        port = int(server.base_url.rpartition(":")[2])
        assert ports.listeners(port) <= server.pids()
    assert server.pids() == set()
    stored = json.loads((Path(spec.folder) / "engine-1-0.command.json").read_text())
    assert stored["argv"][1:3] == ["-m", "sglang.launch_server"]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("misnamed", r"it serves \['another-model'\]; expected 'tiny' among them"),
        ("older", r"it says it is SGLang 0.5.9; expected 0.5.23"),
        ("narrow", "max_running_requests: asked 8, runs 2"),
        ("stubborn", "chunked_prefill_size: asked 512, runs 999"),
        ("silent", "it answers none of /get_server_info, /server_info; expected its configuration"),
    ],
)
def test_sglang_that_is_not_what_was_asked_for_is_no_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, words: str
) -> None:
    monkeypatch.setenv("STANDIN", fault)
    spec = sglang_spec(tmp_path, assignment={"max_running_requests": 8, "chunked_prefill_size": 512})
    with pytest.raises(MeasurementError, match=words) as caught, started(spec):
        pass
    assert caught.value.failure is FailureClass.WRONG_ENGINE
    assert process.marked(process.OUTPUTS_MARK, str(tmp_path.resolve())) == []


def test_server_in_container_that_nothing_proves_is_told_of_and_not_taken_for_another_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As of a container of root's, seen from a user: nobody is seen to listen, and SGLang has no key.
    monkeypatch.setattr(contained, "is_unseen", lambda process, port: True)
    monkeypatch.setattr(ports, "listeners", lambda port: set())
    with pytest.raises(MeasurementError, match=r"has no key that would prove it ours.*podman, apptainer"):
        SglangEngine().start(sglang_spec(tmp_path), PLACEMENT, restart=0, cancelled=never)


def test_release_that_changed_since_plan_is_no_measurement(tmp_path: Path) -> None:
    spec = sglang_spec(tmp_path)
    planned = replace(spec, engine=replace(spec.engine, release="0.5.9"))
    with pytest.raises(MeasurementError, match=r"has SGLang 0.5.23; expected 0.5.9, which was found"):
        SglangEngine().start(planned, PLACEMENT, restart=0, cancelled=never)


# Last lines of real starts: of 0.5.23 on a CPU, and as public reports have them; paths and ids left out.
DEATHS = {
    "an argument that its parser refuses": (
        "sglang serve: error: argument --dtype: invalid choice: 'float13' (choose from 'auto', 'half')",
        FailureClass.BAD_ARGUMENT,
        "invalid choice: 'float13'",
    ),
    "no room for the cache": (
        "[2026-11-27 18:50:00] Scheduler hit an exception: Traceback (most recent call last):\n"
        '  File "scheduler.py", line 1, in run_scheduler_process\n'
        "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.\n\n"
        "[2026-11-27 18:50:01] Received sigquit from a child process. It usually means the child failed.",
        FailureClass.OUT_OF_MEMORY,
        "Not enough memory",
    ),
    "memory of the device": (
        "[2026-11-27 18:50:00 TP0] Scheduler hit an exception: Traceback (most recent call last):\n"
        "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 2.00 GiB.\n\n"
        "[2026-11-27 18:50:01] Received sigquit from a child process. It usually means the child failed.\n"
        "Killed",
        FailureClass.OUT_OF_MEMORY,
        "HIP out of memory",
    ),
    "a package that is missing": (
        "Traceback (most recent call last):\n"
        '  File "cache_move.py", line 10, in <module>\n'
        "    from sgl_kernel import copy_all_layer_kv_cache_cpu\n"
        "ModuleNotFoundError: No module named 'sgl_kernel'",
        FailureClass.UNSUPPORTED,
        "No module named 'sgl_kernel'",
    ),
}


@pytest.mark.parametrize("death", list(DEATHS))
def test_sglang_that_dies_at_its_start_gives_its_own_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, death: str
) -> None:
    words, failure, line = DEATHS[death]
    monkeypatch.setenv("STANDIN", "die")
    monkeypatch.setenv("STANDIN_LAST_WORDS", words)
    with pytest.raises(EngineError) as caught, started(sglang_spec(tmp_path)):
        pass
    assert line in str(caught.value)
    assert caught.value.failure is failure


def test_what_real_server_reports_is_read_by_knob() -> None:
    found = sglang_reports.read_effective(
        INFO, asked={"fp8_gemm_backend": "auto"}, flags=FLAGS, longest_tokens=4096
    )
    # The scheduler's own: it has decided on the chunked prefix cache, and knows what its cache holds.
    assert found["max_running_requests"] == 2500
    assert found["max_total_num_tokens"] == 20000
    assert found["attention_backend"] == "torch_native"
    assert found["context_length"] == 4096
    assert found["disable_radix_cache"] is False
    # The flag's own name, where the server reports the field it is parsed into.
    assert found["fp8_gemm_backend"] == "auto"
    assert "quantization" not in found
    asked = {"disable_chunked_prefix_cache": False}
    assert sglang_reports.read_effective(INFO, asked=asked, flags=FLAGS)["disable_chunked_prefix_cache"]


def test_limit_that_ranks_share_is_whole_of_it() -> None:
    def running(asked: int, *, per_rank: int, ranks: int) -> object:
        state = {"effective_max_running_requests_per_dp": per_rank}
        info = {"dp_size": ranks, "max_running_requests": asked, "internal_states": [state]}
        assignment = {"max_running_requests": asked}
        return sglang_reports.read_effective(info, asked=assignment, flags=FLAGS)["max_running_requests"]

    # 100 of 8 ranks are 12 each, which leaves 4 over: as asked. 10 each were 80 of the 100.
    assert running(100, per_rank=12, ranks=8) == 100
    assert running(100, per_rank=10, ranks=8) == 80


def test_real_metrics_are_read() -> None:
    page = (HERE / "sglang_metrics.txt").read_text(encoding="utf-8")
    # Two whole answers and one stream: 25 + 11 tokens of prompts, 15 of them in the cache.
    assert sglang_reports.read_metrics(page, counts_retracted=True) == {
        **{"requests_answered": 3.0, "requests_succeeded": 3.0, "preemptions": 0.0},
        **{"requests_running": 0.0, "requests_waiting": 0.0, "kv_cache_usage": 0.0},
        **{"prefix_cache_queries": 36.0, "prefix_cache_hits": 15.0},
    }
    assert "preemptions" not in sglang_reports.read_metrics(page)
    assert sglang_reports.read_metrics("") == {}


def test_environment_without_sglang_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text('#!/bin/sh\necho \'{"python": "3.12.1", "sglang": null}\'\n')
    other.chmod(0o755)
    with pytest.raises(ConfigError, match=r"has no SGLang; expected the distribution 'sglang'"):
        sglang.find(engine_spec(other))
    with pytest.raises(ConfigError, match=r"engine.python: it is empty; expected .* SGLang's environment"):
        sglang.find(engine_spec(None))
    assert sglang.find(engine_spec(write_interpreter(tmp_path / "bin"))).release == RELEASE


def test_flags_of_its_own_parser_hold_where_it_can_be_asked(tmp_path: Path) -> None:
    actions = [
        {"dest": "tensor_parallel_size", "flags": ["--tensor-parallel-size", "--tp-size"], "type": "int"},
        {"dest": "fp8_gemm_runner_backend", "flags": ["--fp8-gemm-backend"], "choices": ["auto", "aiter"]},
        {
            "dest": "lora_strict",
            "flags": ["--lora-strict", "--no-lora-strict"],
            "action": "BooleanOptionalAction",
        },
        {"dest": "old", "flags": ["--old"], "action": "DeprecatedAction"},
        {"dest": "own_switch", "flags": ["--own-switch"], "action": "_StoreTrueAction"},
    ]
    usual = {"action": "_StoreAction", "nargs": None, "type": "str", "choices": None}
    own = tmp_path / "python"
    told = json.dumps([{**usual, **action} for action in actions])
    own.write_text(f"#!/bin/sh\ncat <<'END'\nsome warning\n{told}\nEND\n")
    own.chmod(0o755)
    engine = engine_spec(own)
    assert sglang.check({"own_switch": True, "fp8_gemm_backend": "aiter", "tp_size": 2}, engine=engine) == ()
    (refusal,) = sglang.check({"tensor_parallel_size": 2}, engine=engine)
    assert refusal.endswith("expected the name that SGLang reports it by. Write 'tp_size'.")
    assert "SGLang 0.5.23 has no flag of this name" in sglang.check({"old": 1}, engine=engine)[0]
    # Where it cannot be imported, the table of the release speaks.
    apart = engine_spec(write_interpreter(tmp_path / "bin"))
    assert sglang.check({"tp_size": 2}, engine=apart) == ()
    assert "has no flag of this name" in sglang.check({"own_switch": True}, engine=apart)[0]
    assert knobs.by_knob([]) == {}
