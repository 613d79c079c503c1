"""What one device of a node can do, from data sheets.

A device is a whole GPU or, in a partitioned mode, its share of one: compute, memory and bandwidth are
divided evenly. How much of these peaks software reaches is not said here but in ``calibration.Calibration``,
which is fitted on the MI300X and the MI355X: of any other GPU a prediction says what its peaks alone would
change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from sweeper.errors import PlacementError, nearest
from sweeper.records import PARTITIONS_PER_GPU

_XCDS = 8
PARTITION_MODES = tuple(mode for mode, parts in PARTITIONS_PER_GPU.items() if _XCDS % parts == 0)
"""Compute modes of the modelled GPUs that have any: all of them have eight XCDs."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """Peaks of one logical device and of its links.

    Attributes:
        name: For messages.
        product: As the maker calls the whole GPU.
        compute_units: Count; NVIDIA calls them streaming multiprocessors.
        memory_bytes: Capacity.
        memory_bytes_per_s: Peak read bandwidth.
        bf16_flop_per_s: Peak dense matrix rate for bf16 and fp16.
        fp8_flop_per_s: Peak dense matrix rate for fp8.
        link_bytes_per_s: One direction of the link to one other GPU; there is one to every other.
        switch_bytes_per_s: One direction to all other GPUs together, where a switch joins them in place of
            links; 0 where there is none.
        package_bytes_per_s: One direction between two partitions of the same GPU; 0 for a whole one.
        gpu_frac: Part of a physical GPU.
        gfx_target: Instruction set, as ROCm names it; None of others.
        has_partitions: Whether it takes the compute modes.
    """

    name: str
    product: str
    compute_units: int
    memory_bytes: float
    memory_bytes_per_s: float
    bf16_flop_per_s: float
    fp8_flop_per_s: float
    link_bytes_per_s: float = 0.0
    switch_bytes_per_s: float = 0.0
    package_bytes_per_s: float = 0.0
    gpu_frac: float = 1.0
    gfx_target: str | None = None
    has_partitions: bool = False

    @property
    def has_rocm(self) -> bool:
        """Whether its kernels are ROCm's."""
        return self.gfx_target is not None

    def group_bytes_per_s(self, *, devices: int, gpus: int) -> float:
        """Return the bandwidth that each of several devices has for a collective among them.

        Args:
            devices: In the group.
            gpus: Physical GPUs that they belong to.

        Returns:
            Bytes per second, one direction. A whole GPU uses its links to all others of the group at once, or
            all of its way to the switch. A group that shares GPUs is bound by the slower of the links' share
            and the way inside the package.
        """
        if devices < 2:
            return float("inf")
        outside = self.switch_bytes_per_s or self.link_bytes_per_s * (gpus - 1)
        between = outside if gpus > 1 else float("inf")
        inside = self.package_bytes_per_s if devices > gpus else float("inf")
        return min(between, inside)


MI300X = Device(
    name="MI300X (SPX)",
    product="AMD Instinct MI300X",
    compute_units=304,
    memory_bytes=192 * 2.0**30,
    memory_bytes_per_s=5.3e12,
    bf16_flop_per_s=1307.4e12,
    fp8_flop_per_s=2614.9e12,
    link_bytes_per_s=64e9,
    gfx_target="gfx942",
    has_partitions=True,
)
"""One whole GPU.

Source: AMD Instinct MI300X data sheet: 304 compute units, HBM3 of 5.3 TB/s, 1307.4 (bf16) and 2614.9 (fp8)
TFLOP/s dense, 7 Infinity Fabric links of 128 GB/s both directions together. Memory: 8 stacks of 24 GiB; the
data sheet's "192 GB" are GiB (amd-smi shows 196592 MiB)."""

MI325X = replace(
    MI300X,
    name="MI325X (SPX)",
    product="AMD Instinct MI325X",
    memory_bytes=256 * 2.0**30,
    memory_bytes_per_s=6.0e12,
)
"""Source: AMD Instinct MI325X data sheet: compute and links of the MI300X, HBM3E of 6 TB/s, 8 stacks of
32 GiB."""

MI355X = Device(
    name="MI355X (SPX)",
    product="AMD Instinct MI355X",
    compute_units=256,
    memory_bytes=288 * 2.0**30,
    memory_bytes_per_s=8.0e12,
    bf16_flop_per_s=2516.6e12,
    fp8_flop_per_s=5033.2e12,
    link_bytes_per_s=76.8e9,
    gfx_target="gfx950",
    has_partitions=True,
)
"""Source: AMD Instinct MI355X data sheet: 256 compute units, HBM3E of 8 TB/s, 8 stacks of 36 GiB, 2.5166
(bf16) and 5.0332 (fp8) PFLOP/s dense, 7 Infinity Fabric links of 153.6 GB/s both directions together."""

H100 = Device(
    name="H100 SXM",
    product="NVIDIA H100 80GB HBM3",
    compute_units=132,
    memory_bytes=81559 * 2.0**20,
    memory_bytes_per_s=3.35e12,
    bf16_flop_per_s=989.4e12,
    fp8_flop_per_s=1978.9e12,
    switch_bytes_per_s=450e9,
)
"""Source: NVIDIA H100 data sheet, SXM: HBM3 of 3.35 TB/s, 1979 (bf16) and 3958 (fp8) TFLOP/s with sparsity,
which is twice the dense rate, NVLink of 900 GB/s both directions together, through switches. Memory as
nvidia-smi shows it, 81559 MiB of "80 GB"."""

H200 = replace(
    H100,
    name="H200 SXM",
    product="NVIDIA H200",
    memory_bytes=143771 * 2.0**20,
    memory_bytes_per_s=4.8e12,
)
"""Source: NVIDIA H200 data sheet, SXM: compute and links of the H100, HBM3e of 4.8 TB/s; nvidia-smi shows
143771 MiB of "141 GB"."""

USUAL_DEVICE = "mi300x"
"""What is modelled unless said."""

DEVICES: Mapping[str, Device] = {
    "mi300x": MI300X,
    "mi325x": MI325X,
    "mi355x": MI355X,
    "h100": H100,
    "h200": H200,
}
"""Every device that can be modelled, whole, by the name that ``platform.device`` takes."""


# The part of a product's name that distinguishes one GPU from another: MI300X of "AMD Instinct MI300X OAM".
_MODEL_NAME = re.compile(r"(?<![A-Za-z0-9])(MI\d{3}[A-Z]?|H\d{3})(?![A-Za-z0-9])")


def model_name(product: str) -> str | None:
    """Find what distinguishes one maker's GPUs in a product's name, such as MI300X; None where nothing does.

    Tools write the rest of the name in several ways, with the form factor or without.
    """
    found = _MODEL_NAME.search(product.replace("_", " "))
    return found[1] if found else None


def model_of(product: str) -> str | None:
    """Return the name in ``DEVICES`` of a product; None where nothing models it."""
    wanted = model_name(product)
    return next((name for name in DEVICES if wanted is not None and name == wanted.lower()), None)


def device_named(name: str | None) -> Device:
    """Return a whole device of the table.

    Args:
        name: One of ``DEVICES``; None is the usual one.

    Raises:
        PlacementError: There is none of this name.
    """
    wanted = USUAL_DEVICE if name is None else name
    if wanted not in DEVICES:
        raise PlacementError(
            f"platform.device: '{wanted}' is no device that is modelled; expected one of "
            f"{', '.join(DEVICES)}. Choose one of them.{nearest(wanted, DEVICES)}"
        )
    return DEVICES[wanted]


def has_same_chip(name: str, other: str) -> bool:
    """Return whether two of ``DEVICES`` run the same instructions, and so the same kernels of ROCm."""
    targets = [DEVICES[each].gfx_target if each in DEVICES else None for each in (name, other)]
    return targets[0] is not None and targets[0] == targets[1]


def partition_of(mode: str | None, *, device: str | None = None) -> Device:
    """Return the device that one GPU in this compute mode shows.

    The way between partitions of one GPU is taken to be half of a partition's memory bandwidth, since data
    passes through memory once in and once out; nothing published was found to check this against.

    Args:
        mode: One of ``PARTITION_MODES``; None is a whole GPU.
        device: One of ``DEVICES``; None is the usual one.

    Raises:
        PlacementError: There is no such mode or device, or the device has no modes.
    """
    whole = device_named(device)
    if mode is None:
        return whole
    if not whole.has_partitions:
        raise PlacementError(
            f"simulated node: partition mode is '{mode}'; expected none on a {whole.name}, which has no such "
            "modes. Leave platform.partition_mode out."
        )
    if mode not in PARTITION_MODES:
        raise PlacementError(
            f"simulated node: partition mode is '{mode}'; expected one of {', '.join(PARTITION_MODES)}. "
            f"Choose one of them.{nearest(mode, PARTITION_MODES)}"
        )
    parts = PARTITIONS_PER_GPU[mode]
    if parts == 1:
        return whole
    return replace(
        whole,
        name=whole.name.replace("SPX", mode),
        compute_units=whole.compute_units // parts,
        memory_bytes=whole.memory_bytes / parts,
        memory_bytes_per_s=whole.memory_bytes_per_s / parts,
        bf16_flop_per_s=whole.bf16_flop_per_s / parts,
        fp8_flop_per_s=whole.fp8_flop_per_s / parts,
        link_bytes_per_s=whole.link_bytes_per_s / parts,
        package_bytes_per_s=whole.memory_bytes_per_s / parts / 2,
        gpu_frac=1 / parts,
    )
