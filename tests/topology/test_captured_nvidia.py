"""What nvidia-smi printed on a real H200 is read: the node, the gauges, and who is on the device."""

from __future__ import annotations

from sweeper.records import Platform
from sweeper.topology import Runner, read_nvidia
from sweeper.topology.device_processes import DeviceProcesses
from sweeper.topology.free_devices import FreeDevices
from sweeper.topology.gauges import read_nvidia_gauges
from tests.topology.replaying import RECORDED, node_of, replay

ENGINE = 1680
LISTING = "nvidia-smi --query-gpu=index,uuid,name,memory.total,pci.bus_id,driver_version"
GAUGES = (
    "nvidia-smi --query-gpu=index,power.draw,memory.used,clocks.sm,clocks.mem,temperature.gpu,"
    "clocks_throttle_reasons.active"
)


def captured(name: str) -> str:
    return (RECORDED / "nvidia" / "h200" / f"{name}.csv").read_text(encoding="utf-8")


def machine(*, gauges: str, apps: str) -> Runner:
    index, uuid = captured("gpus").split(", ")[:2]
    return replay(
        {
            LISTING: captured("gpus"),
            "nvidia-smi --query-gpu=index,uuid": f"{index}, {uuid}\n",
            GAUGES: gauges,
            "nvidia-smi --query-compute-apps=gpu_uuid,pid": apps,
        }
    )


def test_node_of_one_gpu() -> None:
    node = node_of(read_nvidia(machine(gauges=captured("gauges_idle"), apps="")))
    (device,) = node.devices
    assert (device.name, device.memory_gib, node.driver) == ("NVIDIA H200", 143771 / 1024, "580.159.04")


def test_gauges_of_an_engine_and_of_nobody() -> None:
    idle, busy = (read_nvidia_gauges(captured(name), {0}) for name in ("gauges_idle", "gauges"))
    assert (idle.power_w, idle.memory_gib, idle.clock_mhz) == (80.95, 0.0, 345.0)
    assert (busy.power_w, busy.memory_gib, busy.clock_mhz) == (126.42, 133101 / 1024, 1980.0)
    # Bit 0x1 is idleness.
    assert (idle.is_throttled, busy.is_throttled) == (False, False)


def test_engine_that_somebody_left_is_in_the_way() -> None:
    busy = machine(gauges=captured("gauges"), apps=captured("apps"))
    assert DeviceProcesses(platform=Platform.CUDA, devices=(0,), run=busy).pids() == {ENGINE}
    told = FreeDevices(Platform.CUDA, (0,), run=busy).in_the_way()
    assert told is not None
    assert str(ENGINE) in told

    idle = machine(gauges=captured("gauges_idle"), apps="")
    assert FreeDevices(Platform.CUDA, (0,), run=idle).in_the_way() is None
