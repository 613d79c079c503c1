"""Which engine of vLLM runs, V0 or V1: by release, accelerator and the knobs V1 did not support."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Literal

from sweeper.knobs.release_order import is_between
from sweeper.records import Assignment, Platform, Scalar

Accelerator = Literal["rocm", "cuda", "cpu"]
"""What the engine runs on. For defaults that depend on the device, ``rocm`` is an MI300X of 192 GB and
``cuda`` an H100 of 80 GB."""

_OF_PLATFORM: Mapping[str, Accelerator] = {"mi300x": "rocm", "cuda": "cuda", "cpu": "cpu"}
_OF_MODELLED_DEVICE: Mapping[str | None, Accelerator] = {
    None: "rocm",  # of studies from before there was a choice
    "mi300x": "rocm",
    "mi325x": "rocm",
    "mi355x": "rocm",
    "h100": "cuda",
    "h200": "cuda",
}

Generation = Literal["v0", "v1"]
"""vLLM's engine before and after its rewrite."""

NO_KNOBS: Assignment = MappingProxyType({})


def accelerator_of(platform: str, *, modelled_device: str | None = None) -> Accelerator:
    """Describe what an engine runs on.

    Args:
        platform: One of ``records.Platform``.
        modelled_device: Of the simulated platform, which device it models; None is the usual one.
    """
    if platform == Platform.SIMULATED:
        return _OF_MODELLED_DEVICE[modelled_device]
    return _OF_PLATFORM[platform]


def engine_generation(
    release: str, *, accelerator: Accelerator = "rocm", assignment: Assignment = NO_KNOBS
) -> Generation:
    """Return whether the V0 or the V1 engine will run.

    Args:
        release: Release of vLLM.
        accelerator: What it runs on.
        assignment: Knob to value; ``VLLM_USE_V1`` and knobs that V1 did not support decide with it.

    Returns:
        ``v0`` or ``v1``. A CPU is taken to have changed with ROCm, which is not verified.

    Source:
        vLLM releases 0.6.4 to 0.11.0, EngineArgs.create_engine_config and _is_v1_supported_oracle.
    """
    if is_between(release, "0.11.0", None):
        return "v1"
    if not is_between(release, "0.6.4", None):
        return "v0"
    if "VLLM_USE_V1" in assignment:
        return "v1" if is_set(assignment["VLLM_USE_V1"]) else "v0"
    default_from = "0.8.0" if accelerator == "cuda" else "0.9.2"
    if not is_between(release, default_from, None):
        return "v0"
    falls_back = any(only_in_v0(assignment, release=release, accelerator=accelerator))
    return "v0" if falls_back else "v1"


def only_in_v0(assignment: Assignment, *, release: str, accelerator: Accelerator) -> Iterator[str]:
    """Name the knobs whose values made releases 0.8.0 to 0.10.2 leave V1, or refuse to start in it."""
    neutral: dict[str, Scalar] = {
        "num_scheduler_steps": 1,
        "scheduler_delay_factor": 0,
        "disable_async_output_proc": False,
        "max_num_partial_prefills": 1,
        "max_long_partial_prefills": 1,
    }
    if is_between(release, None, "0.9.1"):
        neutral["scheduling_policy"] = "fcfs"
    if accelerator == "rocm" and is_between(release, None, "0.8.5.post1"):
        neutral["kv_cache_dtype"] = "auto"
    yield from (knob for knob, value in neutral.items() if assignment.get(knob, value) != value)
    yield from (
        k for k in ("preemption_mode", "logits_processor_pattern", "otlp_traces_endpoint") if k in assignment
    )
    if assignment.get("load_format") == "sharded_state":
        yield "load_format"


def is_set(value: Scalar) -> bool:
    """Return whether vLLM would read this value of a variable as yes."""
    return str(value).strip().lower() in ("1", "true")
