"""Sends completions at a constant rate and streams the answers; run by Locust, one process per load point.

What to send stands in the JSON file that the variable SWEEPER_LOAD names, the key of the server in
OPENAI_API_KEY. Requests go out at fixed moments, begin + i / rate, whatever the answers take: a user that is
free takes the next request and waits for its moment. There are enough users unless a cap is asked for; how
late requests were sent is written down with them. Locust's own table shows the summary figures of its kind
(``time_to_first_token``, ``latency_per_token``, ``total_latency``); the times of every single request go to
the result file, from which the sweeper computes its metrics.

Prompts are lists of token ids, so that they have exactly the length that was asked for.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event
from locust import HttpUser, constant, events, task
from locust.env import Environment
from locust.exception import StopUser


class Load:
    """The requests of one run: handed out in order, each at its moment; written down when all have ended."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Draw all prompts, so that nothing is drawn while requests are under way."""
        self.settings = settings
        self.begun = Event()
        self.begin_s = 0.0
        self.requests: list[dict[str, Any]] = []
        rng = random.Random(settings["seed"])
        self.prompts = [draw_prompt(settings, rng) for _ in range(settings["num_prompts"])]
        self.output_lens = [draw_length(settings, "output_len", rng) for _ in self.prompts]
        self._next = 0

    def take(self) -> int | None:
        """Give the next request's number, when its moment has come; None when there are no more."""
        self.begun.wait()
        number = self._next
        if number >= len(self.prompts):
            return None
        self._next += 1
        gevent.sleep(max(0.0, self.due_s(number) - time.perf_counter()))
        return number

    def due_s(self, number: int) -> float:
        """Give the moment at which a request is to be sent, on the clock of ``time.perf_counter``."""
        rate: float | None = self.settings["rate_per_s"]
        return self.begin_s if rate is None else self.begin_s + number / rate

    def finish(self, request: dict[str, Any], environment: Environment) -> None:
        """Write down an ended request; with the last one the run is over."""
        self.requests.append(request)
        if len(self.requests) < len(self.prompts):
            return
        ordered = sorted(self.requests, key=lambda request: int(request["number"]))
        content = json.dumps({"settings": self.settings, "requests": ordered}, indent=1)
        Path(self.settings["result"]).write_text(content, encoding="utf-8")
        # Not from here: this code runs in one of the users that the runner ends.
        assert environment.runner is not None
        gevent.spawn_later(0.1, environment.runner.quit)


def draw_prompt(settings: dict[str, Any], rng: random.Random) -> list[int]:
    """Draw a prompt's token ids, away from both ends of the vocabulary, where special tokens are."""
    vocab = settings["vocab"]
    return [rng.randrange(vocab // 8, vocab * 7 // 8) for _ in range(draw_length(settings, "input_len", rng))]


def draw_length(settings: dict[str, Any], name: str, rng: random.Random) -> int:
    """Draw a length from len * (1 +/- ratio), at least one token."""
    mean, ratio = settings[name], settings["range_ratio"]
    return max(1, round(rng.uniform(mean * (1 - ratio), mean * (1 + ratio))))


def events_of(chunks: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    """Give the messages of a stream of server-sent events, each as soon as it is whole."""
    unread = b""
    for chunk in chunks:
        unread += chunk
        *lines, unread = unread.split(b"\n")
        for line in lines:
            text = line.strip()
            if text.startswith(b"data:") and not text.endswith(b"[DONE]"):
                yield json.loads(text.removeprefix(b"data:"))


LOAD = Load(json.loads(Path(os.environ["SWEEPER_LOAD"]).read_text(encoding="utf-8")))


def _begin(user_count: int, **_: object) -> None:
    LOAD.begin_s = time.perf_counter()
    LOAD.begun.set()


events.spawning_complete.add_listener(_begin)  # type: ignore[no-untyped-call]


class StreamingUser(HttpUser):
    """Sends one request after another, each at the moment that is its own."""

    wait_time = constant(0)

    @task
    def complete(self) -> None:
        """Send one request and read its answer to the end."""
        number = LOAD.take()
        if number is None:
            raise StopUser
        request: dict[str, Any] = {"number": number, "due_s": LOAD.due_s(number), "error": None}
        try:
            self._stream(request)
        except Exception as exc:
            request["error"] = f"{type(exc).__name__}: {exc}"
        if request["error"] is None:
            self._tell_locust(request)
        LOAD.finish(request, self.environment)

    def _stream(self, request: dict[str, Any]) -> None:
        settings, number = LOAD.settings, request["number"]
        # The server is on loopback: no proxy of the surroundings may stand between.
        self.client.trust_env = False
        request |= {"sent_s": time.perf_counter(), "token_s": [], "input_tokens": 0, "output_tokens": 0}
        with self.client.post(
            "/v1/completions",
            json={
                "model": settings["model"],
                "prompt": LOAD.prompts[number],
                "max_tokens": LOAD.output_lens[number],
                "temperature": 0,
                "stream": True,
                "stream_options": {"include_usage": True},
                "ignore_eos": settings["ignore_eos"],
            },
            headers={"Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', '')}"},
            timeout=settings["timeout_s"],
            stream=True,
            catch_response=True,
        ) as response:
            if response.status_code != 200:
                request["error"] = f"status {response.status_code}: {response.text[:500]}"
            else:
                for message in events_of(response.iter_content(chunk_size=None)):
                    _note(message, request)
            if request["error"] is None and not request["output_tokens"]:
                request["error"] = "an answer without a token"
            if request["error"] is None:
                response.success()
            else:
                response.failure(request["error"])

    def _tell_locust(self, request: dict[str, Any]) -> None:
        """Show the run's figures in Locust's own table, under the names that its users know."""
        total_ms = (request["token_s"][-1] - request["sent_s"]) * 1e3
        figures = {
            "time_to_first_token": (request["token_s"][0] - request["sent_s"]) * 1e3,
            "latency_per_token": total_ms / request["output_tokens"],
            "total_latency": total_ms,
            "num_tokens": request["output_tokens"],
            "prompt_tokens": request["input_tokens"],
        }
        for name, value in figures.items():
            self.environment.events.request.fire(
                request_type="METRIC",
                name=name,
                response_time=value,
                response_length=0,
                exception=None,
                context={},
            )


def _note(message: dict[str, Any], request: dict[str, Any]) -> None:
    if "error" in message:
        request["error"] = str(message["error"])
        return
    if any(choice.get("text") is not None for choice in message.get("choices") or ()):
        request["token_s"].append(time.perf_counter())
        # A message is a token until the server itself has counted.
        request["output_tokens"] = len(request["token_s"])
    usage = message.get("usage")
    if usage:
        request["input_tokens"] = usage.get("prompt_tokens") or 0
        request["output_tokens"] = usage.get("completion_tokens") or 0
