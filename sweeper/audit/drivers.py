"""Which driver AMD supports with which ROCm, and what a module's version says of its release."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sweeper.audit.findings import Reading
from sweeper.audit.reading import UnreadableError, verdict_of

_LOOK = "Compare both by hand with AMD's User and AMD GPU Driver support matrix."

RELEASES: Mapping[str, str] = MappingProxyType(
    {
        "6.3.6": "6.0",
        "6.7.0": "6.1",
        "6.8.5": "6.2",
        "6.10.5": "6.3",
        "6.12.12": "6.4",
        "6.14.14": "30.10",
        "6.16.6": "30.20",
        "6.16.13": "30.30",
    }
)
"""Release of the driver by its module's version. Source: version of the package amdgpu-dkms on AMD's
repository, whose second half names the release (6.14.14.30100100 is 30.10.1)."""

SUPPORTED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "6.0": ("5.6", "5.7", "6.0", "6.1", "6.2"),
        "6.1": ("5.7", "6.0", "6.1", "6.2", "6.3", "6.4"),
        "6.2": ("6.0", "6.1", "6.2", "6.3", "6.4", "7.0"),
        "6.3": ("6.1", "6.2", "6.3", "6.4", "7.0"),
        "6.4": ("6.1", "6.2", "6.3", "6.4", "7.0"),
        "30.10": ("6.2", "6.3", "6.4", "7.0"),
        "30.30": ("6.3", "6.4", "7.0", "7.1", "7.2"),
    }
)
"""Releases of ROCm by that of the driver. Source: User and AMD GPU Driver support matrix of 2025-09-17, which
ends at ROCm 7.0; 30.30 from ROCm/amdgpu-docs, docs/compatibility/compatibility-matrix.rst."""

_ENDS = {"30.30": (7, 2)}
_TABLE_ENDS = (7, 0)


def driver_reading(*, driver: str | None, rocm: str | None) -> Reading:
    """Judge a driver and a ROCm against each other.

    Args:
        driver: Version of the amdgpu module, such as 6.12.12, as amd-smi gives it.
        rocm: Version of ROCm where this runs, such as 6.4.1.

    Raises:
        UnreadableError: One is not told, the driver is the kernel's own, or the table ends before them.
    """
    if driver is None or rocm is None:
        missing = "driver" if driver is None else "ROCm"
        raise UnreadableError(
            f"version of the {missing} is not told", remedy=f"See `amd-smi version`. {_LOOK}"
        )
    release = RELEASES.get(driver, "none of AMD's known here")
    found = f"driver {driver}, release {release}, with ROCm {rocm}"
    if release not in SUPPORTED:
        raise UnreadableError(
            found, remedy=f"AMD's table does not have it, nor any driver that comes with a kernel. {_LOOK}"
        )
    if _minor(rocm) > _ENDS.get(release, _TABLE_ENDS):
        raise UnreadableError(found, remedy=f"The table known here ends before this ROCm. {_LOOK}")
    return Reading(verdict=verdict_of(".".join(map(str, _minor(rocm))) in SUPPORTED[release]), found=found)


def _minor(version: str) -> tuple[int, int]:
    parts = version.split("-")[0].split(".")
    if len(parts) < 2 or not (parts[0].isdigit() and parts[1].isdigit()):
        raise UnreadableError(f"ROCm's version is {version!r}", remedy=f"See `amd-smi version`. {_LOOK}")
    return int(parts[0]), int(parts[1])
