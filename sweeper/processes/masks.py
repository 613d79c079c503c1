"""Which variables hide devices from a process, and whether a process has exactly the one that it should.

Two masks on one process are composed by ROCm, and a wrong one measures devices of others; both look
like any other run. So the mask that a program must have travels next to it in a variable of ours, and the
process that executes the program compares the two, against its own environment and at the last moment.

Standard library only: the supervisor imports this.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

EXPECTED = "SWEEPER_DEVICE_MASK"
"""Variable that tells a program's one mask as ``NAME=VALUE``; programs without devices have none."""

# ROCm, HIP, CUDA and their container runtimes, OpenCL on AMD, Level Zero.
_HIDES = re.compile(r"_VISIBLE_DEVICES$|^GPU_DEVICE_ORDINAL$|^ZE_AFFINITY_MASK$")
# Switches of Ray about masks, which are none themselves.
_IS_SWITCH = re.compile(r"^RAY_EXPERIMENTAL_NOSET_")


def is_mask(name: str) -> bool:
    """Whether a variable hides GPUs from a process that has it."""
    return bool(_HIDES.search(name)) and not _IS_SWITCH.search(name)


def expected(mask: Mapping[str, str]) -> dict[str, str]:
    """Return our variable for a mask of one variable; nothing for an engine that has no mask."""
    return {EXPECTED: as_text(mask)} if mask else {}


def seen(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the masks that an environment holds, the one that it is expected to hold included."""
    name, _, _ = environment.get(EXPECTED, "").partition("=")
    return {key: value for key, value in sorted(environment.items()) if is_mask(key) or key == name}


def refusal(environment: Mapping[str, str]) -> str | None:
    """Explain why a program must not start in this environment; None when its mask is the expected one."""
    if EXPECTED not in environment:
        return None
    name, _, value = environment[EXPECTED].partition("=")
    found = seen(environment)
    if found == {name: value}:
        return None
    return (
        f"device mask: got {as_text(found) or 'none'}; expected exactly {name}={value}, the devices of this "
        "trial's placement. Look what sets the others between the sweeper and the engine."
    )


def as_text(masks: Mapping[str, str]) -> str:
    """Write masks on one line."""
    return " ".join(f"{name}={value}" for name, value in masks.items())
