"""A small server that speaks SGLang's protocol, started in the place of the interpreter of its environment.

``write_interpreter`` makes an executable that takes the same command lines: asked for the launcher it
serves, asked for a short program (``-c``) it tells versions; its parser cannot be asked, as where SGLang
cannot be imported. It answers /health (503 at first), /get_server_info, /v1/models, /metrics, /flush_cache
and /v1/completions in the form of SGLang 0.5.23, without a key. What it shall do wrong comes from the
environment variable STANDIN, a comma list of: ``die`` (ends at start with the text of STANDIN_LAST_WORDS),
``misnamed`` (serves another model), ``older`` (says it is 0.5.9), ``narrow`` (its scheduler lets 2 requests
run), ``stubborn`` (its chunks are 999 tokens), ``silent`` (reports no configuration), ``empty`` (answers
without text), ``abort`` (counts all but one request as aborted).
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from sweeper.records import EngineSpec, TrialSpec
from tests import standin_server
from tests.standin_server import make_spec

RELEASE = "0.5.23"
_LABELS = 'engine_type="unified",model_name="tiny"'


def write_interpreter(folder: Path) -> Path:
    """Make an executable that stands for the interpreter of SGLang's environment."""
    return standin_server.write_interpreter(folder, program=Path(__file__))


def sglang_spec(folder: Path, **changes: object) -> TrialSpec:
    """A trial of it on the CPU; `changes` as of `make_spec`."""
    python = write_interpreter(folder / "sglang")
    spec = make_spec(folder / "outputs", python, **{"assignment": {"max_running_requests": 8}, **changes})
    return replace(spec, engine=replace(spec.engine, kind="sglang", release=RELEASE))


def engine_spec(python: Path | str | None, release: str = RELEASE) -> EngineSpec:
    """SGLang as a trial names it."""
    return EngineSpec(kind="sglang", release=release, python=None if python is None else str(python))


def faults() -> set[str]:
    return set(filter(None, os.environ.get("STANDIN", "").split(",")))


def tell_versions(program: str) -> None:
    if "add_cli_args" in program:
        raise SystemExit("ImportError: libcuda.so.1: cannot open shared object file")
    versions = {"sglang": RELEASE, "sglang-kernel": "0.4.10", "torch": "2.14.1", "amd-sglang": None}
    print(json.dumps({"python": "3.12.1", **versions}))


class State:
    """What was asked for, and what was counted."""

    def __init__(self, arguments: list[str]) -> None:
        pairs = dict(itertools.pairwise(arguments))
        self.port = int(pairs["--port"])
        self.name = "another-model" if "misnamed" in faults() else pairs["--served-model-name"]
        self.running = int(pairs.get("--max-running-requests", 2048))
        self.chunk = 999 if "stubborn" in faults() else int(pairs.get("--chunked-prefill-size", 4096))
        self.context = pairs.get("--context-length")
        self.has_cache = "--disable-radix-cache" not in arguments
        self.requests = self.flushes = self.looks = 0

    def info(self) -> dict[str, object]:
        """Its configuration, and what its scheduler alone knows."""
        told = {
            "tp_size": 1,
            "dp_size": 1,
            "dtype": "auto",
            "attention_backend": "torch_native",
            "max_running_requests": self.running,
            "chunked_prefill_size": self.chunk,
            "context_length": None if self.context is None else int(self.context),
            "disable_radix_cache": not self.has_cache,
            "kv_cache_dtype": "auto",
            "api_key": None,
        }
        runs = 2 if "narrow" in faults() else self.running
        state = {
            **told,
            "effective_max_running_requests_per_dp": runs,
            "memory_usage": {"weight": 0.01, "kvcache": 0.04, "token_capacity": 20000},
        }
        version = "0.5.9" if "older" in faults() else RELEASE
        return {**told, "internal_states": [state], "version": version}

    def metrics(self) -> str:
        """Its page of metrics, with the counters that telemetry reads."""
        aborted = self.requests - 1 if "abort" in faults() else 0
        return (
            f'sglang:num_running_reqs{{{_LABELS},tp_rank="0"}} 0.0\n'
            f'sglang:num_queue_reqs{{{_LABELS},tp_rank="0"}} 0.0\n'
            f'sglang:token_usage{{{_LABELS},tp_rank="0"}} 0.25\n'
            f'sglang:num_requests_total{{{_LABELS},is_streaming="true"}} {32.0 * self.requests}\n'
            f"sglang:num_aborted_requests_total{{{_LABELS}}} {32.0 * aborted}\n"
            f'sglang:prompt_tokens_total{{{_LABELS},is_streaming="true"}} {100.0 * self.requests}\n'
            f'sglang:cached_tokens_total{{{_LABELS},cache_source="device"}} {20.0 * self.requests}\n'
            f'sglang:cached_tokens_total{{{_LABELS},cache_source="host"}} {5.0 * self.requests}\n'
            f"sglang:num_retracted_requests_total{{{_LABELS}}} {2.0 * self.requests}\n"
        )


def serve(arguments: list[str]) -> None:
    if "die" in faults():
        sys.stderr.write(os.environ.get("STANDIN_LAST_WORDS", "") + "\n")
        raise SystemExit(1)
    state = State(arguments)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            return

        def do_GET(self) -> None:
            state.looks += self.path == "/health"
            pages = {
                "/get_server_info": None if "silent" in faults() else json.dumps(state.info()),
                "/v1/models": json.dumps({"data": [{"id": state.name, "max_model_len": 4096}]}),
                "/metrics": state.metrics(),
                "/flushes": json.dumps(state.flushes),
            }
            if self.path == "/health":
                self.reply(503 if state.looks == 1 else 200, "")
            else:
                page = pages.get(self.path)
                self.reply(404 if page is None else 200, page or '{"detail":"Not Found"}')

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
            if self.path.partition("?")[0] == "/flush_cache":
                state.flushes += 1
                self.reply(200, "Cache flushed.\n")
            elif self.path == "/v1/completions":
                state.requests += 1
                text = "" if "empty" in faults() else f" Paris, said after {body['prompt']!r}"
                self.reply(200, json.dumps({"choices": [{"text": text}]}))
            else:
                self.reply(404, '{"detail":"Not Found"}')

        def reply(self, status: int, page: str) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(page.encode())

    ThreadingHTTPServer(("127.0.0.1", state.port), Handler).serve_forever()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["-c", program]:
            tell_versions(program)
        case ["-m", "sglang.launch_server", *rest]:
            serve(rest)
        case other:
            raise SystemExit(f"not understood: {other}")
