"""Does this release have the knob, and does the knob act there?

The second question is the one that spoils charts: a flag that is still accepted but read by nothing gives
a series a name that it has not earned.
"""

from __future__ import annotations

from collections.abc import Mapping

from sweeper.errors import nearest
from sweeper.knobs.catalogue import known_names
from sweeper.knobs.generations import Accelerator, engine_generation, is_set
from sweeper.knobs.history import Run, endings, flags, run_at, runs_of, variables
from sweeper.knobs.names import HOST_SETTINGS, is_host_setting, is_variable
from sweeper.knobs.refusals import Refusal
from sweeper.knobs.release_order import covered, is_between, release_after, release_key
from sweeper.records import Assignment, Scalar

# Letters of vLLM's command line; an assignment uses the long name, so that equal knobs have equal names.
_SHORT_NAMES: Mapping[str, str] = {
    "tp": "tensor_parallel_size",
    "pp": "pipeline_parallel_size",
    "dp": "data_parallel_size",
    "q": "quantization",
    "O": "optimization_level",
}

# Read by the V0 engine alone; V1 accepts them and does nothing.
_READ_BY_V0_ONLY = frozenset(
    {
        "max_seq_len_to_capture",
        "swap_space",
        "disable_frontend_multiprocessing",
        "multi_step_stream_outputs",
        "VLLM_USE_TRITON_FLASH_ATTN",
        "VLLM_RPC_TIMEOUT",
    }
)

# What served the same end before the knob came.
_BEFORE_IT: Mapping[str, str] = {
    "async_scheduling": "num_scheduler_steps (0.5.5 to 0.10.0)",
    "num_scheduler_steps": "no release before 0.5.5 plans several steps at once",
    "cuda_graph_sizes": "max_seq_len_to_capture (0.4.3 to 0.10.2), by sequence length and not by step",
    "cudagraph_capture_sizes": "cuda_graph_sizes (0.9.0 to 0.12.0), before it max_seq_len_to_capture",
    "max_cudagraph_capture_size": "cuda_graph_sizes (0.9.0 to 0.12.0), before it max_seq_len_to_capture",
    "speculative_config": "speculative_model and num_speculative_tokens (to 0.8.2)",
    "attention_backend": "VLLM_ATTENTION_BACKEND (to 0.14.1)",
    "enable_log_requests": "leave it out: requests are logged by default before 0.10.1",
    "VLLM_RPC_TIMEOUT": "VLLM_RPC_GET_DATA_TIMEOUT_MS (0.5.5 to 0.6.1)",
    "VLLM_ENGINE_READY_TIMEOUT_S": "VLLM_RPC_TIMEOUT (0.6.2 to 0.10.2, in ms)",
}


def refuse_absent(knob: str, value: Scalar, *, release: str) -> Refusal | None:
    """Refuse a knob that this release does not have, saying since when or until when."""
    if is_host_setting(knob):
        return None if knob in HOST_SETTINGS else _unknown(knob, value, release=release)
    if is_variable(knob) and not knob.startswith("VLLM_"):
        return None
    if run_at(knob, release):
        return None
    runs = runs_of(knob)
    if not runs:
        return _unknown(knob, value, release=release)
    past = [run.last for run in runs if run.last and covered(release) > release_key(run.last)]
    if not past:
        return _not_yet(knob, value, runs[0], release=release)
    return _removed(knob, value, last=max(past, key=release_key), source=runs[0].source)


def _unknown(knob: str, value: Scalar, *, release: str) -> Refusal:
    if knob in _SHORT_NAMES:
        hint = f" Did you mean '{_SHORT_NAMES[knob]}'?"
    else:
        of_release = known_names(release)
        hint = nearest(knob, of_release) or nearest(knob, [*flags(), *variables()])
    kind = "environment variable" if is_variable(knob) else "setting" if is_host_setting(knob) else "flag"
    where = "the host" if is_host_setting(knob) else f"vLLM {release}"
    return Refusal(
        knob=knob,
        value=value,
        kind="unknown",
        reason=f"{where} has no {kind} of this name.{hint or ' Check its spelling.'}",
    )


def _not_yet(knob: str, value: Scalar, run: Run, *, release: str) -> Refusal:
    earlier = f" Nearest: {_BEFORE_IT[knob]}." if knob in _BEFORE_IT else " Leave it out."
    reason = f"{knob} came with vLLM {run.first}; {release} does not know it.{earlier}"
    return Refusal(knob=knob, value=value, kind="not_yet", reason=reason)


def _removed(knob: str, value: Scalar, *, last: str, source: str) -> Refusal:
    gone_in = release_after(last)
    if source == "rocm-fork":
        of_rocm = (name for name in variables() if name.startswith("VLLM_ROCM_"))
        hint = nearest(knob, of_rocm) or " Leave it out."
        reason = f"{knob} belongs to AMD's fork of vLLM before {gone_in}; no upstream release reads it.{hint}"
        return Refusal(knob=knob, value=value, kind="removed", reason=reason)
    row = endings().get(knob, {})
    why = f": {row['why_gone']}" if row.get("why_gone") else ""
    later = [
        other.first
        for other in runs_of(knob)
        if other.first and release_key(other.first) > release_key(gone_in)
    ]
    back = f" It is back from {later[0]}." if later else ""
    near = f" Nearest: {row['nearest']}." if row.get("nearest") else "" if back else " Leave it out."
    return Refusal(
        knob=knob,
        value=value,
        kind="removed",
        reason=f"{knob} was removed in vLLM {gone_in}{why}.{back}{near}",
    )


def refuse_idle(
    knob: str, value: Scalar, *, assignment: Assignment, release: str, accelerator: Accelerator
) -> Refusal | None:
    """Refuse a knob that would be taken and ignored: its series would carry a name it has not earned."""
    reason = None
    generation = engine_generation(release, accelerator=accelerator, assignment=assignment)
    if knob in _READ_BY_V0_ONLY and generation == "v1":
        row = endings().get(knob, {})
        near = f" Nearest: {row['nearest']}." if row.get("nearest") else ""
        reason = (
            f"accepted by vLLM {release} but does nothing in V1: {row.get('why_gone')}.{near} Leave it out."
        )
    elif knob == "use_v2_block_manager" and is_between(release, "0.6.3.post1", None):
        reason = (
            f"accepted by vLLM {release} but does nothing since 0.6.3.post1: it is the only block manager."
        )
    elif knob == "num_scheduler_steps" and accelerator == "cpu" and value != 1:
        reason = f"vLLM {release} has no multi-step scheduling on a CPU and plans single steps. Leave it out."
    elif knob.startswith("VLLM_ROCM_USE_AITER_") and not is_set(assignment.get("VLLM_ROCM_USE_AITER", 0)):
        reason = (
            f"vLLM {release} reads it only where VLLM_ROCM_USE_AITER is 1. Set that, or leave this one out."
        )
    return Refusal(knob=knob, value=value, kind="no_effect", reason=reason) if reason else None
