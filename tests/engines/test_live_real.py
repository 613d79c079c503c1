"""Limits changed in the real vLLM (CPU build) while it runs: one start, many settings, each confirmed."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.engines.live import LiveLimits
from sweeper.engines.metrics_page import samples, values
from sweeper.engines.vllm import VllmEngine, VllmServer
from sweeper.errors import MeasurementError
from tests.real_engine import make_real_spec
from tests.standin_server import PLACEMENT, never

REQUESTS, TOKENS = 6, 200
START = {"max_num_seqs": 32, "max_num_batched_tokens": 2048}


@pytest.mark.vllm
@pytest.mark.slow
def test_real_engine_runs_what_its_scheduler_confirmed(tmp_path: Path, vllm_python: str) -> None:
    spec = make_real_spec(
        tmp_path,
        vllm_python,
        assignment={**START, "enforce_eager": True},
    )
    spec = replace(spec, live_start=spec.assignment)
    server = VllmEngine().start(spec, PLACEMENT, restart=0, cancelled=never)
    try:
        # The CPU platform turns asynchronous scheduling off.
        confirmed = Path(spec.folder) / "live" / "confirmed.json"
        assert json.loads(confirmed.read_text())["scheduler"] == "LiveSynchronousScheduler"
        assert server.effective["set_live"] == ""
        assert server.effective["started_with"] == (
            "long_prefill_token_threshold 0, max_num_batched_tokens 2048, max_num_seqs 32"
        )
        for seqs in (2, 32, 1):
            server.change_limits({"max_num_seqs": seqs})
            assert server.effective["max_num_seqs"] == seqs
            fewest = REQUESTS * TOKENS / min(seqs, REQUESTS)
            assert fewest <= steps_of_load(server) < 2 * fewest
        server.change_limits({"max_num_batched_tokens": 512, "long_prefill_token_threshold": 64})
        assert server.effective["set_live"] == (
            "long_prefill_token_threshold 64, max_num_batched_tokens 512, max_num_seqs 1"
        )
        assert server.sanity()
        with pytest.raises(MeasurementError, match="33 is above 32, which the engine was started with"):
            server.change_limits({"max_num_seqs": 33})
        assert server.effective["max_num_seqs"] == 1
        assert json.loads(confirmed.read_text())["limits"]["max_num_seqs"] == 1
    finally:
        server.stop()


def steps_of_load(server: VllmServer) -> float:
    """Ask for all answers in one request, so that they begin together; return the engine's steps for them.

    A step makes one token of each running sequence, so that the number shows how many ran side by side.
    """
    body = {"model": "tiny-llama", "prompt": "The capital", "max_tokens": TOKENS, "ignore_eos": True}
    endpoint = server._endpoint
    before = steps(endpoint.metrics())
    endpoint.post("/v1/completions", {**body, "n": REQUESTS, "temperature": 1.0})
    return steps(endpoint.metrics()) - before


def steps(page: str) -> float:
    return sum(values(samples(page), ("vllm:iteration_tokens_total_count",)))


@pytest.mark.vllm
@pytest.mark.slow
def test_asynchronous_scheduler_of_real_vllm_takes_limits_where_its_cache_is_reset(
    tmp_path: Path, vllm_python: str
) -> None:
    limits = LiveLimits(tmp_path / "live")
    asked = (
        "import live_scheduler as ours; "
        "from vllm.v1.core.sched.async_scheduler import AsyncScheduler as made; "
        "kind = ours.LiveAsyncScheduler; print(issubclass(kind, made), kind.reset_prefix_cache is not "
        "made.reset_prefix_cache, kind.schedule is made.schedule)"
    )
    env = {**os.environ, **limits.environment(os.environ), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    said = subprocess.run([vllm_python, "-c", asked], env=env, capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["True", "True", "True"]
