"""Which device files of this machine belong to a block of devices, and who may open them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeper.errors import PlacementError
from sweeper.records import Platform
from sweeper.topology.amd_smi import render_files
from sweeper.topology.probes import run_command

_COMPUTE = Path("/dev/kfd")
_GROUP = "video"


@dataclass(frozen=True, kw_only=True)
class ShownDevices:
    """The devices of a trial's block, as a container is shown them.

    Attributes:
        platform: The machine.
        indices: Node-absolute, ascending, as the placement has them; cores on the cpu platform.
        nodes: Device files on AMD, such as ``/dev/dri/renderD128``, one for each index.
        groups: Groups that may open those files: names, or numbers of this machine.
    """

    platform: Platform
    indices: tuple[int, ...]
    nodes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


def shown_devices(platform: Platform, devices: Sequence[int]) -> ShownDevices:
    """Find the device files of a block.

    Args:
        platform: The machine.
        devices: Node-absolute indices of the block.

    Raises:
        PlacementError: On AMD, a device whose file neither amd-smi nor the kernel tells.
    """
    indices = tuple(sorted(devices))
    if platform is not Platform.MI300X:
        return ShownDevices(platform=platform, indices=indices)
    files = _render_files()
    unknown = [index for index in indices if index not in files]
    if unknown:
        raise PlacementError(
            f"devices {unknown}: neither `amd-smi list -e` nor /sys/class/kfd tells their files below "
            f"/dev/dri; expected one each, told are {sorted(files)}. Run the sweeper outside of containers "
            "that hide them."
        )
    nodes = tuple(files[index] for index in indices)
    return ShownDevices(platform=platform, indices=indices, nodes=nodes, groups=groups_of(nodes))


def groups_of(nodes: Sequence[str]) -> tuple[str, ...]:
    """Return the groups that open the files: ``video``, as AMD's documents have it, and those they belong to.

    By number: an image need not have a group called render, and its number may differ there.
    """
    found = {path.stat().st_gid for path in (_COMPUTE, *map(Path, nodes)) if path.exists()} - {0}
    return (_GROUP, *(str(number) for number in sorted(found)))


@functools.cache
def _render_files() -> Mapping[int, str]:
    return render_files(run_command)
