"""What would hold if a knob were left out, for the knobs whose defaults have moved between releases.

A comparison of two releases in which such a knob is not pinned compares the defaults instead.
"""

from __future__ import annotations

from collections.abc import Mapping

from sweeper.knobs.generations import NO_KNOBS, Accelerator, Generation, engine_generation, is_set
from sweeper.knobs.parallelism import ranks
from sweeper.knobs.release_order import is_between
from sweeper.records import Assignment, Scalar

LONGEST = "max_model_len"
"""Knob for the tokens of the longest prompt and answer together."""
WHAT_FITS = -1
"""Its value for as many as have room in memory, at most the model's own (vLLM from 0.14)."""
# Source: max_position_embeddings in the config of every Llama 3.1.
_LLAMA_3_1_POSITIONS = 131072


NEVER_MOVED: Mapping[str, Scalar] = {
    **dict.fromkeys(("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"), 1),
    **dict.fromkeys(("instances", "num_scheduler_steps", "stream_interval"), 1),
    **dict.fromkeys(("kv_cache_dtype", "dtype"), "auto"),
    **dict.fromkeys(("enable_expert_parallel", "enforce_eager", "disable_custom_all_reduce"), False),
    "max_seq_len_to_capture": 8192,
    "VLLM_ROCM_USE_AITER": 0,
    **dict.fromkeys((f"VLLM_ROCM_USE_AITER_{part}" for part in ("LINEAR", "MLA", "MOE", "RMSNORM")), 1),
    "VLLM_ROCM_QUICK_REDUCE_QUANTIZATION": "NONE",
}
"""Knobs whose value of every release that has them is the same when nothing is said. To set one to it is no
override. They are no part of ``defaults``, which are those that a plan has to know.

Source: vllm_knob_history.csv, column ``default_history``; vLLM 0.32.0 ``vllm/config`` and ``vllm/envs.py``;
``instances`` is ours."""


def defaults(
    release: str,
    *,
    accelerator: Accelerator = "rocm",
    assignment: Assignment = NO_KNOBS,
    max_positions: int = _LLAMA_3_1_POSITIONS,
) -> dict[str, Scalar]:
    """Return the values that hold when nothing is said, for the knobs whose defaults have moved.

    Args:
        release: Release of vLLM.
        accelerator: What it runs on.
        assignment: What is said about the other knobs; some defaults depend on it.
        max_positions: Longest sequence of the model in tokens, as its config gives it; Llama 3.1's
            unless said. ``max_model_len`` in the assignment goes before it.

    Returns:
        Knob to value for the API server. A knob that the release does not have, or whose default is
        not known, is absent. For each knob the value is the one it would have if it were left out.

    Source:
        README of data/, "Defaults that moved"; for a CPU, vLLM 0.32.0 EngineArgs.get_batch_defaults.
    """
    generation = engine_generation(release, accelerator=accelerator, assignment=assignment)
    model_len = _whole(assignment, LONGEST, max_positions)
    chunked = _default_chunked(
        release, generation, accelerator=accelerator, assignment=assignment, model_len=model_len
    )
    found: dict[str, Scalar] = {
        "gpu_memory_utilization": 0.92 if is_between(release, "0.20.0", None) else 0.9,
        "enable_prefix_caching": generation == "v1" and is_between(release, "0.6.5", None),
        "enable_chunked_prefill": chunked,
    }
    if is_between(release, "0.10.0", None):
        # From 0.14.0 it is on wherever the executor and the model allow it, as mp and one GPU do.
        found["async_scheduling"] = is_between(release, "0.14.0", None)
    is_chunked = bool(assignment.get("enable_chunked_prefill", chunked))
    if generation == "v1" and is_between(release, None, "0.11.0"):
        is_chunked = True
    batch = (
        _v0_batch(release, is_cut=is_chunked and not _has_several_steps(assignment), model_len=model_len)
        if generation == "v0"
        else _v1_batch(
            release,
            accelerator=accelerator,
            assignment=assignment,
            is_chunked=is_chunked,
            model_len=model_len,
        )
    )
    return {**found, **batch}


def _default_chunked(
    release: str, generation: Generation, *, accelerator: Accelerator, assignment: Assignment, model_len: int
) -> bool:
    if generation == "v1":
        return True
    if is_between(release, None, "0.5.2"):
        return False
    last_with_rule = {"rocm": "0.7.3", "cuda": "0.10.2", "cpu": "0.4.2"}[accelerator]
    hindered = is_set(assignment.get("enable_lora", False)) or bool(
        {"speculative_model", "speculative_config"} & set(assignment)
    )
    return is_between(release, None, last_with_rule) and model_len > 32768 and not hindered


def _has_several_steps(assignment: Assignment) -> bool:
    """Whether several steps are planned at once; V0 cuts no prompt then, chunked prefill or not."""
    return _whole(assignment, "num_scheduler_steps", 1) > 1


def _v0_batch(release: str, *, is_cut: bool, model_len: int) -> dict[str, Scalar]:
    chunk = 2048 if is_between(release, "0.6.5", None) else 512
    return {"max_num_seqs": 256, "max_num_batched_tokens": chunk if is_cut else max(model_len, 2048)}


def _v1_batch(
    release: str, *, accelerator: Accelerator, assignment: Assignment, is_chunked: bool, model_len: int
) -> dict[str, Scalar]:
    seqs = _v1_sequences(release, accelerator=accelerator, assignment=assignment)
    tokens = _v1_tokens(release, accelerator=accelerator, assignment=assignment)
    if seqs is None:
        return {}
    if tokens is None:
        return {"max_num_seqs": seqs}
    if assignment.get("performance_mode") == "throughput":
        seqs, tokens = 2 * seqs, 2 * tokens
    if not is_chunked:
        tokens = max(tokens, model_len)
    tokens = min(tokens, _whole(assignment, "max_num_seqs", seqs) * model_len)
    if is_between(release, "0.10.1", None):
        seqs = min(seqs, _whole(assignment, "max_num_batched_tokens", tokens))
    return {"max_num_seqs": seqs, "max_num_batched_tokens": tokens}


def _v1_sequences(release: str, *, accelerator: Accelerator, assignment: Assignment) -> int | None:
    if accelerator == "cpu":
        return 128 * ranks(assignment) if is_between(release, "0.32.0", None) else None
    if is_between(release, None, "0.6.4.post1"):
        return 256
    # 0.8.4 asked for the name H100 or H200; before and after, an MI300X was enough.
    return 256 if is_between(release, "0.8.4", "0.8.4") and accelerator == "rocm" else 1024


def _v1_tokens(release: str, *, accelerator: Accelerator, assignment: Assignment) -> int | None:
    if accelerator == "cpu":
        return 2048 * ranks(assignment) if is_between(release, "0.32.0", None) else None
    if is_between(release, None, "0.6.6.post1"):
        return None
    if accelerator == "cuda":
        return 8192
    if is_between(release, None, "0.8.4"):
        return 2048
    return 8192 if is_between(release, None, "0.27.1") else 16384


def _whole(assignment: Assignment, knob: str, otherwise: int) -> int:
    value = assignment.get(knob)
    return value if isinstance(value, int) and value > 0 else otherwise
