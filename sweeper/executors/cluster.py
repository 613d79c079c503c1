"""A Ray cluster that others started, and that a study joins.

A study takes a node whole: its allocator divides all of the devices, so a second study on the same node would
give out the same ones again, regardless of what Ray counts per task. The claim is a placement group per node
that holds what Ray counts there (its GPUs, or for the cpu platform its CPUs) and more than half of the share
``node:<address>`` that every Ray node has. So another study finds no room, neither do Ray's other
jobs where Ray counts devices, and Ray itself drops the claim with the driver, however that ends.

The nodes must be alike, since a trial may run on any of them and is not measured on it again. They are
compared here, by what each says of itself, before anything is started.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import sweeper
from sweeper.errors import ConfigError, PlacementError, first_line
from sweeper.executors import cluster_checks
from sweeper.executors.ray_import import import_ray, keeping_signals, noise_to, without_masks
from sweeper.records import Placement, Platform
from sweeper.topology import Absent, Node

_CONNECT_S = 10.0
_ANSWER_S = 120.0
_CLAIM_S = 30.0
_LOOK_EVERY_S = 1.0
# More than half, so that two claims on one node never hold together.
_SHARE = 0.51
_SHARE_PREFIX = "node:"
_INTERNAL = "node:__internal"
_COUNTED_AS = {Platform.MI300X: "GPU", Platform.CUDA: "GPU", Platform.CPU: "CPU"}


@dataclass(frozen=True, kw_only=True)
class _Member:
    """A Ray node: Ray's id of it, and its name for people."""

    node_id: str
    host: str
    address: str
    port: int
    resources: Mapping[str, float]


class Cluster:
    """A joined cluster, its nodes, and the claim on them.

    Attributes:
        nodes: Those that have devices, each under a name of its own.
        remarks: What a person should know of the others, a line each.
    """

    is_local = False

    def __init__(self, address: str, *, read: Callable[[], Node | Absent]) -> None:
        """Join, and let every node read its own devices.

        Args:
            address: ``auto`` or ``host:port``.
            read: Run on each node; it must be importable there.

        Raises:
            ConfigError: No cluster answers, this package is missing or another one there, or the nodes
                are not alike.
            PlacementError: No node has such devices, or one of them cannot be read.
        """
        self._ray = import_ray(is_private=False)
        self._join(address)
        try:
            self._members = self._alive()
            self._check_versions()
            self.remarks: list[str] = []
            self.nodes = self._read_nodes(read)
        except BaseException:
            self.close()
            raise
        self._claims: list[Any] = []
        self._lost: set[str] = set()
        self._looked_s = float("-inf")

    def check_paths(self, folder: Path, *, needed: Mapping[str, str]) -> None:
        """Check that every node writes into the same folder as this process, and has what trials open.

        Args:
            folder: The study's folder; trials write their logs below it.
            needed: Paths that trials open, each with the key that names it.

        Raises:
            ConfigError: A node does not; the message names it.
        """
        with cluster_checks.Probe(folder.absolute()) as probe:
            answers = self._ask({name: probe.question(name, needed) for name in self._used()})
            for name, problem in answers.items():
                wrong = problem or probe.missing_from(name)
                if wrong:
                    raise ConfigError(
                        f"executor.address: node {name}: {wrong}. All nodes of a cluster need the same "
                        "files under the same paths: put study.outputs=, the model and the engine on a file "
                        "system that they share."
                    )

    def claim(self) -> None:
        """Take the nodes for this study alone; given back by ``close``, or by Ray when this process ends.

        Raises:
            PlacementError: Another study or job holds one of them.
        """
        from ray.util.placement_group import placement_group

        platforms = {node.host: node.platform for node in self.nodes}
        wanted = {
            name: placement_group(
                [_claimed(member, platforms[name])],
                strategy="STRICT_PACK",
                bundle_label_selector=[{"ray.io/node-id": member.node_id}],
            )
            for name, member in self._used().items()
        }
        self._claims.extend(wanted.values())
        deadline = time.monotonic() + _CLAIM_S
        for name, group in wanted.items():
            if not group.wait(max(0.0, deadline - time.monotonic())):
                raise PlacementError(
                    f"executor.address: node {name} is held by another study or job; expected its devices "
                    "to be free. See who with 'ray status', wait for it, or join another cluster."
                )

    def task_options(self, placement: Placement) -> Mapping[str, Any]:
        """Pin a trial to the node of its placement."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        member = self._used()[placement.node]
        return {"scheduling_strategy": NodeAffinitySchedulingStrategy(member.node_id, soft=False)}

    def has_lost(self, node: str) -> bool:
        """Find out whether a node on which a trial was lost is gone.

        Ray learns of a dead node only after some missed heartbeats; a trial sent there meanwhile would fail
        again. So a connection to its agent is tried.
        """
        member = self._used()[node]
        try:
            socket.create_connection((member.address, member.port), timeout=_CONNECT_S).close()
        except OSError:
            self._lost.add(node)
        return node in self.lost_nodes()

    def lost_nodes(self) -> frozenset[str]:
        """Return the nodes that are gone; one that comes back is used again by the next start.

        After ``close`` these are the ones that were known then.
        """
        is_due = time.monotonic() - self._looked_s >= _LOOK_EVERY_S
        if is_due and self._ray.is_initialized():
            self._looked_s = time.monotonic()
            alive = {entry["NodeID"] for entry in self._ray.nodes() if entry["Alive"]}
            self._lost |= {name for name, member in self._used().items() if member.node_id not in alive}
        return frozenset(self._lost)

    def has_died(self) -> bool:
        """Report that a cluster's Ray is not ours to watch; single nodes of it can be lost."""
        return False

    def start_again(self) -> None:
        """Do nothing: a cluster is started by its operators."""

    def close(self) -> None:
        """Release the nodes and leave; the cluster itself runs on. Safe to call twice."""
        if self._ray.is_initialized():
            with noise_to(Path(os.devnull)):
                self._ray.shutdown()

    def _join(self, address: str) -> None:
        try:
            _check_connects(address)
            with keeping_signals(), without_masks(), noise_to(Path(os.devnull)):
                self._ray.init(address=address, log_to_driver=False, logging_level="error")
        except (OSError, RuntimeError, ValueError) as exc:
            said = " ".join(str(exc).split()) or type(exc).__name__
            raise ConfigError(
                f"executor.address: no Ray cluster answers at '{address}': {said} "
                "Start one with 'ray start --head', or use executor.address=local."
            ) from exc

    def _alive(self) -> dict[str, _Member]:
        """Return the cluster's nodes by name: that of the host, numbered where one host runs several."""
        members = sorted(
            (
                _Member(
                    node_id=entry["NodeID"],
                    host=entry["NodeManagerHostname"],
                    address=entry["NodeManagerAddress"],
                    port=entry["NodeManagerPort"],
                    resources=entry["Resources"],
                )
                for entry in self._ray.nodes()
                if entry["Alive"]
            ),
            key=lambda member: (member.host, member.address, member.port),
        )
        names = cluster_checks.unique_names([member.host for member in members])
        return dict(zip(names, members, strict=True))

    def _check_versions(self) -> None:
        here = {"sweeper": sweeper.__version__, "Python": f"{sys.version_info[0]}.{sys.version_info[1]}"}
        question = cluster_checks.version_question()
        for name, there in self._ask(dict.fromkeys(self._members, question)).items():
            for what, version in here.items():
                if there[what] != version:
                    found = f"has {what} {there[what]}" if there[what] else f"has no {what}"
                    raise ConfigError(
                        f"executor.address: node {name} {found}; expected {what} {version}, as here. "
                        "Install the same release of this package, on the same Python, on all nodes."
                    )

    def _read_nodes(self, read: Callable[[], Node | Absent]) -> tuple[Node, ...]:
        found: list[Node] = []
        machines: dict[str, str] = {}
        question = partial(cluster_checks.read_machine, read)
        for name, answer in self._ask(dict.fromkeys(self._members, question)).items():
            if isinstance(answer, str):
                raise PlacementError(f"executor.address: node {name} cannot be read: {answer}")
            if isinstance(answer.node, Absent):
                self.remarks.append(f"node {name} is left out: {answer.node.reason}")
                continue
            machines[name] = answer.machine
            found.append(replace(answer.node, host=name))
        if not found:
            raise PlacementError(
                f"executor.address: no node of the cluster has such devices ({'; '.join(self.remarks)}). "
                "Choose the platform that its nodes have with platform=..."
            )
        cluster_checks.refuse_unlike(found)
        cluster_checks.refuse_shared_devices(found, machines)
        self.remarks += [
            f"node {node.host}: Ray counts no GPUs there, so only other studies are kept off its devices, "
            "not Ray's other jobs"
            for node in found
            if _COUNTED_AS.get(node.platform) == "GPU" and not self._members[node.host].resources.get("GPU")
        ]
        return tuple(found)

    def _used(self) -> dict[str, _Member]:
        return {node.host: self._members[node.host] for node in self.nodes}

    def _ask(self, questions: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        """Ask nodes, each its own question, all at once."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        task = self._ray.remote(cluster_checks.calling())
        asked = {
            name: task.options(
                num_cpus=0,
                num_gpus=0,
                max_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(self._members[name].node_id, soft=False),
            ).remote(question)
            for name, question in questions.items()
        }
        return {name: self._answer(name, reference) for name, reference in asked.items()}

    def _answer(self, name: str, reference: Any) -> Any:
        try:
            return self._ray.get(reference, timeout=_ANSWER_S)
        except self._ray.exceptions.RayError as exc:
            raise PlacementError(
                f"executor.address: node {name} does not answer: {first_line(exc)}. "
                "Mend it, or take it out of the cluster."
            ) from exc


def _claimed(member: _Member, platform: Platform) -> dict[str, float]:
    """Describe what of a node's Ray resources a study holds while it runs."""
    counted = _COUNTED_AS.get(platform)
    wanted = {name: count for name, count in member.resources.items() if name == counted and count > 0}
    shares = [n for n in member.resources if n.startswith(_SHARE_PREFIX) and not n.startswith(_INTERNAL)]
    return {**wanted, **dict.fromkeys(shares, _SHARE)}


def _check_connects(address: str) -> None:
    """Connect to a head node once: Ray itself asks an address that does not answer for many minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
