"""A closed loop of users on the real vLLM: as many requests under way as there are users, and never more."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from sweeper.clients.vllm_bench import VllmBenchClient
from sweeper.engines.vllm import VllmEngine
from sweeper.records import LoadPoint, Measurement, UserSearch
from sweeper.workload import load_search
from tests.real_engine import make_real_spec
from tests.standin_server import PLACEMENT, POINT, never

USERS = (1, 2, 4, 8)
EACH = 6
CLOSED = replace(POINT, ignore_eos=True)
SEARCH = UserSearch(low=1, high=4, resolution=1, bounds=(("p99_ttft_ms", 60_000.0),), prompts_per_user=EACH)


def most_under_way(measured: Measurement, outputs: Path) -> int:
    """Return the most requests that were under way at once, from the client's own times."""
    told = json.loads((outputs / str(measured.raw_path)).read_text())
    starts: Sequence[float] = told["start_times"]
    spans = [(start, start + latency) for start, latency in zip(starts, told["latencies"], strict=True)]
    return max(sum(begin <= start < end for begin, end in spans) for start in starts)


@pytest.mark.vllm
@pytest.mark.slow
def test_users_of_real_client_send_next_when_last_is_answered(tmp_path: Path, vllm_python: str) -> None:
    spec = make_real_spec(
        tmp_path,
        vllm_python,
        assignment={"max_num_seqs": 4, "enforce_eager": True},
    )
    points: list[LoadPoint] = [
        replace(CLOSED, max_concurrency=users, num_prompts=EACH * users) for users in USERS
    ]
    points.append(replace(CLOSED, user_search=SEARCH, num_prompts=EACH * SEARCH.high))
    client = VllmBenchClient(spec, PLACEMENT)
    try:
        server = VllmEngine().start(spec, PLACEMENT, restart=0, cancelled=never)
        try:
            measure = partial(client.measure, server, restart=0, repeat=0, cancelled=never)
            measured = [one for point in points for one in load_search.measurements(point, measure)]
        finally:
            server.stop()
    finally:
        client.close()
    # A minute for the first token is kept by one user and by four: both ends of the search, and no more.
    assert [one.load_point.users for one in measured] == [*USERS, 1, 4]
    assert [one.metrics.get("max_users") for one in measured] == [None] * 5 + [4]
    for one in measured:
        users = one.load_point.users or 0
        assert one.metrics["completed"] == EACH * users
        assert one.metrics["total_output_tokens"] == EACH * users * 16
        assert most_under_way(one, Path(spec.folder)) == users
