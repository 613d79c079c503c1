"""What vLLM says of itself: its metrics, its configuration, its last words. Pure reading, no I/O.

A measurement is believed because the engine itself confirms the configuration that was asked for
(``reported_config``, ``agreement``). A failure is explained by the engine's own log line (``log_verdict``).
"""

from __future__ import annotations

from sweeper.engines.agreement import differences, not_compared, told
from sweeper.engines.log_verdict import Death, known_cause, last_line, last_words, why_it_ended
from sweeper.engines.metrics_page import samples, values
from sweeper.engines.reported_config import read_effective

__all__ = [
    "Death",
    "differences",
    "known_cause",
    "last_line",
    "last_words",
    "not_compared",
    "read_effective",
    "read_metrics",
    "read_start_time",
    "told",
    "why_it_ended",
]

# Requests that ended, and the reasons of those that got no whole answer.
# Source: vllm/v1/engine FinishReason of 0.32.0; vllm/sequence.py of 0.6.2 has stop, length and abort.
_ENDED = ("vllm:request_success", "vllm:request_success_total")
_GIVEN_UP = ("abort", "error")


def read_metrics(text: str) -> dict[str, float]:
    """Read the counters that are telemetry out of a page of Prometheus metrics.

    Returns:
        Those that the release has, summed over engines: ``prefix_cache_queries``, ``prefix_cache_hits``
        (tokens), ``preemptions``, ``requests_succeeded``, ``requests_answered`` (without those given up),
        ``requests_running`` and ``requests_waiting`` now;
        and ``kv_cache_usage``, a fraction, of the fullest engine.
    """
    found = samples(text)
    sums = {
        "prefix_cache_queries": ("vllm:prefix_cache_queries", "vllm:gpu_prefix_cache_queries"),
        "prefix_cache_hits": ("vllm:prefix_cache_hits", "vllm:gpu_prefix_cache_hits"),
        "preemptions": ("vllm:num_preemptions",),
        "requests_succeeded": ("vllm:request_success",),
    }
    counters = {}
    for name, sources in sums.items():
        counted = values(found, (written for source in sources for written in (source, f"{source}_total")))
        if counted:
            counters[name] = sum(counted)
    ended = [
        value
        for name, labels, value in found
        if name in _ENDED and labels.get("finished_reason") not in _GIVEN_UP
    ]
    if any(name in _ENDED for name, _, _ in found):
        counters["requests_answered"] = sum(ended)
    gauges = {
        "requests_running": "vllm:num_requests_running",
        "requests_waiting": "vllm:num_requests_waiting",
    }
    for name, source in gauges.items():
        shown = values(found, (source,))
        if shown:
            counters[name] = sum(shown)
    usage = values(found, ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"))
    if usage:
        counters["kv_cache_usage"] = max(usage)
    return counters


def read_start_time(metrics: str) -> float | None:
    """When the server's process started, in seconds since 1970; None where its metrics do not show it."""
    started = values(samples(metrics), ("process_start_time_seconds",))
    return started[0] if started else None
