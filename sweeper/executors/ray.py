"""Runs trials as Ray tasks: in processes of their own, on this machine or on a cluster's nodes.

Ray starts the trials, spans nodes and accounts for devices. Which devices a trial gets is decided by
``placement``: Ray hands out indices unaligned ([1, 3, 4, 6] for four of eight), so its tasks ask for a
count of a custom resource, a guard against giving out too much, and the block travels as an argument.

By default an own Ray is started for the length of the study, private to it: plain ``ray.init`` joins
whatever cluster it finds on the host (seen with Ray 2.60). Joining one is explicit.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sweeper import processes, trial
from sweeper.errors import ConfigError, PlacementError
from sweeper.executors import Ticket
from sweeper.records import FailureClass, Placement, TrialResult, TrialSpec

_RESOURCE = "sweeper_device"
_GRACE_S = 60.0
_START_ATTEMPTS = 3
_KNOCK_S = 10.0
_TEMP_PREFIX = "sweeper-ray-"


def run_in_worker(spec: TrialSpec, placement: Placement) -> TrialResult:
    """Run the trial in a Ray worker; ``ray.cancel`` arrives there as a KeyboardInterrupt."""
    return trial.run(spec, placement, cancelled=lambda: False)


class RayExecutor:
    """Trials as Ray tasks, one per placement."""

    name = "ray"

    def __init__(self, *, devices: int, address: str, log_path: Path) -> None:
        """Start a private Ray, or join a running one.

        Args:
            devices: Devices of the node, for Ray's own accounting.
            address: ``local`` starts a private Ray; ``auto`` or ``host:port`` joins one.
            log_path: File that takes what Ray prints.

        Raises:
            ConfigError: No cluster answers at the address.
            PlacementError: A private Ray did not start.
        """
        self._log_path = log_path
        self._is_own = address == "local"
        # Unix socket paths are limited to about 100 characters, so the folder's own must be short.
        self._temp_dir = _own_temp_dir() if self._is_own else None
        self._ray = _import_ray()
        try:
            with _noise_to(log_path):
                self._start(devices, address)
        except BaseException:
            self._remove_temp_dir()
            raise
        self._run = self._ray.remote(run_in_worker)
        self._numbers = itertools.count(1)
        self._running: dict[Any, tuple[Ticket, TrialSpec, Placement]] = {}
        self._cancelled: set[Any] = set()

    def submit(self, spec: TrialSpec, placement: Placement) -> Ticket:
        """Start a trial on devices that are the caller's to give."""
        ticket = Ticket(next(self._numbers))
        guard = {_RESOURCE: len(placement.devices)} if self._is_own else {}
        gpus = 0 if self._is_own else len(placement.devices)
        task = self._run.options(
            num_cpus=0,
            num_gpus=gpus,
            resources=guard,
            # A trial is repeated by the sweep, which knows why it failed, never behind its back.
            max_retries=0,
            name=f"trial {spec.key}",
            # The engine's mask is set by us, so Ray's own must stay away (it would be composed with it).
            runtime_env={"env_vars": {"RAY_EXPERIMENTAL_NOSET_HIP_VISIBLE_DEVICES": "1"}},
        )
        self._running[task.remote(spec, placement)] = (ticket, spec, placement)
        return ticket

    def wait(self, timeout_s: float) -> list[tuple[Ticket, TrialResult]]:
        """Give the results that are there, waiting at most so long for a first one."""
        if not self._running:
            time.sleep(min(timeout_s, 0.05))
            return []
        done, _ = self._ray.wait(list(self._running), num_returns=1, timeout=timeout_s)
        if done:
            done, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        return [self._collect(reference) for reference in done]

    def cancel(self) -> None:
        """Ask every running trial to stop and clean up; their results still come through ``wait``."""
        for reference in self._running:
            self._cancelled.add(reference)
            self._ray.cancel(reference, force=False)

    def close(self) -> None:
        """Leave Ray; a private one is ended and its folder removed."""
        if not self._ray.is_initialized():
            return
        self.cancel()
        deadline = time.monotonic() + _GRACE_S
        while self._running and time.monotonic() < deadline:
            self.wait(0.5)
        with _noise_to(self._log_path):
            self._ray.shutdown()
        self._remove_temp_dir()

    def _remove_temp_dir(self) -> None:
        if self._temp_dir is not None:
            shutil.rmtree(self._temp_dir, ignore_errors=True)

    def _start(self, devices: int, address: str) -> None:
        if not self._is_own:
            self._join(address)
            return
        for attempt in range(1, _START_ATTEMPTS + 1):
            try:
                self._start_own(devices)
            except Exception as exc:
                # Ray raises a plain Exception when its own processes are not up within 30 s, a limit that
                # cannot be set (Ray 2.60, node.py); on a loaded machine the next start finds a warm disk.
                self._ray.shutdown()
                if attempt == _START_ATTEMPTS:
                    raise PlacementError(
                        f"executor: Ray did not start in {attempt} attempts: {_first_line(exc)} "
                        f"See {self._log_path}, or use executor=inline."
                    ) from exc
            else:
                return

    def _start_own(self, devices: int) -> None:
        self._ray.init(
            address="local",
            num_cpus=max(devices, 1),
            num_gpus=0,
            resources={_RESOURCE: devices},
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            _temp_dir=str(self._temp_dir),
        )

    def _join(self, address: str) -> None:
        try:
            _knock(address)
            self._ray.init(address=address, log_to_driver=False, logging_level="error")
        except (OSError, RuntimeError, ValueError) as exc:
            raise ConfigError(
                f"executor.address: no Ray cluster answers at '{address}': {_first_line(exc)} "
                "Start one with 'ray start --head', or use executor.address=local."
            ) from exc

    def _collect(self, reference: Any) -> tuple[Ticket, TrialResult]:
        ticket, spec, placement = self._running.pop(reference)
        try:
            result: TrialResult = self._ray.get(reference)
        except Exception as exc:
            # A task that is cancelled before or after its body ends with Ray's own error, not with ours.
            was_asked = reference in self._cancelled
            failure = FailureClass.INTERRUPTED if was_asked else FailureClass.INFRASTRUCTURE
            result = trial.lost(spec, placement, exc, failure=failure)
        return ticket, result


def _own_temp_dir() -> Path:
    """Make Ray's folder, named after its owner, and remove those of owners that were killed."""
    for old in Path(tempfile.gettempdir()).glob(f"{_TEMP_PREFIX}*-*"):
        pid = old.name.removeprefix(_TEMP_PREFIX).split("-")[0]
        if pid.isdigit() and processes.find(int(pid)) is None:
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_TEMP_PREFIX}{os.getpid()}-"))


def _knock(address: str) -> None:
    """Connect to a head node once: Ray itself asks an address that does not answer for many minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()


def _first_line(exc: BaseException) -> str:
    text = str(exc).strip()
    return text.splitlines()[0] if text else type(exc).__name__


def _import_ray() -> Any:
    # Read by Ray when it is imported or initialised: no telemetry, and no token file in the user's home
    # for a cluster that only listens on loopback.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    return ray


@contextlib.contextmanager
def _noise_to(path: Path) -> Iterator[None]:
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
