"""A trial's devices lie together in an aligned block, and blocks never share a device."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sweeper.errors import PlacementError
from sweeper.records import Placement, Platform
from sweeper.schedule.allocator import Allocator
from sweeper.topology import Device, Node, modelled_mi300x, restrict


def cpu_node(*cores_per_numa_node: int) -> Node:
    """A machine with this many cores on each of its NUMA nodes."""
    seats = [(numa, rank) for numa, cores in enumerate(cores_per_numa_node) for rank in range(cores)]
    devices = tuple(
        Device(index=index, parent=numa, partition_id=rank, name="core", numa_node=numa)
        for index, (numa, rank) in enumerate(seats)
    )
    return Node(host="laptop", platform=Platform.CPU, devices=devices, source="a test")


def taken(allocator: Allocator, devices: int) -> Placement:
    """Acquire a block that must be free."""
    placement = allocator.acquire(devices)
    assert placement is not None
    return placement


# --- examples ------------------------------------------------------------------------------------------


def test_placement_says_everything_about_its_block() -> None:
    allocator = Allocator(modelled_mi300x("CPX", "NPS4"))
    assert allocator.acquire(8) == Placement(
        node="modelled",
        devices=(0, 1, 2, 3, 4, 5, 6, 7),
        parents=(0,),
        partition_mode="CPX",
        partitions_per_gpu=8,
        memory_mode="NPS4",
        device_name="modelled AMD Instinct MI300X",
        numa_node=0,
    )


def test_four_partitions_are_aligned_when_scattered_ones_are_free() -> None:
    # With 1, 3, 4 and 6 free, Ray would give just these to a request for four.
    allocator = Allocator(restrict(modelled_mi300x("CPX"), range(8), said_by="test"))
    ones = [taken(allocator, 1) for _ in range(8)]
    for placement in ones:
        if placement.devices[0] in (1, 3, 4, 6):
            allocator.release(placement)
    assert allocator.free_devices == (1, 3, 4, 6)
    assert allocator.acquire(4) is None
    assert allocator.acquire(2) is None
    for placement in ones:
        if placement.devices[0] in (5, 7):
            allocator.release(placement)
    assert taken(allocator, 4).devices == (4, 5, 6, 7)


def test_small_request_goes_where_node_is_broken_already() -> None:
    allocator = Allocator(modelled_mi300x("CPX"))
    assert taken(allocator, 1).devices == (0,)
    assert taken(allocator, 4).devices == (4, 5, 6, 7)
    # Free are 1, 2-3 and the whole GPUs 1 to 7: a single one fits best beside device 0.
    assert taken(allocator, 1).devices == (1,)
    assert taken(allocator, 2).devices == (2, 3)
    assert taken(allocator, 8).devices == tuple(range(8, 16))


def test_whole_gpu_stays_whole_while_broken_one_has_room() -> None:
    allocator = Allocator(modelled_mi300x("CPX"))
    first = taken(allocator, 8)
    taken(allocator, 8)
    assert taken(allocator, 4).devices == (16, 17, 18, 19)
    allocator.release(first)
    # GPU 0 comes first, but GPU 2 is broken already.
    assert taken(allocator, 4).devices == (20, 21, 22, 23)
    assert taken(allocator, 8).devices == (0, 1, 2, 3, 4, 5, 6, 7)


def test_large_block_consists_of_whole_gpus() -> None:
    allocator = Allocator(modelled_mi300x("CPX"))
    taken(allocator, 1)
    placement = taken(allocator, 16)
    # GPU 0 is broken, so its buddy GPU 1 is passed over too: blocks of two GPUs begin at even ones.
    assert placement.parents == (2, 3)
    assert placement.devices == tuple(range(16, 32))


def test_unpartitioned_gpus_are_aligned_among_themselves() -> None:
    allocator = Allocator(modelled_mi300x())
    assert taken(allocator, 2).devices == (0, 1)
    placement = taken(allocator, 4)
    assert placement.devices == (4, 5, 6, 7)
    assert placement.numa_node == 1
    assert allocator.acquire(4) is None
    assert taken(allocator, 2).devices == (2, 3)


def test_block_across_numa_nodes_has_none() -> None:
    assert taken(Allocator(modelled_mi300x()), 8).numa_node is None


def test_uneven_request_takes_its_number_and_holds_block_around_it() -> None:
    allocator = Allocator(modelled_mi300x())
    assert taken(allocator, 3).devices == (0, 1, 2)
    assert allocator.free_devices == (4, 5, 6, 7)  # 3 is held, too
    assert taken(allocator, 1).devices == (4,)


def test_uneven_request_beyond_gpu_holds_whole_gpus() -> None:
    allocator = Allocator(modelled_mi300x("CPX"))
    assert taken(allocator, 12).devices == tuple(range(12))
    assert allocator.free_devices == tuple(range(16, 64))


@pytest.mark.parametrize("cores", [1, 2, 3, 6, 12])
def test_all_cores_can_be_taken_at_once_or_one_by_one(cores: int) -> None:
    allocator = Allocator(cpu_node(cores))
    whole = taken(allocator, cores)
    assert whole.devices == tuple(range(cores))
    allocator.release(whole)
    singles = [taken(allocator, 1) for _ in range(cores)]
    assert sorted(single.devices[0] for single in singles) == list(range(cores))
    assert allocator.acquire(1) is None


def test_six_cores_hold_one_block_of_four_and_one_of_two() -> None:
    allocator = Allocator(cpu_node(6))
    # 4 and 5 have no buddies, so taking them leaves 0 to 3 whole.
    assert taken(allocator, 2).devices == (4, 5)
    assert taken(allocator, 4).devices == (0, 1, 2, 3)


def test_cores_of_one_request_lie_on_one_numa_node_while_they_fit() -> None:
    allocator = Allocator(cpu_node(6, 6))
    assert taken(allocator, 6).numa_node == 0
    assert taken(allocator, 6).devices == (6, 7, 8, 9, 10, 11)
    across = taken(Allocator(cpu_node(6, 6)), 8)
    assert (across.parents, across.numa_node) == ((0, 1), None)


def test_restricted_node_keeps_blocks_where_links_are() -> None:
    # Of devices 3 to 6, only 4-5 are an aligned pair: 3 and 6 each lost their buddy.
    allocator = Allocator(restrict(modelled_mi300x("CPX"), [3, 4, 5, 6], said_by="test"))
    assert taken(allocator, 2).devices == (4, 5)
    assert allocator.acquire(2) is None
    assert allocator.free_devices == (3, 6)


def test_devices_follow_hardware_when_numbers_do_not() -> None:
    # Numbered partition by partition: 0-3 are the first halves of four GPUs, 4-7 the second ones.
    devices = tuple(
        Device(index=4 * half + gpu, parent=gpu, partition_id=half, name="GPU")
        for half in range(2)
        for gpu in range(4)
    )
    node = Node(host="h", platform=Platform.MI300X, devices=devices, source="a test", partition_mode="DPX")
    placement = taken(Allocator(node), 2)
    assert (placement.devices, placement.parents) == ((0, 4), (0,))


def test_held_lists_what_is_out() -> None:
    allocator = Allocator(modelled_mi300x())
    first, second = taken(allocator, 4), taken(allocator, 2)
    assert list(allocator.held) == [first, second]
    allocator.release(first)
    assert list(allocator.held) == [second]


# --- refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("devices", [-1, 0, 9])
def test_request_that_can_never_fit_is_refused(devices: int) -> None:
    allocator = Allocator(modelled_mi300x())
    message = rf"placement on modelled: got a request for {devices} devices; expected 1 to 8"
    with pytest.raises(PlacementError, match=message):
        allocator.check(devices)
    with pytest.raises(PlacementError, match=message):
        allocator.acquire(devices)


def test_check_does_not_mind_full_node() -> None:
    allocator = Allocator(modelled_mi300x())
    taken(allocator, 8)
    allocator.check(8)
    assert allocator.acquire(1) is None


def test_placement_released_twice_is_refused() -> None:
    allocator = Allocator(modelled_mi300x())
    placement, other = taken(allocator, 2), taken(allocator, 1)
    allocator.release(placement)
    with pytest.raises(
        PlacementError, match=r"got devices \[0, 1\] of modelled to release; expected one of .*\[\[2\]\]"
    ):
        allocator.release(placement)
    assert allocator.held == (other,)


def test_placement_of_another_node_is_refused() -> None:
    allocator = Allocator(modelled_mi300x())
    foreign = replace(taken(allocator, 2), node="elsewhere")
    with pytest.raises(PlacementError, match=r"got devices \[0, 1\] of elsewhere to release"):
        allocator.release(foreign)
    assert allocator.free_devices == (2, 3, 4, 5, 6, 7)


# --- laws ----------------------------------------------------------------------------------------------

NODES = st.one_of(
    st.sampled_from([modelled_mi300x(mode) for mode in ("SPX", "DPX", "QPX", "CPX")]),
    st.lists(st.integers(1, 9), min_size=1, max_size=3).map(lambda cores: cpu_node(*cores)),
    st.sets(st.integers(0, 63), min_size=1).map(
        lambda kept: restrict(modelled_mi300x("CPX"), kept, said_by="test")
    ),
)


def block_size(devices: int) -> int:
    """The power of two that holds a request."""
    return next(size for size in (1, 2, 4, 8, 16, 32, 64) if size >= devices)


@given(node=NODES, data=st.data())
def test_any_sequence_keeps_laws_and_leaves_node_whole(node: Node, data: st.DataObject) -> None:
    allocator = Allocator(node)
    everything = tuple(device.index for device in node.devices)
    parent_of = {device.index: device.parent for device in node.devices}
    largest = max(list(parent_of.values()).count(parent) for parent in node.parents)
    out: list[Placement] = []
    for _ in range(data.draw(st.integers(1, 20))):
        if out and data.draw(st.sampled_from([True, False])):
            allocator.release(out.pop(data.draw(st.integers(0, len(out) - 1))))
        else:
            devices = data.draw(st.integers(1, len(everything)))
            placement = allocator.acquire(devices)
            if placement is None:
                continue
            out.append(placement)
            assert len(placement.devices) == devices
            assert list(placement.devices) == sorted(placement.devices)
            if devices <= largest and len(placement.parents) > 1:
                # Only when no single parent has so many devices in a block at all may it cross.
                assert not any(fits_in_one_parent(node, parent, devices) for parent in node.parents)
        used = [index for placement in out for index in placement.devices]
        assert len(set(used)) == len(used)
        assert not set(used) & set(allocator.free_devices)
    for placement in out:
        allocator.release(placement)
    assert allocator.free_devices == everything
    assert taken(allocator, len(everything)).devices == everything


def fits_in_one_parent(node: Node, parent: int, devices: int) -> bool:
    return sum(device.parent == parent for device in node.devices) >= devices


class AlignedBlocks(RuleBasedStateMachine):
    """An MI300X node in CPX against a model of it: 64 flags in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.allocator = Allocator(modelled_mi300x("CPX", "NPS4"))
        self.is_free = [True] * 64
        self.out: list[Placement] = []

    def block(self, placement: Placement) -> range:
        """All that a placement holds: its devices and the rest of their block."""
        size = block_size(len(placement.devices))
        return range(placement.devices[0], placement.devices[0] + size)

    @rule(devices=st.integers(1, 64))
    def acquire(self, devices: int) -> None:
        size = block_size(devices)
        there_is_room = any(all(self.is_free[start : start + size]) for start in range(0, 64, size))
        placement = self.allocator.acquire(devices)
        assert (placement is not None) == there_is_room
        if placement is None:
            return
        block = self.block(placement)
        assert placement.devices == tuple(block)[:devices]
        assert block.start % size == 0
        assert all(self.is_free[index] for index in block)
        assert len(placement.parents) == max(1, -(-devices // 8))
        for index in block:
            self.is_free[index] = False
        self.out.append(placement)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        placement = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        self.allocator.release(placement)
        for index in self.block(placement):
            self.is_free[index] = True

    @invariant()
    def free_devices_agree(self) -> None:
        assert self.allocator.free_devices == tuple(i for i, free in enumerate(self.is_free) if free)
        assert self.allocator.held == tuple(self.out)


TestAlignedBlocks = AlignedBlocks.TestCase
