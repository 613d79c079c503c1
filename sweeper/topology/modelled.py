"""The nodes that the simulated platform models; no hardware is asked."""

from __future__ import annotations

import math

from sweeper.errors import PlacementError
from sweeper.records import PARTITIONS_PER_GPU, Platform
from sweeper.simulation.device import USUAL_DEVICE, device_named, model_name, model_of, partition_of
from sweeper.topology.modes import MI300X_GPUS, check_modes
from sweeper.topology.node import Device, Node

_GIB = 2.0**30
# amd-smi reports 196592 MiB of 192 GiB.
_MEMORY_TOLERANCE = 0.01


def modelled_as(node: Node) -> str | None:
    """Name which of ``simulation.device.DEVICES`` a node's devices are; None where none of them is.

    Old releases of amd-smi know no product's name; then instruction set, memory and compute units have to be
    those of a whole MI300X.
    """
    if any(model_name(device.name) for device in node.devices):
        found = {model_of(device.name) for device in node.devices}
        return found.pop() if len(found) == 1 else None
    usual, split = device_named(None), node.partitions_per_gpu or 1
    is_usual = node.gfx_target == usual.gfx_target and all(
        device.compute_units == usual.compute_units // split
        and device.memory_gib is not None
        and math.isclose(device.memory_gib * split * _GIB, usual.memory_bytes, rel_tol=_MEMORY_TOLERANCE)
        for device in node.devices
    )
    return USUAL_DEVICE if is_usual else None


def modelled_mi300x(mode: str = "SPX", memory_mode: str = "NPS1") -> Node:
    """Return the node that the simulated platform models unless said: 8 MI300X, each split as the mode says.

    Raises:
        PlacementError: An unknown mode, or a pair that the GPU does not take.
    """
    return modelled_node(None, mode=mode, memory_mode=memory_mode)


def modelled_node(name: str | None, *, mode: str | None = None, memory_mode: str | None = None) -> Node:
    """Return a node of 8 GPUs of one kind, each split as the mode says.

    Shares are even and nominal. GPUs 0 to 3 are attached to NUMA node 0 and the others on 1, as on two-socket
    hosts with one NUMA node per socket.

    Args:
        name: One of ``simulation.device.DEVICES``; None is the usual one.
        mode: Compute mode; None is SPX where there are modes.
        memory_mode: None is NPS1 where there are modes. The pairs that an MI300X takes are taken to be those
            of its successors.

    Raises:
        PlacementError: An unknown device or mode, a pair that the GPU does not take, or modes for one that
            has none.
    """
    whole = device_named(name)
    if whole.has_partitions:
        mode, memory_mode = mode or "SPX", memory_mode or "NPS1"
        check_modes(mode, memory_mode)
    elif memory_mode is not None:
        raise PlacementError(
            f"simulated node: memory mode is '{memory_mode}'; expected none on a {whole.name}, which has no "
            "such modes. Leave platform.memory_mode out."
        )
    part = partition_of(mode, device=name)
    split = 1 if mode is None else PARTITIONS_PER_GPU[mode]
    devices = tuple(
        Device(
            index=gpu * split + partition,
            parent=gpu,
            partition_id=partition,
            name=f"modelled {whole.product}",
            memory_gib=part.memory_bytes / _GIB,
            compute_units=part.compute_units,
            numa_node=gpu // (MI300X_GPUS // 2),
        )
        for gpu in range(MI300X_GPUS)
        for partition in range(split)
    )
    return Node(
        host="modelled" if name in (None, USUAL_DEVICE) else f"modelled-{name}",
        platform=Platform.SIMULATED,
        devices=devices,
        source="modelled: no hardware was asked",
        partition_mode=mode,
        memory_mode=memory_mode,
        partitions_per_gpu=None if mode is None else split,
        gfx_target=whole.gfx_target,
    )
