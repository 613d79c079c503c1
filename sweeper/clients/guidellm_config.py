"""What guidellm is told of a load, and what of a load point it cannot be told.

It is given one scenario for each load. The key of the server stands in none: guidellm reads it from the
environment, as it does every key of a scenario.

Source: guidellm 0.8.1, ``guidellm run --scenario``; guidellm/schemas/benchmark (entrypoints.py, profiles) and
guidellm/schemas/data/deserializers/synthetic.py.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sweeper.errors import ConfigError
from sweeper.records import ClientSpec, EngineSpec, LoadPoint, TrialSpec

KEY_VARIABLE = "GUIDELLM__SPEC__BACKEND__API_KEY"
"""Names the server's key in the environment."""

_PATHS = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}
_START_DELAY, _PROCESSES = "GUIDELLM__SCHEDULER_START_DELAY_NON_DISTRIBUTED", "GUIDELLM__MAX_WORKER_PROCESSES"
_MOST_PROCESSES = 10


def check(client: ClientSpec, points: Iterable[LoadPoint], engine: EngineSpec) -> None:
    """Check that guidellm can send load points.

    Raises:
        ConfigError: It cannot send one.
    """
    for point in points:
        if point.arrivals is not None:
            key = "burstiness" if point.ramp is None else "ramp_up"
            raise ConfigError(
                f"workload.{key}: is given ({point.arrivals}), and guidellm sends at one rate with Poisson "
                "arrivals; expected none. Leave it out, or use client=vllm_bench."
            )


def settings(
    spec: TrialSpec, point: LoadPoint, *, base_url: str, tokenizer: str, result: Path
) -> dict[str, Any]:
    """Return the scenario of one load.

    Args:
        spec: The trial.
        point: What is sent.
        base_url: Of the server.
        tokenizer: Folder or hub id of the server's tokenizer.
        result: Takes the report.
    """
    trusts = bool(spec.assignment.get("trust_remote_code")) or spec.client.trust_remote_code
    return {
        "metadata": {"name": point.label},
        "spec": {
            "backend": {
                "kind": "openai_http",
                "target": base_url,
                "model": spec.model.name,
                "request_format": _PATHS[point.form.endpoint],
                # Servers on plain HTTP speak its first version.
                "http2": False,
                # The sweeper has asked the server itself, and its key may not be asked for elsewhere.
                "validate_backend": False,
                "timeout": spec.engine.load_timeout_s,
                "extras": {"body": body(point)},
            },
            "profile": profile(point),
            "constraints": [{"kind": "max_requests", "count": point.num_prompts}],
            "tokenizer": {
                "kind": "huggingface_auto",
                "model": tokenizer,
                **({"load_kwargs": {"trust_remote_code": True}} if trusts else {}),
            },
            "data": [data(point)],
            "seed": {"kind": "static", "value": point.client_seed},
            "outputs": [{"kind": "json", "path": str(result)}],
        },
    }


def body(point: LoadPoint) -> dict[str, Any]:
    """Return what is added to the body of every request: sampling, and the load point's own."""
    own: dict[str, Any] = json.loads(point.form.extra_body or "{}")
    # guidellm itself asks that a drawn answer has its full length; this says it for all, or takes it back.
    ends = {"ignore_eos": point.ignore_eos}
    return {"temperature": 0.0, **dict(point.form.sampling), **ends, **own}


def profile(point: LoadPoint) -> dict[str, Any]:
    """Return when requests are sent: at a rate, as soon as a place is free, or all at once."""
    if point.request_rate_per_s is not None:
        cap = {} if point.max_concurrency is None else {"max_concurrency": point.max_concurrency}
        return {"kind": "poisson", "rate": [point.request_rate_per_s], **cap}
    if point.max_concurrency is not None:
        return {"kind": "concurrent", "streams": [min(point.max_concurrency, point.num_prompts)]}
    return {"kind": "throughput", "max_concurrency": point.num_prompts}


def data(point: LoadPoint) -> dict[str, Any]:
    """Return what is drawn: lengths of prompts and answers, and what all prompts begin with."""
    prefix = point.option("prefix_len")
    return {
        "kind": "synthetic_text",
        **_lengths("prompt_tokens", point.input_len, point.range_ratio),
        **_lengths("output_tokens", point.output_len, point.range_ratio),
        **({"prefix_buckets": [{"prefix_count": 1, "prefix_tokens": prefix}]} if prefix else {}),
    }


def variables(surroundings: Mapping[str, str]) -> dict[str, str]:
    """Return guidellm's settings that are not the user's: how many processes send, and how soon.

    Its clock runs from a second after its processes are asked for. Where they are not up by then, all that is
    late goes out at once; so there are no more of them than cores, and they are given longer.
    """
    usual = {_PROCESSES: str(min(_MOST_PROCESSES, len(os.sched_getaffinity(0)))), _START_DELAY: "5"}
    return {name: value for name, value in usual.items() if name not in surroundings}


def _lengths(name: str, mean: int | None, ratio: float) -> dict[str, int]:
    assert mean is not None
    if not ratio:
        return {name: mean}
    shortest, longest = max(1, math.floor(mean * (1 - ratio))), math.ceil(mean * (1 + ratio))
    return {name: mean, f"{name}_min": shortest, f"{name}_max": longest}
