"""Why an engine ended: the cause and its class, out of logs as engines, kernels and sites write them.

The logs are made up after public reports of vLLM, ROCm, SGLang, RCCL and TGI; none is a copy of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeper.engines.log_verdict import known_cause, last_line, last_words, why_it_ended
from sweeper.records import FailureClass

SAMPLES = yaml.safe_load((Path(__file__).parent / "log_verdict.yaml").read_text(encoding="utf-8"))

GOODBYE = (
    "(APIServer pid=1) INFO:     Shutting down\n"
    "[rank0]:[W1030 14:21:10.371 ProcessGroupNCCL.cpp:1479] Warning: WARNING: destroy_process_group() was "
    "not called before program exit, which can leak resources.\n"
    "/usr/lib/python3.12/multiprocessing/resource_tracker.py:279: UserWarning: resource_tracker: There "
    "appear to be 2 leaked semaphore objects to clean up at shutdown\n"
    "  warnings.warn('resource_tracker: There appear to be %d '\n"
)
OOM = "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 2.00 GiB."
FAULT = "Memory access fault by GPU node-2 (Agent handle: 0x55d0) on address 0x7f2400000000. Reason: Unknown."
PREFIXES = {
    "nothing": "",
    "vLLM's process": "(EngineCore_DP0 pid=71) ERROR 10-30 14:20:52 [core.py:842] ",
    "vLLM's process, coloured": "\x1b[1;36m(EngineCore_0 pid=71)\x1b[0;0m ERROR 10-30 14:20:52 [core.py:8] ",
    "colours as cat -v shows them": "^[[1;36m(EngineCore_0 pid=71)^[[0;0m ERROR 10-30 14:20:52 [core.py:8] ",
    "colours as syslog writes them": "#033[1;36m(EngineCore_0 pid=7)#033[0;0m ERROR 10-30 14:20:52 [x.py:8] ",
    "a worker": "(Worker_TP3_EP3 pid=891) ERROR 10-30 14:20:52 [multiproc_executor.py:654] ",
    "the worker of 0.6": "(VllmWorkerProcess pid=221) ERROR 04-06 20:46:48 multiproc_worker_utils.py:238] ",
    "Ray, another node": "(RayWorkerWrapper pid=5280, ip=10.1.2.3) ERROR 04-26 01:59:07 worker_base.py:157] ",
    "Ray, repeated and coloured": "\x1b[36m(RayWorkerWrapper pid=5280)\x1b[0m ",
    "torchrun": "[rank0]: ",
    "torchrun's default": "[default0]:",
    "torch's logger": "[rank2]:[E1001 16:06:04.537131842 ProcessGroupNCCL.cpp:607] [Rank 2] ",
    "srun -l": "3: ",
    "mpirun": "[1,0]<stderr>:",
    "docker compose": "vllm-1  | ",
    "kubectl --prefix": "[pod/vllm-7d9f/vllm] ",
    "Kubernetes' log files": "2025-10-10T10:10:10.123456789Z stderr F ",
    "journald": "Oct 10 10:10:10 gpu07 vllm[4711]: ",
    "a site's logger": "2025-10-10 10:10:10,123 | gpu07 | ERROR | serving.runner | ",
    "a site's logger that calls all information": "2025-10-10 10:10:10 INFO serving.runner - ",
    "a tag nobody knows": "gpu07/vllm@3 >> ",
    "a tag in brackets": "[gpu07] [vllm] ",
    "journald and vLLM": "Oct 10 10:10:10 gpu07 docker[9]: (Core pid=7) ERROR 10-10 10:10:10 [x.py:9] ",
}


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES.keys())
@pytest.mark.parametrize("line", [OOM, FAULT, "ValueError: block_size must be a multiple of 16, got 17"])
def test_cause_is_found_behind_any_prefix(prefix: str, line: str) -> None:
    failure = {OOM: FailureClass.OUT_OF_MEMORY, FAULT: FailureClass.CRASH}.get(
        line, FailureClass.BAD_ARGUMENT
    )
    death = why_it_ended(f"loading\n{prefix}{line}\n{GOODBYE}", exit_code=1, was_ready=False)
    assert (death.failure, death.message) == (failure, line)


@pytest.mark.parametrize(
    "wrapped",
    [
        '{"log": "%s\\n", "stream": "stderr", "time": "2025-10-10T10:10:10.1Z"}',
        '{"timestamp": "2025-10-10T10:10:10Z", "level": "ERROR", "fields": {"message": "%s"}, "target": "x"}',
        '{"severity": "error", "message": "\\u001b[31m(C pid=7)\\u001b[0m ERROR 10-10 10:10:10 [c.py:1] %s"}',
        '2025-10-10T10:10:10.1Z stderr F {"level": "info", "msg": "%s"}',
    ],
    ids=["docker", "TGI --json-output", "a site's JSON with colours in it", "JSON in Kubernetes' files"],
)
def test_cause_is_found_in_lines_of_json(wrapped: str) -> None:
    death = why_it_ended(wrapped % OOM, exit_code=1, was_ready=False)
    assert (death.failure, death.message) == (FailureClass.OUT_OF_MEMORY, OOM)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample["name"])
def test_class_follows_cause(sample: Mapping[str, Any]) -> None:
    death = why_it_ended(sample["log"], exit_code=sample["exit_code"], was_ready=sample["was_ready"])
    assert death.failure == sample["class"], death.message
    assert sample["says"] in death.message
    assert "\n" not in death.message


def test_what_needs_no_end_is_found_in_engine_that_does_not_get_on() -> None:
    found = known_cause(f"(Worker_TP1 pid=9) ERROR 10-30 14:20:52 [x.py:1] {OOM}\nINFO waiting for workers\n")
    assert found is not None
    assert (found.failure, found.message) == (FailureClass.OUT_OF_MEMORY, OOM)
    assert known_cause("INFO loading\nValueError: handled and forgotten\n") is None


def test_last_line_is_without_noise_and_colours_and_of_progress_bar_last_state() -> None:
    assert last_line("\x1b[32mINFO\x1b[0m loading\n" + GOODBYE.split("\n", 1)[1]) == "INFO loading"
    assert (
        last_line("Loading shards:  25% | 1/4\rLoading shards:  50% | 2/4\n") == "Loading shards:  50% | 2/4"
    )
    assert last_line("") == "nothing in its log"
    assert last_words("ValueError: 3 > 2\n" + GOODBYE) == "ValueError: 3 > 2"
    assert last_words("starting\nready\n") == "ready"
