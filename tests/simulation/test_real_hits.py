"""What a real vLLM finds of conversations again, token for token, is what the model of it finds."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweeper.engines import Server
from sweeper.engines.vllm import VllmEngine
from sweeper.records import LoadPoint
from sweeper.simulation.kv_cache import KvCache
from sweeper.simulation.scheduler import simulate
from sweeper.workload import conversations
from sweeper.workload.requests import make_workload
from tests.real_engine import make_real_spec
from tests.simulation.test_scheduler import COSTS, V1
from tests.standin_server import PLACEMENT, never

# Lengths at, before and after ends of blocks: answers from 1 token on.
POINT = LoadPoint(
    dataset="conversations",
    num_prompts=40,
    input_len=60,
    output_len=30,
    range_ratio=0.9,
    max_concurrency=1,
    options=(("system_len", 75), ("turns", 6)),
)


def ask(server: Server, path: str, body: Mapping[str, object] | None = None) -> Any:
    request = urllib.request.Request(
        f"{server.base_url}/v1/{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {server.api_key}"},
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


def answered(server: Server, model: str, prompt: list[int], *, tokens: int) -> list[int]:
    """Send a prompt of tokens; return the tokens of its answer."""
    sampling = {"max_tokens": tokens, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
    answer = ask(server, "completions", {"model": model, "prompt": prompt, **sampling})
    found: list[int] = answer["choices"][0]["token_ids"]
    assert len(found) == tokens
    return found


@pytest.mark.vllm
@pytest.mark.slow
def test_real_vllm_finds_as_many_tokens_of_conversations_as_the_model(
    tmp_path: Path, vllm_python: str
) -> None:
    spec = make_real_spec(
        tmp_path,
        vllm_python,
        assignment={
            "max_num_seqs": 8,
            "enforce_eager": True,
            "enable_prefix_caching": True,
            "block_size": 32,
        },
    )
    rng = np.random.default_rng(0)

    def words(count: int) -> list[int]:
        return [int(token) for token in rng.integers(10, 1000, count)]

    held = conversations.of(POINT, seed=0)
    server = VllmEngine().start(spec, PLACEMENT, restart=0, cancelled=never)
    try:
        model = ask(server, "models")["data"][0]["id"]
        before, system = server.counters(), words(75)
        for conversation in held:
            said = list(system)
            for turn in conversation.turns:
                said += words(turn.input_tokens)
                said += answered(server, model, said, tokens=turn.output_tokens)
        after, block = server.counters(), int(server.effective["block_size"])
    finally:
        server.stop()

    kv = KvCache(blocks=100_000, block_tokens=block, keeps_prefixes=True)
    simulate(make_workload(POINT, seed=0), config=V1, costs=COSTS, kv=kv, max_concurrency=1)
    counted = {name: after[name] - before[name] for name in ("prefix_cache_queries", "prefix_cache_hits")}
    assert counted == {"prefix_cache_queries": kv.prefix_queries, "prefix_cache_hits": kv.prefix_hits}
    assert kv.prefix_hits > 0.5 * kv.prefix_queries
