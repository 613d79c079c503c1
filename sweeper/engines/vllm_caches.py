"""Where an engine keeps what it compiles, so that the next start of its like is faster.

What may be shared, with whom, and why is in docs/isolation.md. In short: one folder per machine, partition
mode, vLLM release and environment; within it the contents name themselves by hash. Releases that write
their compile cache in place, and so may spoil it for an engine that starts at the same time, get a folder per
block of devices, which no two engines hold at once.
"""

from __future__ import annotations

import platform as host
from collections.abc import Mapping
from pathlib import Path

from sweeper import knobs
from sweeper.records import Placement, Platform, TrialSpec, content_key

SHARED_FROM = "0.11.1"
"""First release whose compile cache several engines may fill at once.

Source: vllm-project/vllm issue 24601 (processes that start together clobber each other's artifacts, which
were folders) and pull request 27616 (they are files now, written aside and renamed).
"""

_FOLDER = "mi300x-sweeper"
# vLLM's own root; what torch and Triton compile outside of vLLM's compiler.
_VARIABLES = {
    "VLLM_CACHE_ROOT": "vllm",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
}
# What AITER compiles from templates: by itself in ~/.aiter, where a kernel is named by its arguments and not
# by its source, so that another release of AITER would find this one's. AITER_JIT_DIR, of its other kernels,
# is left alone (docs/isolation.md says why).
_AITER = {"AITER_ROOT_DIR": "aiter"}


def cache_folders(
    spec: TrialSpec, placement: Placement, *, surroundings: Mapping[str, str], python: str
) -> dict[str, str]:
    """Return the folders in which an engine is to keep its compiled code, by environment variable.

    Args:
        spec: The trial: its engine's release and its platform.
        placement: Its block of devices, and the mode they are in.
        surroundings: Our own environment; where it names a folder already, that one is kept.
        python: Absolute path of the engine's interpreter.

    Returns:
        The variables; none where there is no home to keep a cache in.
    """
    home = _home(surroundings)
    if home is None:
        return {}
    shared = home / _FOLDER / _name(spec, placement, python)
    block = "-".join(str(device) for device in sorted(placement.devices))
    is_shared = knobs.release_key(spec.engine.release) >= knobs.release_key(SHARED_FROM)
    root = shared if is_shared else shared / f"block-{block}"
    wanted = {**_VARIABLES, **(_AITER if spec.platform is Platform.MI300X else {})}
    return {name: str(root / folder) for name, folder in wanted.items() if name not in surroundings}


def _home(surroundings: Mapping[str, str]) -> Path | None:
    """Return the user's folder for caches, as the XDG base directory specification finds it."""
    named, home = surroundings.get("XDG_CACHE_HOME"), surroundings.get("HOME")
    if named and Path(named).is_absolute():
        return Path(named)
    return Path(home) / ".cache" if home and Path(home).is_absolute() else None


def _name(spec: TrialSpec, placement: Placement, python: str) -> str:
    like = {
        # A home may be shared by machines with other processors, drivers and links between GPUs.
        "host": host.node(),
        "mode": f"{placement.partition_mode}/{placement.memory_mode}",
        "python": python,
    }
    return f"vllm-{spec.engine.release}-{spec.platform}-{content_key(like)[:8]}"
