"""What SGLang says of itself: its metrics and its configuration. Pure reading, no I/O.

``/get_server_info`` reports the server's arguments as they were resolved, and under ``internal_states`` the
same of each scheduler, with what a scheduler alone knows: how many requests it really lets run, and how many
tokens its cache holds. The scheduler's word counts where both have one.
"""

from __future__ import annotations

from collections.abc import Mapping

from sweeper import knobs
from sweeper.engines.agreement import reported_text
from sweeper.engines.metrics_page import samples, values
from sweeper.records import Assignment, Scalar

# Told in every row, besides whatever the trial asked for.
_ALWAYS = (
    "attention_backend",
    "chunked_prefill_size",
    "context_length",
    "decode_attention_backend",
    "device",
    "disable_cuda_graph",
    "disable_overlap_schedule",
    "disable_radix_cache",
    "dp_size",
    "dtype",
    "enable_dp_attention",
    "enable_mixed_chunk",
    "ep_size",
    "kv_cache_dtype",
    "max_prefill_tokens",
    "max_running_requests",
    "max_total_num_tokens",
    "mem_fraction_static",
    "moe_runner_backend",
    "page_size",
    "pp_size",
    "prefill_attention_backend",
    "quantization",
    "sampling_backend",
    "schedule_conservativeness",
    "schedule_policy",
    "speculative_algorithm",
    "tp_size",
)
COUNTS_RETRACTED_FROM = "0.5.9"
"""First release of the table with ``sglang:num_retracted_requests_total``; 0.5.6 has a gauge only."""

_ENDED = ("sglang:num_requests_total",)
_ABORTED = ("sglang:num_aborted_requests_total",)
# By where they lay (device, host, storage), or in all.
_CACHED = ("sglang:cached_tokens_total",)
# Limit of one data parallel rank. Source: get_internal_state of 0.5.9 to 0.5.23; earlier ones do not tell.
_RUNNING_PER_RANK = "effective_max_running_requests_per_dp"
_RUNNING = "max_running_requests"
_TOKENS = "max_total_num_tokens"
_CONTEXT = "context_length"


def read_effective(
    info: Mapping[str, object],
    *,
    asked: Assignment,
    flags: knobs.SglangFlags,
    longest_tokens: object = None,
) -> dict[str, Scalar]:
    """Read the configuration that the server reports, by knob name.

    Args:
        info: Parsed answer of ``/get_server_info``.
        asked: Knobs to report besides those that are always reported.
        flags: Of the release, which say under what name a knob is reported.
        longest_tokens: Longest sequence as ``/v1/models`` has it; taken where none was asked for.

    Returns:
        Knob to value as far as it is reported; a knob that is not is absent.
    """
    state = _first_state(info)
    found = {**info, **{name: value for name, value in state.items() if value is not None}}
    found |= {name: value for name, value in _of_scheduler(state, found, asked).items() if value is not None}
    if found.get(_CONTEXT) is None and isinstance(longest_tokens, int):
        found[_CONTEXT] = longest_tokens
    names = {name: flags[name].name_reported if name in flags else name for name in (*_ALWAYS, *asked)}
    told = {knob: found[name] for knob, name in names.items() if found.get(name) is not None}
    return {knob: reported_text(knob, asked.get(knob), value) for knob, value in sorted(told.items())}


def _first_state(info: Mapping[str, object]) -> Mapping[str, object]:
    states = info.get("internal_states")
    first = states[0] if isinstance(states, list) and states else None
    return first if isinstance(first, Mapping) else {}


def _of_scheduler(
    state: Mapping[str, object], found: Mapping[str, object], asked: Assignment
) -> dict[str, object]:
    """Return what a scheduler alone knows: the limit that holds, and the tokens of its cache."""
    memory = state.get("memory_usage")
    capacity = memory.get("token_capacity") if isinstance(memory, Mapping) else None
    limit, ranks = state.get(_RUNNING_PER_RANK), found.get("dp_size")
    ranks = ranks if isinstance(ranks, int) and ranks > 0 else 1
    wanted = asked.get(_RUNNING)
    if not isinstance(limit, int):
        running = None
    elif isinstance(wanted, int) and wanted // ranks == limit:
        # Shared out among the ranks, what is left over runs nowhere.
        running = wanted
    else:
        running = limit * ranks
    return {_RUNNING: running, _TOKENS: found.get(_TOKENS) or capacity}


def read_metrics(text: str, *, counts_retracted: bool = False) -> dict[str, float]:
    """Read the counters that are telemetry out of a page of Prometheus metrics.

    Args:
        text: The page.
        counts_retracted: Whether the release counts retracted requests (`COUNTS_RETRACTED_FROM`), so that a
            page without the counter says that there were none: one with labels has no sample before.

    Returns:
        Those that the release has: ``prefix_cache_queries`` and ``prefix_cache_hits`` (tokens of prompts and
        those found in the cache, both counted when a request ends), ``preemptions`` (requests whose
        cache was taken back), ``requests_answered`` and ``requests_succeeded`` (without those aborted),
        ``requests_running`` and ``requests_waiting`` now, and ``kv_cache_usage``, a fraction, of the fullest
        rank.

    Source:
        sglang/srt/metrics/collector.py of 0.4.10, sglang/srt/observability/metrics_collector.py of 0.5.9 and
        0.5.23. Every request that the front end ends counts as ended there, aborted ones included.
    """
    found = samples(text)
    sums = {
        "prefix_cache_queries": ("sglang:prompt_tokens_total",),
        "preemptions": ("sglang:num_retracted_requests_total",),
        "requests_running": ("sglang:num_running_reqs",),
        "requests_waiting": ("sglang:num_queue_reqs",),
    }
    counters = {name: sum(told) for name, names in sums.items() if (told := values(found, names))}
    if any(name.startswith("sglang:") for name, _, _ in found):
        # A counter with labels has no sample before its first event.
        answered = sum(values(found, _ENDED)) - sum(values(found, _ABORTED))
        counters |= {"requests_answered": answered, "requests_succeeded": answered}
        counters["prefix_cache_hits"] = sum(values(found, _CACHED))
        counters.setdefault("prefix_cache_queries", 0.0)
        if counts_retracted:
            counters.setdefault("preemptions", 0.0)
    usage = values(found, ("sglang:token_usage",))
    if usage:
        counters["kv_cache_usage"] = max(usage)
    return counters
