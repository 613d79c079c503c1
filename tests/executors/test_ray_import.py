"""Ray is let in without its taking over what is ours."""

from __future__ import annotations

import signal

from sweeper.executors.ray_import import keeping_signals


def test_handlers_that_somebody_else_installs_are_put_back() -> None:
    def ours(*_: object) -> None: ...

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        signal.signal(signal.SIGTERM, ours)
        with keeping_signals():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGTERM) is ours
        assert signal.getsignal(signal.SIGINT) is before[signal.SIGINT]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
