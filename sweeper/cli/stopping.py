"""Ctrl-C and SIGTERM, turned into a wish that the sweep asks about between two steps."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class StopSignals:
    """The first Ctrl-C or SIGTERM asks for a clean stop; the second one means now."""

    def __init__(self) -> None:
        self.signalled: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def is_set(self) -> bool:
        """Tell whether a stop was asked for."""
        return self.signalled is not None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signalled is not None:
            raise KeyboardInterrupt
        self.signalled = number
