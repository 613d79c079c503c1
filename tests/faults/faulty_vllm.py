"""A small vLLM that goes wrong on request: a server with an engine core below it, and a benchmark.

What goes wrong stands in the trial's own assignment, as the variable FAULT, so that one study holds many
faults side by side. The folder FAULTS_FOLDER is where test and engine meet:

* ``loading-N`` appears when the load of the trial with max_num_seqs N has begun, ``waiting-N`` when its
  server is about to listen;
* ``go-N`` lets it go on;
* ``healed`` takes every fault away, and lets all go on: what runs from then on is well.

The benchmark reports the max_num_seqs that the server really has as its throughput. So a row that carries
another trial's number shows.
"""

from __future__ import annotations

import itertools
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.standin_server import RELEASE, tell_versions

OUT_OF_MEMORY = "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 2.00 GiB"
MEETING = Path(os.environ["FAULTS_FOLDER"])


def fault() -> str:
    return "" if (MEETING / "healed").exists() else os.environ.get("FAULT", "")


def pause(announce: str, number: int) -> None:
    """Say where this trial is, and wait until the test lets it go on."""
    (MEETING / f"{announce}-{number}").touch()
    while not ((MEETING / f"go-{number}").exists() or (MEETING / "healed").exists()):
        time.sleep(0.02)


class Server:
    def __init__(self, arguments: list[str]) -> None:
        pairs = dict(itertools.pairwise(arguments))
        self.name, self.port = pairs["--served-model-name"], int(pairs["--port"])
        self.asked = int(pairs["--max-num-seqs"])
        self.max_num_seqs = 999 if fault() == "other-settings" else self.asked
        self.is_loaded = False

    def pages(self) -> dict[str, str]:
        config = {"scheduler_config": {"max_num_seqs": self.max_num_seqs}}
        return {
            "/version": json.dumps({"version": RELEASE}),
            "/v1/models": json.dumps({"data": [{"id": self.name}]}),
            "/metrics": 'vllm:kv_cache_usage_perc{engine="0"} 0.5\n',
            "/server_info": json.dumps({"vllm_config": config}),
            **({} if fault() == "never-healthy" else {"/health": ""}),
        }

    def complete(self, prompt: str) -> str:
        if prompt == "load":
            self.is_loaded = True
            if fault() in ("held", "hang-in-load"):
                pause("loading", self.asked)
            if fault() == "dies-in-load":
                sys.stderr.write(f"{OUT_OF_MEMORY}\n")
                sys.stderr.flush()
                os._exit(1)
        if fault() == "empty-answers":
            return ""
        return " Rome" if fault() == "changes-its-answers" and self.is_loaded else " Paris"

    def start_core(self) -> None:
        """Start what stands for the engine core, and die with it as vLLM's API server does."""
        core = subprocess.Popen(["VLLM::EngineCore", "1000000"], executable="/bin/sleep")

        def watch() -> None:
            core.wait()
            sys.stderr.write("vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue.\n")
            sys.stderr.flush()
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()

        def leave(number: int, frame: object) -> None:
            core.kill()
            os._exit(0)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, leave)


def serve(arguments: list[str]) -> None:
    server = Server(arguments)
    print(f"serving with max_num_seqs={server.max_num_seqs}", flush=True)
    if fault() == "hang-at-start":
        time.sleep(600)
    if fault() == "out-of-memory":
        raise SystemExit(OUT_OF_MEMORY)
    if fault() in ("port-taken", "foreign-server"):
        pause("waiting", server.asked)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            return

        def do_GET(self) -> None:
            page = server.pages().get(self.path.partition("?")[0])
            self.reply(404 if page is None else 200, page or "")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
            if self.headers["Authorization"] != f"Bearer {os.environ['VLLM_API_KEY']}":
                self.reply(401, "{}")
            else:
                self.reply(200, json.dumps({"choices": [{"text": server.complete(body.get("prompt", ""))}]}))

        def reply(self, status: int, text: str) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

    listening = ThreadingHTTPServer(("127.0.0.1", server.port), Handler)
    server.start_core()
    listening.serve_forever()


def benchmark(requests_fd: str | int, replies_fd: str | int) -> None:
    requests, replies = os.fdopen(int(requests_fd)), os.fdopen(int(replies_fd), "w", buffering=1)
    replies.write(json.dumps({"ready": True}) + "\n")
    for line in requests:
        task = json.loads(line)
        given = dict(itertools.pairwise(task["args"]))
        try:
            load(given, task["api_key"])
            replies.write(json.dumps({"id": task["id"], "ok": True, "cpu_wait_s": 0.0}) + "\n")
        except OSError as exc:
            replies.write(json.dumps({"id": task["id"], "ok": False, "error": str(exc)}) + "\n")


def load(given: dict[str, str], api_key: str) -> None:
    base, wanted = given["--base-url"], int(given["--num-prompts"])
    with urllib.request.urlopen(f"{base}/server_info") as answer:
        number = json.load(answer)["vllm_config"]["scheduler_config"]["max_num_seqs"]
    question = urllib.request.Request(
        f"{base}/v1/completions",
        data=json.dumps({"prompt": "load"}).encode(),
        headers={"Authorization": f"Bearer {api_key}"},
    )
    urllib.request.urlopen(question).close()
    report = {
        "num_prompts": wanted,
        "completed": wanted,
        "failed": 0,
        "duration": wanted / number,
        "request_throughput": float(number),
        "total_output_tokens": wanted * int(given.get("--random-output-len", 0)),
        "mean_ttft_ms": 12.5,
    }
    Path(given["--result-dir"], given["--result-filename"]).write_text(json.dumps(report))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["-c", _program]:
            tell_versions()
        case ["-m", "vllm.entrypoints.openai.api_server", *rest]:
            serve(rest)
        case [worker, first, second] if worker.endswith("vllm_bench_worker.py"):
            benchmark(first, second)
        case [keeper, control, worker] if keeper.endswith("keeper.py"):
            is_server = worker.endswith("vllm_server_worker.py")
            runpy.run_path(keeper)["keep"](
                int(control),
                loading=lambda: None,
                serving=lambda _, *fds: serve(sys.argv[1:]) if is_server else benchmark(*fds),
            )
        case other:
            raise SystemExit(f"not understood: {other}")
