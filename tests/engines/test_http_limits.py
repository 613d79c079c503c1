"""Answers that drip or never end: every wait ends at its limit, or at once on a request to stop."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sweeper.engines import http_limits
from sweeper.engines.endpoint import Endpoint
from sweeper.errors import EngineError
from sweeper.records import FailureClass

# What a server sends first, and what it then repeats, a piece every 20 ms.
DRIPPING = {
    "headers": (b"HTTP/1.1 200 OK\r\nX-", b"a"),
    "header lines": (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
    "continuations": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a body": (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b" "),
    "a body without a length": (b"HTTP/1.1 200 OK\r\n\r\n", b" "),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "the body of an error": (b"HTTP/1.1 500 No\r\nContent-Length: 1000000\r\n\r\n", b" "),
    "nothing": (b"", b""),
}


@contextmanager
def sending(first: bytes, again: bytes, *, pause_s: float = 0.02) -> Iterator[str]:
    """Serve whoever connects with some bytes, and then with the same piece again and again."""
    listening = socket.create_server(("127.0.0.1", 0))
    is_over = threading.Event()

    def serve() -> None:
        while not is_over.is_set():
            try:
                asking, _ = listening.accept()
            except OSError:
                return
            with asking:
                try:
                    asking.sendall(first)
                    while not is_over.wait(pause_s):
                        asking.sendall(again)
                except OSError:
                    continue

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        is_over.set()
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


@pytest.mark.parametrize("kind", DRIPPING)
def test_answer_that_drips_is_given_up_at_limit(kind: str) -> None:
    with sending(*DRIPPING[kind]) as url:
        answer = Endpoint(base_url=url).get("/metrics", timeout_s=0.5)
    assert answer.status is None
    assert not answer.is_ok
    # Some kinds break another rule before, such as a hundred lines of headers.
    assert answer.problem
    if kind != "header lines":
        assert answer.how == "no status (no whole answer within 0.5 s)"


@pytest.mark.parametrize("kind", DRIPPING)
def test_request_to_stop_ends_wait(kind: str) -> None:
    stopped = threading.Event()
    threading.Timer(0.2, stopped.set).start()
    with sending(*DRIPPING[kind], pause_s=0.05) as url:
        there = Endpoint(base_url=url, cancelled=stopped.is_set)
        with pytest.raises(EngineError, match="stopped on request") as raised:
            there.get("/metrics", timeout_s=600.0)
    assert raised.value.failure is FailureClass.INTERRUPTED


def test_answer_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_limits, "LARGEST_ANSWER", 2**20)
    with sending(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 2**17, pause_s=0.0) as url:
        answer = Endpoint(base_url=url).get("/metrics", timeout_s=60.0)
    assert answer.how == "no status (an answer of more than 1 MiB)"


def test_answer_that_breaks_off_is_none() -> None:
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        asking, _ = listening.accept()
        with asking:
            asking.recv(2**16)
            asking.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"a": 1}')

    thread = threading.Thread(target=serve)
    thread.start()
    answer = Endpoint(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}").get("/x", timeout_s=10.0)
    thread.join()
    listening.close()
    assert answer.status is None
    assert "IncompleteRead" in str(answer.problem)


def test_whole_answers_come_as_ever() -> None:
    body = b'{"data": [{"id": "m"}]}'
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    with sending(whole, b"") as url:
        assert Endpoint(base_url=url).served_models() == ["m"]


def test_metrics_looked_at_from_side_are_empty_when_stop_is_asked_for() -> None:
    with sending(*DRIPPING["a body"]) as url:
        assert Endpoint(base_url=url, cancelled=lambda: True).metrics() == ""
