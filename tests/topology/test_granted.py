"""What the environment leaves of a node, as ROCm, CUDA, batch systems and containers write it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sweeper.errors import ConfigError
from sweeper.records import Platform
from sweeper.topology import Node, chosen, granted, modelled_mi300x, node_table, read_amd, read_nvidia
from tests.topology.replaying import RECORDED, node_of, recorded, replay

EIGHT_GPUS = replace(modelled_mi300x(), platform=Platform.MI300X, host="h")
PARTITIONS = node_of(read_amd(replay(recorded("rocm_6.4_cpx_nps4"))))
NVIDIA = node_of(
    read_nvidia(replay({"nvidia-smi": (RECORDED / "nvidia" / "h100x8.csv").read_text(encoding="utf-8")}))
)


def left_by(node: Node, **environment: str) -> tuple[int, ...] | None:
    grant = granted(node, environment)
    return None if grant is None else grant.indices


def test_without_variable_all_devices_are_free_to_use() -> None:
    assert left_by(EIGHT_GPUS, PATH="/usr/bin", SLURM_JOB_ID="7") is None
    assert chosen(EIGHT_GPUS, ids=None, environment={}) is EIGHT_GPUS


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"HIP_VISIBLE_DEVICES": "4,5,6,7"}, (4, 5, 6, 7)),
        ({"HIP_VISIBLE_DEVICES": "7, 4"}, (4, 7)),
        ({"ROCR_VISIBLE_DEVICES": "2,3"}, (2, 3)),
        # HIP counts what ROCR shows, in ROCR's order: of 4, 5, 6, 7 the second; of 7, 4 the first.
        ({"ROCR_VISIBLE_DEVICES": "4,5,6,7", "HIP_VISIBLE_DEVICES": "1"}, (5,)),
        ({"ROCR_VISIBLE_DEVICES": "7,4", "HIP_VISIBLE_DEVICES": "0"}, (7,)),
        ({"ROCR_VISIBLE_DEVICES": "4,5,6,7", "CUDA_VISIBLE_DEVICES": "0,1"}, (4, 5)),
        # CUDA's is read where HIP's is empty, and only there.
        ({"CUDA_VISIBLE_DEVICES": "3"}, (3,)),
        ({"HIP_VISIBLE_DEVICES": "", "CUDA_VISIBLE_DEVICES": "3"}, (3,)),
        ({"HIP_VISIBLE_DEVICES": "1", "CUDA_VISIBLE_DEVICES": "3"}, (1,)),
        ({"GPU_DEVICE_ORDINAL": "6,7"}, (6, 7)),
        # NVIDIA's container variable is in many images; on AMD nothing reads it.
        ({"NVIDIA_VISIBLE_DEVICES": "all", "HIP_VISIBLE_DEVICES": "6"}, (6,)),
    ],
)
def test_masks_are_composed_as_rocm_composes_them(
    environment: dict[str, str], expected: tuple[int, ...]
) -> None:
    assert left_by(EIGHT_GPUS, **environment) == expected


def test_partitions_are_named_by_number_or_by_uuid() -> None:
    uuid = node_table(PARTITIONS)[9]["uuid"]
    assert uuid == "GPU-a0b1c2d3e4f50101"
    assert left_by(PARTITIONS, ROCR_VISIBLE_DEVICES="8,9,10,11") == (8, 9, 10, 11)
    assert left_by(PARTITIONS, ROCR_VISIBLE_DEVICES=f"63,{uuid.lower()}") == (9, 63)
    assert left_by(PARTITIONS, ROCR_VISIBLE_DEVICES=f"63,{uuid}", HIP_VISIBLE_DEVICES="1") == (9,)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"CUDA_VISIBLE_DEVICES": "4,5"}, (4, 5)),
        ({"NVIDIA_VISIBLE_DEVICES": "4-5"}, (4, 5)),
        ({"NVIDIA_VISIBLE_DEVICES": "all"}, None),
        ({"NVIDIA_VISIBLE_DEVICES": "void"}, None),
        ({"NVIDIA_VISIBLE_DEVICES": "/var/run/nvidia-container-devices"}, None),
        # In a container of eight of sixteen GPUs nvidia-smi counts from 0.
        ({"NVIDIA_VISIBLE_DEVICES": "8-15"}, None),
        # Nothing on such a node reads ROCm's.
        ({"HIP_VISIBLE_DEVICES": "1", "ROCR_VISIBLE_DEVICES": "nonsense"}, None),
    ],
)
def test_nvidia_has_variables_of_its_own(
    environment: dict[str, str], expected: tuple[int, ...] | None
) -> None:
    assert left_by(NVIDIA, **environment) == expected


def test_uuid_of_nvidia_may_be_shortened_and_must_be_one_gpus() -> None:
    uuids = [device.uuid or "" for device in NVIDIA.devices]
    assert left_by(NVIDIA, CUDA_VISIBLE_DEVICES=f"{uuids[6]},{uuids[2]}") == (2, 6)
    with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES: is 'GPU-'"):
        granted(NVIDIA, {"CUDA_VISIBLE_DEVICES": "GPU-"})


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SLURM_JOB_GPUS": "4,5"}, (4, 5)),
        ({"SLURM_STEP_GPUS": "6", "SLURM_JOB_GPUS": "6,7"}, (6,)),
        ({"ROCR_VISIBLE_DEVICES": "2,3", "SLURM_JOB_GPUS": "2,3", "SLURM_GPUS_ON_NODE": "2"}, (2, 3)),
        # What a person takes of what Slurm gave.
        ({"HIP_VISIBLE_DEVICES": "5", "SLURM_JOB_GPUS": "4-5"}, (5,)),
        # Without a device cgroup Slurm writes one list everywhere, of which ROCm would show nothing.
        (
            {
                "ROCR_VISIBLE_DEVICES": "4,5",
                "CUDA_VISIBLE_DEVICES": "4,5",
                "GPU_DEVICE_ORDINAL": "4,5",
                "SLURM_JOB_GPUS": "4,5",
            },
            (4, 5),
        ),
        ({"SLURM_JOB_GPUS": "0-7", "SLURM_GPUS_ON_NODE": "8"}, None),
        ({"SLURM_GPUS_ON_NODE": "8"}, None),
    ],
)
def test_slurms_lists_count_as_host_does(
    environment: dict[str, str], expected: tuple[int, ...] | None
) -> None:
    assert left_by(EIGHT_GPUS, **environment) == expected


def test_inside_device_cgroup_tools_numbers_hold() -> None:
    # Slurm granted GPUs 4 to 7 and hides the others: amd-smi lists four, counted from 0, and so do the masks.
    shown = replace(EIGHT_GPUS, devices=EIGHT_GPUS.devices[:4])
    inside = {"SLURM_JOB_GPUS": "4,5,6,7", "ROCR_VISIBLE_DEVICES": "0,1,2,3", "SLURM_GPUS_ON_NODE": "4"}
    assert left_by(shown, **inside) == (0, 1, 2, 3)
    assert left_by(shown, SLURM_JOB_GPUS="4,5,6,7") is None
    assert chosen(shown, ids=None, environment=inside) is shown, "all that there is"
    assert left_by(shown, **inside, HIP_VISIBLE_DEVICES="2") == (2,)


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        (
            {"HIP_VISIBLE_DEVICES": "-1"},
            "HIP_VISIBLE_DEVICES: is '-1'; expected numbers .* 0 to 7, each once",
        ),
        ({"HIP_VISIBLE_DEVICES": "2,2"}, r"HIP_VISIBLE_DEVICES: is '2,2'; .*\('2' comes twice\)"),
        ({"HIP_VISIBLE_DEVICES": "0,,1"}, "HIP_VISIBLE_DEVICES: is '0,,1'"),
        ({"HIP_VISIBLE_DEVICES": "6,7,8"}, r"is '6,7,8'; .*\('8' is none of them\)"),
        ({"HIP_VISIBLE_DEVICES": "all"}, "HIP_VISIBLE_DEVICES: is 'all'"),
        ({"ROCR_VISIBLE_DEVICES": "GPU-deadbeef"}, "ROCR_VISIBLE_DEVICES: is 'GPU-deadbeef'"),
        ({"CUDA_VISIBLE_DEVICES": "MIG-1a2b"}, "is 'MIG-1a2b'; .*MIG's parts of a GPU cannot be used"),
        (
            {"ROCR_VISIBLE_DEVICES": "2,3", "HIP_VISIBLE_DEVICES": "4,5,6,7"},
            "HIP_VISIBLE_DEVICES: is '4,5,6,7'; .* within ROCR_VISIBLE_DEVICES=2,3, 0 to 1",
        ),
        ({"SLURM_JOB_GPUS": "gpu:4"}, "SLURM_JOB_GPUS: is 'gpu:4'"),
        ({"SLURM_JOB_GPUS": "8,9"}, "SLURM_JOB_GPUS: is '8,9'; expected some of this node's devices, 0-7"),
        ({"SLURM_GPUS_ON_NODE": "2"}, r"SLURM_GPUS_ON_NODE: is '2'; .*\(this node shows 8\)"),
        (
            {"HIP_VISIBLE_DEVICES": "0,1,2", "SLURM_GPUS_ON_NODE": "2"},
            r"SLURM_GPUS_ON_NODE: is '2'; .*HIP_VISIBLE_DEVICES=0,1,2 shows 3",
        ),
    ],
)
def test_what_cannot_be_understood_is_refused_with_variable_value_and_key(
    environment: dict[str, str], told: str
) -> None:
    with pytest.raises(ConfigError, match=told) as refused:
        chosen(EIGHT_GPUS, ids=None, environment=environment)
    assert "platform.device_ids=[...]" in str(refused.value)


def test_mask_of_devices_that_slurm_did_not_grant_is_refused_naming_both() -> None:
    environment = {"HIP_VISIBLE_DEVICES": "0,1", "SLURM_JOB_GPUS": "4,5"}
    with pytest.raises(
        ConfigError, match=r"HIP_VISIBLE_DEVICES=0,1: shows devices 0-1, and SLURM_JOB_GPUS=4,5"
    ):
        granted(EIGHT_GPUS, environment)


def test_on_partitions_list_of_slurm_needs_mask_that_says_what_it_counts() -> None:
    with pytest.raises(
        ConfigError, match=r"SLURM_JOB_GPUS: is '1'; expected a mask besides, since in mode CPX"
    ):
        granted(PARTITIONS, {"SLURM_JOB_GPUS": "1"})
    # GPU 1 is partitions 8 to 15.
    assert left_by(PARTITIONS, SLURM_JOB_GPUS="1", ROCR_VISIBLE_DEVICES="8,9") == (8, 9)
    assert left_by(PARTITIONS, SLURM_JOB_GPUS="8,9", ROCR_VISIBLE_DEVICES="8,9") == (8, 9)
    with pytest.raises(ConfigError, match="shows devices 16-17, and SLURM_JOB_GPUS=1 grants others"):
        granted(PARTITIONS, {"SLURM_JOB_GPUS": "1", "ROCR_VISIBLE_DEVICES": "16,17"})


@pytest.mark.parametrize("name", ["HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"])
def test_empty_mask_leaves_no_device(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}=: is empty and leaves no device of node h"):
        chosen(EIGHT_GPUS, ids=None, environment={name: ""})


def test_devices_are_named_within_what_is_granted() -> None:
    environment = {"HIP_VISIBLE_DEVICES": "4,5,6,7"}
    node = chosen(EIGHT_GPUS, ids=(4, 5), environment=environment)
    assert node.restriction == (
        "only devices 4-5 of the node's 8 (platform.device_ids within HIP_VISIBLE_DEVICES=4,5,6,7)"
    )
    assert node.summary.endswith(f"; {node.restriction}")
    with pytest.raises(
        ConfigError,
        match=r"platform\.device_ids: names devices 2-4, and HIP_VISIBLE_DEVICES=4,5,6,7 leaves only 4-7",
    ):
        chosen(EIGHT_GPUS, ids=(2, 3, 4), environment=environment)
    with pytest.raises(
        ConfigError, match=r"platform\.device_ids: names device 2, and ROCR_VISIBLE_DEVICES= leaves none"
    ):
        chosen(EIGHT_GPUS, ids=(2,), environment={"ROCR_VISIBLE_DEVICES": ""})
    with pytest.raises(ConfigError, match="names devices 7-8; expected some of those of node h, 0-7"):
        chosen(EIGHT_GPUS, ids=(7, 8), environment={})


def test_who_names_devices_decides_what_variable_leaves_open() -> None:
    node = chosen(EIGHT_GPUS, ids=(6, 7), environment={"SLURM_GPUS_ON_NODE": "2"})
    assert [device.index for device in node.devices] == [6, 7]
    assert node.restriction == (
        "only devices 6-7 of the node's 8 (platform.device_ids, and not SLURM_GPUS_ON_NODE: is '2')"
    )


def test_model_of_node_has_no_devices_that_mask_hides() -> None:
    environment = {"HIP_VISIBLE_DEVICES": "nonsense", "SLURM_GPUS_ON_NODE": "1"}
    assert chosen(modelled_mi300x(), ids=None, environment=environment) == modelled_mi300x()
    part = chosen(modelled_mi300x(), ids=(4, 5), environment=environment)
    assert part.restriction == "only devices 4-5 of the node's 8 (platform.device_ids)"
