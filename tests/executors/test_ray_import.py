"""Ray is let in without its taking over what is ours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

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


_ASKS_WITHOUT_A_RAY = """
from sweeper.executors.ray import _is_cancelled
from sweeper.executors.ray_import import import_ray
ray = import_ray(is_private=False)
assert not _is_cancelled()
try:
    ray.wait([ray.put(1)])
except ray.exceptions.RaySystemError as exc:
    print(exc)
"""


def test_ray_that_is_gone_is_not_started_by_asking_it() -> None:
    with tempfile.TemporaryDirectory() as own:
        asked = subprocess.run(
            [sys.executable, "-c", _ASKS_WITHOUT_A_RAY],
            env={**os.environ, "TMPDIR": own},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Ray has not been started yet" in asked.stdout, asked.stderr
        assert list(Path(own).iterdir()) == []
