"""Engines and clients that do what a test tells them; they keep the same contracts as the real ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sweeper.engines import Cancelled, Server
from sweeper.errors import EngineError
from sweeper.records import FailureClass, LoadPoint, Measurement, Placement, Provenance, Scalar, TrialSpec


@dataclass
class StandInServer:
    """A server in this process; what happened to it stands in ``diary``."""

    diary: list[str]
    dies_before: Callable[[int], bool] = lambda _: False
    base_url: str = "http://127.0.0.1:1"
    api_key: str = "secret"
    provenance: Provenance = Provenance.MEASURED
    start_s: float = 2.0
    command: tuple[str, ...] = ("serve", "model")
    effective: Mapping[str, Scalar] = field(default_factory=lambda: {"max_num_seqs": 64})
    versions: Mapping[str, str] = field(default_factory=lambda: {"vllm": "0.32.0"})
    log_path: str | None = "engine.log"
    looks: int = 0

    def sanity(self) -> str:
        self.diary.append("sanity")
        return "fingerprint"

    def check_alive(self) -> None:
        self.looks += 1
        if self.dies_before(self.looks):
            raise EngineError("HIP out of memory", failure=FailureClass.OUT_OF_MEMORY, log_path=self.log_path)

    def counters(self) -> Mapping[str, float]:
        return {}

    def stop(self) -> float:
        self.diary.append("stop")
        return 0.5


@dataclass
class StandInEngine:
    """Starts stand-in servers, or fails as told."""

    diary: list[str] = field(default_factory=list)
    fails_with: BaseException | None = None
    dies_before: Callable[[int], bool] = lambda _: False

    def start(self, spec: TrialSpec, placement: Placement, *, restart: int, cancelled: Cancelled) -> Server:
        self.diary.append(f"start {restart}")
        if self.fails_with is not None:
            raise self.fails_with
        return StandInServer(diary=self.diary, dies_before=self.dies_before)


@dataclass
class StandInClient:
    """Measures ten requests per second at every load point."""

    diary: list[str] = field(default_factory=list)
    fails_with: BaseException | None = None

    def measure(
        self, server: Server, point: LoadPoint, *, restart: int, repeat: int, cancelled: Cancelled
    ) -> Measurement:
        self.diary.append(f"measure {point.label}")
        if self.fails_with is not None:
            raise self.fails_with
        now = time.time()
        return Measurement(
            load_point=point,
            restart=restart,
            repeat=repeat,
            metrics={"request_throughput_per_s": 10.0, "completed": float(point.num_prompts)},
            telemetry={},
            measured_s=1.0,
            client_overhead_s=0.1,
            started_at=now,
            ended_at=now,
        )

    def warm_up(self, server: Server, point: LoadPoint, *, prompts: int, cancelled: Cancelled) -> float:
        self.diary.append(f"warm up with {prompts} at {point.label}")
        return 0.25

    def close(self) -> None:
        self.diary.append("close")
