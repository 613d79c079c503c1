"""An AMD node: the devices that amd-smi reports, grouped by GPU, completed, and checked against the mode."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sweeper.errors import PlacementError
from sweeper.records import PARTITIONS_PER_GPU, Platform
from sweeper.records.plurals import amount
from sweeper.topology.amd_smi import AMD_ADVICE, Seen, devices_seen, rocm_release
from sweeper.topology.modes import MI300X_COMPUTE_UNITS, MI300X_MEMORY_GIB
from sweeper.topology.node import Device, Node
from sweeper.topology.probes import Absent, Runner, run_command
from sweeper.topology.values import first

_WHOLE_GPUS = {
    "MI300X": (MI300X_MEMORY_GIB, MI300X_COMPUTE_UNITS),
    "MI325X": (256.0, 304),
}
"""Memory (GiB) and compute units of one physical GPU with eight XCDs. Source: AMD's data sheets."""


def read_amd(run: Runner = run_command, *, root: Path = Path("/")) -> Node | Absent:
    """Read an AMD node through amd-smi.

    Devices are numbered as HIP numbers them where amd-smi says so (``list -e``, ROCm 6.4 and later), else in
    amd-smi's own order. Partitions of one GPU share its PCI bus and device. In the partitioned modes
    amd-smi may answer N/A for all but the first partition, or give the whole GPU's memory for the first or
    for all; mode and NUMA node therefore come from any sibling that has them, and each share is the smallest
    reported, at most the even share of a GPU whose size is known.

    Args:
        run: Runs amd-smi.
        root: Where /sys lies.

    Returns:
        The node, or Absent when amd-smi is not installed.

    Raises:
        PlacementError: amd-smi answers no JSON, no devices, N/A where a value is needed, fewer devices than
            the mode has, or different modes on different GPUs. The message says what to run.

    Source:
        Field names: ROCm/amdsmi, amdsmi_cli/amdsmi_commands.py, ``list`` and ``static_gpu``. ROCm 6.x: a
        plain list and ``compute_partition``; 7.x: ``{"gpu_data": [...]}`` and ``accelerator_partition``.
        N/A siblings: ROCm/legacy-rocm-build issue 4759 (6.4.1). Memory of the first partition:
        ROCm/amdsmi issue 132 (7.0.2), and of all of them: ROCm/legacy-rocm-build issue 4750. 63 of 64
        devices: ROCm/amdsmi issue 99 (6.4.1).
    """
    seen = devices_seen(run, root=root)
    if isinstance(seen, Absent):
        return seen
    return _amd_node(seen, rocm=rocm_release(run))


def _amd_node(seen: list[Seen], *, rocm: str | None) -> Node:
    hip = _hip_numbers(seen)
    gpus = sorted(_group_by_gpu(seen), key=lambda gpu: min(hip[part.gpu] for part in gpu))
    mode = _shared(gpus, "compute", lambda part: part.mode)
    memory_mode = _shared(gpus, "memory", lambda part: part.memory_mode)
    _check_partition_counts(gpus, mode)
    devices = [
        device for parent, gpu in enumerate(gpus) for device in _devices_of(gpu, parent=parent, hip=hip)
    ]
    hip_told = all(part.hip_id is not None for part in seen)
    order = "numbered as HIP does" if hip_told else "numbered in its own order, HIP's is not told"
    return Node(
        host=socket.gethostname(),
        platform=Platform.MI300X,
        devices=tuple(sorted(devices, key=lambda device: device.index)),
        source=f"amd-smi, {order}",
        partition_mode=mode,
        memory_mode=memory_mode,
        partitions_per_gpu=None if mode is None else len(gpus[0]),
        driver=first(*(part.driver for part in seen)),
        rocm=rocm,
        gfx_target=first(*(part.gfx_target for part in seen)),
    )


def _hip_numbers(seen: list[Seen]) -> dict[int, int]:
    """Map amd-smi's device number to HIP's, which the device mask speaks."""
    ordered = sorted(part.gpu for part in seen)
    if len(set(ordered)) != len(ordered):
        raise PlacementError(f"amd-smi list: got device numbers {ordered}; expected each once. {AMD_ADVICE}")
    told = {part.gpu: part.hip_id for part in seen if part.hip_id is not None}
    if len(told) < len(seen):
        return {gpu: number for number, gpu in enumerate(ordered)}
    if sorted(told.values()) != list(range(len(seen))):
        raise PlacementError(
            f"amd-smi list -e: got HIP numbers {sorted(told.values())}; expected 0 to {len(seen) - 1}, each "
            "once. Run `amd-smi list -e` outside of any container or job that hides devices."
        )
    return told


def _group_by_gpu(seen: list[Seen]) -> list[list[Seen]]:
    """Group the partitions of each physical GPU: they share PCI bus and device number.

    Where devices share those and have no partition ids that distinguish them, each is a GPU of its own:
    virtual functions look like that.
    """
    slots: dict[str, list[Seen]] = {}
    for part in seen:
        slots.setdefault(part.bdf.rsplit(".", 1)[0], []).append(part)
    gpus: list[list[Seen]] = []
    for slot in slots.values():
        ids = [part.partition_id for part in slot]
        partitioned = None in ids or len(set(ids)) == len(ids)
        gpus += [slot] if partitioned else [[part] for part in slot]
    return gpus


def _shared(gpus: list[list[Seen]], kind: str, mode_of: Callable[[Seen], str | None]) -> str | None:
    """Return the mode that all GPUs are in; None where the GPUs have no modes."""
    found: dict[str | None, list[str]] = {}
    for gpu in gpus:
        known = {mode_of(part) for part in gpu} - {None}
        for mode in known or {None}:
            found.setdefault(mode, []).append(gpu[0].bdf)
    partitioned = any(len(gpu) > 1 for gpu in gpus)
    if None in found and (partitioned or len(found) > 1):
        raise PlacementError(
            f"amd-smi static --partition: got N/A as the {kind} mode of {_some(found[None])}; expected a "
            "mode on every GPU. Run `sudo amd-smi static --partition`, and check that driver and amd-smi are "
            "of one ROCm release."
        )
    if len(found) > 1:
        parts = ", ".join(f"{mode} on {_some(bdfs)}" for mode, bdfs in found.items())
        reset = "--memory-partition NPS1" if kind == "memory" else "--gpu all --compute-partition SPX"
        raise PlacementError(
            f"amd-smi static --partition: got different {kind} modes ({parts}); expected one mode on all "
            f"GPUs, or trials would not be comparable. Set all alike: `sudo amd-smi set {reset}`."
        )
    return next(iter(found))


def _check_partition_counts(gpus: list[list[Seen]], mode: str | None) -> None:
    """Refuse a GPU that shows fewer or more devices than its mode has."""
    if mode is None:
        return
    if mode not in PARTITIONS_PER_GPU:
        raise PlacementError(
            f"amd-smi static --partition: got compute mode {mode!r}; expected one of "
            f"{', '.join(PARTITIONS_PER_GPU)}. Use a release of this program that knows it."
        )
    names = {part.name for gpu in gpus for part in gpu if part.name}
    has_eight_xcds = all(any(model in name for model in _WHOLE_GPUS) for name in names)
    by_xcd = mode == "CPX" and not has_eight_xcds
    expected = max(map(len, gpus)) if by_xcd else PARTITIONS_PER_GPU[mode]
    for gpu in gpus:
        ids = [part.partition_id for part in gpu]
        known = sorted(number for number in ids if number is not None)
        is_numbered = expected == 1 or len(known) < len(ids) or known == list(range(expected))
        if len(gpu) != expected or not is_numbered:
            raise PlacementError(
                f"amd-smi: got {amount(len(gpu), 'device')} (partition ids {ids}) of GPU {gpu[0].bdf}; "
                "expected "
                f"{expected} in mode {mode}. In a container, pass it all of /dev/dri. Else the kernel may "
                "have run out of DRM nodes (64 at most): unload the driver of the board's own display (`sudo "
                "rmmod ast` or mgag200), then `sudo modprobe -r amdgpu` and `sudo modprobe amdgpu`."
            )


def _devices_of(gpu: list[Seen], *, parent: int, hip: Mapping[int, int]) -> list[Device]:
    """Complete the partitions of one GPU from each other."""
    told = [part.partition_id for part in gpu]
    ordered = sorted(gpu, key=lambda part: hip[part.gpu])
    is_told = len(gpu) > 1 and None not in told
    position = {
        part.gpu: part.partition_id if is_told and part.partition_id is not None else rank
        for rank, part in enumerate(ordered)
    }
    name = first(*(part.name for part in gpu)) or "AMD GPU"
    whole_gib, whole_units = next(
        (size for model, size in _WHOLE_GPUS.items() if model in name), (None, None)
    )
    memory_gib = _share([part.memory_gib for part in gpu], whole=whole_gib)
    units = _share([part.compute_units for part in gpu], whole=whole_units)
    if memory_gib is None:
        raise PlacementError(
            f"amd-smi static --vram: got N/A as the memory of GPU {gpu[0].bdf}; expected its size. "
            f"{AMD_ADVICE}"
        )
    return [
        Device(
            index=hip[part.gpu],
            parent=parent,
            partition_id=position[part.gpu],
            name=name,
            memory_gib=memory_gib,
            compute_units=None if units is None else int(units),
            numa_node=first(part.numa_node, *(sibling.numa_node for sibling in gpu)),
            bdf=part.bdf,
            uuid=part.uuid,
        )
        for part in gpu
    ]


def _share(told: Sequence[float | None], *, whole: float | None) -> float | None:
    """Return one partition's share of a GPU from what its partitions report.

    The first partition may report the whole GPU's value, so the smallest reported is the share. If the first
    is the only one to report, its value cannot be distinguished from the whole: it is capped by the even
    share of a GPU whose size is known, else divided. Too small a share refuses a trial; too large a one
    crashes it.
    """
    known = [value for value in told if value is not None]
    if not known:
        return None
    split = len(told)
    if whole is not None:
        return min(*known, whole / split)
    return min(known) if len(known) == split else min(known) / split


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
