"""What must hold on every node of a cluster before a study starts there: asked on the node, judged here."""

from __future__ import annotations

import math
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from sweeper.errors import ConfigError, SweeperError
from sweeper.processes import process
from sweeper.simulation.device import model_name
from sweeper.topology import Absent, Device, Node, mode_commands

# Memory that two kernels tell of equal machines differs by some MiB.
_MEMORY_TOLERANCE = 0.05
# What another machine wrote may take a network file system's cache some seconds to show.
_SHOWS_WITHIN_S = 10.0
_POLL_S = 0.1


def version_question() -> Callable[[], dict[str, str | None]]:
    """Make the question which releases a node has.

    A function of no module travels whole, so it is answered even where this package is missing.
    """

    def versions() -> dict[str, str | None]:
        import importlib
        import sys

        try:
            package = importlib.import_module("sweeper").__version__
        except ImportError:
            package = None
        return {"sweeper": package, "Python": f"{sys.version_info[0]}.{sys.version_info[1]}"}

    return versions


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a node says of itself.

    Attributes:
        machine: Id of the running kernel: containers of one machine share it.
    """

    node: Node | Absent
    machine: str


def read_machine(read: Callable[[], Node | Absent]) -> Answer | str:
    """Read the devices of the machine that this runs on; a text says why they cannot be read."""
    try:
        node = read()
    except SweeperError as exc:
        return str(exc)
    return Answer(node=node, machine=Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))


def environment_of_node() -> Mapping[str, str]:
    """Return the environment that a Ray node was started with; called in one of its workers.

    A worker's own has been changed: Ray writes the mask of the devices that it counts for a task into it, for
    none of them an empty one (RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO). Its parent is the node's raylet.
    """
    return process.environment(os.getppid()) or os.environ


def unique_names(hosts: Sequence[str]) -> list[str]:
    """Name each node by its host, numbered where one host has several: ``a``, ``b-1``, ``b-2``."""
    counts, used = Counter(hosts), Counter[str]()
    names = []
    for host in hosts:
        used[host] += 1
        names.append(host if counts[host] == 1 else f"{host}-{used[host]}")
    return names


def refuse_unlike(nodes: Sequence[Node]) -> None:
    """Refuse nodes on which the same trial would not be the same.

    Raises:
        ConfigError: Platform, GPU, partition mode or device memory differ; the message names the odd ones.
    """
    usual = max(nodes, key=lambda node: sum(_are_alike(node, other) for other in nodes))
    odd = [node for node in nodes if not _are_alike(usual, node)]
    if odd:
        found = "; ".join(f"{node.host} has {_kind(node)}" for node in odd)
        others = ", ".join(node.host for node in nodes if node not in odd)
        raise ConfigError(
            f"executor.address: {found}; expected {_kind(usual)}, as {others}. A trial may run on any node, "
            f"so all must be alike. Leave the odd ones out of the cluster{_remedy(usual, odd)}."
        )


def refuse_shared_devices(nodes: Sequence[Node], machines: Mapping[str, str]) -> None:
    """Refuse two Ray nodes that have the same devices: they would be given out twice.

    Raises:
        ConfigError: Two nodes of one machine have a device in common.
    """
    holders: dict[tuple[str, str], str] = {}
    for node in nodes:
        for device in node.devices if node.platform != "simulated" else ():
            seat = (machines[node.host], _identity(device))
            first = holders.setdefault(seat, node.host)
            if first != node.host:
                raise ConfigError(
                    f"executor.address: the Ray nodes {first} and {node.host} run on one machine and both "
                    f"have its device {device.index}; expected each device on one of them. Start one Ray "
                    "node per machine."
                )


class Probe:
    """A file in the study's folder by which nodes prove that they see the same folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._token = secrets.token_hex(8)
        self._file = folder / f".probe-{self._token}"

    def __enter__(self) -> Probe:
        self._file.write_text(self._token, encoding="ascii")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for path in self._folder.glob(f"{self._file.name}*"):
            path.unlink(missing_ok=True)

    def question(self, name: str, needed: Mapping[str, str]) -> Callable[[], str | None]:
        """Return the task for the node of this name."""
        return partial(prove_folder, str(self._file), self._token, str(self._answer_of(name)), dict(needed))

    def missing_from(self, name: str) -> str | None:
        """Return what is wrong if what a node says it wrote does not show here."""
        deadline = time.monotonic() + _SHOWS_WITHIN_S
        while not self._answer_of(name).exists():
            if time.monotonic() > deadline:
                return f"what it writes into {self._folder} does not show on this machine"
            time.sleep(_POLL_S)
        return None

    def _answer_of(self, name: str) -> Path:
        return self._folder / f"{self._file.name}-{name}"


def prove_folder(probe: str, token: str, answer: str, needed: Mapping[str, str]) -> str | None:
    """Read the probe, write an answer next to it, and look for what trials open; runs on the node.

    Returns:
        What is wrong, or None.
    """
    folder = Path(probe).parent
    deadline = time.monotonic() + _SHOWS_WITHIN_S
    while folder.is_dir() and not Path(probe).exists() and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    try:
        if Path(probe).read_text(encoding="ascii") != token:
            return f"{folder} is another folder than here"
        Path(answer).write_text(token, encoding="ascii")
    except FileNotFoundError:
        return f"{folder} is not there, or is another folder than here"
    except OSError as exc:
        return f"{folder} cannot be written there ({exc.strerror})"
    missing = [f"{key} ({path})" for path, key in needed.items() if not Path(path).exists()]
    return f"{', '.join(missing)} is not there" if missing else None


def _are_alike(one: Node, other: Node) -> bool:
    if one.platform != other.platform or _modes(one) != _modes(other):
        return False
    if _models(one) != _models(other):
        return False
    return math.isclose(_memory_gib(one), _memory_gib(other), rel_tol=_MEMORY_TOLERANCE)


def _modes(node: Node) -> tuple[str | None, str | None]:
    return node.partition_mode, node.memory_mode


def _models(node: Node) -> frozenset[str]:
    """Return the models of its devices, as far as their names show them."""
    return frozenset(name for device in node.devices if (name := model_name(device.name)))


def _memory_gib(node: Node) -> float:
    return min(device.memory_gib or 0.0 for device in node.devices)


def _kind(node: Node) -> str:
    memory = _memory_gib(node)
    models = " and ".join(sorted(_models(node)))
    parts = [str(node.platform), models, node.mode_label, f"{memory:.4g} GiB a device" if memory else None]
    return ", ".join(part for part in parts if part)


def _remedy(usual: Node, odd: Sequence[Node]) -> str:
    """Describe how else the nodes become alike, where some differ in what an administrator can set."""
    if (
        all(_modes(node) == _modes(usual) for node in odd)
        or usual.platform != "mi300x"
        or not (usual.partition_mode and usual.memory_mode)
    ):
        return ""
    commands = "\n  ".join(mode_commands(usual.partition_mode, usual.memory_mode))
    return f", or set their mode with no GPU process running:\n  {commands}\n"


def _identity(device: Device) -> str:
    return device.uuid or (f"{device.bdf} {device.partition_id}" if device.bdf else str(device.index))


def calling() -> Callable[[Callable[[], Any]], Any]:
    """Make the function that answers a question on a node; of no module, so that it travels whole."""

    def call(question: Callable[[], Any]) -> Any:
        return question()

    return call
