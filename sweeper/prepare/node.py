"""What must be there before the first trial: the node, the engine's environment, the model.

Everything here is looked at or made before a study's folder is touched, so that what is missing is said
at once, with the command that provides it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper import topology
from sweeper.config import Settings
from sweeper.errors import ConfigError, PlacementError
from sweeper.records import Platform
from sweeper.topology import Absent, Node

if TYPE_CHECKING:
    from sweeper.executors.cluster import Cluster
    from sweeper.plan.planner import Planner
from sweeper.prepare.platform import Choice


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
        ConfigError: None answers, its nodes are not alike, or their platform was not given.
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


def needed_paths(planner: Planner) -> dict[str, str]:
    """Return the paths that trials open, each with its key, for a cluster whose nodes must all have them.

    Args:
        planner: Of the study: its engines, client, models and questions, with what was found of them.
    """
    client, asked = planner.client, planner.accuracy
    given = [("engine.python", planner.engine.python), ("model.path", planner.model.path)]
    given += [(f"python of {kind}", other.python) for kind, other in planner.others.items()]
    given += [
        (f"space.series.{series.name}.model.path", series.model.path)
        for series in planner.space.series
        if series.model is not None
    ]
    given += [("client.python", client.python), ("client.script", client.script)]
    given += [("workload.dataset_path", point.dataset_path) for point in planner.load_points]
    if asked is not None:
        given += [("accuracy.path", asked.path), ("accuracy.python", asked.python)]
    # A model may be named by its id on the hub: only what lies on this machine is asked of the others.
    return {path: key for key, path in given if path and Path(path).exists()}


def _read_here(wanted: _Wanted) -> Node | Absent:
    """Read the node that this runs on, one of a cluster."""
    from sweeper.executors.cluster_checks import environment_of_node

    found = _node_of(wanted)
    return found if isinstance(found, Absent) else _checked(found, wanted, environment_of_node())


def _checked(node: Node, wanted_node: _Wanted, environment: Mapping[str, str]) -> Node:
    """Check that a node is as wanted, and keep the devices of it that the study may use."""
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
    """Report that these keys of the configuration cannot be: the machine has nothing to do with it."""
    try:
        yield
    except PlacementError as exc:
        raise ConfigError(f"{keys}: {exc}") from exc
