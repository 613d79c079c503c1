"""A scheduler of vLLM V1 that takes its limits from a file while nothing runs; imports nothing of ours.

Runs in the engine's environment, named to vLLM by ``--scheduler-cls live_scheduler.LiveScheduler``. The
file that the variable LIVE_LIMITS names holds JSON of ``max_num_seqs`` and ``max_num_batched_tokens``; what
the scheduler then has is written to the same name with ``.confirmed``. A limit above that of the start is
refused there: the sizes of the worker's buffers are those of the start.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

_ATTRIBUTES = {"max_num_seqs": "max_num_running_reqs", "max_num_batched_tokens": "max_num_scheduled_tokens"}


class _Live:
    """What a scheduler of either kind does before each step."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._limits_file = Path(os.environ["LIVE_LIMITS"])
        self._largest = {name: getattr(self, attribute) for name, attribute in _ATTRIBUTES.items()}
        self._seen_ns = -1

    def schedule(self, *args: Any, **named: Any) -> Any:
        if not self.running:
            self._take_limits()
        return super().schedule(*args, **named)

    def _take_limits(self) -> None:
        try:
            changed_ns = self._limits_file.stat().st_mtime_ns
            if changed_ns == self._seen_ns:
                return
            wanted = json.loads(self._limits_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        self._seen_ns = changed_ns
        refused = sorted(
            name for name, value in wanted.items() if not 0 < value <= self._largest.get(name, 0)
        )
        if not refused:
            for name, value in wanted.items():
                setattr(self, _ATTRIBUTES[name], value)
            if "max_num_seqs" in wanted and hasattr(self, "max_num_active_reqs"):  # since 0.3x it admits
                self.max_num_active_reqs = wanted["max_num_seqs"]
        found = {name: getattr(self, attribute) for name, attribute in _ATTRIBUTES.items()}
        confirmed = self._limits_file.with_name(self._limits_file.name + ".confirmed")
        confirmed.write_text(json.dumps({**found, "refused": refused}), encoding="utf-8")


class LiveScheduler(_Live, AsyncScheduler):
    """For an engine whose scheduling is asynchronous, which is the default of recent releases."""


class LiveSynchronousScheduler(_Live, Scheduler):
    """For an engine started with --no-async-scheduling."""
