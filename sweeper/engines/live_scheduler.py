"""A scheduler of vLLM V1 whose limits change while the engine is idle; imports nothing of the sweeper.

This file is copied to where the engine's environment finds it, and named to vLLM by
``--scheduler-cls live_scheduler.LiveScheduler``; it is written for any Python that vLLM 0.9.1 or later runs
on. A step of the engine costs nothing more than without it: limits change when the prefix cache is reset.

Protocol, two files in the folder that the variable SWEEPER_LIVE_FOLDER names, each written whole:
  reads  limits.json     {"change": 3, "limits": {"max_num_seqs": 8, "max_num_batched_tokens": 512}}
  writes confirmed.json  {"change": 3, "limits": {...}, "started": {...}, "refused": {...},
                         "scheduler": "LiveAsyncScheduler", "pid": 4711}
Once at the start, with ``change`` null, and at each POST to vLLM's own ``/reset_prefix_cache``. ``limits`` is
what the scheduler has now, ``started`` what it was made with, ``refused`` the reason by name of limit, or
under ``change`` where nothing could be tried. Either all limits of a change hold afterwards or none.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler

try:
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
except ImportError:  # 0.9 has none
    AsyncScheduler = None

FOLDER = "SWEEPER_LIVE_FOLDER"
LIMITS = "limits.json"
CONFIRMED = "confirmed.json"


class Limits:
    """What of one scheduler may change, and what it has."""

    def __init__(self, scheduler: Any, folder: Path) -> None:
        """Note what the scheduler was made with, and write it down."""
        self._scheduler = scheduler
        self._folder = folder
        self._started = self._held()
        self._confirm(None, {})

    def take(self, *, is_cache_empty: bool) -> None:
        """Take the limits of the file, where the engine is idle and its prefix cache empty."""
        try:
            asked = json.loads((self._folder / LIMITS).read_text(encoding="utf-8"))
            change, wanted = asked["change"], dict(asked["limits"])
        except FileNotFoundError:
            return  # somebody empties the cache and changes nothing
        except (OSError, ValueError, KeyError, TypeError) as exc:
            self._confirm(None, {"change": f"{LIMITS} cannot be read: {type(exc).__name__}: {exc}"})
            return
        refused = self._refused(wanted, is_cache_empty)
        if not refused:
            self._set(wanted)
        self._confirm(change, refused)

    def _held(self) -> dict[str, int]:
        scheduler = self._scheduler
        return {
            # Since 0.32 what admits requests is apart from the number of the worker's slots.
            "max_num_seqs": getattr(scheduler, "max_num_active_reqs", scheduler.max_num_running_reqs),
            "max_num_batched_tokens": scheduler.max_num_scheduled_tokens,
            "long_prefill_token_threshold": scheduler.scheduler_config.long_prefill_token_threshold,
        }

    def _set(self, wanted: dict[str, int]) -> None:
        scheduler = self._scheduler
        if "max_num_seqs" in wanted:
            scheduler.max_num_running_reqs = wanted["max_num_seqs"]
            if hasattr(scheduler, "max_num_active_reqs"):
                scheduler.max_num_active_reqs = wanted["max_num_seqs"]
        if "max_num_batched_tokens" in wanted:
            scheduler.max_num_scheduled_tokens = wanted["max_num_batched_tokens"]
        if "long_prefill_token_threshold" in wanted:
            scheduler.scheduler_config.long_prefill_token_threshold = wanted["long_prefill_token_threshold"]

    def _refused(self, wanted: dict[str, Any], is_cache_empty: bool) -> dict[str, str]:
        if self._scheduler.requests:
            return {"change": f"the engine has {len(self._scheduler.requests)} requests"}
        if not is_cache_empty:
            return {"change": "the prefix cache is not empty"}
        found = {name: self._why_refused(name, value) for name, value in wanted.items()}
        refused = {name: why for name, why in found.items() if why is not None}
        if refused:
            return refused
        after = dict(self._held(), **wanted)
        if after["max_num_batched_tokens"] < after["max_num_seqs"]:
            return {"max_num_batched_tokens": f"less than max_num_seqs, {after['max_num_seqs']}"}
        return {}

    def _why_refused(self, name: str, value: Any) -> str | None:
        if name not in self._started:
            return "it cannot be changed while the engine runs"
        lowest = 0 if name == "long_prefill_token_threshold" else 1
        if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
            return f"{value!r} is no whole number from {lowest}"
        if name == "long_prefill_token_threshold":
            return None
        if value > self._started[name]:
            return f"{value} is above {self._started[name]}, which the engine was started with"
        return self._why_tied(name, value)

    def _why_tied(self, name: str, value: int) -> str | None:
        """Return why a limit within the start's cannot be changed by itself in this engine."""
        scheduler, config = self._scheduler, self._scheduler.scheduler_config
        if getattr(config, name) != self._started[name]:
            made = f"{self._started[name]} of {getattr(config, name)}"
            return f"the engine made {made} for reasons of its own"
        if name != "max_num_batched_tokens":
            return None
        if getattr(scheduler, "max_num_encoder_input_tokens", 0) > 0:
            return "the model has an encoder, whose budget is made of it at the start"
        # Before 0.12 what holds is called chunked_prefill_enabled, and the other may be None.
        asked = getattr(config, "enable_chunked_prefill", False)
        is_chunked = getattr(config, "chunked_prefill_enabled", asked)
        if not is_chunked and value < scheduler.max_model_len:
            return f"without chunked prefill it has to take a whole prompt, up to {scheduler.max_model_len}"
        return None

    def _confirm(self, change: int | None, refused: dict[str, str]) -> None:
        told = {
            "change": change,
            "limits": self._held(),
            "started": self._started,
            "refused": refused,
            "scheduler": type(self._scheduler).__name__,
            "pid": os.getpid(),
        }
        partial = self._folder / (CONFIRMED + ".partial")
        partial.write_text(json.dumps(told), encoding="utf-8")
        partial.replace(self._folder / CONFIRMED)


class _Live:
    """What a scheduler of either kind does when its prefix cache is reset."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._live_limits = Limits(self, Path(os.environ[FOLDER]))

    def reset_prefix_cache(self, *args: Any, **named: Any) -> Any:
        is_reset = super().reset_prefix_cache(*args, **named)  # type: ignore[misc]
        self._live_limits.take(is_cache_empty=bool(is_reset))
        return is_reset


class LiveSynchronousScheduler(_Live, Scheduler):  # type: ignore[misc]
    """For an engine that schedules a step after the last one ended."""


if AsyncScheduler is not None:

    class LiveAsyncScheduler(_Live, AsyncScheduler):  # type: ignore[misc]
        """For an engine that schedules a step while the last one runs, the default of recent releases."""


class LiveScheduler:
    """Makes the scheduler of the kind that this engine would have had without it."""

    def __new__(cls, *args: Any, **named: Any) -> Any:
        """Return a live scheduler; vLLM gives its configuration by name."""
        config = named["vllm_config"].scheduler_config
        if AsyncScheduler is not None and getattr(config, "async_scheduling", False):
            return LiveAsyncScheduler(*args, **named)
        return LiveSynchronousScheduler(*args, **named)
