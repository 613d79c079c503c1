"""``python -m sweeper``."""

from __future__ import annotations

import signal
import sys
from types import FrameType

from sweeper.interrupts import Interrupt, give_again_what_is_dropped

_STOPPED = 128 + signal.SIGINT


class _Once:
    """The first Ctrl-C interrupts what runs; those that follow must not interrupt its cleaning up."""

    def __init__(self) -> None:
        self.is_spent = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not self.is_spent:
            self.is_spent = True
            raise Interrupt(self._rearm)

    def _rearm(self) -> None:
        self.is_spent = False


def main() -> None:
    """Run the command line and leave with its exit code."""
    try:
        give_again_what_is_dropped()
        signal.signal(signal.SIGINT, _Once())
        from sweeper.text.output import prepare_streams

        prepare_streams()
        from sweeper import cli

        code = cli.main(sys.argv[1:])
    except KeyboardInterrupt:
        # Before there was a command, or after it had ended.
        code = _STOPPED
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


if __name__ == "__main__":
    main()
