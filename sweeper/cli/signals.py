"""Ctrl-C and SIGTERM, turned into a wish that the sweep asks about between two steps."""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType
from typing import Any

from sweeper.interrupts import Interrupt

_STDERR = 2
_NOW = 3


class StopSignals:
    """The first Ctrl-C or SIGTERM asks for a clean stop, and the second says what it waits for.

    The third does not wait for results. Those that follow change nothing: what is ending has to end, or
    something of it would be left.
    """

    def __init__(self, *, waits_for: str = "what runs to end") -> None:
        """Handle no signal yet.

        Args:
            waits_for: What a clean stop waits for, for the message to a user who asks again.
        """
        self.signalled: int | None = None
        self._waits_for = waits_for
        self._count = 0
        self._is_settled = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def is_set(self) -> bool:
        """Return whether a stop was asked for."""
        return self.signalled is not None

    def settle(self) -> None:
        """Ignore further haste: from here on everything is being ended."""
        self._is_settled = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self.signalled is None:
            self.signalled = number
        elif self._count < _NOW:
            self._say(f"stopping: waiting for {self._waits_for}; once more does not wait for the results")
        elif self._count == _NOW and not self._is_settled:
            self._is_settled = True
            raise Interrupt(self._rearm)

    def _rearm(self) -> None:
        self._count, self._is_settled = _NOW - 1, False

    def _say(self, text: str) -> None:
        # Straight to the terminal: a stream may just be in use by whom the signal interrupted.
        with contextlib.suppress(OSError):
            os.write(_STDERR, f"{text}\n".encode())
