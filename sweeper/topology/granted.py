"""Which of a node's devices the surroundings leave to this process, as variables of the environment say it.

A vendor's tool lists every device that the kernel shows, whatever the environment says; a batch system, a
container or a person grants some of them by a variable. There are two kinds:

- *masks*, which the runtime obeys: ``ROCR_VISIBLE_DEVICES``, and on top of it ``HIP_VISIBLE_DEVICES``,
  whose numbers count what the first left; ``CUDA_VISIBLE_DEVICES``.
- *lists of grants*, which no runtime reads: what Slurm allotted, what a container was given. They count as
  the host does. Where devices are hidden by the kernel, the numbers here are others, and the list says no
  more than how many there are.

What cannot be understood is refused and never guessed: a wrong guess measures devices of others. The
engine gets one mask of ours with this node's numbers, so none of these variables reaches it
(``processes.masks``).

Source:
    ROCR: ROCm/ROCR-Runtime, amd_filter_device.cpp (indices or prefixes of ``GPU-<unique id>``; set and empty
    shows none; the order given is the order shown; it stops at a number that is wrong or was seen). HIP:
    ROCm/clr, rocdevice.cpp, Device::init (``HIP_VISIBLE_DEVICES``, where that is empty
    ``CUDA_VISIBLE_DEVICES``, within what ROCR shows; ``GPU_DEVICE_ORDINAL`` is read for OpenCL only, though
    AMD's page on GPU isolation names HIP too). CUDA: CUDA C programming guide, environment variables.
    Slurm: srun(1), sbatch(1): ``SLURM_STEP_GPUS`` and ``SLURM_JOB_GPUS`` are "not relative to any device
    cgroup", ``SLURM_GPUS_ON_NODE`` is a count; gres_gpu.c writes one list into ``ROCR_VISIBLE_DEVICES``,
    ``CUDA_VISIBLE_DEVICES`` and ``GPU_DEVICE_ORDINAL`` alike, counted from 0 within a device cgroup. LSF
    (10.1, "GPU access enforcement"), Flux (shell plugin gpu-affinity) and PBS's cgroups hook write
    ``CUDA_VISIBLE_DEVICES``. Containers: NVIDIA's and AMD's container toolkits, ``NVIDIA_VISIBLE_DEVICES``
    and ``AMD_VISIBLE_DEVICES``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from sweeper.errors import ConfigError
from sweeper.records import Platform
from sweeper.topology.node import Device, Node, ranges, restrict

KEY = "platform.device_ids"
"""The key of the configuration by which devices are chosen."""

_ROCR = "ROCR_VISIBLE_DEVICES"
# What the runtime above ROCR reads, the first that is set counts. HIP does not read the last one, but who
# sets it alone means it, and AMD's documentation says so.
_INNER_MASKS = {
    Platform.MI300X: ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"),
    Platform.CUDA: ("CUDA_VISIBLE_DEVICES",),
}
_SLURM_LISTS = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")
_SLURM_COUNT = "SLURM_GPUS_ON_NODE"
_CONTAINER_LISTS = {Platform.MI300X: "AMD_VISIBLE_DEVICES", Platform.CUDA: "NVIDIA_VISIBLE_DEVICES"}
# The container has what its tool lists: all of the host's, or those that something else put in (a device
# plugin of Kubernetes writes void, or the folder in which it lists them).
_SAYS_NOTHING = re.compile(r"all|void|/.*", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Grant:
    """Devices that the surroundings leave to this process.

    Attributes:
        indices: As the node counts them, ascending; empty where no device is left.
        said_by: The variables that say so, with their values.
    """

    indices: tuple[int, ...]
    said_by: str


def granted(node: Node, environment: Mapping[str, str]) -> Grant | None:
    """Find out which devices of a node the environment leaves to this process.

    Args:
        node: All of its devices, as the vendor's tool lists them. One without a vendor's devices (cores, a
            model) has none that a mask could hide.
        environment: Of the process that asks.

    Returns:
        What is granted; None where nothing is said.

    Raises:
        ConfigError: A variable cannot be understood, or two of them contradict each other.
    """
    if node.platform not in _INNER_MASKS:
        return None
    listed = _listed(node, environment)
    masked = _masked(node, environment, listed)
    limit = None if listed is None else _limit(node, listed, masked)
    found = masked or limit
    _check_count(node, environment, found)
    return found


def chosen(node: Node, *, ids: Sequence[int] | None, environment: Mapping[str, str]) -> Node:
    """Keep the devices that a study may use: those that it names, within those that it was granted.

    Args:
        node: All of its devices, as the vendor's tool lists them.
        ids: What ``platform.device_ids`` names; None takes all that the environment leaves.
        environment: Of the process that asks.

    Raises:
        ConfigError: A device is named that the node does not have or the environment does not leave, none
            is left, or the environment cannot be understood and none is named.
    """
    set_aside = ""
    try:
        grant = granted(node, environment)
    except ConfigError as exc:
        if ids is None:
            raise
        # Who names the devices has decided what a variable that says nothing clear cannot.
        grant, set_aside = None, f", and not {str(exc).partition(';')[0]}"
    if ids is None:
        return node if grant is None else _restricted(node, grant.indices, grant.said_by)
    named = f"{KEY}: names {_noun(ids)} {ranges(ids)}"
    own = {device.index for device in node.devices}
    if not set(ids) <= own:
        raise ConfigError(f"{named}; expected some of those of node {node.host}, {ranges(own)}. Correct it.")
    if grant is not None and not set(ids) <= set(grant.indices):
        left = f"leaves only {ranges(grant.indices)}" if grant.indices else "leaves none"
        raise ConfigError(
            f"{named}, and {grant.said_by} {left}; expected devices that both allow. Correct the key, or the "
            "variable if it is not meant."
        )
    within = f" within {grant.said_by}" if grant is not None and set(grant.indices) != own else ""
    return _restricted(node, ids, f"{KEY}{within}{set_aside}")


def _restricted(node: Node, indices: Sequence[int], said_by: str) -> Node:
    if not indices:
        raise ConfigError(
            f"{said_by}: is empty and leaves no device of node {node.host}; expected at least one. Unset it, "
            "or name devices in it."
        )
    is_all = len(indices) == len(node.devices)
    return node if is_all else restrict(node, indices, said_by=said_by)


def _noun(ids: Sequence[int]) -> str:
    return "device" if len(ids) == 1 else "devices"


# ---- masks ----


def _masked(node: Node, environment: Mapping[str, str], listed: _List | None) -> Grant | None:
    outer = _ROCR if node.platform is Platform.MI300X and _ROCR in environment else None
    inner = _inner_mask(node.platform, environment)
    said_by = _said(environment, *(name for name in (inner, outer) if name))
    if outer is None and inner is None:
        return None
    if any(name and not environment[name].strip() for name in (outer, inner)):
        return Grant(indices=(), said_by=said_by)
    if outer and inner and listed and _is_written_alike(environment, outer, inner, listed):
        # Slurm's way without a device cgroup. ROCm composes the two to nothing; what is meant is clear.
        wanted = _devices(outer, environment[outer], node.devices)
        return Grant(indices=_indices(wanted), said_by=f"{said_by} {listed.said}")
    shown: Sequence[Device] = node.devices
    if outer:
        shown = _devices(outer, environment[outer], shown)
    if inner:
        within = f" within {_said(environment, outer)}" if outer else ""
        shown = _devices(inner, environment[inner], shown, within=within)
    return Grant(indices=_indices(shown), said_by=said_by)


def _inner_mask(platform: Platform, environment: Mapping[str, str]) -> str | None:
    """Name the mask that counts: the first one with a value, else the first that is set."""
    are_set = [name for name in _INNER_MASKS[platform] if name in environment]
    return next((name for name in are_set if environment[name].strip()), next(iter(are_set), None))


def _is_written_alike(environment: Mapping[str, str], outer: str, inner: str, listed: _List) -> bool:
    lists = [re.findall(r"[^,\s]+", environment[name]) for name in (outer, inner)]
    return all(words == [str(number) for number in listed.numbers] for words in lists)


def _devices(name: str, value: str, shown: Sequence[Device], *, within: str = "") -> list[Device]:
    """Read a mask as a selection of the devices that a process sees under it, in its order."""
    selected: list[Device] = []
    for word in (part.strip() for part in value.split(",")):
        device = _by_number(word, shown) if word.isdecimal() else _by_uuid(word, shown)
        if device is None or device in selected:
            numbers = "0" if len(shown) == 1 else f"0 to {len(shown) - 1}"
            why = f" ('{word}' comes twice)" if device else f" ('{word}' is none of them)"
            _refuse(
                name, value, f"numbers of the devices that it can show{within}, {numbers}, each once{why}"
            )
        selected.append(device)
    return selected


def _by_number(word: str, shown: Sequence[Device]) -> Device | None:
    return shown[int(word)] if int(word) < len(shown) else None


def _by_uuid(word: str, shown: Sequence[Device]) -> Device | None:
    """Find the one device whose UUID begins so; the runtimes take shortened ones too."""
    if not word.upper().startswith("GPU-") or len(word) == len("GPU-"):
        return None
    alike = [device for device in shown if (device.uuid or "").upper().startswith(word.upper())]
    return alike[0] if len(alike) == 1 else None


# ---- lists of grants ----


@dataclass(frozen=True, kw_only=True)
class _List:
    """Numbers of the host's devices that a batch system or a container names."""

    name: str
    value: str
    numbers: tuple[int, ...]

    @property
    def said(self) -> str:
        return f"{self.name}={self.value}"


def _listed(node: Node, environment: Mapping[str, str]) -> _List | None:
    container = _CONTAINER_LISTS[node.platform]
    for name in (*_SLURM_LISTS, container):
        value = environment.get(name, "").strip()
        if not value or (name == container and _SAYS_NOTHING.fullmatch(value)):
            continue
        numbers = numbers_of(value, node.devices)
        if numbers is None:
            _refuse(name, value, "numbers of devices, such as 4,5 or 4-7, each once")
        return _List(name=name, value=value, numbers=numbers)
    return None


def numbers_of(text: str, devices: Sequence[Device] = ()) -> tuple[int, ...] | None:
    """Read a list of numbers and ranges, ``0,4-7``, ascending; UUIDs are those of the devices given.

    Returns:
        The numbers; None where the text is anything else, or a number comes twice.
    """
    numbers: list[int] = []
    for word in (part.strip() for part in text.split(",")):
        span = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", word)
        device = None if span else _by_uuid(word, devices)
        if span:
            numbers += range(int(span[1]), int(span[2] or span[1]) + 1)
            if int(span[2] or span[1]) < int(span[1]):
                return None
        elif device:
            numbers.append(device.index)
        else:
            return None
    return tuple(sorted(numbers)) if len(set(numbers)) == len(numbers) else None


def _limit(node: Node, listed: _List, masked: Grant | None) -> Grant | None:
    """Describe what a list of grants leaves of this node; None where that is all of it.

    Raises:
        ConfigError: Its numbers are not this node's, or the masks show other devices.
    """
    own = {device.index for device in node.devices}
    if len(listed.numbers) >= len(own):
        # The tool lists no more than were granted: all are ours. Inside a device cgroup they count from 0.
        return None
    is_partitioned = len(node.devices) > len(node.parents)
    allowed = set(listed.numbers)
    if is_partitioned and not (masked and masked.indices):
        _refuse(
            listed.name,
            listed.value,
            f"a mask besides, since in mode {node.mode_label} it may count GPUs or partitions",
        )
    if masked is None and not allowed <= own:
        _refuse(listed.name, listed.value, f"some of this node's devices, {ranges(own)}")
    if masked is None:
        return Grant(indices=listed.numbers, said_by=listed.said)
    parents = {device.parent for device in node.devices if device.index in masked.indices}
    if not set(masked.indices) <= allowed and not (is_partitioned and parents <= allowed):
        raise ConfigError(
            f"{masked.said_by}: shows devices {ranges(masked.indices)}, and {listed.said} grants others; "
            f"expected some of those granted. Unset the one that is wrong, or choose with {KEY}=[...]."
        )
    return None


def _check_count(node: Node, environment: Mapping[str, str], found: Grant | None) -> None:
    """Refuse when Slurm granted fewer devices than this process would use, and nothing says which."""
    text = environment.get(_SLURM_COUNT, "").strip()
    if not text.isdecimal() or (found is not None and not found.indices):
        return
    used = [device for device in node.devices if found is None or device.index in found.indices]
    # Slurm may count GPUs or partitions; who set a mask knows which.
    least = len(used) if found is None else len({device.parent for device in used})
    if int(text) < least:
        shown = f"{found.said_by} shows {len(used)}" if found else f"this node shows {len(used)}"
        _refuse(_SLURM_COUNT, text, f"as many devices as can be used here ({shown}), or a list of which")


# ---- words ----


def _indices(devices: Sequence[Device]) -> tuple[int, ...]:
    return tuple(sorted(device.index for device in devices))


def _said(environment: Mapping[str, str], *names: str | None) -> str:
    return " ".join(f"{name}={environment[name]}" for name in names if name)


def _refuse(name: str, value: str, expected: str) -> NoReturn:
    mig = " MIG's parts of a GPU cannot be used." if "MIG" in value.upper() else ""
    raise ConfigError(
        f"{name}: is '{value}'; expected {expected}.{mig} Correct or unset it, or choose devices with "
        f"{KEY}=[...]."
    )
