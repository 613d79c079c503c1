"""An NVIDIA node is read from nvidia-smi, or refused with a message that says what to run."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper.errors import PlacementError
from sweeper.records import Platform
from sweeper.topology import Absent, Answer, read_nvidia
from tests.topology.replaying import RECORDED, node_of, replay


def test_nvidia_gpus_are_read_with_their_numa_nodes(tmp_path: Path) -> None:
    for bus, numa in (("18", "0"), ("9a", "1"), ("2a", "-1")):
        folder = tmp_path / f"sys/bus/pci/devices/0000:{bus}:00.0"
        folder.mkdir(parents=True)
        (folder / "numa_node").write_text(f"{numa}\n")
    answers = {"nvidia-smi": (RECORDED / "nvidia/h100x8.csv").read_text()}

    node = node_of(read_nvidia(replay(answers), root=tmp_path))

    assert node.platform is Platform.CUDA
    assert node.driver == "570.133.20"
    assert node.partition_mode is None
    assert [device.parent for device in node.devices] == [0, 1, 2, 3, 4, 5, 6, 7]
    first = node.devices[0]
    assert (first.name, first.bdf) == ("NVIDIA H100 80GB HBM3", "0000:18:00.0")
    assert first.memory_gib == 81559 / 1024
    # Known, known as "none" (-1), and not told at all.
    assert [node.devices[i].numa_node for i in (0, 1, 2, 4)] == [0, None, None, 1]


def test_missing_nvidia_smi_is_absence_not_error() -> None:
    assert read_nvidia(replay({})) == Absent(reason="nvidia-smi: not found")


@pytest.mark.parametrize(
    "answer",
    [
        Answer(exit_status=9, stdout="NVIDIA-SMI has failed because it couldn't communicate with the driver"),
        Answer(exit_status=6, stdout="No devices were found"),
        Answer(exit_status=0, stdout=""),
        Answer(exit_status=0, stdout="0, GPU-1, NVIDIA H100\n"),
    ],
)
def test_nvidia_smi_without_gpus_is_refused(answer: Answer) -> None:
    with pytest.raises(PlacementError, match=r"nvidia-smi: got status \d and .*Run `nvidia-smi` by hand"):
        read_nvidia(replay({"nvidia-smi": answer}))
