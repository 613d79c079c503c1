"""Streams completions as vLLM does, a token a message, and breaks off in the ways a stream can."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class StreamingServer(ThreadingHTTPServer):
    """Answers completions with a token per message, as vLLM does; refuses the request of that number.

    ``ending`` says how its streams end: whole, or in one of the ways in which a stream breaks off.
    """

    def __init__(self, *, refuse: int | None = None, ending: str = "whole") -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.refuse = refuse
        self.ending = ending
        self.asked: list[dict[str, object]] = []
        self.keys: set[str | None] = set()


class Handler(BaseHTTPRequestHandler):
    server: StreamingServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        return

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or "{}")
        if self.path != "/v1/completions":
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.server.asked.append(body)
        self.server.keys.add(self.headers["Authorization"])
        if len(self.server.asked) - 1 == self.server.refuse:
            self.send_response(503)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"full")
            return
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        tokens, ending = body["max_tokens"], self.server.ending
        for number in range(tokens):
            if ending in ("cut", "error") and number == 2:
                break
            time.sleep(0.01)
            if ending == "error-counted" and number == 1:
                # Amid the answer, which then goes on and is counted as if nothing had been.
                self.say({"error": {"message": "EngineCore died", "code": 500}})
            is_last = number == tokens - 1 and ending != "unended"
            reason = ("abort" if ending == "abort" else "length") if is_last else None
            self.say({"choices": [{"text": "word", "finish_reason": reason}]})
        counted = {"overcounted": 10 * tokens, "text-count": "3", "fraction": 3.5}.get(ending, tokens)
        usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": counted}
        if ending == "error":
            self.say({"error": {"message": "EngineCore died", "code": 500}})
        elif ending not in ("cut", "uncounted"):
            self.say({"choices": [], "usage": usage})
        if ending != "cut":
            self.write(b"data: [DONE]\n\n")
        self.write(b"")

    def say(self, message: dict[str, object]) -> None:
        self.write(b"data: " + json.dumps(message).encode() + b"\n\n")

    def write(self, text: bytes) -> None:
        self.wfile.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")


@contextmanager
def served(*, refuse: int | None = None, ending: str = "whole") -> Iterator[StreamingServer]:
    """Run such a server on a free port of loopback while the block runs."""
    server = StreamingServer(refuse=refuse, ending=ending)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
