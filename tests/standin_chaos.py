"""The small server of ``standin_server``, whose speed is its setting: a row with another is mislabelled.

Its benchmark asks whoever answers at the port which ``max_num_seqs`` it has, and reports that as requests per
second. So a number measured on another server than the row's own shows at once.
"""

from __future__ import annotations

import json
import stat
import sys
import time
import urllib.request
from pathlib import Path

from tests import standin_server

LOAD_S = 0.4


def write_interpreter(folder: Path) -> Path:
    """Make an executable that stands for the interpreter of vLLM's environment."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "python"
    root = Path(__file__).resolve().parents[1]
    path.write_text(f'#!/bin/sh\nPYTHONPATH="{root}" exec "{sys.executable}" "{__file__}" "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def run(given: dict[str, str], api_key: str) -> None:
    wanted = int(given["--num-prompts"])
    with urllib.request.urlopen(f"{given['--base-url']}/server_info", timeout=5) as answer:
        speed = json.load(answer)["vllm_config"]["scheduler_config"]["max_num_seqs"]
    time.sleep(LOAD_S)
    report = {
        "num_prompts": wanted,
        "completed": wanted,
        "failed": 0,
        "duration": LOAD_S,
        "request_throughput": float(speed),
    }
    Path(given["--result-dir"], given["--result-filename"]).write_text(json.dumps(report))


if __name__ == "__main__":
    standin_server.run = run
    match sys.argv[1:]:
        case ["-c", _program]:
            standin_server.tell_versions()
        case ["-m", "vllm.entrypoints.openai.api_server", *rest]:
            standin_server.serve(rest)
        case [worker, first, second] if worker.endswith("vllm_bench_worker.py"):
            standin_server.benchmark(first, second)
        case other:
            raise SystemExit(f"not understood: {other}")
