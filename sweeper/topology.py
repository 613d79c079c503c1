"""The node that is measured: its devices, the GPUs they belong to, and how that was found out.

It answers which logical devices exist, in the order in which the engine counts them, which of them are
partitions of one physical GPU, and what each one has. It leaves out which of them are free (``placement``)
and never changes anything: partition modes are an administrator's act, so the most that is given here
is the commands to type.

A node is read from the vendor's own tool. Its output is taken at its word or refused: a node that was
read wrongly would give wrong placements, and every number measured on them would carry the wrong label.
"""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from sweeper.errors import PlacementError, nearest
from sweeper.records import Platform

PROBE_TIMEOUT_S = 60.0
"""Longest wait for one question to a vendor's tool. With 64 partitions amd-smi takes several seconds."""

MI300X_COMPUTE_UNITS = 304
"""Of one physical GPU: 8 XCDs of 38. Source: AMD Instinct MI300X data sheet."""

MI300X_MEMORY_GIB = 192.0
"""Of one physical GPU: 8 stacks of 24 GiB, nominal. amd-smi tells 196592 MiB, which is 191.98 GiB."""

MI300X_GPUS = 8
"""Physical GPUs of one MI300X platform board."""

PARTITIONS_PER_GPU: Mapping[str, int] = {"SPX": 1, "DPX": 2, "TPX": 3, "QPX": 4, "CPX": 8}
"""Devices that one GPU shows in each compute mode. CPX is one device per XCD, so 8 holds for GPUs with
8 XCDs only (MI300X, MI325X). Source: amdsmi.h, amdsmi_accelerator_partition_profile_t (ROCm 7.1)."""

LEGAL_MEMORY_MODES: Mapping[str, tuple[str, ...]] = {
    "SPX": ("NPS1",),
    "DPX": ("NPS1", "NPS2"),
    "QPX": ("NPS1", "NPS4"),
    "CPX": ("NPS1", "NPS4"),
}
"""Memory modes that an MI300X takes in each compute mode; AMD has validated SPX/NPS1 and CPX/NPS4.
Source: Linux, drivers/gpu/drm/amd/amdgpu/aqua_vanjaram.c (bare metal); AMD's "Quick Start Guide to
Partitioning MI300X GPUs": memory partitions may not outnumber compute partitions. Board and firmware
may allow less; `sudo amd-smi partition --memory --accelerator` tells."""

T = TypeVar("T")

_EIGHT_XCDS = ("MI300X", "MI325X")
_LIST = (("amd-smi", "list", "-e", "--json"), ("amd-smi", "list", "--json"))
_STATIC = (
    ("amd-smi", "static", "--asic", "--vram", "--driver", "--numa", "--partition", "--json"),
    # Inside a virtual machine amd-smi does not know --numa.
    ("amd-smi", "static", "--asic", "--vram", "--driver", "--partition", "--json"),
    ("amd-smi", "static", "--json"),
)
_JSON_START = re.compile(r"^[ \t]*(?=\{|\[\s*[\[{\]])", flags=re.MULTILINE)  # not the [ of "[WARNING]"
_VERSION = ("amd-smi", "version", "--json")
_NVIDIA = (
    "nvidia-smi",
    "--query-gpu=index,uuid,name,memory.total,pci.bus_id,driver_version",
    "--format=csv,noheader,nounits",
)
_AMD_ADVICE = (
    "Run `amd-smi list` as this user: if it speaks of groups, `sudo usermod -aG render,video $USER` and log "
    "in again; in a container, start it with --device /dev/kfd --device /dev/dri --group-add video."
)


@dataclass(frozen=True, kw_only=True)
class Device:
    """One logical device: a whole GPU, a partition of one, or a CPU core.

    Attributes:
        index: Node-absolute number, as HIP, CUDA or the kernel counts it; goes into the device mask.
        parent: Physical GPU, counted from 0; for a core, its NUMA node's rank.
        partition_id: Position within the parent, from 0.
        name: Product name.
        memory_gib: The device's own share; None when the tool does not tell.
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
        driver: Version of the GPU driver, when told.
        rocm: Version of ROCm, when told.
        gfx_target: Instruction set that kernels are built for, such as ``gfx942``.

    Raises:
        PlacementError: No devices, or two of them in one place.
    """

    host: str
    platform: Platform
    devices: tuple[Device, ...]
    source: str
    partition_mode: str | None = None
    memory_mode: str | None = None
    driver: str | None = None
    rocm: str | None = None
    gfx_target: str | None = None

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
    def mode_label(self) -> str | None:
        """Compute and memory mode as people write them, such as ``CPX/NPS4``; None where there are none."""
        modes = [mode for mode in (self.partition_mode, self.memory_mode) if mode]
        return "/".join(modes) or None

    @property
    def summary(self) -> str:
        """The node in one line, for a log or a caption."""
        names = sorted({device.name for device in self.devices})
        shares = [device.memory_gib for device in self.devices if device.memory_gib is not None]
        memory = f", {min(shares):.4g} GiB each" if shares else ""
        mode = f" ({self.mode_label})" if self.mode_label else ""
        return f"{self.host}: {len(self.devices)} x {' and '.join(names)}{mode}{memory}"


@dataclass(frozen=True, kw_only=True)
class Absent:
    """A vendor's tool is not installed, so the node has none of that vendor's GPUs for us.

    Attributes:
        reason: Which tool, and what was found instead.
    """

    reason: str


@dataclass(frozen=True, kw_only=True)
class Detection:
    """What the machine turned out to be.

    Attributes:
        reason: One sentence that says why.
        node: Its devices; None for the simulated platform, which has none.
    """

    platform: Platform
    reason: str
    node: Node | None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command printed, and its exit status."""

    exit_status: int
    stdout: str
    stderr: str = ""

    @property
    def last_line(self) -> str:
        """The line that most likely says what went wrong."""
        lines = [line.strip() for line in f"{self.stdout}\n{self.stderr}".splitlines() if line.strip()]
        return lines[-1] if lines else "no output"


Runner = Callable[[Sequence[str]], Answer]
"""Runs a command to its end; FileNotFoundError when there is none, TimeoutError when it takes too long."""


def run_command(command: Sequence[str], *, timeout_s: float = PROBE_TIMEOUT_S) -> Answer:
    """Run a command, and end it with all its children when it takes too long.

    Raises:
        FileNotFoundError: There is no such program.
        TimeoutError: It did not end within ``timeout_s`` seconds.
    """
    process = subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # a wrapper script's children hold the pipes open; they must go with it
    )
    with process:
        try:
            stdout, stderr = process.communicate(timeout=timeout_s)
        except BaseException as exc:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(exc, subprocess.TimeoutExpired):
                raise TimeoutError(f"{command[0]} did not end within {timeout_s:g} s") from exc
            raise
    return Answer(exit_status=process.returncode, stdout=stdout, stderr=stderr)


# --- which machine is this -----------------------------------------------------------------------------


def detect(run: Runner = run_command, *, root: Path = Path("/")) -> Detection:
    """Find out which platform this machine is, without being told.

    AMD is asked first, then NVIDIA; a machine where neither answers gets the simulated platform. A CPU
    is never chosen by itself, because its numbers would be taken for a GPU's.

    Args:
        run: Runs the vendors' tools.
        root: Where /sys lies.
    """
    amd = _attempt(lambda: read_amd(run))
    if isinstance(amd, Node) and _is_mi300x(amd):
        return Detection(platform=Platform.MI300X, reason=f"amd-smi answered: {amd.summary}", node=amd)
    nvidia = _attempt(lambda: read_nvidia(run, root=root))
    if isinstance(nvidia, Node):
        return Detection(platform=Platform.CUDA, reason=f"nvidia-smi answered: {nvidia.summary}", node=nvidia)
    found = amd.reason if isinstance(amd, Absent) else f"amd-smi: found {amd.summary}"
    kind = "AMD GPU" if isinstance(amd, Absent) else "MI300X"
    reason = f"no {kind} answered ({found}) and no NVIDIA GPU answered ({nvidia.reason})"
    return Detection(platform=Platform.SIMULATED, reason=reason, node=None)


def _attempt(read: Callable[[], Node | Absent]) -> Node | Absent:
    """Read a node; a tool that answers nonsense counts as absent here, with its own words as the reason."""
    try:
        return read()
    except PlacementError as exc:
        return Absent(reason=str(exc))


def _is_mi300x(node: Node) -> bool:
    return node.gfx_target == "gfx942" or any("MI300X" in device.name for device in node.devices)


def restrict(node: Node, indices: Collection[int]) -> Node:
    """Keep only the devices that this study may use, such as those that a batch system granted.

    Numbers, parents and partition ids stay node-absolute, so that blocks stay aligned to the hardware.

    Raises:
        PlacementError: An index is not on the node.
    """
    known = {device.index for device in node.devices}
    unknown = sorted(set(indices) - known)
    if unknown:
        raise PlacementError(
            f"node {node.host}: got device indices {unknown} to use; expected some of {_ranges(known)}. "
            "Correct the list of devices."
        )
    kept = tuple(device for device in node.devices if device.index in set(indices))
    return replace(node, devices=kept, source=f"{node.source}, restricted to {_ranges(indices)}")


def node_table(node: Node) -> list[dict[str, str]]:
    """Give one row per device for a table that people read; what is unknown is an empty text."""
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


# --- partition modes -----------------------------------------------------------------------------------


def mode_commands(mode: str, memory_mode: str = "NPS1") -> tuple[str, ...]:
    """Give the commands that bring all GPUs of an MI300X node into a mode; they are for a person to type.

    They need root and an idle node, and the memory step reloads the driver, which returns the compute
    mode to its default. So memory comes first and compute second, from whatever mode the node is in.

    Returns:
        Commands in order; the last one shows the result.

    Raises:
        PlacementError: An unknown mode, or a pair that the GPU does not take.

    Source:
        AMD, "Quick Start Guide to Partitioning MI300X GPUs" (September 2025); AMD SMI CLI, ``set``.
    """
    _check_modes(mode, memory_mode)
    return (
        f"sudo amd-smi set --memory-partition {memory_mode}",
        f"sudo amd-smi set --gpu all --compute-partition {mode}",
        "amd-smi static --partition",
    )


def modelled_mi300x(mode: str = "SPX", memory_mode: str = "NPS1") -> Node:
    """Give the node that the simulated platform models: 8 MI300X, each split as the mode says.

    Shares are even and nominal. GPUs 0 to 3 hang on NUMA node 0 and the others on 1, as on two-socket
    hosts with one NUMA node per socket.

    Raises:
        PlacementError: An unknown mode, or a pair that the GPU does not take.
    """
    _check_modes(mode, memory_mode)
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


def _check_modes(mode: str, memory_mode: str) -> None:
    if mode not in LEGAL_MEMORY_MODES:
        raise PlacementError(
            f"partition mode: got {mode!r}; expected one of {', '.join(LEGAL_MEMORY_MODES)}."
            f"{nearest(mode, LEGAL_MEMORY_MODES)} Choose one of them."
        )
    legal = LEGAL_MEMORY_MODES[mode]
    if memory_mode not in legal:
        raise PlacementError(
            f"partition mode: got {mode} with memory mode {memory_mode!r}; expected {' or '.join(legal)} "
            f"with {mode} on an MI300X. Change one of the two."
        )


# --- AMD -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What amd-smi told about one device, N/A as None, before its siblings complete it."""

    gpu: int
    hip_id: int | None
    bdf: str
    uuid: str | None
    partition_id: int | None
    mode: str | None
    memory_mode: str | None
    name: str | None
    memory_gib: float | None
    compute_units: int | None
    numa_node: int | None
    gfx_target: str | None
    driver: str | None


def read_amd(run: Runner = run_command) -> Node | Absent:
    """Read an AMD node through amd-smi.

    Devices are numbered as HIP numbers them where amd-smi tells (``list -e``, ROCm 6.4 and later), else in
    amd-smi's own order. Partitions of one GPU share its PCI bus and device. In the partitioned modes
    amd-smi may answer N/A for all but the first partition, or give the whole GPU's memory for the first;
    mode and NUMA node therefore come from any sibling that has them, and each share is the smallest told.

    Returns:
        The node, or Absent when amd-smi is not installed.

    Raises:
        PlacementError: amd-smi answers no JSON, no devices, N/A where a value is needed, fewer devices than
            the mode has, or different modes on different GPUs. The message says what to run.

    Source:
        Field names: ROCm/amdsmi, amdsmi_cli/amdsmi_commands.py, ``list`` and ``static_gpu``. ROCm 6.x: a
        plain list and ``compute_partition``; 7.x: ``{"gpu_data": [...]}`` and ``accelerator_partition``.
        N/A siblings: ROCm/legacy-rocm-build issue 4759 (6.4.1). Memory of the first partition:
        ROCm/amdsmi issue 132 (7.0.2). 63 of 64 devices: ROCm/amdsmi issue 99 (6.4.1).
    """
    listed = _first_rows(run, _LIST)
    if isinstance(listed, Absent):
        return listed
    static = _first_rows(run, _STATIC)
    if isinstance(static, Absent):
        return static
    seen = _join(listed, static)
    return _amd_node(seen, rocm=_rocm_release(run))


def _first_rows(run: Runner, commands: Sequence[Sequence[str]]) -> list[dict[str, object]] | Absent:
    """Give the rows of the first command that answers with some; later ones are for other releases."""
    answers = []
    for command in commands:
        answer = _ask(run, command)
        if isinstance(answer, Absent):
            return answer
        rows = _rows(answer.stdout)
        if rows is not None:
            return rows
        answers.append(f"`{' '.join(command)}` ended with status {answer.exit_status}: {answer.last_line}")
    raise PlacementError(
        f"amd-smi: got no JSON list of devices ({'; '.join(answers)}); expected one row per device. "
        f"{_AMD_ADVICE}"
    )


def _ask(run: Runner, command: Sequence[str]) -> Answer | Absent:
    try:
        return run(command)
    except FileNotFoundError:
        return Absent(reason=f"{command[0]}: not found")
    except OSError as exc:  # TimeoutError too: the tool is there, but no answer is to be had
        raise PlacementError(
            f"`{' '.join(command)}`: got {exc}; expected an answer within {PROBE_TIMEOUT_S:g} s. "
            "Run it by hand; if it hangs there too, the GPU driver needs attention (dmesg)."
        ) from exc


def _rows(text: str) -> list[dict[str, object]] | None:
    """Find the list of devices in amd-smi's output, which may begin with warnings in plain text."""
    for value in _json_values(text):
        listed = value.get("gpu_data", [value]) if isinstance(value, dict) else value
        if isinstance(listed, list) and all(
            isinstance(row, dict) and isinstance(row.get("gpu"), int) for row in listed
        ):
            return listed
    return None


def _json_values(text: str) -> Iterator[object]:
    """Decode the JSON values that begin at the start of a line; broken JSON ends them."""
    position = 0
    while (start := _JSON_START.search(text, position)) is not None:
        try:
            value, position = json.JSONDecoder().raw_decode(text, start.end())
        except json.JSONDecodeError:
            return  # looking further would take the inside of a list cut short for a list of one device
        yield value


def _join(listed: list[dict[str, object]], static: list[dict[str, object]]) -> list[_Seen]:
    """Bring together what ``list`` and ``static`` tell about each device."""
    if not listed:
        raise PlacementError(
            "amd-smi list: got no devices; expected at least one AMD GPU. Check that the amdgpu driver is "
            f"loaded (ls /dev/kfd). {_AMD_ADVICE}"
        )
    by_gpu = {row["gpu"]: row for row in static}
    missing = [row["gpu"] for row in listed if row["gpu"] not in by_gpu]
    if missing or len(by_gpu) != len(listed):
        raise PlacementError(
            f"amd-smi: got {len(listed)} devices from `amd-smi list` but {len(by_gpu)} from `amd-smi static` "
            f"(missing: {missing}); expected the same. Run both by hand; a reset or a change of mode may be "
            "under way."
        )
    return [_seen(row, by_gpu[row["gpu"]]) for row in listed]


def _seen(row: Mapping[str, object], static: Mapping[str, object]) -> _Seen:
    gpu = _integer(row["gpu"])
    bdf = _word(row.get("bdf"))
    if gpu is None or bdf is None:
        raise PlacementError(
            f"amd-smi list: got bdf {row.get('bdf')!r} for device {row['gpu']!r}; expected a PCI address. "
            f"{_AMD_ADVICE}"
        )
    asic, vram, numa = (_section(static, name) for name in ("asic", "vram", "numa"))
    partition, driver = _section(static, "partition"), _section(static, "driver")
    told_id = _integer(row.get("partition_id"))
    return _Seen(
        gpu=gpu,
        hip_id=_integer(row.get("hip_id")),
        bdf=bdf.lower(),
        uuid=_word(row.get("hip_uuid")) or _word(row.get("uuid")),
        partition_id=_integer(partition.get("partition_id")) if told_id is None else told_id,
        mode=_upper(partition, "accelerator_partition", "compute_partition"),
        memory_mode=_upper(partition, "memory_partition"),
        name=_word(asic.get("market_name")),
        memory_gib=_gib(vram.get("size", vram.get("vram_size"))),
        compute_units=_integer(asic.get("num_compute_units")) or None,
        numa_node=_first(_node_number(numa.get("affinity")), _node_number(numa.get("node"))),
        gfx_target=_gfx(asic.get("target_graphics_version")),
        driver=_release(driver.get("version", driver.get("driver_version"))),
    )


def _amd_node(seen: list[_Seen], *, rocm: str | None) -> Node:
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
        driver=_first(*(part.driver for part in seen)),
        rocm=rocm,
        gfx_target=_first(*(part.gfx_target for part in seen)),
    )


def _hip_numbers(seen: list[_Seen]) -> dict[int, int]:
    """Map amd-smi's device number to HIP's, which the device mask speaks."""
    ordered = sorted(part.gpu for part in seen)
    if len(set(ordered)) != len(ordered):
        raise PlacementError(f"amd-smi list: got device numbers {ordered}; expected each once. {_AMD_ADVICE}")
    told = {part.gpu: part.hip_id for part in seen if part.hip_id is not None}
    if len(told) < len(seen):
        return {gpu: number for number, gpu in enumerate(ordered)}
    if sorted(told.values()) != list(range(len(seen))):
        raise PlacementError(
            f"amd-smi list -e: got HIP numbers {sorted(told.values())}; expected 0 to {len(seen) - 1}, each "
            "once. Run `amd-smi list -e` outside of any container or job that hides devices."
        )
    return told


def _group_by_gpu(seen: list[_Seen]) -> list[list[_Seen]]:
    """Bring the partitions of each physical GPU together: they share PCI bus and device number.

    Where devices share those and have no partition ids that tell them apart, each is a GPU of its own:
    virtual functions look like that.
    """
    slots: dict[str, list[_Seen]] = {}
    for part in seen:
        slots.setdefault(part.bdf.rsplit(".", 1)[0], []).append(part)
    gpus: list[list[_Seen]] = []
    for slot in slots.values():
        ids = [part.partition_id for part in slot]
        partitioned = None in ids or len(set(ids)) == len(ids)
        gpus += [slot] if partitioned else [[part] for part in slot]
    return gpus


def _shared(gpus: list[list[_Seen]], kind: str, mode_of: Callable[[_Seen], str | None]) -> str | None:
    """Give the mode that all GPUs are in; None where the GPUs have no modes."""
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


def _check_partition_counts(gpus: list[list[_Seen]], mode: str | None) -> None:
    """Refuse a GPU that shows fewer or more devices than its mode has."""
    if mode is None:
        return
    if mode not in PARTITIONS_PER_GPU:
        raise PlacementError(
            f"amd-smi static --partition: got compute mode {mode!r}; expected one of "
            f"{', '.join(PARTITIONS_PER_GPU)}. Use a release of this program that knows it."
        )
    names = {part.name for gpu in gpus for part in gpu if part.name}
    has_eight_xcds = all(any(model in name for model in _EIGHT_XCDS) for name in names)
    by_xcd = mode == "CPX" and not has_eight_xcds
    expected = max(map(len, gpus)) if by_xcd else PARTITIONS_PER_GPU[mode]
    for gpu in gpus:
        ids = [part.partition_id for part in gpu]
        known = sorted(number for number in ids if number is not None)
        is_numbered = expected == 1 or len(known) < len(ids) or known == list(range(expected))
        if len(gpu) != expected or not is_numbered:
            raise PlacementError(
                f"amd-smi: got {len(gpu)} devices (partition ids {ids}) of GPU {gpu[0].bdf}; expected "
                f"{expected} in mode {mode}. In a container, pass it all of /dev/dri. Else the kernel may "
                "have run out of DRM nodes (64 at most): unload the driver of the board's own display (`sudo "
                "rmmod ast` or mgag200), then `sudo modprobe -r amdgpu` and `sudo modprobe amdgpu`."
            )


def _devices_of(gpu: list[_Seen], *, parent: int, hip: Mapping[int, int]) -> list[Device]:
    """Complete the partitions of one GPU from each other."""
    told = [part.partition_id for part in gpu]
    ordered = sorted(gpu, key=lambda part: hip[part.gpu])
    is_told = len(gpu) > 1 and None not in told
    position = {
        part.gpu: part.partition_id if is_told and part.partition_id is not None else rank
        for rank, part in enumerate(ordered)
    }
    name = _first(*(part.name for part in gpu)) or "AMD GPU"
    is_mi300x = "MI300X" in name
    memory_gib = _share([part.memory_gib for part in gpu], whole=MI300X_MEMORY_GIB if is_mi300x else None)
    units = _share([part.compute_units for part in gpu], whole=MI300X_COMPUTE_UNITS if is_mi300x else None)
    if memory_gib is None:
        raise PlacementError(
            f"amd-smi static --vram: got N/A as the memory of GPU {gpu[0].bdf}; expected its size. "
            f"{_AMD_ADVICE}"
        )
    return [
        Device(
            index=hip[part.gpu],
            parent=parent,
            partition_id=position[part.gpu],
            name=name,
            memory_gib=memory_gib,
            compute_units=None if units is None else int(units),
            numa_node=_first(part.numa_node, *(sibling.numa_node for sibling in gpu)),
            bdf=part.bdf,
            uuid=part.uuid,
        )
        for part in gpu
    ]


def _share(told: Sequence[float | None], *, whole: float | None) -> float | None:
    """Give one partition's share of a GPU from what its partitions tell.

    The first partition may tell the whole GPU's value, so the smallest told is the share. If the first is
    the only one to tell, its value cannot be told apart from the whole: it is capped by the even share of a
    GPU whose size is known, else divided. Too small a share refuses a trial; too large a one crashes it.
    """
    known = [value for value in told if value is not None]
    if not known:
        return None
    split = len(told)
    if whole is not None:
        return min(*known, whole / split)
    return min(known) if len(known) == split else min(known) / split


def _rocm_release(run: Runner) -> str | None:
    """Ask for the release of ROCm; a node is complete without it."""
    answer = _ask(run, _VERSION)
    values = [] if isinstance(answer, Absent) else list(_json_values(answer.stdout))
    for value in values:
        row = value[0] if isinstance(value, list) and value else value
        if isinstance(row, dict):
            return _release(row.get("rocm_version"))
    return None


def _section(static: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = static.get(name)
    return value if isinstance(value, dict) else {}


def _word(value: object) -> str | None:
    """Give a text that says something; amd-smi writes N/A for what it does not know."""
    text = value.strip() if isinstance(value, str) else ""
    return None if text.upper() in ("", "N/A", "NONE", "UNKNOWN") else text


def _upper(section: Mapping[str, object], *names: str) -> str | None:
    word = _first(*(_word(section.get(name)) for name in names))
    return None if word is None else word.upper()


def _integer(value: object) -> int | None:
    """Give a count or number; amd-smi writes it bare or as text, and all bits set for unknown."""
    text = str(value).strip()
    if isinstance(value, bool) or not re.fullmatch(r"\d+", text):
        return None
    number = int(text)
    return None if number in (2**16 - 1, 2**32 - 1, 2**64 - 1) else number


_node_number = _integer  # -1, no NUMA node, is no count and thus None


def _gib(size: object) -> float | None:
    """Give a size of memory; amd-smi's MB are MiB (196592 MB is 191.98 GiB of an MI300X)."""
    value, unit = (size.get("value"), size.get("unit")) if isinstance(size, dict) else (size, "MB")
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", str(value).strip())
    if match is None:
        return None
    per_gib = {"B": 2**30, "KB": 2**20, "MB": 2**10, "MIB": 2**10, "GB": 1, "GIB": 1}
    scale = per_gib.get((match[2] or str(unit)).upper())
    gib = None if scale is None else float(match[1]) / scale
    return gib or None


def _gfx(value: object) -> str | None:
    word = _word(value)
    return None if word is None else word.split(":")[0].lower()


def _release(value: object) -> str | None:
    """Give a version; where amdgpu comes with the kernel, amd-smi runs the kernel's whole banner on to it."""
    word = _word(value)
    return None if word is None else word.split("(")[0].removeprefix("Linuxversion")


def _first(*values: T | None) -> T | None:
    """Give the first value that is known."""
    return next((value for value in values if value is not None), None)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


# --- NVIDIA --------------------------------------------------------------------------------------------


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
    answer = _ask(run, _NVIDIA)
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
        driver=_word(rows[0][5]),
    )


def _nvidia_device(row: Sequence[str], root: Path) -> Device:
    index, uuid, name, memory_mib, bus_id, _ = row
    bdf = bus_id.lower()[-12:]  # nvidia-smi writes the PCI domain with eight digits, the kernel with four
    return Device(
        index=int(index),
        parent=int(index),
        partition_id=0,
        name=name,
        memory_gib=_gib(memory_mib),
        numa_node=_node_number(_contents(root / "sys/bus/pci/devices" / bdf / "numa_node")),
        bdf=bdf,
        uuid=uuid,
    )


# --- CPU -----------------------------------------------------------------------------------------------


def read_cpu(
    slots: int | None = None, *, root: Path = Path("/"), allowed: Collection[int] | None = None
) -> Node:
    """Read the cores that this process may use as devices, one device per core.

    Threads of one core count once, under the lowest number that is allowed. Each core's share of memory is
    the machine's, or the control group's limit where that is less, divided by all usable cores.

    Args:
        slots: Use only this many cores, the lowest numbered; None uses all.
        root: Where /proc and /sys lie.
        allowed: Logical CPUs that may be used; None asks the kernel.

    Raises:
        PlacementError: There are fewer cores than slots, or slots is below 1.
    """
    usable = sorted(os.sched_getaffinity(0) if allowed is None else allowed)
    cores = _one_thread_per_core(usable, root)
    if slots is not None and not 1 <= slots <= len(cores):
        raise PlacementError(
            f"cpu: got slots={slots}; expected 1 to {len(cores)}, the cores that this process may use "
            f"({_ranges(cores)}). Lower slots, or widen the affinity (taskset)."
        )
    return Node(
        host=socket.gethostname(),
        platform=Platform.CPU,
        devices=_cores_as_devices(cores, root)[:slots],
        source=f"the kernel: cores {_ranges(cores)} are allowed",
    )


def _cores_as_devices(cores: list[int], root: Path) -> tuple[Device, ...]:
    numa = {core: _numa_node_of_core(core, root) for core in cores}
    ranks = {node: rank for rank, node in enumerate(sorted(set(numa.values()), key=lambda node: node or 0))}
    name = _cpu_name(root)
    memory_gib = _usable_memory_gib(root)
    filled = dict.fromkeys(ranks.values(), 0)
    devices = []
    for core in cores:
        parent = ranks[numa[core]]
        devices.append(
            Device(
                index=core,
                parent=parent,
                partition_id=filled[parent],
                name=name,
                memory_gib=None if memory_gib is None else memory_gib / len(cores),
                compute_units=1,
                numa_node=numa[core],
            )
        )
        filled[parent] += 1
    return tuple(devices)


def _one_thread_per_core(usable: list[int], root: Path) -> list[int]:
    cores: dict[str, int] = {}
    for cpu in usable:
        siblings = _contents(root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.setdefault(siblings or str(cpu), cpu)
    return sorted(cores.values())


def _numa_node_of_core(core: int, root: Path) -> int | None:
    links = (root / f"sys/devices/system/cpu/cpu{core}").glob("node[0-9]*")
    return next((int(link.name.removeprefix("node")) for link in links), None)


def _cpu_name(root: Path) -> str:
    match = re.search(r"^model name\s*:\s*(.+)$", _contents(root / "proc/cpuinfo") or "", re.MULTILINE)
    return match[1].strip() if match else "CPU core"


def _usable_memory_gib(root: Path) -> float | None:
    total = re.search(r"^MemTotal:\s*(\d+) kB$", _contents(root / "proc/meminfo") or "", re.MULTILINE)
    limits = [] if total is None else [int(total[1]) / 2**20]
    group = _contents(root / "sys/fs/cgroup/memory.max") or ""
    if group.isdigit():
        limits.append(int(group) / 2**30)
    return min(limits, default=None)


def _contents(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _ranges(indices: Iterable[int]) -> str:
    """Write numbers as people do: 0-3,8."""
    runs: list[list[int]] = []
    for index in sorted(set(indices)):
        if runs and runs[-1][-1] == index - 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
