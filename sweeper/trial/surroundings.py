"""What a trial ran on and under, besides its engine: what one needs to believe a number and to repeat it.

Versions, the container, the kernel's NUMA balancing and the environment variables that change speed. Facts
are read where they stand and never changed; one that this machine does not report is missing.

Variables are taken by an allow-list of names that mean speed, and never one that looks like a secret: a list
of what to leave out would let the next token through whose name was not foreseen.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from sweeper.audit import digest_for
from sweeper.kinds import ENGINES
from sweeper.records import Scalar, TrialSpec
from sweeper.text import confidential
from sweeper.topology import Runner

_RELEVANT = re.compile(
    r"^(?:VLLM|NCCL|RCCL|HIP|HSA|HSAKMT|ROCR|ROCM|AMD|GPU|MIOPEN|HIPBLASLT|ROCBLAS|TENSILE|PYTORCH|TORCH|CUDA"
    r"|TRITON|OMP|MKL|GOMP|KMP|MALLOC|OMPI|UCX)_[A-Z0-9_]+$|^LD_PRELOAD$|^SAFETENSORS_FAST_GPU$"
)

# Words of a control group's path that name who made it.
_CONTAINERS = ("docker", "kubepods", "containerd", "libpod", "lxc", "slurm")


def versions() -> dict[str, str]:
    """Return the versions of what drives a trial, by name: ``sweeper_python``, ``ray`` and ``kernel``."""
    found = {"sweeper_python": platform.python_version(), "kernel": platform.release()}
    with suppress(importlib.metadata.PackageNotFoundError):
        found["ray"] = importlib.metadata.version("ray")
    return found


def surroundings(environment: Mapping[str, str], *, root: Path = Path("/")) -> dict[str, Scalar]:
    """Return the environment that a trial runs in, as far as it can change its numbers.

    Args:
        environment: The variables that its engine is started from.
        root: Where ``/proc`` lies.

    Returns:
        ``container`` (its kind, or ``none``), ``numa_balancing`` (0 is off) and ``environment`` (the relevant
        variables, JSON); without those that are unknown.
    """
    balancing = _number(root / "proc/sys/kernel/numa_balancing")
    return {
        "container": container(root),
        **({} if balancing is None else {"numa_balancing": balancing}),
        "environment": json.dumps(relevant(environment), sort_keys=True),
    }


def audit_of(spec: TrialSpec, run: Runner, *, root: Path = Path("/")) -> str | None:
    """Return the digest of the node's settings as a trial's engine finds them.

    Args:
        spec: The trial.
        run: Runs amd-smi.
        root: Where ``/proc`` and ``/sys`` lie.

    Returns:
        The digest of ``audit``; None for a modelled trial, and for an endpoint that runs wherever it does.
    """
    if spec.is_modelled or not ENGINES[spec.engine.kind].has_devices:
        return None
    return digest_for(spec.platform, run, root=root)


def container(root: Path = Path("/")) -> str:
    """Return what kind of container this is; ``none`` where nothing speaks for one.

    Source:
        Docker leaves ``/.dockerenv`` and podman ``/run/.containerenv``; others show in the path of the
        control group of process 1 (cgroups(7)).
    """
    if (root / ".dockerenv").exists():
        return "docker"
    if (root / "run/.containerenv").exists():
        return "podman"
    group = _text(root / "proc/1/cgroup")
    named = next((word for word in _CONTAINERS if word in group), None)
    return named or "none"


def relevant(environment: Mapping[str, str]) -> dict[str, str]:
    """Keep the variables that change how fast an engine is; none that could hold a secret."""
    return {
        name: confidential.redacted(value, environment)
        for name, value in sorted(environment.items())
        if _RELEVANT.search(name) and not confidential.speaks_of_secrets(name)
    }


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
