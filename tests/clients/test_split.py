"""One load for several servers: how it is dealt out, and how its numbers are joined."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeper.clients import split
from sweeper.clients.split import SplitClient
from sweeper.engines import Cancelled, Server
from sweeper.engines.instances import SplitServer
from sweeper.errors import EngineError, MeasurementError
from sweeper.records import LoadPoint, Measurement, Placement, TrialSpec
from tests.stand_ins import StandInServer
from tests.standin_server import make_spec, never

TWO = Placement(node="here", devices=(0, 1), parents=(0, 1))
POINT = LoadPoint(
    dataset="random", num_prompts=5, request_rate_per_s=8.0, max_concurrency=3, input_len=10, output_len=3
)
# Two requests at the first server and one at the second, on the machine's one clock.
FIRST: Mapping[str, Any] = {
    "start_times": [100.0, 101.0],
    "ttfts": [0.1, 0.2],
    "itls": [[0.05, 0.05], [0.1, 0.1]],
    "latencies": [0.2, 0.4],
    "input_lens": [10, 10],
    "output_lens": [3, 3],
}
SECOND: Mapping[str, Any] = {
    "start_times": [100.5],
    "ttfts": [0.3],
    "itls": [[0.1, 0.1]],
    "latencies": [0.5],
    "input_lens": [20],
    "output_lens": [3],
}


class PartClient:
    """Leaves the report that a test wrote for its instance."""

    def __init__(self, spec: TrialSpec, placement: Placement) -> None:
        self.spec = spec
        self.placement = placement
        self.points: list[LoadPoint] = []
        self.is_closed = False

    def measure(
        self, server: Server, point: LoadPoint, *, restart: int, repeat: int, cancelled: Cancelled
    ) -> Measurement:
        self.points.append(point)
        report = FIRST if self.placement.devices == (0,) else SECOND
        path = Path(self.spec.folder) / "report.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(report))
        now = time.time()
        return Measurement(
            load_point=point,
            restart=restart,
            repeat=repeat,
            metrics={},
            telemetry={"kv_cache_usage": 0.25 * (1 + self.placement.devices[0]), "client_cpu_wait_s": 0.5},
            measured_s=1.0,
            client_overhead_s=0.0,
            started_at=now,
            ended_at=now,
            raw_path=str(path),
        )

    def warm_up(self, server: Server, point: LoadPoint, *, prompts: int, cancelled: Cancelled) -> float:
        self.points.append(replace(point, num_prompts=prompts))
        return 0.5

    def close(self) -> None:
        self.is_closed = True


def opened(tmp_path: Path) -> tuple[SplitClient, list[PartClient]]:
    spec = make_spec(tmp_path, "python", assignment={"instances": 2})
    spec = replace(spec, engine=replace(spec.engine, instances_by="split"))
    parts: list[PartClient] = []

    def open_one(spec: TrialSpec, placement: Placement) -> PartClient:
        parts.append(PartClient(spec, placement))
        return parts[-1]

    return SplitClient(spec, TWO, parts=2, open_one=open_one), parts


def two_servers() -> SplitServer:
    return SplitServer([StandInServer(diary=[]), StandInServer(diary=[])], told={}, start_s=1.0)


def test_load_is_dealt_out_whole_with_seed_for_each_part() -> None:
    first, second = split.split(POINT, parts=2)
    assert (first.num_prompts, second.num_prompts) == (3, 2)
    assert (first.max_concurrency, second.max_concurrency) == (2, 1)
    assert first.request_rate_per_s == second.request_rate_per_s == 4.0
    assert first.client_seed == POINT.client_seed
    assert second.client_seed != first.client_seed
    at_once = split.split(replace(POINT, request_rate_per_s=None, max_concurrency=None), parts=2)
    assert [part.request_rate_per_s for part in at_once] == [None, None]
    with pytest.raises(MeasurementError, match="expected at least one for each"):
        split.split(replace(POINT, num_prompts=1), parts=2)


def test_numbers_of_several_servers_are_those_of_all_their_requests(tmp_path: Path) -> None:
    client, _ = opened(tmp_path)
    measured = client.measure(two_servers(), POINT, restart=0, repeat=0, cancelled=never)
    found = measured.metrics
    # From the first request, at 100.0, to the last token: the second request's, at 101.0 + 0.4.
    assert found["duration_s"] == pytest.approx(1.4)
    assert found["completed"] == 3
    assert found["request_throughput_per_s"] == pytest.approx(3 / 1.4)
    assert found["total_input_tokens"] == 40
    # First tokens came after 100, 200 and 300 ms: the median of all is not the mean of two medians.
    assert found["median_ttft_ms"] == pytest.approx(200.0)
    # (latency - TTFT) / 2 is 50, 100 and 100 ms.
    assert found["mean_tpot_ms"] == pytest.approx(250 / 3)
    # Gaps of 50, 50, 100, 100, 100, 100 ms.
    assert found["mean_itl_ms"] == pytest.approx(500 / 6)
    assert measured.telemetry["instances_start_spread_s"] == pytest.approx(0.5)
    assert measured.telemetry["kv_cache_usage"] == 0.5
    assert measured.load_point == POINT
    parts = json.loads(Path(str(measured.raw_path)).read_text())["parts"]
    assert [Path(part).parent.name for part in parts] == ["instance-0", "instance-1"]


def test_every_part_is_warmed_and_closed(tmp_path: Path) -> None:
    client, parts = opened(tmp_path)
    assert client.warm_up(two_servers(), POINT, prompts=7, cancelled=never) >= 0.0
    assert [part.points[0].num_prompts for part in parts] == [7, 7]
    # By users: three of them are two and one, of whom each sends two.
    users = replace(POINT, request_rate_per_s=None, warmup_per_user=2)
    assert client.warm_up(two_servers(), users, prompts=6, cancelled=never) >= 0.0
    assert [(part.points[1].num_prompts, part.points[1].max_concurrency) for part in parts] == [
        (3, 2),
        (3, 1),
    ]
    client.close()
    assert all(part.is_closed for part in parts)


def test_single_server_is_not_split(tmp_path: Path) -> None:
    client, _ = opened(tmp_path)
    with pytest.raises(EngineError, match="expected one of 2 instances"):
        client.measure(StandInServer(diary=[]), POINT, restart=0, repeat=0, cancelled=never)


def test_report_without_single_requests_is_refused() -> None:
    silent = {name: value for name, value in FIRST.items() if name != "start_times"}
    with pytest.raises(MeasurementError, match="its report has no start_times"):
        split.joined([silent])
    assert split.joined([FIRST, SECOND]).is_complete.sum() == 3
    assert split.start_spread_s([SECOND, FIRST]) == pytest.approx(0.5)
