"""Whether devices are free, read from the answers of the vendors' tools, and the wait until they are."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence

import pytest

from sweeper.errors import EngineError
from sweeper.records import FailureClass, Platform
from sweeper.topology import Answer, Runner, free_devices
from sweeper.topology.free_devices import FreeDevices
from tests.topology.replaying import recorded, replay

GPUS = "nvidia-smi --query-gpu=index,uuid"
APPS = "nvidia-smi --query-compute-apps=gpu_uuid,pid"
GAUGES = "nvidia-smi --query-gpu=index,power.draw"


def nvidia(*, apps: str = "", used_mib: str = "4") -> Runner:
    gauges = f"0, 70, 60000, 1980, 2619, 30, 0x0\n1, 70, {used_mib}, 1980, 2619, 30, 0x0\n"
    gauges_command = (
        f"{GAUGES},memory.used,clocks.sm,clocks.mem,temperature.gpu,clocks_throttle_reasons.active"
    )
    return replay({GPUS: "0, GPU-a\n1, GPU-b\n", APPS: apps, gauges_command: gauges})


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_devices, "_POLL_S", 0.0)


def test_idle_gpu_is_free_whoever_is_on_its_neighbour() -> None:
    assert FreeDevices(Platform.CUDA, (1,), run=nvidia(apps="GPU-a, 70\n")).in_the_way() is None


def test_process_on_gpu_is_named() -> None:
    assert FreeDevices(Platform.CUDA, (1,), run=nvidia(apps="GPU-b, 4000001\n")).in_the_way() == (
        "process 4000001 (unknown)"
    )


def test_memory_that_nobody_is_seen_to_hold_is_in_way_of_whole_gpu_only() -> None:
    held = nvidia(used_mib="40960")
    assert FreeDevices(Platform.CUDA, (1,), run=held).in_the_way() == (
        "40.0 GiB of memory in use, by no process that can be seen"
    )
    assert FreeDevices(Platform.CUDA, (1,), partition_mode="CPX", run=held).in_the_way() is None


def test_amd_smi_is_asked_for_memory_by_its_own_numbers() -> None:
    used = json.dumps(
        [{"gpu": gpu, "mem_usage": {"used_vram": {"value": 90_000, "unit": "MB"}}} for gpu in (2,)]
    )
    idle = json.dumps([{"gpu": 2, "process_list": [{"process_info": "No running processes detected"}]}])
    run = replay(
        {
            **recorded("rocm_6.2_spx"),
            "amd-smi process --gpu 2 --json": idle,
            "amd-smi metric --json": used,
        }
    )
    way = FreeDevices(Platform.MI300X, (2,), partition_mode="SPX", run=run).in_the_way()
    assert way is not None
    assert "of memory in use" in way


def test_what_cannot_be_told_counts_as_free() -> None:
    assert FreeDevices(Platform.CUDA, (1,), run=replay({})).in_the_way() is None
    assert FreeDevices(Platform.CPU, (1,), run=nvidia(apps="GPU-b, 70\n")).in_the_way() is None


def frees_after(looks: int) -> Runner:
    taken, free = nvidia(apps="GPU-b, 70\n"), nvidia()
    number = itertools.count()

    def run(command: Sequence[str]) -> Answer:
        is_apps = "--query-compute-apps=gpu_uuid,pid" in command
        return (free if is_apps and next(number) >= looks else taken)(command)

    return run


def ticking() -> Callable[[], float]:
    seconds: Iterator[float] = map(float, itertools.count())
    return lambda: next(seconds)


def test_wait_ends_when_devices_are_free_and_tells_how_long_it_was() -> None:
    waited = FreeDevices(Platform.CUDA, (1,), run=frees_after(3)).wait(
        limit_s=100.0, cancelled=lambda: False, clock=ticking()
    )
    assert waited == 4.0


def test_wait_ends_at_its_limit_and_names_devices_holder_and_key() -> None:
    taken = FreeDevices(Platform.CUDA, (1,), run=frees_after(1000))
    with pytest.raises(
        EngineError, match=r"devices: 1 not free after 5 s: process 70 .*free_timeout_s"
    ) as told:
        taken.wait(limit_s=5.0, cancelled=lambda: False, clock=ticking())
    assert told.value.failure is FailureClass.INFRASTRUCTURE


def test_request_to_stop_ends_wait() -> None:
    taken = FreeDevices(Platform.CUDA, (1,), run=frees_after(1000))
    with pytest.raises(EngineError) as told:
        taken.wait(limit_s=5.0, cancelled=lambda: True, clock=ticking())
    assert told.value.failure is FailureClass.INTERRUPTED
