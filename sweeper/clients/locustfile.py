"""Sends completions at a constant rate and streams the answers; run by Locust, one process per load point.

What to send is in the JSON file that the variable SWEEPER_LOAD names, the key of the server in
OPENAI_API_KEY. Requests go out at fixed moments, start + i / rate, however long the answers take: a user that
is free takes the next request and waits for its moment. There are enough users unless a cap is asked for; how
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

LONGEST_LINE = 2**24
"""Bytes of a message of a stream, at most; a token has some hundred."""

# Ends of an answer that is whole. Source: OpenAI's completions; eos_token and stop_sequence are TGI's.
_WHOLE = ("stop", "length", "eos_token", "stop_sequence")


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
        """Return the next request's number, when its moment has come; None when there are no more."""
        self.begun.wait()
        number = self._next
        if number >= len(self.prompts):
            return None
        self._next += 1
        gevent.sleep(max(0.0, self.due_s(number) - time.perf_counter()))
        return number

    def due_s(self, number: int) -> float:
        """Return the moment at which a request is to be sent, on the clock of ``time.perf_counter``."""
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
    """Return the messages of a stream of server-sent events, each as soon as it is whole.

    Raises:
        ValueError: The stream ended without its closing mark, a line has no end, or a message is no JSON
            object.
    """
    unread, is_closed = b"", False
    for chunk in chunks:
        unread += chunk
        *lines, unread = unread.split(b"\n")
        if len(unread) > LONGEST_LINE:
            raise ValueError(f"a message of more than {LONGEST_LINE} bytes")
        for line in lines:
            text = line.strip().removeprefix(b"data:").strip()
            if text == b"[DONE]":
                is_closed = True
            elif line.startswith(b"data:"):
                message = json.loads(text)
                if not isinstance(message, dict):
                    raise ValueError(f"a message that is no JSON object: {text[:80]!r}")
                yield message
    if not is_closed:
        raise ValueError("the stream ended before [DONE]: the answer broke off")


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
            # What the server said of itself shows more than how the stream then ended.
            request["error"] = request["error"] or f"{type(exc).__name__}: {exc}"
        if request["error"] is None:
            self._tell_locust(request)
        LOAD.finish(request, self.environment)

    def _stream(self, request: dict[str, Any]) -> None:
        settings, number = LOAD.settings, request["number"]
        # The server is on loopback: no proxy of the surroundings may stand between.
        self.client.trust_env = False
        request |= {"sent_s": time.perf_counter(), "token_s": [], "output_tokens": 0}
        # What is sent has this length, until the server itself has counted.
        request |= {"input_tokens": len(LOAD.prompts[number]), "ended_by": None, "is_counted": False}
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
            if request["error"] is None:
                request["error"] = why_not_whole(
                    request, asked=LOAD.output_lens[number], must_count=settings["must_count"]
                )
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


def why_not_whole(request: dict[str, Any], *, asked: int, must_count: bool) -> str | None:
    """Explain why an answer whose stream was closed is nevertheless incomplete; None where it is whole.

    Args:
        request: What came of it.
        asked: Tokens that it may have.
        must_count: Whether the server reports the number of tokens at the end of a stream.
    """
    messages, tokens = len(request["token_s"]), request["output_tokens"]
    if not tokens or not messages:
        return "an answer without a token"
    if request["ended_by"] not in _WHOLE:
        return f"an answer that ended by {request['ended_by']!r}; expected one of {', '.join(_WHOLE)}"
    if must_count and not request["is_counted"]:
        return "an answer without the server's count of its tokens (usage)"
    if tokens > asked or messages > tokens + 1:
        return f"an answer of {tokens} tokens in {messages} messages, where {asked} tokens were asked for"
    return None


def _note(message: dict[str, Any], request: dict[str, Any]) -> None:
    if message.get("error") is not None or message.get("object") == "error":
        request["error"] = str(message.get("error") or message.get("message"))
        return
    choices = message.get("choices") or ()
    if any(choice.get("text") is not None for choice in choices):
        request["token_s"].append(time.perf_counter())
        if not request["is_counted"]:
            # A message is a token until the server itself has counted.
            request["output_tokens"] = len(request["token_s"])
    for choice in choices:
        request["ended_by"] = choice.get("finish_reason") or request["ended_by"]
    usage = message.get("usage")
    if usage:
        request["input_tokens"] = _count(usage, "prompt_tokens")
        request["output_tokens"] = _count(usage, "completion_tokens")
        request["is_counted"] = True


def _count(usage: dict[str, Any], name: str) -> int:
    count = usage.get(name)
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count < 2**31:
        raise ValueError(f"usage has {name} {str(count)[:40]!r}; expected a number of tokens")
    return count
