"""Runs trials in threads of this process: for tests, dry runs and single machines without Ray.

The same trial body as everywhere; what Ray adds is processes, nodes and the accounting of devices.
"""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from sweeper.executors import Ticket
from sweeper.processes.warm import WarmProcesses
from sweeper.records import Placement, TrialResult, TrialSpec
from sweeper.trial import trial
from sweeper.trial.kept import KeptEngines


class InlineExecutor:
    """Trials as threads; as many at once as there are devices to hold."""

    name = "inline"

    def __init__(self, *, max_parallel: int, is_alone: bool = False) -> None:
        """Prepare threads for at most so many trials at once.

        Args:
            max_parallel: Trials.
            is_alone: Whether no engine may wait anywhere while a trial runs.
        """
        self._pool = ThreadPoolExecutor(max_workers=max_parallel, thread_name_prefix="trial")
        self._numbers = itertools.count(1)
        self._running: dict[Future[TrialResult], tuple[Ticket, TrialSpec, Placement]] = {}
        self._stop = threading.Event()
        self._warm = WarmProcesses()
        self._engines = KeptEngines(is_alone=is_alone, warm=self._warm)

    def submit(self, spec: TrialSpec, placement: Placement) -> Ticket:
        """Start a trial on devices that the caller holds."""
        ticket = Ticket(next(self._numbers))
        future = self._pool.submit(self._engines.run, spec, placement, cancelled=self._stop.is_set)
        self._running[future] = (ticket, spec, placement)
        return ticket

    def wait(self, timeout_s: float) -> list[tuple[Ticket, TrialResult]]:
        """Return the results that are there, waiting at most so long for a first one."""
        if not self._running:
            time.sleep(min(timeout_s, 0.05))
            return []
        done, _ = wait(self._running, timeout=timeout_s, return_when=FIRST_COMPLETED)
        finished = []
        for future in done:
            ticket, spec, placement = self._running.pop(future)
            error = future.exception()
            result = future.result() if error is None else trial.lost(spec, placement, error)
            finished.append((ticket, result))
        return finished

    def cancel(self) -> None:
        """Ask every running trial to stop and clean up; their results still come through ``wait``."""
        self._stop.set()

    def lost_nodes(self) -> frozenset[str]:
        """Return no node: this machine runs the study itself."""
        return frozenset()

    def close(self) -> None:
        """End the threads, waiting for trials that are still cleaning up, and the engines that wait."""
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._engines.close()
        self._warm.close()
