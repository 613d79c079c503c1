"""What an MI300X has, the partition modes that it takes, and the commands that set them.

Nothing here changes a mode: that is an administrator's act, so the commands are for a person to type.
"""

from __future__ import annotations

from collections.abc import Mapping

from sweeper.errors import PlacementError, nearest

MI300X_COMPUTE_UNITS = 304
"""Of one physical GPU: 8 XCDs of 38. Source: AMD Instinct MI300X data sheet."""

MI300X_MEMORY_GIB = 192.0
"""Of one physical GPU: 8 stacks of 24 GiB, nominal. amd-smi tells 196592 MiB, which is 191.98 GiB."""

MI300X_GPUS = 8
"""Physical GPUs of one MI300X platform board."""

LEGAL_MEMORY_MODES: Mapping[str, tuple[str, ...]] = {
    "SPX": ("NPS1",),
    "DPX": ("NPS1", "NPS2"),
    "QPX": ("NPS1", "NPS4"),
    "CPX": ("NPS1", "NPS4"),
}
"""Memory modes that an MI300X takes in each compute mode; AMD has validated SPX/NPS1 and CPX/NPS4.
Source: Linux, drivers/gpu/drm/amd/amdgpu/aqua_vanjaram.c (bare metal; DPX/NPS2 since March 2025); AMD's
"Quick Start Guide to Partitioning MI300X GPUs": memory partitions may not outnumber compute partitions.
Board and firmware may allow less; `sudo amd-smi partition --memory --accelerator` tells."""


def mode_commands(mode: str, memory_mode: str = "NPS1") -> tuple[str, ...]:
    """Return the commands that bring all GPUs of an MI300X node into a mode; they are for a person to type.

    They need root and an idle node, and the memory step reloads the driver, which returns the compute
    mode to its default. So memory comes first and compute second, from whatever mode the node is in.

    Returns:
        Commands in order; the last one shows the result.

    Raises:
        PlacementError: An unknown mode, or a pair that the GPU does not take.

    Source:
        AMD, "Quick Start Guide to Partitioning MI300X GPUs" (September 2025); AMD SMI CLI, ``set``.
    """
    check_modes(mode, memory_mode)
    return (
        f"sudo amd-smi set --memory-partition {memory_mode}",
        f"sudo amd-smi set --gpu all --compute-partition {mode}",
        "amd-smi static --partition",
    )


def check_modes(mode: str, memory_mode: str) -> None:
    """Refuse modes that an MI300X does not take.

    Raises:
        PlacementError: An unknown mode, or a pair that the GPU does not take.
    """
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
