"""A Ray of our own, on this machine and for the length of one study.

Plain ``ray.init`` joins whatever cluster it finds on the host (seen with Ray 2.60), so an own one is started
under an own folder. Its tasks ask for a count of a custom resource, a guard against giving out too much.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeper.errors import PlacementError, first_line
from sweeper.executors.ray_guard import Guard
from sweeper.executors.ray_import import import_ray, keeping_signals, noise_to, without_masks
from sweeper.processes import process as processes
from sweeper.processes.process import Process
from sweeper.records import Placement

_RESOURCE = "sweeper_device"
_START_ATTEMPTS = 3
# Ray writes it into the environment of each worker (named in ray_constants.py of Ray 2.60).
_RAYLET_MARK = "RAY_RAYLET_PID"
_TEMP_PREFIX = "sweeper-ray-"
# A socket's path has at most 107 characters, and Ray's takes 64 below its folder
# ("/session_2026-11-27_03-20-11_039025_4194304/sockets/plasma_store"), whose own name takes up to 29.
_LONGEST_TEMPORARY = 14
_SOCKETS_FIT = Path("/tmp")


class PrivateRay:
    """Ray on this machine alone; its one node cannot be lost without the study itself."""

    is_local = True

    def __init__(self, *, devices: int, log_path: Path) -> None:
        """Start it.

        Args:
            devices: Devices of the node, for Ray's own accounting.
            log_path: File that takes what Ray prints.

        Raises:
            PlacementError: It did not start.
        """
        self._log_path = log_path
        self._devices = devices
        self._raylet: Process | None = None
        # Unix socket paths are limited to about 100 characters, so the folder's own must be short.
        self._temp_dir = own_temp_dir()
        with without_masks():
            self._guard = Guard(self._temp_dir)
        self._ray = import_ray(is_private=True)
        try:
            with noise_to(log_path):
                self._start(devices)
        except BaseException:
            processes.end(_below(self._temp_dir), grace_s=0.0)
            self._guard.close()
            raise

    def task_options(self, placement: Placement) -> Mapping[str, Any]:
        """Ask for as many devices as the trial holds."""
        return {"resources": {_RESOURCE: len(placement.devices)}}

    def has_lost(self, node: str) -> bool:
        """Report that this machine is still here."""
        return False

    def lost_nodes(self) -> frozenset[str]:
        """Return no node: the only one is this machine."""
        return frozenset()

    def has_died(self) -> bool:
        """Whether its raylet is gone, without which no task starts and none ends (seen with Ray 2.60)."""
        return self._raylet is not None and not processes.is_alive(self._raylet)

    def start_again(self) -> None:
        """Start it anew in the same folder, without the workers of the dead one."""
        with noise_to(self._log_path):
            self._ray.shutdown()
            # They outlive their raylet (seen with Ray 2.60, minutes later), and with them their trials.
            processes.end(self._workers(), grace_s=0.0)
            self._start(self._devices)

    def close(self) -> None:
        """End it and remove its folder; safe to call twice."""
        with noise_to(self._log_path):
            self._ray.shutdown()
        self._guard.close()

    def _workers(self) -> list[Process]:
        """Find the processes that the raylet started, also when it is gone itself."""
        raylet = self._raylet
        if raylet is None:
            return []
        marked = processes.marked(_RAYLET_MARK, str(raylet.pid))
        return [process for process in marked if process.start_time >= raylet.start_time]

    def _start(self, devices: int) -> None:
        for attempt in range(1, _START_ATTEMPTS + 1):
            try:
                self._init(devices)
            except Exception as exc:
                # Ray raises a plain Exception when its own processes are not up within 30 s, a limit that
                # cannot be set (Ray 2.60, node.py); on a loaded machine the next start finds a warm disk.
                self._ray.shutdown()
                # Of a node that did not come up, Ray knows nothing any more; its processes run on.
                processes.end(_below(self._temp_dir), grace_s=0.0)
                if attempt == _START_ATTEMPTS:
                    raise PlacementError(
                        f"executor: Ray did not start in {attempt} attempts: {first_line(exc)}. "
                        f"See {self._log_path}, or use executor=inline."
                    ) from exc
            else:
                self._raylet = _raylet()
                return

    def _init(self, devices: int) -> None:
        with keeping_signals(), without_masks():
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


def _raylet() -> Process | None:
    """Find the raylet that this process has just started."""
    below = processes.descendants(os.getpid())
    return next((p for p in below if Path(processes.title(p.pid).partition(" ")[0]).name == "raylet"), None)


def _below(temp_dir: Path) -> list[Process]:
    """Find the processes of a Ray that this process started in this folder; their command lines name it."""
    below = processes.descendants(os.getpid())
    return [process for process in below if str(temp_dir) in processes.title(process.pid)]


def own_temp_dir() -> Path:
    """Make Ray's folder, named after its owner, and remove those of owners that were killed."""
    usual = Path(tempfile.gettempdir())
    folder = usual if len(str(usual)) <= _LONGEST_TEMPORARY else _SOCKETS_FIT
    for old in folder.glob(f"{_TEMP_PREFIX}*-*"):
        pid = old.name.removeprefix(_TEMP_PREFIX).split("-")[0]
        if pid.isdigit() and processes.find(int(pid)) is None:
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_TEMP_PREFIX}{os.getpid()}-", dir=folder))
