"""Which trial starts when, and on which block: decided here, without a clock and without starting anything.

Blocks are aligned (``allocator``). Among trials that wait, the widest starts first and of equally wide ones
the longest by prediction: small ones fill what large ones leave over, and short ones even out the end. Two
exceptions come before that rule. A trial that lasts longer than all that is left would take on the whole,
evenly spread, may decide when the study ends. And exclusive trials (which change the host and so run alone on
their node) start while a node is empty anyway, at the beginning or behind one another; one that comes
later waits for the end, where the node runs empty again, since every draining idles most of its devices.

Nothing starves. The first trial that finds no room reserves the block that is free soonest by prediction;
others pass it only where they stay off that block or are predicted to be gone in time (EASY backfilling;
Lifka, "The ANL/IBM SP scheduling system", 1995). The promised time is never moved back: once it is over
no other enters the block, so wrong predictions cost time and never an order without end. A trial that many
later arrivals have passed comes before all others.

Trials that share an engine's start (``starts``) go on where it is before others get its devices, in whatever
order.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from sweeper.errors import PlacementError
from sweeper.records import Placement
from sweeper.records.plurals import amount
from sweeper.schedule.occupancy import Entry, Occupancy
from sweeper.schedule.queue import Order, Queue, View, Waiting
from sweeper.topology import Node

ISOLATIONS = ("shared", "exclusive")
"""Whether trials run next to one another on a node, or one at a time."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """A trial's time on its devices, in seconds from the start of a schedule."""

    entry: Entry
    placement: Placement
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class _Reservation:
    """A block that is kept for one entry, and the time from which on no other may be in it."""

    key: str
    node: str
    block: frozenset[int]
    free_s: float

    def lets_in(self, predicted_s: float, *, now_s: float) -> bool:
        """Whether a trial that is predicted to last so long is gone in time."""
        return now_s + predicted_s <= self.free_s

    def bars(self, entry: Entry, *, now_s: float) -> Callable[[float], bool] | None:
        """Return by which prediction others may enter where an entry may not; None where it may."""
        may_enter = entry.key == self.key or self.lets_in(entry.predicted_s, now_s=now_s)
        return None if may_enter else partial(self.lets_in, now_s=now_s)


@dataclass(kw_only=True)
class _Attempt:
    """What one look at those who wait found out already: room only shrinks while trials start."""

    no_room_for: set[tuple[str, int, frozenset[int]]] = field(default_factory=set)


class Scheduler:
    """Places trials on one or several nodes. It has one owner and is not safe to share between threads.

    Attributes:
        starts: Which start that trials share is where.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        *,
        max_parallel: int | None = None,
        isolation: str = "shared",
        order: str = "longest_first",
        seed: int = 0,
    ) -> None:
        """Begin with empty nodes.

        Args:
            nodes: Each with a name of its own; a trial runs on one of them.
            max_parallel: Trials at once over all nodes; None leaves it to the devices.
            isolation: One of ``ISOLATIONS``.
            order: One of ``queue.ORDERS``.
            seed: Of the shuffled order.

        Raises:
            PlacementError: Two nodes have one name.
        """
        self._nodes = Occupancy(nodes, isolation=isolation)
        self.starts = self._nodes.starts
        self._max_parallel = max_parallel
        self._chances = random.Random(seed)
        self._waiting = Queue(order)
        self._reservation: _Reservation | None = None
        self._added = 0
        self._round = 0

    @property
    def waiting(self) -> tuple[Entry, ...]:
        """Entries that have not started, oldest first."""
        return tuple(waiting.entry for waiting in self._waiting)

    @property
    def running(self) -> tuple[Placement, ...]:
        """Placements that are out, oldest first."""
        return tuple(self._nodes.runs)

    @property
    def lost(self) -> frozenset[str]:
        """Names of nodes that are gone."""
        return frozenset(self._nodes.lost)

    @property
    def has_room(self) -> bool:
        """Whether a further trial of one device could start."""
        return not self._is_full and self._nodes.has_room

    @property
    def stranded(self) -> tuple[Entry, ...]:
        """Entries that wait and have more devices than any node that is left."""
        return tuple(entry for entry in self.waiting if not self.can_hold(entry.devices))

    def add(self, entry: Entry) -> None:
        """Queue a trial until its devices are free.

        Raises:
            PlacementError: No node has so many devices, or an entry of this key waits already.
        """
        if entry.key in self._waiting:
            raise PlacementError(
                f"schedule: got '{entry.key}' twice; expected each entry once while it waits. "
                "Add it again when it has ended."
            )
        if not self.can_hold(entry.devices):
            sizes = ", ".join(f"{name}: {len(devices)}" for name, devices in self._nodes.everything.items())
            raise PlacementError(
                f"schedule: '{entry.key}' needs {amount(entry.devices, 'device')}; expected 1 to as "
                f"many as one node has ({sizes or 'no node is left'}). Lower the parallel size."
            )
        self._added += 1
        self._waiting.add(
            Waiting(entry=entry, number=self._added, round=self._round, chance=self._chances.random())
        )

    def can_hold(self, devices: int) -> bool:
        """Whether a node that is left has so many devices at all."""
        return self._nodes.can_hold(devices)

    def predict_anew(self, predicted_s: Mapping[str, float]) -> None:
        """Replace the predictions of entries that wait, by key."""
        self._waiting.predict_anew(predicted_s)

    def remove(self, key: str) -> None:
        """Remove an entry from the queue; nothing happens if it is not queued."""
        self._waiting.remove(key)
        if self._reservation is not None and self._reservation.key == key:
            self._reservation = None

    def start(self, *, now_s: float) -> list[tuple[Entry, Placement]]:
        """Return the trials that start now, each with its devices, which it holds from here on.

        Args:
            now_s: The owner's clock, seconds; never goes back.
        """
        self._round += 1
        started: list[tuple[Entry, Placement]] = []
        attempt = _Attempt()
        order = self._in_order(now_s)
        while not self._is_full and (self._reservation is None or self.has_room):
            waiting = next(order, None)
            if waiting is None:
                break
            placement = self._place(waiting.entry, attempt, now_s=now_s)
            if placement is not None:
                self._begin(waiting, placement, now_s=now_s)
                started.append((waiting.entry, placement))
                if waiting.entry.start_key is not None:
                    # Who else shares that start is no longer best placed elsewhere.
                    order = self._in_order(now_s)
            else:
                # Where no reservation was in its way it speaks for all of its kind.
                unless = (
                    None if self._reservation is None else self._reservation.bars(waiting.entry, now_s=now_s)
                )
                if self._reservation is None:
                    self._reservation = self._reserve(waiting, order, now_s=now_s)
                order.pass_over(waiting, unless=unless)
        return started

    def release(self, placement: Placement) -> None:
        """Take the devices of a trial back; those of a lost node are gone with it.

        Raises:
            PlacementError: The placement is not out.
        """
        self._nodes.release(placement)

    def lose(self, node_name: str) -> None:
        """Forget a node that is gone: its placements are void, and nothing more is placed there."""
        self._nodes.lose(node_name)
        if self._reservation is not None and self._reservation.node == node_name:
            self._reservation = None

    # ---- who comes first ----

    def _in_order(self, now_s: float) -> Order:
        return self._waiting.in_order(
            View(
                holder=None if self._reservation is None else self._reservation.key,
                has_empty_node=self._nodes.has_empty_node,
                rest_s=self._even_rest_s(now_s),
                start_rank=self._nodes.starts.rank,
            )
        )

    def _even_rest_s(self, now_s: float) -> float:
        """How long all that waits and runs would take on all devices, evenly spread."""
        runs = sum(max(run.ends_s - now_s, 0.0) * run.entry.devices for run in self._nodes.runs.values())
        return (self._waiting.device_s + runs) / max(self._nodes.devices, 1)

    # ---- where it goes ----

    def _place(self, entry: Entry, attempt: _Attempt, *, now_s: float) -> Placement | None:
        nodes = self._nodes
        for name in nodes.fullest_first():
            if nodes.is_closed(name, entry):
                continue
            for within in nodes.preferred(name, entry, self._allowed(name, entry, now_s=now_s)):
                tried = (name, entry.devices, within)
                if len(within) < entry.devices or tried in attempt.no_room_for:
                    continue
                placement = nodes.allocators[name].acquire(entry.devices, within=within)
                if placement is not None:
                    return placement
                attempt.no_room_for.add(tried)
        return None

    def _allowed(self, name: str, entry: Entry, *, now_s: float) -> list[frozenset[int]]:
        """Return the parts of a node that an entry may take: first off the reserved block, then in it."""
        everything, reserved = self._nodes.everything[name], self._reservation
        if reserved is None or reserved.node != name or reserved.key == entry.key:
            return [everything]
        if reserved.lets_in(entry.predicted_s, now_s=now_s):
            return [everything - reserved.block, everything]
        # A trial that is alone on a node holds up a reservation anywhere on it.
        return [] if self._nodes.is_alone(entry) else [everything - reserved.block]

    def _begin(self, waiting: Waiting, placement: Placement, *, now_s: float) -> None:
        self.remove(waiting.entry.key)
        self._waiting.note_begin(waiting)
        self._nodes.begin(waiting.entry, placement, now_s=now_s)

    def _reserve(self, first: Waiting, others: Order, *, now_s: float) -> _Reservation | None:
        """Choose the block that is free soonest by prediction; who is late already may end at any time.

        It is for the first of those that wait, or for who shares the start that is on that block.
        """
        choices = [
            (self._nodes.free_s(name, block, now_s=now_s), number, name, block)
            for number, name in enumerate(self._nodes.allocators)
            if first.entry.devices <= len(self._nodes.everything[name])
            for block in self._nodes.blocks_for(first.entry, name)
        ]
        if not choices:
            return None
        free_s, _, name, block = min(choices, key=lambda choice: choice[:2])
        found = _Reservation(key=first.entry.key, node=name, block=block, free_s=free_s)
        start_key = self._nodes.starts.on(name, block)
        if start_key is None or self._waiting.is_late(first) or first.entry.is_next:
            return found
        follows = (one.entry.key for one in (first, *others.left()) if one.entry.start_key == start_key)
        return replace(found, key=next(follows, found.key))

    @property
    def _is_full(self) -> bool:
        return self._max_parallel is not None and len(self._nodes.runs) >= self._max_parallel


def play(
    scheduler: Scheduler,
    entries: Sequence[Entry],
    *,
    lasts_s: Callable[[Entry], float],
    seen: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Span, ...]:
    """Run a schedule on a virtual clock that jumps from end to end.

    Args:
        scheduler: With nothing waiting and nothing running.
        entries: All of them wait from the start.
        lasts_s: How long each really takes, seconds, which may differ from its prediction.
        seen: Is called with the entries started so far and all there are.

    Returns:
        Who held which devices when, in order of starts.
    """
    for entry in entries:
        scheduler.add(entry)
    now_s, spans = 0.0, list[Span]()
    ends: list[tuple[float, int]] = []
    while True:
        for entry, placement in scheduler.start(now_s=now_s):
            span = Span(entry=entry, placement=placement, start_s=now_s, end_s=now_s + lasts_s(entry))
            heapq.heappush(ends, (span.end_s, len(spans)))
            spans.append(span)
        seen(len(spans), len(entries))
        if not ends:
            return tuple(spans)
        now_s = ends[0][0]
        while ends and ends[0][0] == now_s:
            scheduler.release(spans[heapq.heappop(ends)[1]].placement)


def makespan_s(spans: Sequence[Span]) -> float:
    """Time from the first start to the last end, seconds."""
    return max((span.end_s for span in spans), default=0.0) - min((span.start_s for span in spans), default=0)


def idle_share(spans: Sequence[Span], *, devices: int) -> float:
    """Share of the devices' time in which no trial held them, 0 to 1, up to the last end.

    What an exclusive trial or a block of odd size keeps others from using counts as idle.
    """
    whole = makespan_s(spans) * devices
    held = sum((span.end_s - span.start_s) * len(span.placement.devices) for span in spans)
    return 1 - held / whole if whole else 0.0
