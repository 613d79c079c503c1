"""Telemetry is what was seen from the side during a load; what nobody told is null."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from sweeper.engines.environment import client_environment
from sweeper.engines.instances import InstancesEngine, part_of
from sweeper.engines.vllm import VllmEngine
from sweeper.processes import process as processes
from sweeper.records import ClientSpec, EngineSpec, Placement, Platform, Provenance, TrialSpec, TrialState
from sweeper.topology.gauges import Gauge, Gauges
from sweeper.trial import telemetry, trial
from tests.clients.test_vllm_offline import LATENCY
from tests.clients.test_vllm_offline import make as make_offline
from tests.stand_ins import LOAD, StandInClient, StandInEngine, StandInServer
from tests.standin_benchmarks import write_scripts
from tests.standin_server import PLACEMENT, make_spec, never, write_interpreter


@dataclass
class CountingServer(StandInServer):
    """Tells other gauges at each look, and which processes are its own."""

    told: list[Mapping[str, float]] = field(default_factory=list)
    own: set[int] = field(default_factory=set)

    def counters(self) -> Mapping[str, float]:
        return self.told.pop(0) if len(self.told) > 1 else self.told[0]

    def pids(self) -> set[int]:
        return self.own


class ScriptedGauge(Gauge):
    """Tells what a test wrote, and the last of it again and again."""

    def __init__(self, *looks: Gauges) -> None:
        super().__init__(Platform.CPU, ())
        self._looks = list(looks)

    def look(self) -> Gauges:
        return self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]


@pytest.fixture
def spec(simulated_spec: TrialSpec) -> TrialSpec:
    return replace(simulated_spec, platform=Platform.CPU, engine=EngineSpec(kind="vllm", release="0.32.0"))


def test_recording_gives_means_and_peaks() -> None:
    recording = telemetry.Recording(
        engine=[
            {"kv_cache_usage": 0.2, "requests_running": 2.0, "requests_waiting": 0.0},
            {"kv_cache_usage": 0.6, "requests_running": 4.0, "requests_waiting": 3.0},
        ],
        devices=[
            Gauges(power_w=300.0, memory_gib=10.0, clock_mhz=2000.0, temperature_c=50.0, is_throttled=False),
            Gauges(power_w=500.0, memory_gib=12.0, clock_mhz=1000.0, temperature_c=80.0, is_throttled=True),
        ],
        host_busy_share=0.25,
    )
    told = recording.numbers()
    assert told["kv_cache_usage_mean"] == pytest.approx(0.4)
    assert (told["kv_cache_usage"], told["requests_running_mean"], told["requests_waiting_max"]) == (
        0.6,
        3.0,
        3.0,
    )
    assert (told["gpu_power_w"], told["gpu_power_max_w"], told["gpu_memory_gib"]) == (400.0, 500.0, 12.0)
    assert (told["gpu_clock_mhz"], told["gpu_temperature_c"], told["gpu_throttled_share"]) == (
        1500.0,
        80.0,
        0.5,
    )
    assert (told["host_cpu_share"], told["engine_cpu_cores"], told["telemetry_looks"]) == (0.25, None, 2.0)


def test_what_nobody_tells_is_null_and_never_zero() -> None:
    told = telemetry.Recording(engine=[{}], devices=[Gauges()]).numbers()
    assert {name for name, value in told.items() if value is not None} == {"telemetry_looks"}


def test_looks_are_taken_while_load_runs(spec: TrialSpec, placement: Placement) -> None:
    server = CountingServer(diary=[], told=[{"requests_running": 1.0}, {"requests_running": 3.0}])
    gauge = ScriptedGauge(Gauges(power_w=100.0), Gauges(power_w=300.0))
    with telemetry.recorded(server, spec, placement, gauge=gauge, interval_s=0.01) as recording:
        deadline = time.monotonic() + 30
        while len(recording.devices) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    told = recording.numbers()
    assert (told["requests_running_max"], told["gpu_power_max_w"]) == (3.0, 300.0)
    looks = len(recording.engine)
    time.sleep(0.05)
    assert len(recording.engine) == looks, "nobody looks once the load is over"


def test_of_simulated_server_there_is_nothing_to_see(spec: TrialSpec, placement: Placement) -> None:
    server = CountingServer(diary=[], provenance=Provenance.SIMULATED, told=[{"requests_running": 1.0}])
    with telemetry.recorded(server, spec, placement) as recording:
        pass
    assert recording.engine == []
    assert recording.numbers()["host_cpu_share"] is None


def test_processor_time_goes_to_engine_or_to_client(spec: TrialSpec, placement: Placement) -> None:
    busy = [sys.executable, "-c", "while True: pass"]
    idle = [sys.executable, "-c", "import time; time.sleep(600)"]
    mark = {processes.TRIAL_MARK: spec.key}
    engine, client = subprocess.Popen(busy), subprocess.Popen(idle, env=mark)
    try:
        server = CountingServer(diary=[], told=[{}], own={engine.pid})
        with telemetry.recorded(server, spec, placement, gauge=ScriptedGauge(Gauges())) as recording:
            deadline = time.monotonic() + 60
            while sum(telemetry.read_ticks({engine.pid}, Path("/proc")).values()) < 100:
                assert time.monotonic() < deadline
                time.sleep(0.05)
    finally:
        for process in (engine, client):
            process.kill()
            process.wait()
    told = recording.numbers()
    engine_cores, client_cores = told["engine_cpu_cores"], told["client_cpu_cores"]
    assert engine_cores is not None and client_cores is not None
    assert engine_cores > client_cores
    assert told["host_cpu_share"] is not None and 0 < told["host_cpu_share"] <= 1


def test_kernels_counts_are_read_as_it_writes_them(tmp_path: Path) -> None:
    # user nice system idle iowait irq softirq steal guest guest_nice; guest time is within user.
    (tmp_path / "stat").write_text("cpu  10 1 4 70 10 2 2 1 9 0\ncpu0 10 1 4 70 10 2 2 1 9 0\n")
    assert telemetry.read_host_ticks(tmp_path) == (20, 100)
    (tmp_path / "7").mkdir()
    # Fields 14 and 15 are user and system time; the name may hold anything.
    (tmp_path / "7" / "stat").write_text("7 (a) name) S 1 7 7 0 -1 0 0 0 0 0 30 12 0 0 20 0 1 0 5\n")
    assert telemetry.read_ticks({7, 8}, tmp_path) == {7: 42}
    assert telemetry.read_host_ticks(tmp_path / "nowhere") is None


def test_trial_keeps_what_was_seen_and_what_its_client_told(spec: TrialSpec, placement: Placement) -> None:
    result = trial.run(
        spec,
        placement,
        cancelled=lambda: False,
        engine=StandInEngine(),
        open_client=lambda spec, placement: StandInClient(),
    )
    (measured,) = result.measurements
    assert measured.telemetry["telemetry_looks"] is not None
    assert measured.telemetry["gpu_power_w"] is None, "there is no GPU"
    assert result.versions["vllm"] == "0.32.0", "the engine's word stands"
    assert {"kernel", "ray", "sweeper_python"} <= set(result.versions)
    assert {"container", "environment"} <= set(result.surroundings)


def test_higher_of_two_peaks_stands() -> None:
    seen = telemetry.Recording(engine=[{"kv_cache_usage": 0.3}])
    server = StandInServer(diary=[])
    measured = StandInClient().measure(server, LOAD, restart=0, repeat=0, cancelled=lambda: False)
    low = replace(measured, telemetry={"kv_cache_usage": 0.1, "preemptions": 2.0})
    high = replace(measured, telemetry={"kv_cache_usage": 0.5})
    assert telemetry.with_telemetry(low, seen).telemetry["kv_cache_usage"] == 0.3
    assert telemetry.with_telemetry(low, seen).telemetry["preemptions"] == 2.0
    assert telemetry.with_telemetry(high, seen).telemetry["kv_cache_usage"] == 0.5


def test_processor_time_of_instances_is_engines_and_of_their_clients_clients(tmp_path: Path) -> None:
    # Real servers and a busy program in the place of one instance's load generator.
    python = write_interpreter(tmp_path / "bin")
    spec = make_spec(tmp_path, python, assignment={"instances": 2})
    spec = replace(spec, engine=replace(spec.engine, instances_by="split"))
    spec = replace(spec, folder=str(tmp_path / "outputs" / "study" / "trials" / spec.key))
    two = replace(PLACEMENT, devices=(0, 1))
    part, _ = part_of(spec, two, index=1)
    surroundings = {"PATH": os.environ["PATH"]}
    env = client_environment(
        part, surroundings=surroundings, python=str(python), owner=processes.current(), stub=None
    )
    server = InstancesEngine(VllmEngine()).start(spec, two, restart=0, cancelled=never)
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"], env=env)
    try:
        with telemetry.recorded(server, spec, two, gauge=ScriptedGauge(Gauges())) as recording:
            began = ticks = sum(telemetry.read_ticks(set(server.pids() or ()), Path("/proc")).values())
            deadline = time.monotonic() + 60
            while ticks < began + 5:
                assert time.monotonic() < deadline
                server.sanity()
                ticks = sum(telemetry.read_ticks(set(server.pids() or ()), Path("/proc")).values())
    finally:
        busy.kill()
        busy.wait()
        server.stop()
    told = recording.numbers()
    assert (told["engine_cpu_cores"] or 0) > 0
    assert (told["client_cpu_cores"] or 0) > 0


def test_engine_inside_benchmark_counts_as_engine(tmp_path: Path) -> None:
    # The stand-in's latency benchmark ends at once; one that works for a while shows where it is counted.
    spec = make_offline(tmp_path, release="0.6.2", points=(LATENCY,))
    scripts = write_scripts(tmp_path / "benchmarks")
    script = scripts / "benchmark_latency.py"
    work = "import time\nend = time.process_time() + 1.0\nwhile time.process_time() < end: pass\n"
    script.write_text(work + script.read_text(encoding="utf-8"), encoding="utf-8")
    result = trial.run(
        replace(spec, client=ClientSpec(kind="offline", script=str(scripts))), PLACEMENT, cancelled=never
    )
    assert result.state is TrialState.COMPLETE, result.failure_message
    (measured,) = result.measurements
    cores = [measured.telemetry[f"{who}_cpu_cores"] or 0.0 for who in ("engine", "client")]
    # Besides the benchmark there is only its supervisor, which looks at it now and then.
    assert cores[0] > 3 * cores[1]
