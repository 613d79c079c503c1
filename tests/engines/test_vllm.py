"""Starting, proving and ending vLLM: against a stand-in with its manners, and against the real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.engines import environment, launched, vllm, vllm_environment, vllm_reports
from sweeper.engines.vllm import VllmEngine
from sweeper.engines.vllm_environment import EngineEnvironment
from sweeper.errors import ConfigError, EngineError, MeasurementError, PlacementError
from sweeper.processes import orphans, ports
from sweeper.processes import process as processes
from sweeper.processes.process import Process
from sweeper.records import FailureClass, Model, Platform, Provenance
from sweeper.trial import trial
from tests.real_engine import make_real_spec
from tests.standin_server import PLACEMENT, make_spec, never, write_interpreter

OWNER = Process(12, 3456)


@pytest.fixture
def interpreter(tmp_path: Path) -> Path:
    return write_interpreter(tmp_path / "bin")


def server_environment(tmp_path: Path, **changes: object) -> dict[str, str]:
    given: dict[str, object] = {
        "surroundings": {"PATH": "/usr/bin", "HOME": "/home/me"},
        "python": "/venv/bin/python",
        "api_key": "k3y",
        "owner": OWNER,
        "stub": None,
    }
    spec_changes = {n: changes.pop(n) for n in ("platform", "assignment", "model") if n in changes}
    placement = changes.pop("placement", PLACEMENT)
    spec = make_spec(tmp_path, "python", **spec_changes)
    return vllm_environment.server_environment(spec, placement, **{**given, **changes})  # type: ignore[arg-type]


# The command line and the environment


def test_command_names_model_port_and_knobs_and_holds_no_key(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, "python", assignment={"max_num_seqs": 8, "VLLM_USE_V1": True})
    assert vllm.server_command(spec, python="/venv/bin/python", port=41234) == (
        *("/venv/bin/python", "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(tmp_path), "--served-model-name", "tiny"),
        *("--host", "127.0.0.1", "--port", "41234"),
        *("--load-format", "dummy"),
        *("--max-num-seqs", "8"),
    )


def test_revision_is_given_for_model_on_hub_only(tmp_path: Path) -> None:
    local = make_spec(tmp_path, "python").model
    hub = Model(name="llama", path="meta-llama/Llama-3.1-8B", shape=local.shape, revision="abc123")
    on_hub = vllm.server_command(make_spec(tmp_path, "python", model=hub), python="p", port=1)
    assert on_hub[on_hub.index("--revision") + 1] == "abc123"
    assert "--load-format" not in on_hub
    content = replace(local, revision="0123456789abcdef")
    assert "--revision" not in vllm.server_command(
        make_spec(tmp_path, "python", model=content), python="p", port=1
    )


def test_amd_engine_gets_exactly_one_mask_sorted_by_number(tmp_path: Path) -> None:
    env = server_environment(
        tmp_path,
        platform=Platform.MI300X,
        placement=replace(PLACEMENT, devices=(10, 8, 11, 9)),
        surroundings={"ROCR_VISIBLE_DEVICES": "0", "CUDA_VISIBLE_DEVICES": "1", "GPU_DEVICE_ORDINAL": "3"},
    )
    masks = {name: value for name, value in env.items() if name.endswith("_VISIBLE_DEVICES")}
    assert masks == {"HIP_VISIBLE_DEVICES": "8,9,10,11"}
    assert "GPU_DEVICE_ORDINAL" not in env
    assert env["SWEEPER_DEVICE_MASK"] == "HIP_VISIBLE_DEVICES=8,9,10,11"
    assert "VLLM_CPU_KVCACHE_SPACE" not in env


def test_vllms_own_limit_on_its_start_follows_ours_where_release_has_one(tmp_path: Path) -> None:
    def limit(
        release: str = "0.32.0", surroundings: dict[str, str] | None = None, **knobs: int
    ) -> str | None:
        spec = make_spec(tmp_path, "python", assignment=knobs, start_timeout_s=90.5)
        env = vllm_environment.server_environment(
            replace(spec, engine=replace(spec.engine, release=release)),
            PLACEMENT,
            surroundings=surroundings or {},
            python="/venv/bin/python",
            api_key="k3y",
            owner=OWNER,
            stub=None,
        )
        return env.get("VLLM_ENGINE_READY_TIMEOUT_S")

    # 90.5 s, rounded up, and 60 s more, so that ours ends first.
    assert limit() == "151"
    assert limit(release="0.14.0") == "151"
    assert limit(release="0.13.0") is None
    assert limit(surroundings={"VLLM_ENGINE_READY_TIMEOUT_S": "5"}) == "5"
    assert limit(VLLM_ENGINE_READY_TIMEOUT_S=7) == "7"


def test_cuda_engine_gets_cuda_mask_alone() -> None:
    assert environment.device_mask(Platform.CUDA, (2, 3)) == {"CUDA_VISIBLE_DEVICES": "2,3"}
    assert environment.device_mask(Platform.CPU, (2, 3)) == {}


def test_assignment_cannot_change_mask(tmp_path: Path) -> None:
    env = server_environment(
        tmp_path,
        platform=Platform.CUDA,
        assignment={"CUDA_VISIBLE_DEVICES": "7", "VLLM_LOGGING_LEVEL": "DEBUG"},
    )
    assert env["CUDA_VISIBLE_DEVICES"] == "0"
    env = server_environment(tmp_path, platform=Platform.MI300X, assignment={"CUDA_VISIBLE_DEVICES": "7"})
    assert "CUDA_VISIBLE_DEVICES" not in env, "a second mask besides HIP_VISIBLE_DEVICES"
    env = server_environment(tmp_path, platform=Platform.CUDA, assignment={"VLLM_LOGGING_LEVEL": "DEBUG"})
    assert env["VLLM_LOGGING_LEVEL"] == "DEBUG"


def test_cpu_engine_is_bound_to_its_cores_unless_assignment_says_otherwise(tmp_path: Path) -> None:
    env = server_environment(tmp_path, placement=replace(PLACEMENT, devices=(2, 3)))
    assert env["VLLM_CPU_OMP_THREADS_BIND"] == "2,3"
    assert env["VLLM_CPU_KVCACHE_SPACE"] == "1"
    chosen = {"VLLM_CPU_KVCACHE_SPACE": 4, "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    env = server_environment(tmp_path, assignment=chosen)
    assert env["VLLM_CPU_KVCACHE_SPACE"] == "4"
    assert env["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert env["SWEEPER_DEVICE_MASK"] == "VLLM_CPU_OMP_THREADS_BIND=nobind"


def test_ranks_share_cores_evenly_and_leave_odd_one_out() -> None:
    assert vllm_environment.core_binding((0, 1, 2, 3), ranks=1) == "0,1,2,3"
    assert vllm_environment.core_binding((3, 2, 1, 0), ranks=2) == "0,1|2,3"
    assert vllm_environment.core_binding((0, 1, 2), ranks=2) == "0|1"
    with pytest.raises(PlacementError, match="1 core for 2 ranks"):
        vllm_environment.core_binding((0,), ranks=2)


def test_ranks_are_product_of_all_kinds_of_parallelism(tmp_path: Path) -> None:
    env = server_environment(
        tmp_path,
        placement=replace(PLACEMENT, devices=(0, 1, 2, 3)),
        assignment={"tensor_parallel_size": 2, "data_parallel_size": 2},
    )
    assert env["VLLM_CPU_OMP_THREADS_BIND"] == "0|1|2|3"


def test_environment_carries_key_and_marks_and_drops_what_misleads(tmp_path: Path) -> None:
    surroundings = {
        "PATH": "/usr/bin",
        "HF_TOKEN": "hf_x",
        "RAY_ADDRESS": "auto",
        "VIRTUAL_ENV": "/ours",
        "PYTHONPATH": "/opt/amd",
        "NO_PROXY": "intra.net",
    }
    env = server_environment(tmp_path, surroundings=surroundings, stub=Path("/stub"))
    assert env["VLLM_API_KEY"] == "k3y"
    assert env["HF_TOKEN"] == "hf_x"
    assert "RAY_ADDRESS" not in env
    assert "VIRTUAL_ENV" not in env
    assert env["PATH"] == "/venv/bin:/usr/bin"
    assert env["PYTHONPATH"] == "/stub:/opt/amd"
    assert env["NO_PROXY"] == "intra.net,127.0.0.1,localhost"
    assert env["HF_HUB_OFFLINE"] == "1"
    assert env["SWEEPER_TRIAL"] == make_spec(tmp_path, "python").key
    assert env["SWEEPER_OUTPUTS"] == str(tmp_path.resolve())
    assert env["SWEEPER_OWNER"] == "12:3456"


def test_client_gets_neither_mask_nor_key(tmp_path: Path) -> None:
    env = environment.client_environment(
        make_spec(tmp_path, "python"),
        surroundings={"CUDA_VISIBLE_DEVICES": "0", "OPENAI_API_KEY": "somebody's"},
        python="/venv/bin/python",
        owner=OWNER,
        stub=None,
    )
    assert not [name for name in env if "VISIBLE" in name or "API_KEY" in name or name == "PYTHONPATH"]
    assert env["SWEEPER_OWNER"] == "12:3456"


def test_secrets_are_left_out_of_what_is_stored() -> None:
    env = {
        **{"HF_TOKEN": "1", "VLLM_API_KEY": "2", "AWS_SECRET_ACCESS": "3", "DB_PASSWORD": "4"},
        **{"TOKENIZERS_PARALLELISM": "false", "HOME": "/home/me", "KEYBOARD": "us"},
    }
    assert environment.without_secrets(env) == {
        "HOME": "/home/me",
        "KEYBOARD": "us",
        "TOKENIZERS_PARALLELISM": "false",
    }


def test_cpu_build_gets_stub_under_name_vllm(tmp_path: Path) -> None:
    build = EngineEnvironment(release="0.32.0", distribution="vllm-cpu", versions={})
    stub = vllm_environment.write_metadata_stub(tmp_path, build)
    assert stub is not None
    question = "import importlib.metadata; print(importlib.metadata.version('vllm'))"
    answer = subprocess.run(
        [sys.executable, "-c", question],
        env={**os.environ, "PYTHONPATH": str(stub)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout == "0.32.0+cpu\n"
    assert vllm_environment.write_metadata_stub(tmp_path, replace(build, distribution="vllm")) is None


def test_outputs_folder_is_three_above_trial(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, "python")
    assert environment.outputs_folder(spec) == tmp_path.resolve()
    # An instance of a trial lies one deeper, and belongs to the same outputs folder.
    assert environment.outputs_folder(replace(spec, folder=f"{spec.folder}/instance-1")) == tmp_path.resolve()


# Looking into an environment


def test_probe_tells_release_and_versions(interpreter: Path) -> None:
    environment = vllm_environment.probe(str(interpreter))
    assert environment.release == "0.32.0"
    assert environment.distribution == "vllm"
    assert environment.versions["torch"] == "2.13.0"
    assert environment.versions["python"] == "3.12.1"
    assert environment.versions["kernel"] == os.uname().release
    assert "transformers" not in environment.versions


def test_probe_names_interpreter_that_is_missing_broken_or_without_vllm(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no interpreter .*/nowhere/python; expected a path"):
        vllm_environment.probe(str(tmp_path / "nowhere" / "python"))
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(ConfigError, match="does not run a short program"):
        vllm_environment.probe(str(broken))
    with pytest.raises(ConfigError, match="has no vLLM; expected the distribution 'vllm' or 'vllm-cpu'"):
        vllm_environment.probe(sys.executable)


def test_relative_interpreter_becomes_absolute_and_keeps_its_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "python").symlink_to(sys.executable)
    monkeypatch.chdir(tmp_path)
    assert environment.find_interpreter("./python") == str(tmp_path / "python")


# What the engine says


LOG_V1 = """\
(APIServer pid=4837) INFO 11-21 12:03:38 [api_utils.py:286] non-default args: {'port': 1, 'max_num_seqs': 8}
(EngineCore pid=4925) INFO 11-21 12:04:11 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: \
model='/m', dtype=torch.bfloat16, max_seq_len=4096, tensor_parallel_size=1, kv_cache_dtype=auto, \
enable_prefix_caching=True, enforce_eager=True
"""
LOG_V0 = """\
INFO 09-12 10:00:00 api_server.py:495] args: Namespace(host='127.0.0.1', max_num_seqs=256, swap_space=4)
INFO 09-12 10:00:09 llm_engine.py:226] Initializing an LLM engine (v0.6.2) with config: model='/m', \
dtype=torch.float16, max_seq_len=2048, tensor_parallel_size=2, num_scheduler_steps=8
"""
METRICS = """\
# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
vllm:cache_config_info{block_size="128",cache_dtype="fp8",engine="0",enable_prefix_caching="False",\
gpu_memory_utilization="0.92",num_gpu_blocks="4096",sliding_window="None"} 1.0
vllm:prefix_cache_queries_total{engine="0",model_name="tiny"} 1282.0
vllm:prefix_cache_queries_total{engine="1",model_name="tiny"} 18.0
vllm:prefix_cache_queries_created{engine="0",model_name="tiny"} 1.79e+09
vllm:external_prefix_cache_queries_total{engine="0",model_name="tiny"} 7.0
vllm:prefix_cache_hits_total{engine="0",model_name="tiny"} 130.0
vllm:num_preemptions_total{engine="0",model_name="tiny"} 3.0
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="tiny"} 0.5
vllm:request_success_total{engine="0",finished_reason="stop"} 2.0
vllm:request_success_total{engine="0",finished_reason="length"} 40.0
"""


def test_counters_add_up_over_engines_and_usage_is_that_of_fullest() -> None:
    assert vllm_reports.read_metrics(METRICS) == {
        "prefix_cache_queries": 1300.0,
        "prefix_cache_hits": 130.0,
        "preemptions": 3.0,
        "requests_succeeded": 42.0,
        "requests_answered": 42.0,
        "kv_cache_usage": 0.5,
    }
    assert vllm_reports.read_metrics("") == {}


def test_more_direct_source_of_configuration_wins() -> None:
    info = {
        "vllm_config": {
            "scheduler_config": {"max_num_seqs": 16, "policy": "fcfs", "scheduler_cls": None},
            "model_config": {"dtype": "torch.bfloat16", "hf_overrides": {}},
        }
    }
    effective = vllm_reports.read_effective(
        server_info=info, metrics=METRICS, log=LOG_V1, asked=["scheduling_policy"]
    )
    assert effective == {
        "block_size": 128,
        "data_parallel_size": 2,  # engines 0 and 1 of the metrics
        "dtype": "bfloat16",
        "enable_prefix_caching": False,
        "enforce_eager": True,
        "gpu_memory_utilization": 0.92,
        "kv_cache_dtype": "fp8",
        "max_model_len": 4096,
        "max_num_seqs": 16,
        "num_gpu_blocks": 4096,
        "scheduling_policy": "fcfs",
        "tensor_parallel_size": 1,
    }


def test_replicas_are_those_that_report_for_each_of_a_dense_model_says_that_it_is_alone() -> None:
    # vLLM 0.32.0 with --data-parallel-size 2 and a model without experts: two engine cores, each with size 1.
    log = "INFO core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: data_parallel_size=1"
    page = "\n".join(f'vllm:num_requests_running{{engine="{i}",model_name="m"}} 0.0' for i in range(2))
    effective = vllm_reports.read_effective(server_info=None, metrics=page, log=log, asked=[])
    assert effective == {"data_parallel_size": 2}
    alone = vllm_reports.read_effective(server_info=None, metrics=page.split("\n")[0], log=log, asked=[])
    assert alone == {"data_parallel_size": 1}
    assert vllm_reports.differences({"data_parallel_size": 2}, alone) == {"data_parallel_size": (2, 1)}


def test_old_release_tells_its_configuration_in_its_log() -> None:
    effective = vllm_reports.read_effective(server_info=None, metrics="", log=LOG_V0, asked=["swap_space"])
    assert effective == {
        "dtype": "float16",
        "max_model_len": 2048,
        "max_num_seqs": 256,
        "num_scheduler_steps": 8,
        "swap_space": 4,
        "tensor_parallel_size": 2,
    }


def test_configuration_given_as_text_is_read_too() -> None:
    info = {"vllm_config": "model='/m', tensor_parallel_size=4, enable_prefix_caching=False"}
    effective = vllm_reports.read_effective(server_info=info, metrics="", log="", asked=[])
    assert effective == {"tensor_parallel_size": 4, "enable_prefix_caching": False}


def test_knob_that_engine_changed_is_difference() -> None:
    assert vllm_reports.differences(
        {"enable_chunked_prefill": False, "max_num_seqs": 8, "swap_space": 4},
        {"enable_chunked_prefill": True, "max_num_seqs": 8},
    ) == {"enable_chunked_prefill": (False, True)}


@pytest.mark.parametrize(
    ("asked", "reported"),
    [
        ("auto", "fp8_e4m3"),
        ("fp8", "fp8_e4m3"),
        ("half", "torch.float16"),
        ("8k", 8000),
        ("8K", 8192),
        (0.9, "0.9"),
        (True, "True"),
        (8, 8.0),
        ("BFloat16", "bfloat16"),
    ],
)
def test_other_spellings_of_same_value_agree(asked: str | float, reported: str | float) -> None:
    assert vllm_reports.differences({"knob": asked}, {"knob": reported}) == {}


def test_different_values_do_not_agree() -> None:
    for asked, reported in (("fp8", "auto"), (8, 16), (True, False), ("fp8_e5m2", "fp8_e4m3"), (0.9, 0.92)):
        assert vllm_reports.differences({"knob": asked}, {"knob": reported}) == {"knob": (asked, reported)}


PREFIX = "(EngineCore pid=49) ERROR 11-21 12:04:35 [core.py:402] "
WRAPPER = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"


@pytest.mark.parametrize(
    ("log", "failure", "message"),
    [
        (
            "usage: api_server.py [-h]\napi_server.py: error: unrecognized arguments: --max-num-sequences 8",
            FailureClass.BAD_ARGUMENT,
            "api_server.py: error: unrecognized arguments: --max-num-sequences 8",
        ),
        (
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for SchedulerConfig\n"
            "  Value error, max_num_batched_tokens (4) must be at least max_num_seqs (8). [type=value_error]",
            FailureClass.BAD_ARGUMENT,
            "Value error, max_num_batched_tokens (4) must be at least max_num_seqs (8).",
        ),
        (
            f"{PREFIX}ValueError: No available memory for the cache blocks. Try increasing it.\n{WRAPPER}",
            FailureClass.OUT_OF_MEMORY,
            "ValueError: No available memory for the cache blocks. Try increasing it.",
        ),
        (
            f"{PREFIX}torch.OutOfMemoryError: HIP out of memory. Tried to allocate 2.00 GiB.\n"
            f"ValueError: a consequence\n{WRAPPER}",
            FailureClass.OUT_OF_MEMORY,
            "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 2.00 GiB.",
        ),
        (
            "ERROR 09-12 10:00:00 engine.py:1] x\nOSError: [Errno 98] Address already in use",
            FailureClass.PORT,
            "OSError: [Errno 98] Address already in use",
        ),
        (
            f"{PREFIX}NotImplementedError: Multi-step is not implemented for CPU\n{WRAPPER}",
            FailureClass.UNSUPPORTED,
            "NotImplementedError: Multi-step is not implemented for CPU",
        ),
        (
            "ValueError: fp8 KV cache is not supported on this device",
            FailureClass.UNSUPPORTED,
            "ValueError: fp8 KV cache is not supported on this device",
        ),
        (
            f"{PREFIX}RuntimeError: HSA_STATUS_ERROR\n{WRAPPER}",
            FailureClass.CRASH,
            "RuntimeError: HSA_STATUS_ERROR",
        ),
        (WRAPPER, FailureClass.CRASH, WRAPPER),
    ],
)
def test_death_at_start_has_engines_own_line_and_class(log: str, failure: FailureClass, message: str) -> None:
    death = vllm_reports.why_it_ended(log, exit_code=1, was_ready=False)
    assert (death.failure, death.message) == (failure, message)


def test_engine_that_had_served_did_not_die_of_its_arguments() -> None:
    death = vllm_reports.why_it_ended("ValueError: odd", exit_code=1, was_ready=True)
    assert death.failure is FailureClass.CRASH
    death = vllm_reports.why_it_ended(
        "torch.OutOfMemoryError: CUDA out of memory", exit_code=1, was_ready=True
    )
    assert death.failure is FailureClass.OUT_OF_MEMORY


def test_silent_death_tells_signal_or_exit_code_and_last_line() -> None:
    killed = vllm_reports.why_it_ended("INFO loading\n\n", exit_code=137, was_ready=False)
    assert killed.failure is FailureClass.CRASH
    assert killed.message.startswith("killed (signal 9)")
    assert killed.message.endswith("last line: INFO loading")
    assert (
        "exit code 3; last line: nothing"
        in vllm_reports.why_it_ended("", exit_code=3, was_ready=False).message
    )


# A server from start to end, by the stand-in


def ask(url: str) -> object:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as answer:
        return json.loads(answer.read())


def test_server_is_started_proven_asked_and_ended(tmp_path: Path, interpreter: Path) -> None:
    spec = make_spec(tmp_path, interpreter)
    server = VllmEngine().start(spec, PLACEMENT, restart=0, cancelled=never)
    try:
        pids = server.pids()
        assert pids
        assert server.provenance is Provenance.MEASURED
        assert server.effective["max_num_seqs"] == 8
        assert server.effective["max_num_batched_tokens"] == 2048
        assert server.versions["vllm"] == "0.32.0"
        assert server.start_s > 0
        assert server.sanity() == " Paris, said after 'The capital of France is'"
        assert server.sanity() == " Paris, said after 'The capital of France is'"
        # Two questions so far; the stand-in counts 100 queried and 25 found tokens for each.
        assert server.counters()["prefix_cache_queries"] == 200.0
        assert server.counters()["prefix_cache_hits"] == 50.0
        server.check_alive()
    finally:
        assert server.stop() >= 0.0
    assert server.stop() >= 0.0
    assert not [pid for pid in pids if processes.find(pid)]
    with pytest.raises(urllib.error.URLError):
        ask(server.base_url + "/health")


def test_what_is_stored_of_start_holds_command_and_no_secret(
    tmp_path: Path, interpreter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    spec = make_spec(tmp_path, interpreter)
    server = VllmEngine().start(spec, PLACEMENT, restart=2, cancelled=never)
    server.stop()
    folder = Path(spec.folder)
    stored = json.loads((folder / "engine-1-2.command.json").read_text())
    assert tuple(stored["argv"]) == server.command
    assert stored["environment"]["VLLM_CPU_OMP_THREADS_BIND"] == "0"
    written = "".join(path.read_text() for path in folder.rglob("*") if path.is_file())
    assert "hf_very_secret" not in written
    assert server.api_key not in written
    facts = json.loads((folder / "engine-1-2.start.json").read_text())
    assert facts["trial"] == spec.key
    assert facts["devices"] == [0]
    assert f"127.0.0.1:{facts['port']}" in server.base_url


def fail_to_start(tmp_path: Path, interpreter: Path, **changes: object) -> EngineError:
    spec = make_spec(tmp_path, interpreter, **changes)
    with pytest.raises(EngineError) as caught:
        VllmEngine().start(spec, PLACEMENT, restart=0, cancelled=never)
    assert processes.marked(processes.OUTPUTS_MARK, str(tmp_path.resolve())) == []
    assert caught.value.log_path == str(Path(spec.folder).resolve() / "engine-1-0.log")
    return caught.value


def test_engine_that_dies_at_start_fails_with_its_own_line(
    tmp_path: Path, interpreter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN", "die")
    monkeypatch.setenv("STANDIN_EXIT", "2")
    monkeypatch.setenv("STANDIN_LAST_WORDS", "api_server.py: error: unrecognized arguments: --no-such-flag")
    error = fail_to_start(tmp_path, interpreter)
    assert error.failure is FailureClass.BAD_ARGUMENT
    assert str(error) == "api_server.py: error: unrecognized arguments: --no-such-flag"


@pytest.mark.parametrize(
    ("fault", "limit", "told"),
    [
        ("deaf", "start_timeout_s", "does not listen after 1 s (engine.start_timeout_s)"),
        ("mute", "ready_timeout_s", "listens, and is not healthy after 1 s (engine.ready_timeout_s)"),
    ],
)
def test_listening_and_health_have_each_limit(
    tmp_path: Path, interpreter: Path, monkeypatch: pytest.MonkeyPatch, fault: str, limit: str, told: str
) -> None:
    monkeypatch.setenv("STANDIN", fault)
    error = fail_to_start(tmp_path, interpreter, **{limit: 1.0})
    assert error.failure is FailureClass.START_TIMEOUT
    assert told in str(error)


def test_engine_that_serves_nobody_yet_is_not_waited_for(
    tmp_path: Path, interpreter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN", "mute,unstoppable")
    monkeypatch.setattr(launched, "_UNREADY_GRACE_S", 0.5)
    # An hour: whoever waited for it would not come back.
    error = fail_to_start(tmp_path, interpreter, ready_timeout_s=1.0, stop_timeout_s=3600.0)
    assert error.failure is FailureClass.START_TIMEOUT


def test_engine_that_is_late_and_told_why_fails_of_that(
    tmp_path: Path, interpreter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN", "deaf")
    monkeypatch.setenv("STANDIN_LAST_WORDS", "(Worker_TP1 pid=9) torch.OutOfMemoryError: HIP out of memory.")
    error = fail_to_start(tmp_path, interpreter, start_timeout_s=2.0)
    assert error.failure is FailureClass.OUT_OF_MEMORY
    assert str(error).endswith("it told why: torch.OutOfMemoryError: HIP out of memory.")


def test_flags_that_take_json_are_compared_by_their_keys(tmp_path: Path, interpreter: Path) -> None:
    asked = {"compilation_config": '{"cudagraph_mode": "FULL_AND_PIECEWISE", "level": 3}'}
    spec = make_spec(tmp_path, interpreter, assignment=asked)
    server = VllmEngine().start(spec, PLACEMENT, restart=0, cancelled=never)
    try:
        assert server.effective["compilation_config"] == '{"cudagraph_mode": [2, 1], "level": 3}'
        assert "not_compared" not in server.effective
    finally:
        server.stop()
    error = fail_to_start(tmp_path / "other", interpreter, assignment={"compilation_config": '{"mode": 0}'})
    assert error.failure is FailureClass.WRONG_ENGINE
    assert "(compilation_config.mode: asked 0, runs 3)" in str(error)


def test_what_cannot_be_compared_keeps_engine_and_is_told(tmp_path: Path, interpreter: Path) -> None:
    spec = make_spec(tmp_path, interpreter, assignment={"hf_overrides": '{"rope_theta": 1.0}'})
    server = VllmEngine().start(spec, PLACEMENT, restart=0, cancelled=never)
    try:
        assert server.effective["hf_overrides"] == "<function overridden at 0x7f10>"
        assert server.effective["not_compared"] == "reported in a form that cannot be compared: hf_overrides"
    finally:
        server.stop()


def test_engine_that_runs_other_settings_is_refused(
    tmp_path: Path, interpreter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN", "stubborn")
    error = fail_to_start(tmp_path, interpreter)
    assert isinstance(error, MeasurementError)
    assert error.failure is FailureClass.WRONG_ENGINE
    assert "max_num_seqs: asked 8, runs 999" in str(error)


def test_engine_that_serves_another_model_is_refused(
    tmp_path: Path, interpreter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN", "misnamed")
    error = fail_to_start(tmp_path, interpreter)
    assert error.failure is FailureClass.WRONG_ENGINE
    assert "['another-model']; expected 'tiny'" in str(error)


def test_another_release_than_planned_is_not_even_started(tmp_path: Path, interpreter: Path) -> None:
    spec = make_spec(tmp_path, interpreter)
    older = replace(spec, engine=replace(spec.engine, release="0.11.0"))
    with pytest.raises(MeasurementError, match=r"has vLLM 0\.32\.0; expected 0\.11\.0"):
        VllmEngine().start(older, PLACEMENT, restart=0, cancelled=never)
    assert not Path(spec.folder).exists()


def test_cancelled_start_leaves_nothing(
    tmp_path: Path, interpreter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN", "mute")
    with pytest.raises(EngineError) as caught:
        VllmEngine().start(make_spec(tmp_path, interpreter), PLACEMENT, restart=0, cancelled=lambda: True)
    assert caught.value.failure is FailureClass.INTERRUPTED
    assert processes.marked(processes.OUTPUTS_MARK, str(tmp_path.resolve())) == []


def test_empty_answer_is_wrong_answer(
    tmp_path: Path, interpreter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN", "empty")
    server = VllmEngine().start(make_spec(tmp_path, interpreter), PLACEMENT, restart=0, cancelled=never)
    try:
        with pytest.raises(MeasurementError, match="with status 200 and text ''") as caught:
            server.sanity()
        assert caught.value.failure is FailureClass.WRONG_ANSWER
    finally:
        server.stop()


def test_greedy_answer_that_drips_is_given_up_at_its_limit(
    tmp_path: Path, interpreter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN", "drip-sanity")
    result = trial.run(make_spec(tmp_path, interpreter, sanity_timeout_s=1.0), PLACEMENT, cancelled=never)
    assert result.failure_class is FailureClass.WRONG_ANSWER
    assert "with no status (no whole answer within 1 s)" in str(result.failure_message)


def test_request_to_stop_does_not_wait_for_greedy_answer_that_drips(
    tmp_path: Path, interpreter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN", "drip-sanity")
    stopped = threading.Event()
    server = VllmEngine().start(
        make_spec(tmp_path, interpreter, sanity_timeout_s=3600.0),
        PLACEMENT,
        restart=0,
        cancelled=stopped.is_set,
    )
    try:
        threading.Timer(0.5, stopped.set).start()
        with pytest.raises(EngineError, match="stopped on request") as caught:
            server.sanity()
        assert caught.value.failure is FailureClass.INTERRUPTED
    finally:
        server.stop()


def test_health_that_drips_does_not_outlast_limit(
    tmp_path: Path, interpreter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN", "drip-health")
    spec = make_spec(tmp_path, interpreter, ready_timeout_s=1.0)
    with pytest.raises(EngineError, match="is not healthy after 1 s") as caught:
        VllmEngine().start(spec, PLACEMENT, restart=0, cancelled=never)
    assert caught.value.failure is FailureClass.START_TIMEOUT


def test_death_of_serving_engine_is_noticed_with_its_cause(tmp_path: Path, interpreter: Path) -> None:
    server = VllmEngine().start(make_spec(tmp_path, interpreter), PLACEMENT, restart=0, cancelled=never)
    try:
        urllib.request.urlopen(f"{server.base_url}/die", data=b"{}").close()
        deadline = time.monotonic() + 20
        with pytest.raises(EngineError, match="HIP out of memory") as caught:
            while time.monotonic() < deadline:
                server.check_alive()
                time.sleep(0.05)
        assert caught.value.failure is FailureClass.OUT_OF_MEMORY
    finally:
        server.stop()


def test_stranger_on_port_is_not_taken_for_engine(
    tmp_path: Path, interpreter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The listener is reported as somebody else's, as if a left-over server answered for ours.
    monkeypatch.setattr(ports, "listeners", lambda port: {1})
    error = fail_to_start(tmp_path, interpreter)
    assert error.failure is FailureClass.PORT
    assert "is held by processes [1]" in str(error)


# The real vLLM


@pytest.mark.vllm
@pytest.mark.slow
def test_real_vllm_reports_what_was_asked_and_leaves_nothing(tmp_path: Path, vllm_python: str) -> None:
    spec = make_real_spec(
        tmp_path,
        vllm_python,
        assignment={
            **{"max_num_seqs": 8, "enforce_eager": True, "enable_prefix_caching": False},
            "compilation_config": '{"mode": 0}',
            "speculative_config": '{"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 3}',
        },
    )
    server = VllmEngine().start(spec, PLACEMENT, restart=0, cancelled=never)
    try:
        # API server, engine core and worker at least.
        assert len(server.pids()) >= 3
        assert server.effective["max_num_seqs"] == 8
        assert server.effective["enforce_eager"] is True
        assert server.effective["enable_prefix_caching"] is False
        assert server.effective["dtype"] == "bfloat16"
        assert server.effective["compilation_config"] == '{"mode": 0}'
        assert '"method": "ngram", "num_speculative_tokens": 2' in str(server.effective["speculative_config"])
        assert "not_compared" not in server.effective
        assert server.sanity() == server.sanity()
        # Two sanity answers of 8 tokens have been given.
        assert server.counters()["requests_succeeded"] == 2.0
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask(server.base_url + "/v1/models")
        server.check_alive()
        members = [process for process in processes.descendants(os.getpid()) if process.pid in server.pids()]
        core = next(p for p in members if processes.title(p.pid).startswith("VLLM::EngineCore"))
        os.kill(core.pid, 9)
        with pytest.raises(EngineError) as caught:
            for _ in range(100):
                server.check_alive()
                time.sleep(0.1)
        assert caught.value.failure is FailureClass.CRASH
    finally:
        server.stop()
    assert not [process for process in members if processes.is_alive(process)]
    assert orphans.find_orphans(tmp_path / "outputs") == []


@pytest.mark.vllm
@pytest.mark.slow
def test_probe_takes_look_at_real_environment(vllm_python: str) -> None:
    environment = vllm_environment.probe(vllm_python)
    assert environment.distribution == "vllm-cpu"
    assert environment.versions["vllm"] == environment.release
    assert environment.versions["torch"].partition("+")[0].count(".") == 2
