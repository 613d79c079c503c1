"""A small server that speaks TGI's protocol, started in the place of text-generation-launcher.

It takes the launcher's command line, answers /health, /info, /generate, /generate_stream and
/v1/completions (whole and as a stream), and asks for the key in the variable API_KEY. What it shall do wrong
comes from the environment variable STANDIN, a comma list of: ``die`` (ends at start, as a launcher whose
shards find no memory), ``misnamed`` (serves another model), ``stubborn`` (reports max_total_tokens 999),
``keyless`` (asks for no key), ``empty`` (answers without text).
"""

from __future__ import annotations

import json
import os
import stat
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

VERSION = "3.0.0"
SWITCHES = ("--trust-remote-code", "--disable-custom-kernels", "--json-output")


def write_launcher(folder: Path, name: str = "text-generation-launcher") -> Path:
    """Make an executable that stands for TGI's launcher."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def write_container_tool(folder: Path) -> Path:
    """Make an executable that runs its last words as docker does: detached from us, with named variables."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "container"
    program = (
        "import os, subprocess, sys\n"
        "words, names = sys.argv[2:], []\n"
        "while words[0] == '--env':\n"
        "    names.append(words[1]); words = words[2:]\n"
        "env = {n: os.environ[n] for n in [*names, 'STANDIN'] if n in os.environ}\n"
        "child = subprocess.Popen(words, env=env, start_new_session=True)\n"
        "try:\n"
        "    sys.exit(child.wait())\n"
        "finally:\n"
        "    child.kill()\n"
    )
    body = folder / "container.py"
    body.write_text("import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n" + program)
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{body}" "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def faults() -> set[str]:
    return set(filter(None, os.environ.get("STANDIN", "").split(",")))


def parse(words: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        found[word] = "true" if word in SWITCHES else next(rest)
    return found


def serve(given: dict[str, str]) -> None:
    key = "" if "keyless" in faults() else os.environ.get("API_KEY", "")
    text = "" if "empty" in faults() else " Paris."
    total = 999 if "stubborn" in faults() else int(given.get("--max-total-tokens", 4096))
    info = {
        "model_id": "another/model" if "misnamed" in faults() else given["--model-id"],
        "model_sha": None,
        "max_concurrent_requests": int(given.get("--max-concurrent-requests", 128)),
        "max_input_tokens": int(given.get("--max-input-tokens", 4095)),
        "max_total_tokens": total,
        "version": VERSION,
        "sha": "032fc4c",
        "docker_label": None,
    }

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            return

        def do_GET(self) -> None:
            # Open to any key, as TGI's own are.
            models = {"object": "list", "data": [{"id": info["model_id"]}]}
            pages = {"/health": "", "/info": json.dumps(info), "/v1/models": json.dumps(models)}
            page = pages.get(self.path)
            self.reply(404 if page is None else 200, page or "")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
            if key and self.headers["Authorization"] != f"Bearer {key}":
                self.reply(401, "")
            elif self.path == "/generate":
                self.reply(200, json.dumps({"generated_text": text}))
            elif self.path == "/generate_stream":
                self.reply(200, f"data: {json.dumps({'generated_text': text})}\n\n")
            elif self.path == "/v1/completions" and body.get("stream"):
                self.reply(200, self.stream(int(body["max_tokens"])))
            elif self.path == "/v1/completions":
                self.reply(200, json.dumps({"choices": [{"text": text}]}))
            else:
                self.reply(404, "")

        def stream(self, tokens: int) -> str:
            pieces = [{"choices": [{"text": " a", "finish_reason": None}]} for _ in range(tokens)]
            usage = {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1}
            parts = [*pieces, {"choices": [], "usage": usage}]
            return "".join(f"data: {json.dumps(part)}\n\n" for part in parts) + "data: [DONE]\n\n"

        def reply(self, status: int, page: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(page.encode())))
            self.end_headers()
            self.wfile.write(page.encode())

    ThreadingHTTPServer((given["--hostname"], int(given["--port"])), Handler).serve_forever()


if __name__ == "__main__":
    if "die" in faults():
        sys.stderr.write("torch.OutOfMemoryError: HIP out of memory. Tried to allocate 2.00 GiB\n")
        raise SystemExit(1)
    serve(parse(sys.argv[1:]))
