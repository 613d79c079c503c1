"""Which devices a trial gets: a buddy allocator of aligned blocks.

A tensor-parallel engine is as fast as the slowest link between its devices, so a trial's devices must lie
together, and equally for every trial, or placements would show up as differences between settings. Ray
accounts for devices but hands out any that are free ([1, 3, 4, 6] for four); so the study takes its devices
once and this allocator divides them.

Devices have *seats* in hardware order: GPU after GPU, partition after partition, with each GPU padded to a
power of two. A block is a power of two of seats and begins at a multiple of its size. So a block of up to a
GPU's size lies within one GPU, and a larger one consists of whole GPUs. Padding makes counts that are no
power of two usable (6 or 12 cores): a padded seat is simply empty.

A request for n devices takes exactly n and holds the whole block around them. A request that is no power of
two thus keeps the rest of its block idle, so that no other trial shares its links while it is measured.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from sweeper.errors import PlacementError
from sweeper.records import Placement
from sweeper.records.plurals import amount
from sweeper.topology import Device, Node


@dataclass(frozen=True, kw_only=True)
class _Block:
    """Seats ``start`` to ``start + size - 1``, and the devices that sit there in seat order."""

    start: int
    size: int
    devices: tuple[Device, ...]

    @property
    def indices(self) -> frozenset[int]:
        return frozenset(device.index for device in self.devices)

    @property
    def is_full(self) -> bool:
        return len(self.devices) == self.size


class Allocator:
    """Hands out the devices of one node in aligned blocks, and takes them back.

    It has one owner, the driver, and is not safe to share between threads.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._seats = _seats(node)
        self._held: dict[Placement, frozenset[int]] = {}
        self._known_candidates: dict[int, list[_Block]] = {}

    @property
    def free_devices(self) -> tuple[int, ...]:
        """Indices that no block holds, ascending."""
        taken = self._taken()
        return tuple(device.index for device in self._node.devices if device.index not in taken)

    @property
    def held(self) -> tuple[Placement, ...]:
        """Placements that are out, oldest first."""
        return tuple(self._held)

    def check(self, devices: int) -> None:
        """Return quietly when a request could be met on the empty node.

        Raises:
            PlacementError: It never can.
        """
        if not 1 <= devices <= len(self._node.devices):
            raise PlacementError(
                f"placement on {self._node.host}: got a request for {amount(devices, 'device')}; "
                "expected 1 to "
                f"{len(self._node.devices)}, all that this node has. Lower the parallel size, or "
                "use a node or partition mode with more devices."
            )

    def blocks(self, devices: int) -> tuple[frozenset[int], ...]:
        """Return the blocks, free or not, that a request could get on the empty node, as device indices."""
        self.check(devices)
        return tuple(block.indices for block in self._candidates(devices))

    def block_of(self, placement: Placement) -> frozenset[int]:
        """Return all devices that a placement which is out keeps from others."""
        return self._held[placement]

    def acquire(self, devices: int, *, within: Set[int] | None = None) -> Placement | None:
        """Take this many devices in one aligned block.

        Of the blocks that are free, the one is taken whose free surroundings are smallest, so that large
        blocks stay whole for large requests.

        Args:
            devices: How many the trial needs.
            within: Indices of the devices that its block may hold; None allows all.

        Returns:
            The placement, or None when no fitting block is free now.

        Raises:
            PlacementError: The node can never meet the request.
        """
        self.check(devices)
        taken = self._taken()
        free = [
            block
            for block in self._candidates(devices)
            if not block.indices & taken and (within is None or block.indices <= within)
        ]
        if not free:
            return None
        block = min(free, key=lambda block: (self._free_surroundings(block, taken), block.size, block.start))
        placement = self._placement(block.devices[:devices])
        self._held[placement] = block.indices
        return placement

    def release(self, placement: Placement) -> None:
        """Release a placement, with all that its block held.

        Raises:
            PlacementError: It is not out: it was released before, or comes from elsewhere.
        """
        if placement not in self._held:
            out = [list(other.devices) for other in self._held]
            raise PlacementError(
                f"placement on {self._node.host}: got devices {list(placement.devices)} of {placement.node} "
                f"to release; expected one of those that are out: {out}. Release each placement once, to the "
                "allocator it came from."
            )
        del self._held[placement]

    def _taken(self) -> frozenset[int]:
        return frozenset[int]().union(*self._held.values())

    def _candidates(self, devices: int) -> list[_Block]:
        """Return the smallest aligned blocks of this node that have enough devices, free or not."""
        known = self._known_candidates.get(devices)
        if known is not None:
            return known
        size = _power_of_two_from(devices)
        while True:
            blocks = [block for block in self._blocks(size) if len(block.devices) >= devices]
            if blocks:
                self._known_candidates[devices] = blocks
                return blocks
            size *= 2

    def _blocks(self, size: int) -> list[_Block]:
        starts = sorted({seat - seat % size for seat in self._seats})
        return [self._block(start, size) for start in starts]

    def _block(self, start: int, size: int) -> _Block:
        seats = range(start, start + size)
        return _Block(
            start=start, size=size, devices=tuple(self._seats[seat] for seat in seats if seat in self._seats)
        )

    def _free_surroundings(self, block: _Block, taken: frozenset[int]) -> int:
        """Return the size of the largest block without gaps that is free and has this one in it."""
        size = block.size
        while True:
            outer = self._block(block.start - block.start % (2 * size), 2 * size)
            if not outer.is_full or outer.indices & taken:
                return size
            size *= 2

    def _placement(self, devices: tuple[Device, ...]) -> Placement:
        numa_nodes = {device.numa_node for device in devices}
        return Placement(
            node=self._node.host,
            devices=tuple(sorted(device.index for device in devices)),
            parents=tuple(sorted({device.parent for device in devices})),
            partition_mode=self._node.partition_mode,
            partitions_per_gpu=self._node.partitions_per_gpu,
            device_name=" and ".join(sorted({device.name for device in devices})),
            memory_mode=self._node.memory_mode,
            numa_node=numa_nodes.pop() if len(numa_nodes) == 1 else None,
        )


def _seats(node: Node) -> dict[int, Device]:
    """Seat the devices in hardware order, each parent padded to a power of two.

    The hardware's own numbers are used, not ranks: on a node of which only some devices may be used, a block
    must still lie where the links are.
    """
    width = _power_of_two_from(1 + max(device.partition_id for device in node.devices))
    seats = {device.parent * width + device.partition_id: device for device in node.devices}
    return dict(sorted(seats.items()))


def _power_of_two_from(count: int) -> int:
    """Return the smallest power of two that is not below ``count``."""
    return 1 << (count - 1).bit_length()
