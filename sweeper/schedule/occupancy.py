"""Who holds which devices of which node, and what is free: what a scheduler decides upon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sweeper.errors import PlacementError
from sweeper.records import Placement
from sweeper.schedule.allocator import Allocator
from sweeper.schedule.starts import Starts
from sweeper.topology import Node


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A trial as the scheduler sees it.

    Attributes:
        key: Names it; unique among those that wait.
        devices: How many it needs, on one node.
        predicted_s: How long it is expected to hold them.
        is_exclusive: Whether nothing else may run on its node.
        is_next: Whether its time is now, so that it comes before others that wait.
        start_key: Of the engine's start, which it shares with others of this key; None for one of its own.
    """

    key: str
    devices: int
    predicted_s: float
    is_exclusive: bool = False
    is_next: bool = False
    start_key: str | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """An entry on its block, and when it is expected to end."""

    entry: Entry
    block: frozenset[int]
    ends_s: float


class Occupancy:
    """The devices of one or several nodes and the trials on them."""

    def __init__(self, nodes: Sequence[Node], *, isolation: str) -> None:
        """Begin with empty nodes.

        Raises:
            PlacementError: Two nodes have one name.
        """
        names = [node.host for node in nodes]
        if len(set(names)) < len(names):
            raise PlacementError(
                f"nodes: got the names {', '.join(names)}; expected each once. Give each node its own name."
            )
        self.allocators = {node.host: Allocator(node) for node in nodes}
        self.everything = {node.host: frozenset(device.index for device in node.devices) for node in nodes}
        self.runs: dict[Placement, Run] = {}
        self.lost: set[str] = set()
        self.starts = Starts()
        self._isolation = isolation

    @property
    def devices(self) -> int:
        """How many devices there are."""
        return sum(len(devices) for devices in self.everything.values())

    @property
    def has_empty_node(self) -> bool:
        """Whether nothing runs on one of the nodes."""
        return any(not self.on(name) for name in self.allocators)

    @property
    def has_room(self) -> bool:
        """Whether one device is free where others may run, too."""
        return any(
            allocator.free_devices and not self._is_taken_whole(name)
            for name, allocator in self.allocators.items()
        )

    def on(self, name: str) -> list[Run]:
        """Return who runs on a node."""
        return [run for placement, run in self.runs.items() if placement.node == name]

    def can_hold(self, devices: int) -> bool:
        """Whether a node that is left has so many devices at all."""
        return any(1 <= devices <= len(indices) for indices in self.everything.values())

    def is_alone(self, entry: Entry) -> bool:
        """Whether nothing else may run on the node of an entry."""
        return entry.is_exclusive or self._isolation == "exclusive"

    def is_closed(self, name: str, entry: Entry) -> bool:
        """Whether an entry cannot start on a node because of its size or of who runs there."""
        if entry.devices > len(self.everything[name]) or self._is_taken_whole(name):
            return True
        return self.is_alone(entry) and bool(self.on(name))

    def fullest_first(self) -> list[str]:
        """Return the names of the nodes: empty ones are kept for wide and for exclusive trials."""
        return sorted(self.allocators, key=lambda name: len(self.allocators[name].free_devices))

    def preferred(self, name: str, entry: Entry, allowed: Sequence[frozenset[int]]) -> list[frozenset[int]]:
        """Return the parts of a node that an entry may take, best first by the engines that wait there."""
        if not self.starts:
            return list(allowed)
        return [part for within in allowed for part in self.starts.preferred(entry.start_key, name, within)]

    def blocks_for(self, entry: Entry, name: str) -> tuple[frozenset[int], ...]:
        """Return the blocks of a node that an entry could hold if the node were empty."""
        if self.is_alone(entry):
            return (self.everything[name],)
        return self.allocators[name].blocks(entry.devices)

    def free_s(self, name: str, block: frozenset[int], *, now_s: float) -> float:
        """Return when a block is free by prediction; who is late already may end at any time."""
        in_the_way = [run.ends_s for run in self.on(name) if run.block & block or self.is_alone(run.entry)]
        return max([now_s, *in_the_way])

    def begin(self, entry: Entry, placement: Placement, *, now_s: float) -> None:
        """Note who runs on devices that were acquired."""
        self.runs[placement] = Run(
            entry=entry,
            block=self.allocators[placement.node].block_of(placement),
            ends_s=now_s + entry.predicted_s,
        )
        self.starts.begin(entry.start_key, placement)

    def release(self, placement: Placement) -> None:
        """Take devices back; those of a lost node are gone with it.

        Raises:
            PlacementError: The placement is not out.
        """
        if placement.node in self.lost:
            return
        if placement.node not in self.allocators:
            raise PlacementError(
                f"schedule: got devices of node '{placement.node}' to release; expected one of "
                f"{', '.join(self.allocators)}. Release each placement where it came from."
            )
        self.allocators[placement.node].release(placement)
        del self.runs[placement]
        self.starts.end(placement)

    def lose(self, name: str) -> None:
        """Forget a node that is gone, and who ran there."""
        if name in self.allocators:
            self.lost.add(name)
            del self.allocators[name], self.everything[name]
            self.starts.lose(name)
            self.runs = {place: run for place, run in self.runs.items() if place.node != name}

    def _is_taken_whole(self, name: str) -> bool:
        return any(self.is_alone(run.entry) for run in self.on(name))
