"""Runs trials as Ray tasks: in processes of their own, on this machine or on a cluster's nodes.

Ray starts the trials and spans nodes. Which node and which devices a trial gets is decided by ``schedule``:
Ray hands out indices unaligned ([1, 3, 4, 6] for four of eight), so the block travels as an argument. By
default an own Ray is started (``private_ray``); joining one that runs is explicit (``cluster``).
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from sweeper.executors import Ticket
from sweeper.executors.ray_holders import EngineHolder, Holders, actor_options, close_all
from sweeper.executors.ray_import import STARTS_BY_ITSELF, import_ray
from sweeper.processes import orphans, process
from sweeper.processes.process import Process
from sweeper.processes.warm import WarmProcesses
from sweeper.records import FailureClass, Placement, TrialResult, TrialSpec
from sweeper.trial import trial

_GRACE_S = 60.0
_USUAL_OPTIONS: Mapping[str, Any] = {
    "num_cpus": 0,
    "num_gpus": 0,
    # The engine's mask is set by us, so Ray's own must stay away (it would be composed with it).
    "runtime_env": {"env_vars": {"RAY_EXPERIMENTAL_NOSET_HIP_VISIBLE_DEVICES": "1", STARTS_BY_ITSELF: "0"}},
}


class Session(Protocol):
    """A Ray that this process is connected to: its own, or a cluster's.

    Attributes:
        is_local: Whether trials run on the machine of this process, and so can see whether it lives.
    """

    is_local: bool

    def task_options(self, placement: Placement) -> Mapping[str, Any]:
        """Return the options with which Ray starts a trial on its node."""
        ...

    def has_lost(self, node: str) -> bool:
        """Find out whether a node on which something went wrong is gone."""
        ...

    def lost_nodes(self) -> frozenset[str]:
        """Return the nodes that are gone."""
        ...

    def has_died(self) -> bool:
        """Whether it can run nothing any more, and has to be started again."""
        ...

    def start_again(self) -> None:
        """Start it anew; what ran in it is gone."""
        ...

    def close(self) -> None:
        """Leave; safe to call twice."""
        ...


def run_in_worker(
    spec: TrialSpec, placement: Placement, driver: Process | None = None, in_the_way: Sequence[Any] = ()
) -> TrialResult:
    """Run the trial in a Ray worker; ``ray.cancel`` arrives there as a KeyboardInterrupt.

    Args:
        spec: What to run.
        placement: On which devices.
        driver: Who wants the result. Without it the trial ends by itself: a worker may learn of the death of
            its Ray long after that of the driver.
        in_the_way: Actors whose engines have to end first (``ray_holders``).
    """
    close_all(in_the_way)

    def cancelled() -> bool:
        return _is_cancelled() or (driver is not None and not process.is_alive(driver))

    return trial.run(spec, placement, cancelled=cancelled, warm=_warm_processes(driver))


@cache
def _warm_processes(driver: Process | None) -> WarmProcesses:
    """Return who keeps processes warm in this worker, which Ray gives one trial after another.

    They end with the worker, which may outlive its driver for a while, and with the driver.
    """
    return WarmProcesses(also_for=driver)


def _is_cancelled() -> bool:
    """Ask Ray, too: a KeyboardInterrupt that comes while an object is being finalised is lost."""
    if threading.current_thread() is not threading.main_thread():
        # Ray knows the task of its own thread only; what others do ends with the main one.
        return False
    try:
        return bool(import_ray(is_private=False).get_runtime_context().is_canceled())
    except RuntimeError:
        # Outside a worker nothing can be cancelled.
        return False


class RayExecutor:
    """Trials as Ray tasks, one per placement."""

    name = "ray"

    def __init__(self, session: Session, *, is_alone: bool = False) -> None:
        """Start trials in a Ray; it is left when this executor is closed.

        Args:
            session: The Ray.
            is_alone: Whether no engine may wait anywhere on a node while a trial runs there.
        """
        self._session = session
        self._ray = import_ray(is_private=False)
        self._run = self._ray.remote(run_in_worker)
        self._driver = process.current() if session.is_local else None
        self._holders = Holders(self._new_holder, is_alone=is_alone)
        self._numbers = itertools.count(1)
        self._running: dict[Any, tuple[Ticket, TrialSpec, Placement]] = {}
        self._cancelled: set[Any] = set()
        self._lost: list[tuple[Ticket, TrialResult]] = []
        self._is_open = True

    def submit(self, spec: TrialSpec, placement: Placement) -> Ticket:
        """Start a trial on devices that the caller holds."""
        if self._session.has_died():
            # What is given to a dead Ray is lost at once, though nothing is wrong with it.
            self._lose_everything()
        ticket = Ticket(next(self._numbers))
        self._running[self._start(spec, placement)] = (ticket, spec, placement)
        return ticket

    def _start(self, spec: TrialSpec, placement: Placement) -> Any:
        """Start a trial as a task of its own, or by the actor that holds the engine which it shares."""
        in_the_way = self._holders.make_room(spec, placement)
        if spec.start_key is not None:
            return self._holders.of(spec, placement).run.remote(spec, placement, in_the_way)
        task = self._run.options(
            **_USUAL_OPTIONS,
            # A trial is repeated by the sweep, which knows why it failed, never behind its back.
            max_retries=0,
            name=f"trial {spec.key}",
            **self._session.task_options(placement),
        )
        return task.remote(spec, placement, self._driver, in_the_way)

    def _new_holder(self, placement: Placement) -> Any:
        options = {**_USUAL_OPTIONS, **actor_options(self._session.task_options(placement))}
        return self._ray.remote(EngineHolder).options(**options).remote(self._driver)

    def wait(self, timeout_s: float) -> list[tuple[Ticket, TrialResult]]:
        """Return the results that are there, waiting at most so long for a first one."""
        if self._running and self._session.has_died():
            self._lose_everything()
        if self._lost:
            lost, self._lost = self._lost, []
            return lost
        if not self._running:
            time.sleep(min(timeout_s, 0.05))
            return []
        done, _ = self._ray.wait(list(self._running), num_returns=1, timeout=timeout_s)
        if done:
            done, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        return [self._collect(reference) for reference in done]

    def cancel(self) -> None:
        """Ask every running trial to stop and clean up; their results still come through ``wait``."""
        for reference, (_, spec, placement) in self._running.items():
            self._cancelled.add(reference)
            if spec.start_key is None:
                self._ray.cancel(reference, force=False)
            else:
                self._holders.stop(placement)

    def lost_nodes(self) -> frozenset[str]:
        """Return the nodes that are gone since the start; what ran there ends as failed through ``wait``."""
        return self._session.lost_nodes()

    def close(self) -> None:
        """Leave Ray; safe to call twice."""
        if not self._is_open:
            return
        self._is_open = False
        self.cancel()
        deadline = time.monotonic() + _GRACE_S
        while (self._running or self._lost) and time.monotonic() < deadline:
            self.wait(0.5)
        self._holders.close()
        self._session.close()

    def _collect(self, reference: Any) -> tuple[Ticket, TrialResult]:
        ticket, spec, placement = self._running.pop(reference)
        was_asked = reference in self._cancelled
        try:
            result: TrialResult = self._ray.get(reference)
        except Exception as exc:
            # A task that is cancelled before or after its body ends with Ray's own error, not with ours.
            failure = FailureClass.INTERRUPTED if was_asked else FailureClass.INFRASTRUCTURE
            if spec.start_key is not None:
                self._holders.lose(placement)
            cause: Exception = exc
            if self._session.has_lost(placement.node):
                cause = ConnectionError(f"node {placement.node} is gone from the cluster")
            return ticket, _lost(spec, placement, cause, failure=failure)
        if result.failure_class is FailureClass.INTERRUPTED and not was_asked:
            # Another process's signal reached the worker: the user did not stop the trial, so it is repeated.
            outside = InterruptedError("its worker was interrupted from outside")
            return ticket, _lost(spec, placement, outside)
        return ticket, result

    def _lose_everything(self) -> None:
        """Give up all that runs and start Ray again: its tasks would never end, and new ones never start."""
        running = list(self._running.values())
        self._running.clear()
        self._holders.lose_all()
        self._session.start_again()
        # Bound to the Ray that is gone.
        self._run = self._ray.remote(run_in_worker)
        cause = ConnectionError("Ray's own process on this machine died; Ray was started again")
        self._lost += [(ticket, _lost(spec, placement, cause)) for ticket, spec, placement in running]


def _lost(
    spec: TrialSpec,
    placement: Placement,
    cause: Exception,
    *,
    failure: FailureClass = FailureClass.INFRASTRUCTURE,
) -> TrialResult:
    """Make the result of a trial whose worker is gone; its devices are free when this returns.

    The supervisors end what the worker had started, but only after their owner's death and with the
    engine's own grace, and the next trial on these devices would not wait for that. On another node of a
    cluster they are left to it.
    """
    left = orphans.end_launched(Path(spec.folder))
    result = trial.lost(spec, placement, cause, failure=failure)
    if left:
        listed = ", ".join(map(str, left))
        return replace(result, failure_message=f"{result.failure_message}; still alive: {listed}")
    return result
