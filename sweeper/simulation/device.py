"""What one device of an MI300X node can do, from data sheets.

A device is a whole GPU or, in a partitioned mode, its share of one: compute, memory and bandwidth are
divided evenly. How much of these peaks software reaches is not said here but in ``costs.Calibration``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sweeper.errors import PlacementError, nearest

PARTITIONS_PER_GPU: Mapping[str, int] = {"SPX": 1, "DPX": 2, "QPX": 4, "CPX": 8}
"""Devices that one GPU shows in each compute mode. Source: AMD, "Deep dive into MI300X compute and memory
partition modes"."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """Peaks of one logical device and of its links.

    Attributes:
        name: For messages.
        compute_units: Count.
        memory_bytes: Capacity.
        memory_bytes_per_s: Peak read bandwidth.
        bf16_flop_per_s: Peak dense matrix rate for bf16 and fp16.
        fp8_flop_per_s: Peak dense matrix rate for fp8.
        link_bytes_per_s: One direction of the link to one other GPU; there is one to every other.
        package_bytes_per_s: One direction between two partitions of the same GPU; 0 for a whole one.
        gpu_frac: Part of a physical GPU.
    """

    name: str
    compute_units: int
    memory_bytes: float
    memory_bytes_per_s: float
    bf16_flop_per_s: float
    fp8_flop_per_s: float
    link_bytes_per_s: float
    package_bytes_per_s: float = 0.0
    gpu_frac: float = 1.0

    def group_bytes_per_s(self, *, devices: int, gpus: int) -> float:
        """Give the bandwidth that each of several devices has for a collective among them.

        Args:
            devices: In the group.
            gpus: Physical GPUs that they belong to.

        Returns:
            Bytes per second, one direction. A whole GPU uses its links to all others of the group at once. A
            group that shares GPUs is bound by the slower of the links' share and the way inside the package.
        """
        if devices < 2:
            return float("inf")
        between = self.link_bytes_per_s * (gpus - 1) if gpus > 1 else float("inf")
        inside = self.package_bytes_per_s if devices > gpus else float("inf")
        return min(between, inside)


MI300X = Device(
    name="MI300X (SPX)",
    compute_units=304,
    memory_bytes=192 * 2.0**30,
    memory_bytes_per_s=5.3e12,
    bf16_flop_per_s=1307.4e12,
    fp8_flop_per_s=2614.9e12,
    link_bytes_per_s=64e9,
)
"""One whole GPU.

Source: AMD Instinct MI300X data sheet: 304 compute units, HBM3 of 5.3 TB/s, 1307.4 (bf16) and 2614.9 (fp8)
TFLOP/s dense, 7 Infinity Fabric links of 128 GB/s both directions together. Memory: 8 stacks of 24 GiB; the
data sheet's "192 GB" are GiB (amd-smi shows 196592 MiB)."""


def partition_of(mode: str | None) -> Device:
    """Give the device that one GPU in this compute mode shows.

    The way between partitions of one GPU is taken to be half of a partition's memory bandwidth, since data
    passes through memory once in and once out; nothing published was found to check this against.

    Args:
        mode: SPX, DPX, QPX or CPX; None is a whole GPU.

    Raises:
        PlacementError: There is no such mode.
    """
    if mode is None:
        return MI300X
    if mode not in PARTITIONS_PER_GPU:
        raise PlacementError(
            f"simulated node: partition mode is '{mode}'; expected one of {', '.join(PARTITIONS_PER_GPU)}. "
            f"Choose one of them.{nearest(mode, PARTITIONS_PER_GPU)}"
        )
    parts = PARTITIONS_PER_GPU[mode]
    if parts == 1:
        return MI300X
    return replace(
        MI300X,
        name=f"MI300X ({mode})",
        compute_units=MI300X.compute_units // parts,
        memory_bytes=MI300X.memory_bytes / parts,
        memory_bytes_per_s=MI300X.memory_bytes_per_s / parts,
        bf16_flop_per_s=MI300X.bf16_flop_per_s / parts,
        fp8_flop_per_s=MI300X.fp8_flop_per_s / parts,
        link_bytes_per_s=MI300X.link_bytes_per_s / parts,
        package_bytes_per_s=MI300X.memory_bytes_per_s / parts / 2,
        gpu_frac=1 / parts,
    )
