"""How far a long piece of work before the first trial is: a line after two seconds, then one every ten."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sweeper.text.durations import duration_text

if TYPE_CHECKING:
    from rich.console import Console

_FIRST_S = 2.0
_EVERY_S = 10.0


class LongWork:
    """Prints how much of one piece of work is done; says nothing of work that is over at once."""

    def __init__(self, console: Console, what: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin to count; ``what`` names the work, such as ``planning settings``."""
        self._console = console
        self._what = what
        self._clock = clock
        self._began_s = clock()
        self._next_s = self._began_s + _FIRST_S

    def seen(self, done: int, total: int) -> None:
        """Record that so much of the work is done."""
        now_s = self._clock()
        if now_s < self._next_s or not done:
            return
        self._next_s = now_s + _EVERY_S
        left_s = (now_s - self._began_s) / done * max(total - done, 0)
        self._console.print(
            f"{self._what}: {done:,} of {total:,}, about {duration_text(left_s)} left (Ctrl-C stops it)",
            markup=False,
            soft_wrap=True,
        )
