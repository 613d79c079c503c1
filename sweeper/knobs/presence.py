"""Does this release have the knob, and does the knob act there?

The second question is the one that spoils charts: a flag that is still accepted but read by nothing gives
a series a name that it has not earned.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from sweeper.errors import nearest
from sweeper.knobs.catalogue import known_names
from sweeper.knobs.generations import Accelerator, engine_generation, is_set
from sweeper.knobs.history import Run, endings, flags, run_at, runs_of, variables
from sweeper.knobs.names import HOST_SETTINGS, is_host_setting, is_variable
from sweeper.knobs.refusals import Refusal
from sweeper.knobs.release_order import covered, is_between, release_after, release_key
from sweeper.knobs.runtime_variables import is_read_by_runtime, one_slip_from, runtime_variables
from sweeper.records import INSTANCES, Assignment, Scalar

# Letters of vLLM's command line; an assignment uses the long name, so that equal knobs have equal names.
# Source: vLLM 0.32.0, EngineArgs.add_cli_args; -O is compilation_config through 0.11.2.
_SHORT_NAMES: Mapping[str, str] = {
    "tp": "tensor_parallel_size",
    "pp": "pipeline_parallel_size",
    "dp": "data_parallel_size",
    "dpl": "data_parallel_size_local",
    "dpb": "data_parallel_backend",
    "pcp": "prefill_context_parallel_size",
    "dcp": "decode_context_parallel_size",
    "ep": "enable_expert_parallel",
    "q": "quantization",
    "o": "optimization_level",
    "cc": "compilation_config",
    "ac": "attention_config",
    "sc": "speculative_config",
}
# -O3 is one word: the letter and its level.
_LEVEL = re.compile(r"^o\d$")
# Shorter names are one slip from too many others.
_SHORTEST_SLIP = 8

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
    short = _short_name(knob)
    if short and is_variable(knob):
        # No build has an environment variable of two letters: this one would do nothing whatever runs.
        return replace(_unknown(knob, value, release=release), is_mistake=True)
    if is_variable(knob) and is_read_by_runtime(knob):
        slip = len(knob) >= _SHORTEST_SLIP and one_slip_from(knob, runtime_variables())
        return _unknown(knob, value, release=release) if slip else None
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
    hint = _meant(knob, release=release) or " Check its spelling."
    where = "the host" if is_host_setting(knob) else f"vLLM {release}"
    kind = "environment variable" if is_variable(knob) else "setting" if is_host_setting(knob) else "flag"
    reason = f"{where} has no {kind} of this name."
    if is_variable(knob) and not knob.startswith("VLLM_") and not _short_name(knob):
        reason = (
            f"no program beneath vLLM {release} is known to read an environment variable of this name, and "
            "one that nobody reads does nothing. Where one does, engine.allow_unknown=true lets it pass."
        )
    return Refusal(knob=knob, value=value, kind="unknown", reason=reason + hint)


def _short_name(knob: str) -> str | None:
    """Return the flag that a letter or two of the command line stand for, however they are written."""
    letters = knob.lstrip("-").lower()
    return _SHORT_NAMES.get("o" if _LEVEL.match(letters) else letters)


def _meant(knob: str, *, release: str) -> str:
    """Guess what an unknown name was to be: a short one, one in other letters, or the nearest."""
    short = _short_name(knob)
    if short:
        since = next((run.first for run in runs_of(short)), None)
        late = since is not None and not is_between(release, since, None)
        also = f" It came with vLLM {since}; earlier ones call compilation_config -O." if late else ""
        return f" Did you mean '{short}'?{also if short == 'optimization_level' else ''}"
    of_release, plain = known_names(release), knob.lstrip("-").replace("-", "_")
    ever = [*of_release, INSTANCES, *flags(), *variables(), *runtime_variables()]
    same = next((name for name in ever if name.lower() == plain.lower()), None)
    if same:
        return f" Did you mean '{same}'?"
    return nearest(plain, of_release) or nearest(plain, ever)


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
