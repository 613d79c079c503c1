"""HTTP connections whose whole answer has a time limit, a size limit, and ends on a request to stop.

The time limits of sockets are for single reads: who sends a byte a second is read for ever. Here every read
waits in short turns and looks at the clock and at a request to stop in between, so that the limit is that of
the wall clock for headers and body together.
"""

from __future__ import annotations

import functools
import http.client
import socket
import ssl
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

LARGEST_ANSWER = 16 * 2**20
"""Bytes of an answer, at most. The metrics of an engine have some hundred thousand."""

_TURN_S = 0.25
_CHUNK = 2**16


class StoppedError(Exception):
    """Somebody asked to stop while an answer was waited for."""


class TooLargeError(OSError):
    """An answer is larger than any that was asked for."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long one answer is waited for.

    Attributes:
        limit_s: Seconds for all of it, from the first byte that is sent.
        cancelled: Asked between turns; true ends the wait.
        until: Where the clock ends it.
    """

    limit_s: float
    cancelled: Callable[[], bool] = lambda: False
    until: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "until", time.monotonic() + self.limit_s)

    def turn_s(self) -> float:
        """Return the seconds of the next turn.

        Raises:
            StoppedError: A stop was asked for.
            TimeoutError: The time is over.
        """
        if self.cancelled():
            raise StoppedError
        left_s = self.until - time.monotonic()
        if left_s <= 0:
            raise TimeoutError(f"no whole answer within {self.limit_s:g} s")
        return min(left_s, _TURN_S)


def opener(patience: Patience) -> urllib.request.OpenerDirector:
    """Make what opens URLs with this patience, without any proxy: servers are on loopback or nearby."""
    return urllib.request.build_opener(
        urllib.request.ProxyHandler({}), _HttpHandler(patience), _HttpsHandler(patience)
    )


def read(answer: Any) -> bytes:
    """Read an answer to its end.

    Raises:
        TooLargeError: It has no end in sight.
        IncompleteRead: It ended before the length that it announced.
    """
    parts, size = [], 0
    while part := answer.read1(_CHUNK):
        parts.append(part)
        size += len(part)
        if size > LARGEST_ANSWER:
            raise TooLargeError(f"an answer of more than {LARGEST_ANSWER // 2**20} MiB")
    missing = getattr(answer, "length", None)
    if missing:
        raise http.client.IncompleteRead(b"", missing)
    return b"".join(parts)


class _PatientReads:
    """Reads of a socket in turns."""

    patience: Patience | None = None

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        patience = self.patience
        while patience is not None:
            self.settimeout(patience.turn_s())  # type: ignore[attr-defined]
            try:
                return int(super().recv_into(*args, **kwargs))  # type: ignore[misc]
            except TimeoutError:
                continue
        return int(super().recv_into(*args, **kwargs))  # type: ignore[misc]


class _PatientSocket(_PatientReads, socket.socket):
    pass


class _PatientTlsSocket(_PatientReads, ssl.SSLSocket):
    pass


class _Connection(http.client.HTTPConnection):
    def __init__(self, *args: Any, patience: Patience, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._patience = patience

    def connect(self) -> None:
        super().connect()
        plain: socket.socket = self.sock
        timeout_s = plain.gettimeout()
        self.sock = _PatientSocket(fileno=plain.detach())
        self.sock.settimeout(timeout_s)
        self.sock.patience = self._patience


class _TlsConnection(http.client.HTTPSConnection):
    def __init__(self, *args: Any, patience: Patience, **kwargs: Any) -> None:
        context = ssl.create_default_context()
        context.sslsocket_class = _PatientTlsSocket
        super().__init__(*args, **{**kwargs, "context": context})
        self._patience = patience

    def connect(self) -> None:
        super().connect()
        assert isinstance(self.sock, _PatientTlsSocket)
        self.sock.patience = self._patience


class _HttpHandler(urllib.request.HTTPHandler):
    def __init__(self, patience: Patience) -> None:
        super().__init__()
        self._patience = patience

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(functools.partial(_Connection, patience=self._patience), req)


class _HttpsHandler(urllib.request.HTTPSHandler):
    def __init__(self, patience: Patience) -> None:
        super().__init__()
        self._patience = patience

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(functools.partial(_TlsConnection, patience=self._patience), req)
