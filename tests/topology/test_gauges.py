"""Gauges are read as the vendors' tools print them; what they do not tell is None, never zero."""

from __future__ import annotations

import json

from sweeper.records import Platform
from sweeper.topology import Answer
from sweeper.topology.gauges import Gauge, Gauges, read_amd_gauges, read_nvidia_gauges
from tests.topology.replaying import replay


def metric(
    gpu: int, *, watts: object, used_mb: int, mhz: int, throttle: str = "UNTHROTTLED"
) -> dict[str, object]:
    """One device in the shape of ``amd-smi metric --json`` of ROCm 6.2 and later."""
    return {
        "gpu": gpu,
        "power": {"socket_power": watts, "throttle_status": throttle},
        "clock": {
            "gfx_0": {"clk": {"value": mhz, "unit": "MHz"}, "max_clk": {"value": 2100, "unit": "MHz"}},
            "gfx_1": {"clk": {"value": mhz + 20, "unit": "MHz"}},
            "mem_0": {"clk": {"value": 1300, "unit": "MHz"}},
            "vclk_0": {"clk": {"value": 29, "unit": "MHz"}},
        },
        "temperature": {"edge": "N/A", "hotspot": {"value": 60 + gpu, "unit": "C"}, "mem": "N/A"},
        "mem_usage": {"used_vram": {"value": used_mb, "unit": "MB"}},
    }


def test_devices_of_trial_are_added_up_and_no_others() -> None:
    rows = [
        metric(0, watts={"value": 400, "unit": "W"}, used_mb=1024, mhz=2000),
        metric(1, watts={"value": 500, "unit": "W"}, used_mb=2048, mhz=1000, throttle="THROTTLED"),
        metric(2, watts={"value": 700, "unit": "W"}, used_mb=4096, mhz=500),
    ]
    seen = read_amd_gauges("WARNING: old driver\n" + json.dumps(rows), {0, 1})
    # Clocks: (2000 + 2020 + 1000 + 1020) / 4.
    assert seen == Gauges(
        power_w=900.0,
        memory_gib=3.0,
        clock_mhz=1510.0,
        memory_clock_mhz=1300.0,
        temperature_c=61.0,
        is_throttled=True,
    )


def test_later_releases_wrap_their_rows_and_partition_tells_no_power() -> None:
    rows = [metric(3, watts="N/A", used_mb=512, mhz=1800, throttle="N/A")]
    seen = read_amd_gauges(json.dumps({"gpu_data": rows}), {3})
    assert (seen.power_w, seen.is_throttled) == (None, None)
    assert seen.memory_gib == 0.5


def test_nvidia_tells_line_per_device_and_throttling_in_bits() -> None:
    text = (
        "0, 69.50, 1024, 345, 1593, 30, 0x0000000000000001\n"
        "1, 650.25, 81920, 1755, 2619, 71, 0x0000000000000004\n"
        "2, [N/A], 10, 345, 1593, 30, [N/A]\n"
    )
    # Bit 0x1 is idleness and slows nobody; 0x4 is the power cap.
    assert read_nvidia_gauges(text, {0}).is_throttled is False
    both = read_nvidia_gauges(text, {0, 1})
    assert (both.power_w, both.memory_gib, both.clock_mhz) == (719.75, 81.0, 1050.0)
    assert (both.temperature_c, both.is_throttled) == (71.0, True)
    assert read_nvidia_gauges(text, {2}).power_w is None


def test_devices_are_asked_for_by_number_that_hip_gives_them() -> None:
    listed = [{"gpu": 0, "bdf": "0000:05:00.0", "hip_id": 1}, {"gpu": 1, "bdf": "0000:15:00.0", "hip_id": 0}]
    rows = [
        metric(0, watts={"value": 100}, used_mb=1024, mhz=1),
        metric(1, watts={"value": 200}, used_mb=1, mhz=1),
    ]
    run = replay({"amd-smi list": json.dumps(listed), "amd-smi metric": json.dumps(rows)})
    assert Gauge(Platform.MI300X, (0,), run=run).look().power_w == 200.0


def test_nothing_is_known_without_tool_or_without_its_answer() -> None:
    def hang(command: object) -> Answer:
        raise TimeoutError("amd-smi did not end within 60 s")

    assert Gauge(Platform.MI300X, (0,), run=replay({})).look() == Gauges()
    assert Gauge(Platform.MI300X, (0,), run=hang).look() == Gauges()
    assert Gauge(Platform.CUDA, (0,), run=replay({})).look() == Gauges()
    assert Gauge(Platform.CPU, (0,)).look() == Gauges()
