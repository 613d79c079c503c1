"""The vocabularies: what values and assignments are, platforms, states and classes of failure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum

Scalar = bool | int | float | str
"""A knob's value."""

Assignment = Mapping[str, Scalar]
"""Knob name to value, for one engine. A name in UPPER_CASE is an environment variable, a name that
starts with ``host_`` is a setting of the host, every other name is a flag of the server
(``max_num_seqs`` is ``--max-num-seqs``)."""

GivenArgument = tuple[str, Scalar | tuple[str, ...]]
"""An argument of the load generator, its name in underscores, and its value: a tuple is a list of words."""

HOST_PREFIX = "host_"
"""How the names of knobs begin that are settings of the host, and no server's."""

GPU = "gpu"
"""What an objective can be divided by: the GPUs that a trial used, a partition counting as its share."""

PARTITIONS_PER_GPU: Mapping[str, int] = {"SPX": 1, "DPX": 2, "TPX": 3, "QPX": 4, "CPX": 8}
"""Devices that one GPU shows in each compute mode; CPX is one per XCD, so 8 holds for GPUs with 8 XCDs only.

Source:
    Linux, drivers/gpu/drm/amd/amdgpu/aqua_vanjaram.c: 8 XCDs (MI300X, MI325X) take SPX, DPX, QPX and CPX, 6
    (MI300A) SPX, TPX and CPX, 4 (MI308X) SPX, DPX and CPX; __aqua_vanjaram_get_px_mode_info has the counts.
"""

NEEDS = ("experts", "latent_attention", "grouped_attention", "amd")
"""What a knob may need of the model or of the device, for those that are left out of a space elsewhere."""

INSTANCES_BY = ("auto", "data_parallel", "split")
"""How several instances become one service: by the engine's own data parallelism, or as servers between
which the requests are split; ``auto`` takes the first where the release has it."""

INSTANCES = "instances"
"""The knob of the sweeper itself: how many engines of one assignment share a trial's devices and load."""


IMAGE = "image"
"""The knob of the sweeper itself: the container image that the engine runs in, where images are compared."""


class Platform(StrEnum):
    """The machine that is measured."""

    MI300X = "mi300x"
    CUDA = "cuda"
    CPU = "cpu"
    SIMULATED = "simulated"


MASK_VARIABLES: Mapping[Platform, str | None] = {
    Platform.MI300X: "HIP_VISIBLE_DEVICES",
    Platform.CUDA: "CUDA_VISIBLE_DEVICES",
    Platform.CPU: "VLLM_CPU_OMP_THREADS_BIND",
    Platform.SIMULATED: None,
}
"""Environment variable that names the devices to the engine on each platform."""


class Provenance(StrEnum):
    """Whether a number was seen on a machine or computed by a model of one."""

    MEASURED = "measured"
    SIMULATED = "simulated"


class TrialState(StrEnum):
    """How a trial ended."""

    COMPLETE = "complete"
    FAILED = "failed"
    INFEASIBLE = "infeasible"
    SKIPPED = "skipped"


def argument_flag(name: str) -> str:
    """Return the flag of an argument: ``--num-warmups`` of ``num_warmups``."""
    return "--" + name.replace("_", "-")


def content_key(content: object) -> str:
    """Hash JSON-able content to 16 hex digits, the same for any order of keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
