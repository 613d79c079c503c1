"""Ctrl-C that is not lost where Python drops an exception.

A signal's handler runs between two instructions, whatever these belong to: also a finalizer or the
callback of a weak reference. What is raised there Python prints and forgets, so that the wish to stop
would be lost and the user would see a traceback. It is given again a moment later, when that code has
ended.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable

_SOON_S = 0.01


class Interrupt(KeyboardInterrupt):
    """A Ctrl-C whose handler can be made ready for the same one again."""

    def __init__(self, rearm: Callable[[], None]) -> None:
        """Make one.

        Args:
            rearm: Undoes what the handler noted, so that it raises again.
        """
        super().__init__()
        self.rearm = rearm


def give_again_what_is_dropped() -> None:
    """Let interrupts that Python drops be given again, without a word; anything else is printed as before."""
    sys.unraisablehook = _give_again


def _give_again(dropped: sys.UnraisableHookArgs) -> None:
    interrupt = dropped.exc_value
    if not isinstance(interrupt, Interrupt):
        sys.__unraisablehook__(dropped)
        return
    interrupt.rearm()
    # To the main thread itself, so that it also wakes from waiting.
    main = threading.main_thread().ident
    again = threading.Timer(_SOON_S, signal.pthread_kill, (main, signal.SIGINT))
    again.daemon = True
    again.start()
