"""Which engine start is on which block: entries that share one go on where it is.

An engine outlives its trial until another one needs its devices. So the next entry of the same start is best
placed there, and any other best elsewhere; and while a start has a block to itself, a second one of the same
kind is the last use that a free block is put to.
"""

from __future__ import annotations

from sweeper.records import Placement


class Starts:
    """The starts that were last made, each on its block."""

    def __init__(self) -> None:
        """Begin without any."""
        self._on: dict[Placement, str] = {}
        self._busy: set[Placement] = set()

    def __bool__(self) -> bool:
        return bool(self._on)

    @property
    def idle(self) -> tuple[str, ...]:
        """Starts on blocks that are free, by key."""
        return tuple(dict.fromkeys(key for place, key in self._on.items() if place not in self._busy))

    def begin(self, start_key: str | None, placement: Placement) -> None:
        """Note that an entry holds a block: whatever was on its devices has made room."""
        devices = set(placement.devices)
        self._on = {
            other: key
            for other, key in self._on.items()
            if other.node != placement.node or not devices & set(other.devices)
        }
        self._busy.add(placement)
        if start_key is not None:
            self._on[placement] = start_key

    def end(self, placement: Placement) -> None:
        """Note that a block was given back; its start may stay there."""
        self._busy.discard(placement)

    def lose(self, node: str) -> None:
        """Forget a node."""
        self._on = {placement: key for placement, key in self._on.items() if placement.node != node}
        self._busy = {placement for placement in self._busy if placement.node != node}

    def on(self, node: str, block: frozenset[int]) -> str | None:
        """Return the start that has a block to itself; None where none has."""
        found = (key for p, key in self._on.items() if p.node == node and block == frozenset(p.devices))
        return next(found, None)

    def rank(self, start_key: str | None) -> int:
        """Return 0 where a start waits for its next entry, 2 where all of its kind are busy, else 1."""
        if start_key is None:
            return 1
        blocks = [placement for placement, key in self._on.items() if key == start_key]
        if not blocks:
            return 1
        return 2 if all(placement in self._busy for placement in blocks) else 0

    def preferred(self, start_key: str | None, node: str, allowed: frozenset[int]) -> list[frozenset[int]]:
        """Return parts of a node's devices in the order in which an entry is best placed on them.

        Args:
            start_key: Of the entry.
            node: The node.
            allowed: Those of its devices that the entry may have; the last part is all of them.
        """
        free = {p: k for p, k in self._on.items() if p.node == node and p not in self._busy}
        own = [frozenset(placement.devices) for placement, key in free.items() if key == start_key]
        others = frozenset(d for placement in free for d in placement.devices)
        return [
            *(block for block in own if block <= allowed),
            *([allowed - others] if others else []),
            allowed,
        ]
