"""What aiperf is told of a load, and what of a load point it cannot be told.

It is given one file of configuration for each load. The key of the server stands in none: the file names
the variable that holds it.

Source: aiperf 0.13.0, ``aiperf profile --config``; aiperf/config (config.py, endpoint.py, phases.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sweeper.clients.aiperf_datasets import Dataset
from sweeper.errors import ConfigError
from sweeper.kinds import DATASETS
from sweeper.records import ClientSpec, EngineSpec, LoadPoint, TrialSpec

KEY_VARIABLE = "OPENAI_API_KEY"
"""Names the server's key in the configuration and in the environment."""

_PATHS = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}


def check(client: ClientSpec, points: Iterable[LoadPoint], engine: EngineSpec) -> None:
    """Check that aiperf can send load points.

    Raises:
        ConfigError: It cannot send one.
    """
    for point in points:
        if point.ramp is not None:
            raise ConfigError(
                f"workload.ramp_up: is a {point.ramp}, which aiperf is not given: its ramp ends after a time "
                "and not with the last request; expected null. Leave it out, or use client=vllm_bench."
            )


def settings(
    spec: TrialSpec,
    point: LoadPoint,
    dataset: Dataset,
    *,
    base_url: str,
    has_key: bool,
    tokenizer: str,
    artifacts: Path,
) -> dict[str, Any]:
    """Return the configuration of one load.

    Args:
        spec: The trial.
        point: What is sent.
        dataset: The same in aiperf's words.
        base_url: Of the server.
        has_key: Whether the server asks for one.
        tokenizer: Folder or hub id of the server's tokenizer.
        artifacts: Folder that takes what aiperf writes.
    """
    trusts = bool(spec.assignment.get("trust_remote_code")) or spec.client.trust_remote_code
    return {
        "schemaVersion": "2.0",
        "randomSeed": point.client_seed,
        "benchmark": {
            "model": spec.model.name,
            "endpoint": {
                "url": base_url,
                "type": point.form.endpoint,
                "path": _PATHS[point.form.endpoint],
                **({"apiKey": f"${{{KEY_VARIABLE}}}"} if has_key else {}),
                "streaming": True,
                "timeout": spec.engine.load_timeout_s,
                # The server's own count is exact; a text that is tokenized again may have others.
                "useServerTokenCount": True,
                # Releases of vLLM before 0.7 know no other name for the length of an answer.
                "useLegacyMaxTokens": True,
                "extra": body(point),
            },
            "dataset": dict(dataset.settings),
            "profiling": phase(point, dataset),
            "tokenizer": {"name": tokenizer, **({"trustRemoteCode": True} if trusts else {})},
            "artifacts": {"dir": str(artifacts), "summary": ["json"], "records": ["jsonl"]},
            # The sweeper looks at devices and engine itself.
            "gpuTelemetry": {"enabled": False},
            "serverMetrics": {"enabled": False},
            "runtime": {"ui": "none"},
        },
    }


def body(point: LoadPoint) -> dict[str, Any]:
    """Return what is added to the body of every request: sampling, length, and the load point's own."""
    own: dict[str, Any] = json.loads(point.form.extra_body or "{}")
    ends = {"ignore_eos": True} if point.ignore_eos else {}
    return {"temperature": 0.0, **dict(point.form.sampling), **ends, **own}


def phase(point: LoadPoint, dataset: Dataset) -> dict[str, Any]:
    """Return when requests are sent: at the times of a file, at a rate, or as soon as a place is free."""
    cap = {} if point.max_concurrency is None else {"concurrency": point.max_concurrency}
    if DATASETS[point.dataset].times is not None:
        return {"type": "fixed_schedule", "autoOffset": True, **cap}
    many = {"requests": point.num_prompts} if dataset.sessions is None else {"sessions": dataset.sessions}
    if point.request_rate_per_s is None:
        return {"type": "concurrency", **many, "concurrency": point.max_concurrency or point.num_prompts}
    rate: Mapping[str, Any] = {"rate": point.request_rate_per_s, **many, **cap}
    if point.burstiness == LoadPoint.burstiness:
        return {"type": "poisson", **rate}
    return {"type": "gamma", "smoothness": point.burstiness, **rate}
