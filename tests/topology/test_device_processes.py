"""Who is on a device, read from the answers of the vendors' tools."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sweeper.records import Platform
from sweeper.topology import Answer
from sweeper.topology.device_processes import DeviceProcesses
from tests.topology.replaying import recorded, replay

GIB = 2**30


def process(pid: int, memory: object) -> dict[str, object]:
    return {"process_info": {"name": "python", "pid": pid, "memory_usage": {"vram_mem": memory}}}


def told(gpu: int, *listed: Mapping[str, object]) -> str:
    nobody = {"process_info": "No running processes detected"}
    return json.dumps([{"gpu": gpu, "process_list": list(listed) or [nobody]}])


def amd(
    devices: tuple[int, ...], answers: Mapping[int, str], *, folder: str = "rocm_6.2_spx"
) -> DeviceProcesses:
    commands = {f"amd-smi process --gpu {gpu} --json": text for gpu, text in answers.items()}
    run = replay({**recorded(folder), **commands})
    return DeviceProcesses(platform=Platform.MI300X, devices=devices, run=run)


def test_amd_smi_is_asked_for_each_device_and_one_that_only_opened_it_does_not_count() -> None:
    answers = {
        1: told(1, process(70, {"value": 100 * GIB, "unit": "B"}), process(80, {"value": 0, "unit": "B"})),
        2: told(2, process(71, {"value": 90_000, "unit": "MB"})),
        3: told(3, process(90, {"value": 100 * GIB, "unit": "B"})),
    }
    processes = amd((1, 2), answers)
    assert processes.pids() == {70, 71}
    assert processes.foreign({70, 71, 72}) == frozenset()
    assert processes.foreign({70}) == {71}
    used = processes.use({70})
    assert used is not None
    assert used.unused == (2,)


def test_idle_amd_device_says_so_in_sentence() -> None:
    assert amd((0,), {0: told(0)}).pids() == frozenset()


def test_older_form_of_amd_smi_is_read() -> None:
    old = {"process_info": {"name": "python", "pid": 70, "mem_usage": {"value": 3 * GIB, "unit": "B"}}}
    assert amd((0,), {0: told(0, old)}).pids() == {70}


def test_devices_of_hip_are_translated_to_amd_smis_numbers() -> None:
    listed = json.dumps([{"gpu": 0, "hip_id": 1}, {"gpu": 1, "hip_id": 0}])
    run = replay(
        {"amd-smi list": listed, "amd-smi process --gpu 1 --json": told(1, process(70, {"value": GIB}))}
    )
    assert DeviceProcesses(platform=Platform.MI300X, devices=(0,), run=run).pids() == {70}


def test_answer_that_is_none_is_not_nobody() -> None:
    assert amd((0,), {}).pids() is None
    broken = replay({"amd-smi list": "Segmentation fault"})
    assert DeviceProcesses(platform=Platform.MI300X, devices=(0,), run=broken).pids() is None
    failed = replay({"nvidia-smi": Answer(exit_status=9, stdout="")})
    assert DeviceProcesses(platform=Platform.CUDA, devices=(0,), run=failed).pids() is None


def test_nvidia_smi_names_gpus_by_uuid() -> None:
    run = replay(
        {
            "nvidia-smi --query-gpu=index,uuid": "0, GPU-a\n1, GPU-b\n",
            "nvidia-smi --query-compute-apps=gpu_uuid,pid": "GPU-a, 70\nGPU-b, 80\nGPU-b, 81\n",
        }
    )
    assert DeviceProcesses(platform=Platform.CUDA, devices=(1,), run=run).pids() == {80, 81}


def test_on_cores_and_for_engine_that_shows_no_processes_it_cannot_be_told() -> None:
    run = replay({})
    assert DeviceProcesses(platform=Platform.CPU, devices=(0,), run=run).foreign({70}) is None
    assert amd((0,), {0: told(0, process(70, {"value": GIB}))}).foreign(None) is None
