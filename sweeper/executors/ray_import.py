"""Ray as this package meets it: imported late and without telemetry, its noise in a file."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sweeper.processes import masks

STARTS_BY_ITSELF = "RAY_ENABLE_AUTO_CONNECT"
"""Whether Ray's functions start a Ray where none is; read when it is imported (2.60, auto_init_hook.py)."""


def import_ray(*, is_private: bool) -> Any:
    """Import Ray.

    Args:
        is_private: An own Ray on loopback is to be started. A cluster of others keeps its own way of telling
            its members from other processes.
    """
    # Read by Ray when it is imported or initialised: no telemetry, and no token file in the user's home
    # for a cluster that only listens on loopback.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if is_private:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # A process of Ray ends itself without a word when its raylet dies. Of a driver it takes that to be so
    # where its parent is process 1, as under nohup, systemd or in a container (seen with 2.60). Where a
    # process is named here, which no driver is told, it asks whether that one lives.
    os.environ.setdefault("RAY_RAYLET_PID", str(os.getpid()))
    # Asked while ours dies, its functions would start another one, on every core and in /tmp/ray.
    os.environ.setdefault(STARTS_BY_ITSELF, "0")
    with keeping_signals():
        import ray

    return ray


@contextlib.contextmanager
def keeping_signals() -> Iterator[None]:
    """Put our handlers of requests to stop back: Ray takes SIGTERM, and ends us at once (seen with 2.60).

    Handlers belong to the main thread; called from another one, this does nothing.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                # None is a handler that was not installed from Python, which cannot be put back from it.
                if handler is not None:
                    signal.signal(number, handler)


@contextlib.contextmanager
def without_masks() -> Iterator[None]:
    """Take masks of devices out of our environment for a while.

    Ray refuses ROCR_VISIBLE_DEVICES where HIP_VISIBLE_DEVICES is not set (2.60, accelerators/amd_gpu.py), and
    what it starts inherits what is there. Trials get a mask of their own, so none of them needs ours.
    """
    kept = {name: value for name, value in os.environ.items() if masks.is_mask(name)}
    for name in kept:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(kept)


@contextlib.contextmanager
def noise_to(path: Path) -> Iterator[None]:
    """Send what this process and its children print into a file for a while."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    with path.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for fd, saved in zip((1, 2), kept, strict=True):
                os.dup2(saved, fd)
                os.close(saved)
