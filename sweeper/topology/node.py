"""Devices and the node that they are on, in whichever way they were found."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from sweeper.errors import PlacementError
from sweeper.records import Platform


@dataclass(frozen=True, kw_only=True)
class Device:
    """One logical device: a whole GPU, a partition of one, or a CPU core.

    Attributes:
        index: Node-absolute number, as HIP, CUDA or the kernel counts it; goes into the device mask.
        parent: Physical GPU, counted from 0; for a core, its NUMA node's rank.
        partition_id: Position within the parent, from 0.
        name: Product name.
        memory_gib: The device's own share; None when the tool does not report it.
        compute_units: The device's own share; None when unknown.
        numa_node: NUMA node of the host that is nearest.
        bdf: PCI address; the partitions of one GPU differ in its last digit at most.
        uuid: As the vendor's tool gives it.
    """

    index: int
    parent: int
    partition_id: int
    name: str
    memory_gib: float | None = None
    compute_units: int | None = None
    numa_node: int | None = None
    bdf: str | None = None
    uuid: str | None = None


@dataclass(frozen=True, kw_only=True)
class Node:
    """One machine and its devices, ordered by index.

    Attributes:
        host: Host name.
        source: How the devices were found, in words.
        partition_mode: Compute mode that all GPUs share, or None where there are none.
        memory_mode: Memory mode that all GPUs share, or None.
        partitions_per_gpu: Devices that each whole GPU shows in that mode, or None.
        driver: Version of the GPU driver, when reported.
        rocm: Version of ROCm, when reported.
        gfx_target: Instruction set that kernels are built for, such as ``gfx942``.
        restricted_by: What left only these of the node's devices, in the order in which it was applied.
        listed: Devices of the whole node; None where these are all.

    Raises:
        PlacementError: No devices, or two of them in one place.
    """

    host: str
    platform: Platform
    devices: tuple[Device, ...]
    source: str
    partition_mode: str | None = None
    memory_mode: str | None = None
    partitions_per_gpu: int | None = None
    driver: str | None = None
    rocm: str | None = None
    gfx_target: str | None = None
    restricted_by: tuple[str, ...] = ()
    listed: int | None = None

    def __post_init__(self) -> None:
        where = f"node {self.host}"
        if not self.devices:
            raise PlacementError(f"{where}: got no devices; expected at least one. Check {self.source}.")
        indices = [device.index for device in self.devices]
        if indices != sorted(set(indices)):
            raise PlacementError(
                f"{where}: got device indices {indices}; expected them ascending, each once. "
                f"Check {self.source}."
            )
        seats = [(device.parent, device.partition_id) for device in self.devices]
        twice = sorted({seat for seat in seats if seats.count(seat) > 1})
        if twice:
            raise PlacementError(
                f"{where}: got several devices for (GPU, partition) {twice}; expected one each. "
                f"Check {self.source}."
            )

    @property
    def parents(self) -> tuple[int, ...]:
        """Physical GPUs (for a CPU, NUMA nodes) that have devices here, ascending."""
        return tuple(sorted({device.parent for device in self.devices}))

    @property
    def device_name(self) -> str:
        """Product name of the devices; of several kinds all, one after the other."""
        return " and ".join(sorted({device.name for device in self.devices}))

    @property
    def mode_label(self) -> str | None:
        """Compute and memory mode as people write them, such as ``CPX/NPS4``; None where there are none."""
        modes = [mode for mode in (self.partition_mode, self.memory_mode) if mode]
        return "/".join(modes) or None

    @property
    def summary(self) -> str:
        """The node in one line, for a log or a caption."""
        shares = [device.memory_gib for device in self.devices if device.memory_gib is not None]
        memory = f", {min(shares):.4g} GiB each" if shares else ""
        mode = f" ({self.mode_label})" if self.mode_label else ""
        only = f"; {self.restriction}" if self.restriction else ""
        return f"{self.host}: {len(self.devices)} x {self.device_name}{mode}{memory}{only}"

    @property
    def restriction(self) -> str | None:
        """Which of the node's devices these are, and what says so; None where they are all."""
        if not self.restricted_by:
            return None
        noun = "device" if len(self.devices) == 1 else "devices"
        which = f"only {noun} {ranges(device.index for device in self.devices)} of the node's {self.listed}"
        return f"{which} ({', '.join(self.restricted_by)})"


def restrict(node: Node, indices: Collection[int], *, said_by: str) -> Node:
    """Keep only the devices that this study may use, such as those that a batch system granted.

    Numbers, parents and partition ids stay node-absolute, so that blocks stay aligned to the hardware.

    Args:
        node: All of its devices, or what an earlier restriction left.
        indices: Those to keep.
        said_by: The key or the variable that says so.

    Raises:
        PlacementError: An index is not on the node.
    """
    known = {device.index for device in node.devices}
    unknown = sorted(set(indices) - known)
    if unknown:
        raise PlacementError(
            f"node {node.host}: got device indices {unknown} to use; expected some of {ranges(known)}. "
            "Correct the list of devices."
        )
    kept = tuple(device for device in node.devices if device.index in set(indices))
    return replace(
        node,
        devices=kept,
        source=f"{node.source}, restricted to {ranges(indices)}",
        restricted_by=(*node.restricted_by, said_by),
        listed=node.listed or len(node.devices),
    )


def node_table(node: Node) -> list[dict[str, str]]:
    """Return one row per device for a table that people read; what is unknown is an empty text."""
    return [
        {
            "device": str(device.index),
            "gpu": str(device.parent),
            "partition": str(device.partition_id),
            "name": device.name,
            "memory (GiB)": _text(device.memory_gib, "{:.1f}"),
            "compute units": _text(device.compute_units),
            "numa node": _text(device.numa_node),
            "bdf": _text(device.bdf),
            "uuid": _text(device.uuid),
        }
        for device in node.devices
    ]


def _text(value: object | None, form: str = "{}") -> str:
    return "" if value is None else form.format(value)


def ranges(indices: Iterable[int]) -> str:
    """Write numbers as people do: 0-3,8."""
    runs: list[list[int]] = []
    for index in sorted(set(indices)):
        if runs and runs[-1][-1] == index - 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
