"""A trial as the model sees it: its settings, defaults filled in, and the knobs that it knows."""

from __future__ import annotations

from collections.abc import Mapping

from sweeper import knobs
from sweeper.errors import EngineError
from sweeper.knobs.release_order import is_between
from sweeper.models import fit
from sweeper.records import (
    FailureClass,
    Platform,
    Scalar,
    TrialSpec,
)
from sweeper.records.architecture import Architecture
from sweeper.simulation.communication import GATHERS, Sharing

MODELLED_KNOBS = frozenset(
    {
        "async_scheduling",
        "block_size",
        "data_parallel_size",
        "decode_context_parallel_size",
        "disable_async_output_proc",
        "disable_custom_all_reduce",
        "dtype",
        "enable_chunked_prefill",
        "enable_prefix_caching",
        "enforce_eager",
        "gpu_memory_utilization",
        "host_numa_balancing",
        "kv_cache_dtype",
        "long_prefill_token_threshold",
        "max_model_len",
        "max_num_batched_tokens",
        "max_num_seqs",
        "max_seq_len_to_capture",
        "multi_step_stream_outputs",
        "num_scheduler_steps",
        "pipeline_parallel_size",
        "prefill_context_parallel_size",
        "quantization",
        "tensor_parallel_size",
        "NCCL_MIN_NCHANNELS",
        "VLLM_ROCM_USE_SKINNY_GEMM",
        "VLLM_USE_V1",
    }
)
"""Knobs that can change the model's numbers or its refusal to start."""

_OF_EXPERTS: Mapping[str, Scalar] = {"enable_expert_parallel": False, "all2all_backend": GATHERS}
"""Knobs that change them for a model with experts only, and their defaults."""

_V0_ONLY = frozenset(
    {
        *("num_scheduler_steps", "multi_step_stream_outputs"),
        *("max_seq_len_to_capture", "disable_async_output_proc"),
    }
)
_V1_ONLY = frozenset({"long_prefill_token_threshold"})
"""Modelled for V1 alone; one that was not asked for is at its default, which is none."""

_STEADY_DEFAULTS: Mapping[str, Scalar] = {
    "tensor_parallel_size": 1,
    "pipeline_parallel_size": 1,
    "data_parallel_size": 1,
    "block_size": 16,
    "kv_cache_dtype": "auto",
    "dtype": "auto",
    "enforce_eager": False,
    "num_scheduler_steps": 1,
    "disable_async_output_proc": False,
    "disable_custom_all_reduce": False,
    "max_seq_len_to_capture": 8192,
    "max_num_batched_tokens": 2048,
    "async_scheduling": False,
    "host_numa_balancing": 1,
    "VLLM_ROCM_USE_SKINNY_GEMM": 1,
}
"""Defaults that have not moved between releases; ``knobs.defaults`` has those that have. NUMA balancing is on
in an untouched Linux."""

SHORT_SUFFIXES = ("fp8", "int8")


def built_of(spec: TrialSpec) -> Architecture:
    """Return what the trial's model is built of.

    Raises:
        EngineError: That is not known, and nothing is modelled without it.
    """
    if spec.model.built is None:
        raise EngineError(
            f"simulated engine: the shape of {spec.model.name} is not known "
            f"({spec.model.no_shape_because}); expected the numbers of its config.json. Give model.shape.",
            failure=FailureClass.NOT_MODELLED,
        )
    return spec.model.built


def resolve(spec: TrialSpec) -> dict[str, Scalar]:
    """Return every modelled setting its value: as asked, else the release's default on that device.

    Returns:
        Setting to value. ``dtype`` and ``quantization`` say how the weights are kept.
    """
    of_experts = _OF_EXPERTS if built_of(spec).has_experts else {}
    known = MODELLED_KNOBS.union(of_experts)
    asked = {name: value for name, value in spec.assignment.items() if name in known}
    moved = knobs.defaults(
        spec.engine.release,
        accelerator=accelerator_of(spec),
        assignment=spec.assignment,
        max_positions=built_of(spec).max_positions,
    )
    settings: dict[str, Scalar] = {
        **_STEADY_DEFAULTS,
        **of_experts,
        "max_model_len": built_of(spec).max_positions,
        "quantization": "fp8" if spec.model.dtype == "fp8" else "none",
        **moved,
        **asked,
    }
    if settings["dtype"] == "auto":
        settings["dtype"] = fit.compute_dtype(spec.model, {})
    for name in _of_other_generation(spec):
        settings.pop(name, None)
    return settings


def sharing_of(spec: TrialSpec, settings: Mapping[str, Scalar]) -> Sharing:
    """Return how the experts of a trial's model are spread; of a model without any, each replica is whole."""
    if not built_of(spec).has_experts:
        return Sharing()
    return Sharing(
        replicas=int(settings["data_parallel_size"]),
        has_whole_experts=bool(settings["enable_expert_parallel"]),
        backend=str(settings["all2all_backend"]),
    )


def has_async_output(settings: Mapping[str, Scalar], *, release: str) -> bool:
    """Return whether V0 reads the answers of a step only during the next one.

    Source:
        vLLM 0.6.0 and 0.6.2, ModelConfig.verify_async_output_proc; its release notes name it as new in 0.6.0.
    """
    return (
        is_between(release, "0.6.0", None)
        and not settings["disable_async_output_proc"]
        and not settings["enforce_eager"]
        and settings["pipeline_parallel_size"] == 1
    )


def streams_steps(settings: Mapping[str, Scalar], *, release: str) -> bool:
    """Return whether V0 sends what each of several steps gives, as is the default from 0.6.3 on.

    Source:
        vLLM 0.6.2 and 0.6.3, engine/arg_utils.py.
    """
    return bool(settings.get("multi_step_stream_outputs", is_between(release, "0.6.3", None)))


def ignored_knobs(spec: TrialSpec) -> tuple[str, ...]:
    """Return the knobs of the assignment that cannot change the model's numbers, in alphabetical order."""
    known = MODELLED_KNOBS - _of_other_generation(spec)
    if built_of(spec).has_experts:
        known = known.union(_OF_EXPERTS)
    return tuple(sorted(set(spec.assignment) - known))


def _of_other_generation(spec: TrialSpec) -> frozenset[str]:
    return _V0_ONLY if is_v1(spec) else _V1_ONLY


def is_v1(spec: TrialSpec) -> bool:
    """Return whether vLLM's V1 engine is modelled."""
    return generation_of(spec) == "v1"


def generation_of(spec: TrialSpec) -> knobs.Generation:
    """Return the generation of vLLM's engine that is modelled."""
    return knobs.engine_generation(
        spec.engine.release, accelerator=accelerator_of(spec), assignment=spec.assignment
    )


def accelerator_of(spec: TrialSpec) -> knobs.Accelerator:
    """Return what vLLM would take the modelled device for."""
    return knobs.accelerator_of(Platform.SIMULATED, modelled_device=spec.modelled_device)


def is_off(value: Scalar) -> bool:
    """Return whether a setting is written as switched off."""
    return str(value).strip().lower() in ("0", "false")
