"""Which platform this machine is, found out by asking one vendor's tool after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sweeper.errors import PlacementError
from sweeper.records import Platform
from sweeper.topology.amd import read_amd
from sweeper.topology.node import Node
from sweeper.topology.nvidia import read_nvidia
from sweeper.topology.probes import Absent, Runner, run_command


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


def detect(run: Runner = run_command, *, root: Path = Path("/")) -> Detection:
    """Detect which platform this machine is.

    AMD is asked first, then NVIDIA; a machine where neither answers gets the simulated platform. A CPU
    is never chosen by itself, because its numbers would be taken for a GPU's.

    Args:
        run: Runs the vendors' tools.
        root: Where /sys lies.
    """
    amd = _attempt(lambda: read_amd(run, root=root))
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
    """Read a node; a tool that answers nonsense counts as absent here, with its message as the reason."""
    try:
        return read()
    except PlacementError as exc:
        return Absent(reason=str(exc))


def _is_mi300x(node: Node) -> bool:
    return node.gfx_target == "gfx942" or any("MI300X" in device.name for device in node.devices)
