"""One engine, many limits: what a live scheduler gives, on a real engine.

Starts vLLM once with ``live_scheduler.LiveScheduler`` at the largest limits, then for each wanted number of
sequences writes the limit, waits with one request for the scheduler's confirmation, and measures one load
with vLLM's own client. To be held against a fresh start of each limit by the same load.

    python benchmarks/live_limits.py PYTHON MODEL FOLDER --seqs 256 32 256 32 [-- ENGINE ARGUMENTS]

Only the standard library is needed; PYTHON has vLLM. Writes FOLDER/live.json, engine.log and the client's
files.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

_PORT = 18741
# `vllm bench serve` without the other commands: those ask for metadata, which a CPU build may lack.
_CLIENT = (
    "import argparse; from vllm.benchmarks import serve; parser = argparse.ArgumentParser(); "
    "serve.add_cli_args(parser); serve.main(parser.parse_args())"
)
_START_S = 240


def main() -> int:
    """Measure, print one line per load, and end the engine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("python", help="an interpreter that has vLLM")
    parser.add_argument("model", help="a model folder; its weights are made at random")
    parser.add_argument("folder", type=Path, help="takes the results; made where missing")
    parser.add_argument("--seqs", type=int, nargs="+", required=True, help="limits in the order measured")
    parser.add_argument("--prompts", type=int, default=240)
    parser.add_argument("--input-len", type=int, default=512)
    parser.add_argument("--output-len", type=int, default=128)
    own, engine = _split(sys.argv[1:])
    args = parser.parse_args(own)
    args.folder.mkdir(parents=True, exist_ok=True)
    limits = args.folder.resolve() / "limits.json"
    # Asked to end (timeout, a scheduler), it ends its engine first: one left behind holds the device.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    server = _start(args, engine, limits)
    try:
        _wait_ready(server)
        print(f"engine ready after {time.monotonic() - began:.1f} s", flush=True)
        rows = [_measured(args, limits, number, seqs) for number, seqs in enumerate(args.seqs)]
        (args.folder / "live.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
    return 0


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    if "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]


def _start(args: argparse.Namespace, engine: list[str], limits: Path) -> subprocess.Popen[bytes]:
    here = str(Path(__file__).resolve().parent)
    paths = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    largest = str(max(args.seqs))
    command = [
        *(args.python, "-m", "vllm.entrypoints.openai.api_server", "--model", args.model),
        *("--load-format", "dummy", "--host", "127.0.0.1", "--port", str(_PORT), "--max-num-seqs", largest),
        *("--scheduler-cls", "live_scheduler.LiveScheduler", "--no-enable-prefix-caching", *engine),
    ]
    with (args.folder / "engine.log").open("wb") as log:
        return subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": paths, "LIVE_LIMITS": str(limits)},
            start_new_session=True,
        )


def _wait_ready(server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{_PORT}/health", timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise SystemExit("the engine did not become ready: see engine.log")


def _measured(args: argparse.Namespace, limits: Path, number: int, seqs: int) -> dict[str, Any]:
    confirmed = limits.with_name(limits.name + ".confirmed")
    confirmed.unlink(missing_ok=True)
    limits.write_text(json.dumps({"max_num_seqs": seqs}), encoding="utf-8")
    body = {"model": args.model, "prompt": "w5 w6 w7", "max_tokens": 2}
    request = urllib.request.Request(
        f"http://127.0.0.1:{_PORT}/v1/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=60).close()
    said = json.loads(confirmed.read_text(encoding="utf-8"))
    if said["max_num_seqs"] != seqs:
        raise SystemExit(f"the scheduler has {said} where {seqs} sequences were asked for")
    name = f"load-{number}-{seqs}.json"
    command = [
        *(args.python, "-c", _CLIENT, "--backend", "vllm"),
        *("--model", args.model, "--base-url", f"http://127.0.0.1:{_PORT}", "--dataset-name", "random"),
        *(
            "--random-input-len",
            str(args.input_len),
            "--random-output-len",
            str(args.output_len),
            "--ignore-eos",
        ),
        *("--num-prompts", str(args.prompts), "--seed", str(number), "--save-result"),
        *("--result-dir", str(args.folder), "--result-filename", name),
    ]
    with (args.folder / f"client-{number}.log").open("wb") as log:
        subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=True)
    result = json.loads((args.folder / name).read_text(encoding="utf-8"))
    kept = ("request_throughput", "output_throughput", "mean_ttft_ms", "mean_tpot_ms", "p99_itl_ms")
    row = {"max_num_seqs": seqs, "completed": result["completed"], **{key: result[key] for key in kept}}
    print(json.dumps(row), flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main())
