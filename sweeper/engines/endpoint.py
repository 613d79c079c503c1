"""Asking a server over HTTP: the few questions that every engine is asked, however it was started."""

from __future__ import annotations

import hashlib
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sweeper.engines import Cancelled, http_limits
from sweeper.errors import EngineError, Stopped

SANITY_PROMPT = "The capital of France is"
SANITY_TOKENS = 8

_METRICS_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back: ``status`` is None when no whole answer came, and ``problem`` says why."""

    status: int | None
    text: str
    problem: str | None = None

    @property
    def is_ok(self) -> bool:
        """Whether the server did what it was asked."""
        return self.status == 200

    @property
    def how(self) -> str:
        """Its status in words, for a message."""
        return f"status {self.status}" if self.problem is None else f"no status ({self.problem})"

    @property
    def content(self) -> dict[str, object]:
        """The JSON object in the answer; empty when there is none."""
        try:
            content = json.loads(self.text)
        except (ValueError, RecursionError):
            return {}
        return content if isinstance(content, dict) else {}

    @property
    def first_text(self) -> str:
        """Text of a completion in OpenAI's form; empty when there is none."""
        choices = self.content.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            return ""
        return str(choices[0].get("text") or "")

    def why_no_text(self, *, who: str, look: str) -> str | None:
        """Describe why this is no answer to the greedy question; None where it is one.

        Args:
            who: What was asked, for the message.
            look: Where to look for the reason, a sentence.
        """
        text = self.first_text if self.is_ok else ""
        if text.strip():
            return None
        return (
            f"engine: {who} answers '{SANITY_PROMPT}' with {self.how} and text {text!r}; "
            f"expected some text. {look}"
        )


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a server answers, and the key it asks for; the key shows in no text of this object.

    Time limits are of the whole answer, however slowly it drips.

    Attributes:
        cancelled: Asked while an answer is waited for; true ends the wait.
    """

    base_url: str
    api_key: str = field(repr=False, default="")
    cancelled: Cancelled = field(repr=False, default=lambda: False)

    def get(self, path: str, *, timeout_s: float = 30.0) -> Answer:
        """Read a page."""
        return self._request(path, timeout_s=timeout_s)

    def post(self, path: str, body: Mapping[str, object], *, timeout_s: float = 30.0) -> Answer:
        """Send JSON."""
        return self._request(path, timeout_s=timeout_s, body=body)

    def metrics(self) -> str:
        """Return the page of Prometheus metrics; empty where none comes, or a stop is asked for."""
        try:
            return self.get("/metrics", timeout_s=_METRICS_S).text
        except EngineError:
            # Looked at from the side of a load, by a caller that could do nothing with it.
            return ""

    def served_models(self) -> list[object]:
        """Names of the models served, by ``/v1/models``."""
        listed = self.get("/v1/models").content.get("data")
        found = listed if isinstance(listed, list) else []
        return [model.get("id") for model in found if isinstance(model, dict)]

    def ask_greedily(self, model: str, *, timeout_s: float) -> Answer:
        """Ask a question whose answer depends on nothing but the model and how it is computed."""
        question = {"model": model, "prompt": SANITY_PROMPT, "max_tokens": SANITY_TOKENS, "temperature": 0}
        return self.post("/v1/completions", question, timeout_s=timeout_s)

    def _request(self, path: str, *, timeout_s: float, body: Mapping[str, object] | None = None) -> Answer:
        """Ask, and wait for the whole answer.

        Raises:
            EngineError: A stop was asked for meanwhile.
        """
        headers = {"Content-Type": "application/json"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        request = urllib.request.Request(
            self.base_url + path, data=None if body is None else json.dumps(body).encode(), headers=headers
        )
        opener = http_limits.opener(http_limits.Patience(limit_s=timeout_s, cancelled=self.cancelled))
        try:
            try:
                with opener.open(request, timeout=timeout_s) as answer:
                    return Answer(
                        status=answer.status, text=http_limits.read(answer).decode(errors="replace")
                    )
            except urllib.error.HTTPError as exc:
                with exc:
                    return Answer(status=exc.code, text=http_limits.read(exc).decode(errors="replace"))
        except (OSError, http.client.HTTPException) as exc:
            # Not up yet, too slow, or gone in the middle of an answer.
            reason = exc.reason if isinstance(exc, urllib.error.URLError) else exc
            return Answer(status=None, text="", problem=str(reason) or type(reason).__name__)
        except http_limits.StoppedError as exc:
            raise Stopped from exc


def joined(answers: Iterable[str | None]) -> str | None:
    """Return the answer that several servers or starts share, or all of them in order where they differ."""
    told = [answer for answer in answers if answer is not None]
    return " | ".join(told if len(set(told)) > 1 else told[:1]) if told else None


def fingerprint(answer: str) -> str:
    """Shorten the text of an answer to 16 hex digits that distinguish it from others."""
    return hashlib.sha256(answer.encode("utf-8", "backslashreplace")).hexdigest()[:16]
