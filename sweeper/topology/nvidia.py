"""An NVIDIA node, read through nvidia-smi."""

from __future__ import annotations

import csv
import socket
from collections.abc import Sequence
from pathlib import Path

from sweeper.errors import PlacementError
from sweeper.records import Platform
from sweeper.topology.node import Device, Node
from sweeper.topology.probes import Absent, Runner, ask, contents, run_command
from sweeper.topology.values import gib, node_number, word

_NVIDIA = (
    "nvidia-smi",
    "--query-gpu=index,uuid,name,memory.total,pci.bus_id,driver_version",
    "--format=csv,noheader,nounits",
)


def read_nvidia(run: Runner = run_command, *, root: Path = Path("/")) -> Node | Absent:
    """Read an NVIDIA node through nvidia-smi. GPUs that are split by MIG count as whole ones here.

    nvidia-smi counts in PCI order; CUDA does so too when CUDA_DEVICE_ORDER is PCI_BUS_ID, and by itself
    where all GPUs are of one kind.

    Returns:
        The node, or Absent when nvidia-smi is not installed.

    Raises:
        PlacementError: nvidia-smi finds no GPU, cannot reach the driver, or answers something else.

    Source:
        ``nvidia-smi --help-query-gpu``: index, uuid, name, memory.total (MiB), pci.bus_id, driver_version.
    """
    answer = ask(run, _NVIDIA)
    if isinstance(answer, Absent):
        return answer
    rows = [[cell.strip() for cell in row] for row in csv.reader(answer.stdout.splitlines()) if row]
    if answer.exit_status != 0 or not rows or any(len(row) != 6 or not row[0].isdigit() for row in rows):
        raise PlacementError(
            f"nvidia-smi: got status {answer.exit_status} and {answer.last_line!r}; expected one line of six "
            "values per GPU. Run `nvidia-smi` by hand; in a container, start it with --gpus all."
        )
    return Node(
        host=socket.gethostname(),
        platform=Platform.CUDA,
        devices=tuple(sorted((_nvidia_device(row, root) for row in rows), key=lambda device: device.index)),
        source="nvidia-smi, numbered in PCI order",
        driver=word(rows[0][5]),
    )


def _nvidia_device(row: Sequence[str], root: Path) -> Device:
    index, uuid, name, memory_mib, bus_id, _ = row
    bdf = bus_id.lower()[-12:]  # nvidia-smi writes the PCI domain with eight digits, the kernel with four
    return Device(
        index=int(index),
        parent=int(index),
        partition_id=0,
        name=name,
        memory_gib=gib(memory_mib) or None,  # a GPU has some: 0 says that the tool does not know
        numa_node=node_number(contents(root / "sys/bus/pci/devices" / bdf / "numa_node")),
        bdf=bdf,
        uuid=uuid,
    )
