"""The node that the simulated platform models; no hardware is asked."""

from __future__ import annotations

from sweeper.records import Platform
from sweeper.topology.modes import (
    MI300X_COMPUTE_UNITS,
    MI300X_GPUS,
    MI300X_MEMORY_GIB,
    PARTITIONS_PER_GPU,
    check_modes,
)
from sweeper.topology.node import Device, Node


def modelled_mi300x(mode: str = "SPX", memory_mode: str = "NPS1") -> Node:
    """Give the node that the simulated platform models: 8 MI300X, each split as the mode says.

    Shares are even and nominal. GPUs 0 to 3 hang on NUMA node 0 and the others on 1, as on two-socket
    hosts with one NUMA node per socket.

    Raises:
        PlacementError: An unknown mode, or a pair that the GPU does not take.
    """
    check_modes(mode, memory_mode)
    split = PARTITIONS_PER_GPU[mode]
    devices = tuple(
        Device(
            index=gpu * split + partition,
            parent=gpu,
            partition_id=partition,
            name="modelled AMD Instinct MI300X",
            memory_gib=MI300X_MEMORY_GIB / split,
            compute_units=MI300X_COMPUTE_UNITS // split,
            numa_node=gpu // (MI300X_GPUS // 2),
        )
        for gpu in range(MI300X_GPUS)
        for partition in range(split)
    )
    return Node(
        host="modelled",
        platform=Platform.SIMULATED,
        devices=devices,
        source="modelled: no hardware was asked",
        partition_mode=mode,
        memory_mode=memory_mode,
        gfx_target="gfx942",
    )
