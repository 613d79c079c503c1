"""Which trial starts when and where: widest and longest first, alone where asked, nobody for ever."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.errors import PlacementError
from sweeper.records import Placement
from sweeper.schedule.allocator import Allocator
from sweeper.schedule.occupancy import Entry
from sweeper.schedule.scheduler import Scheduler, Span, idle_share, makespan_s, play
from sweeper.topology import Node, modelled_mi300x

SPX = modelled_mi300x()
CPX = modelled_mi300x("CPX")


def named(name: str, node: Node = SPX) -> Node:
    return replace(node, host=name)


def entry(key: str, devices: int, predicted_s: float = 10.0, *, alone: bool = False) -> Entry:
    return Entry(key=key, devices=devices, predicted_s=predicted_s, is_exclusive=alone)


def started(scheduler: Scheduler, *, now_s: float) -> dict[str, Placement]:
    return {entry.key: placement for entry, placement in scheduler.start(now_s=now_s)}


def waiting_in(scheduler: Scheduler, *entries: Entry) -> Scheduler:
    for one in entries:
        scheduler.add(one)
    return scheduler


# --- order ---------------------------------------------------------------------------------------------


def test_widest_start_first_and_of_equally_wide_ones_longest() -> None:
    scheduler = waiting_in(
        Scheduler((SPX,), max_parallel=1),
        entry("narrow", 1, 3),
        entry("short", 4, 1),
        entry("long", 4, 2),
        entry("wide", 8, 10),
    )
    spans = play(scheduler, (), lasts_s=lambda one: one.predicted_s)
    assert [span.entry.key for span in spans] == ["wide", "long", "short", "narrow"]


def test_order_can_be_as_written_or_shuffled_by_seed() -> None:
    def order(**options: object) -> list[str]:
        scheduler = Scheduler((SPX,), max_parallel=1, **options)  # type: ignore[arg-type]
        entries = [entry(str(number), 1 + number % 4) for number in range(8)]
        return [span.entry.key for span in play(scheduler, entries, lasts_s=lambda one: one.predicted_s)]

    assert order(order="as_written") == [str(number) for number in range(8)]
    assert order(order="shuffled", seed=1) == order(order="shuffled", seed=1)
    assert order(order="shuffled", seed=1) != order(order="shuffled", seed=2)
    assert sorted(order(order="shuffled", seed=1)) == [str(number) for number in range(8)]


def test_trial_as_long_as_all_rest_starts_before_wider_ones() -> None:
    # 4 x 10 s on 4 devices and one device for 30 s: 190 device-seconds, 24 s on each of 8 devices.
    wide = [entry(f"wide {number}", 4) for number in range(4)]
    spans = play(Scheduler((SPX,)), [*wide, entry("long", 1, 30)], lasts_s=lambda one: one.predicted_s)
    assert spans[0].entry.key == "long"
    # Beside it one half of the node runs the wide ones one after another: 40 s. With the wide ones first, two
    # at a time for 20 s, the long one would end at 50 s.
    assert makespan_s(spans) == 40


# --- reservations --------------------------------------------------------------------------------------


def test_wide_trial_is_not_starved_by_narrow_ones() -> None:
    scheduler = waiting_in(Scheduler((SPX,)), *(entry(f"half {n}", 4, 10 + n) for n in range(2)))
    first = started(scheduler, now_s=0)
    scheduler.add(entry("whole", 8))
    assert started(scheduler, now_s=1) == {}
    scheduler.release(first["half 0"])
    # Half the node is free until 11 s, when the other half is, too. What is over by then may run there.
    waiting_in(scheduler, entry("too long", 1, 9.5), entry("in time", 1, 5))
    assert list(started(scheduler, now_s=2)) == ["in time"]


def test_no_one_enters_reserved_block_once_its_time_has_come() -> None:
    scheduler = waiting_in(Scheduler((SPX,)), *(entry(f"half {n}", 4, 10) for n in range(2)))
    first = started(scheduler, now_s=0)
    scheduler.add(entry("whole", 8))
    started(scheduler, now_s=1)
    scheduler.release(first["half 0"])
    # The other half was to end at 10 s and did not: whole keeps its turn, however short the others are.
    scheduler.add(entry("tiny", 1, 0.1))
    assert started(scheduler, now_s=10) == {}
    scheduler.release(first["half 1"])
    assert list(started(scheduler, now_s=50)) == ["whole"]


def test_narrow_trials_run_beside_reserved_block() -> None:
    scheduler = waiting_in(Scheduler((SPX,), order="as_written"), entry("a", 4, 10), entry("b", 2, 90))
    first = started(scheduler, now_s=0)
    waiting_in(scheduler, entry("c", 4, 50), entry("d", 2, 500))
    # c waits for the block of a, which is free at 10 s; the rest of the node is nobody's.
    assert list(started(scheduler, now_s=1)) == ["d"]
    scheduler.release(first["a"])
    assert started(scheduler, now_s=10)["c"].devices == first["a"].devices


def test_trial_that_many_later_ones_have_passed_comes_first() -> None:
    scheduler = waiting_in(Scheduler((SPX,), max_parallel=1), entry("old", 1, 1))
    held = waiting_in(scheduler, entry("wide 0", 8)).start(now_s=0)[0][1]
    for number in range(1, 100):
        scheduler.release(held)
        scheduler.add(entry(f"wide {number}", 8))
        ((one, held),) = scheduler.start(now_s=number)
        if one.key == "old":
            break
    # 32 that arrived later may pass; 'wide 0' arrived together with it.
    assert number == 33


# --- exclusive trials ----------------------------------------------------------------------------------


def test_exclusive_trials_run_first_and_one_behind_other() -> None:
    entries = [entry("a", 8), entry("host 1", 1, alone=True), entry("b", 4), entry("host 2", 4, alone=True)]
    spans = play(Scheduler((SPX,)), entries, lasts_s=lambda one: one.predicted_s)
    assert [(span.entry.key, span.start_s) for span in spans] == [
        ("host 2", 0),
        ("host 1", 10),
        ("a", 20),
        ("b", 30),
    ]


def test_exclusive_trial_that_comes_late_waits_for_end_and_drains_nothing() -> None:
    scheduler = waiting_in(Scheduler((SPX,)), *(entry(f"half {n}", 4) for n in range(5)))
    out = [place for _, place in scheduler.start(now_s=0)]
    scheduler.add(entry("host", 1, alone=True))
    seen, now_s = [], 0.0
    while out:
        now_s += 10
        scheduler.release(out.pop(0))
        for one, place in scheduler.start(now_s=now_s):
            seen.append(one.key)
            out.append(place)
    assert seen == ["half 2", "half 3", "half 4", "host"]


def test_beside_exclusive_trial_only_other_nodes_are_used() -> None:
    scheduler = Scheduler((named("one"), named("two")))
    waiting_in(scheduler, entry("host", 1, alone=True), entry("a", 4), entry("b", 4), entry("c", 1))
    places = started(scheduler, now_s=0)
    others = {places[key].node for key in ("a", "b")}
    assert list(places) == ["host", "a", "b"]
    assert others == {"two"} and places["host"].node == "one"


def test_exclusive_isolation_runs_one_trial_at_time_on_node() -> None:
    scheduler = Scheduler((named("one"), named("two")), isolation="exclusive")
    spans = play(scheduler, [entry(str(n), 1) for n in range(4)], lasts_s=lambda one: one.predicted_s)
    assert [(span.placement.node, span.start_s) for span in spans] == [
        ("one", 0),
        ("two", 0),
        ("one", 10),
        ("two", 10),
    ]


# --- nodes ---------------------------------------------------------------------------------------------


def test_lost_node_loses_only_its_own() -> None:
    scheduler = waiting_in(Scheduler((named("one"), named("two"))), entry("a", 8), entry("b", 8))
    places = started(scheduler, now_s=0)
    assert {place.node for place in places.values()} == {"one", "two"}
    lost = next(place for place in places.values() if place.node == "one")
    kept = next(place for place in places.values() if place.node == "two")
    scheduler.lose("one")
    assert scheduler.running == (kept,)
    scheduler.release(lost)  # its result still comes, and frees nothing
    scheduler.add(entry("a", 8))
    assert started(scheduler, now_s=1) == {}
    scheduler.release(kept)
    assert started(scheduler, now_s=2)["a"].node == "two"
    assert scheduler.lost == {"one"}


def test_what_fits_on_no_node_that_is_left_is_stranded() -> None:
    scheduler = waiting_in(Scheduler((named("small"), named("large", CPX))), entry("wide", 16), entry("b", 8))
    scheduler.lose("large")
    assert [one.key for one in scheduler.stranded] == ["wide"]
    assert list(started(scheduler, now_s=0)) == ["b"]
    assert not scheduler.can_hold(16)
    with pytest.raises(PlacementError, match=r"'x' needs 16 devices; expected 1 to .*\(small: 8\)"):
        scheduler.add(entry("x", 16))


def test_mistakes_of_owner_are_named() -> None:
    with pytest.raises(PlacementError, match="names one, one; expected each once"):
        Scheduler((named("one"), named("one")))
    scheduler = waiting_in(Scheduler((SPX,)), entry("a", 1))
    with pytest.raises(PlacementError, match="got 'a' twice"):
        scheduler.add(entry("a", 1))
    foreign = Allocator(named("elsewhere")).acquire(1)
    assert foreign is not None
    with pytest.raises(PlacementError, match="node 'elsewhere' to release; expected one of modelled"):
        scheduler.release(foreign)


def test_better_prediction_and_withdrawal_count() -> None:
    scheduler = waiting_in(Scheduler((SPX,), max_parallel=1), entry("a", 8, 5), entry("b", 8, 4))
    scheduler.predict_anew({"b": 6})
    assert list(started(scheduler, now_s=0)) == ["b"]
    scheduler.remove("a")
    assert scheduler.waiting == ()
    assert not scheduler.has_room


def test_makespan_and_idle_share_are_those_of_devices() -> None:
    place = Allocator(SPX).acquire(4)
    assert place is not None
    spans = [
        Span(entry=entry("a", 4), placement=place, start_s=0, end_s=10),
        Span(entry=entry("b", 4), placement=place, start_s=10, end_s=20),
    ]
    # 4 of 8 devices for the whole 20 s
    assert (makespan_s(spans), idle_share(spans, devices=8)) == (20, 0.5)
    assert (makespan_s([]), idle_share([], devices=8)) == (0, 0)


# --- laws ----------------------------------------------------------------------------------------------

ENTRIES = st.lists(
    st.builds(
        lambda devices, lasts_s, factor, alone: (devices, lasts_s, lasts_s * factor, alone),
        st.sampled_from((1, 2, 3, 4, 8)),
        st.floats(1, 10),
        st.sampled_from((0.01, 0.5, 1.0, 2.0, 100.0)),
        st.sampled_from((False, False, False, False, True)),
    ),
    min_size=1,
    max_size=25,
)


def check_state(held: dict[str, tuple[Entry, Placement]], nodes: dict[str, Node], isolation: str) -> None:
    """At this moment blocks are aligned, disjoint and of devices that exist, and who is alone is alone."""
    for name, node in nodes.items():
        here = [(one, place) for one, place in held.values() if place.node == name]
        used = [device for _, place in here for device in place.devices]
        assert len(used) == len(set(used))
        assert set(used) <= {device.index for device in node.devices}
        for one, place in here:
            assert len(place.devices) == one.devices
            size = next(size for size in (1, 2, 4, 8) if size >= one.devices)
            assert place.devices[0] % size == 0
            assert place.devices == tuple(range(place.devices[0], place.devices[0] + one.devices))
        if isolation == "exclusive" or any(one.is_exclusive for one, _ in here):
            assert len(here) <= 1


@settings(deadline=None, max_examples=60)
@given(
    wanted=ENTRIES,
    modes=st.lists(st.sampled_from(("SPX", "CPX")), min_size=1, max_size=3),
    isolation=st.sampled_from(("shared", "shared", "exclusive")),
    order=st.sampled_from(("longest_first", "as_written", "shuffled")),
    max_parallel=st.sampled_from((None, None, 1, 3)),
    lost_after=st.integers(1, 30),
)
def test_blocks_stay_apart_and_everything_ends_whatever_predictions_say(
    wanted: list[tuple[int, float, float, bool]],
    modes: list[str],
    isolation: str,
    order: str,
    max_parallel: int | None,
    lost_after: int,
) -> None:
    nodes = {f"n{i}": named(f"n{i}", modelled_mi300x(mode)) for i, mode in enumerate(modes)}
    scheduler = Scheduler(
        tuple(nodes.values()), isolation=isolation, order=order, max_parallel=max_parallel, seed=1
    )
    lasts_s = {str(n): lasts for n, (_, lasts, _, _) in enumerate(wanted)}
    entries = [entry(str(n), devices, seconds, alone=alone) for n, (devices, _, seconds, alone) in
               enumerate(wanted)]  # fmt: skip
    late = entries[len(entries) // 2 :]
    waiting_in(scheduler, *entries[: len(entries) // 2])
    held: dict[str, tuple[Entry, Placement]] = {}
    ends: dict[str, float] = {}
    done: list[str] = []
    again: set[str] = set()
    now_s, events = 0.0, 0
    while held or scheduler.waiting or late:
        if late:  # arrivals over time, as a search has them
            scheduler.add(late.pop(0))
        for one, place in scheduler.start(now_s=now_s):
            assert place.node not in scheduler.lost
            held[one.key] = (one, place)
            ends[one.key] = now_s + lasts_s[one.key]
        check_state(held, nodes, isolation)
        assert max_parallel is None or len(held) <= max_parallel
        # Nobody waits beside empty nodes.
        assert held or not scheduler.waiting
        if not held:
            continue
        events += 1
        if events == lost_after and len(nodes) > 1:
            victims = {key for key, (_, place) in held.items() if place.node == "n0"}
            others = {place for _, place in held.values() if place.node != "n0"}
            scheduler.lose("n0")
            assert set(scheduler.running) == others
            for key in sorted(victims):
                one, place = held.pop(key)
                scheduler.release(place)
                scheduler.add(one)
                again.add(key)
            continue
        key = min(held, key=lambda name: ends[name])
        now_s = ends[key]
        scheduler.release(held.pop(key)[1])
        done.append(key)
    assert sorted(done) == sorted(lasts_s)
    assert again <= set(done)


# --- starts that several entries share -----------------------------------------------------------------


def sharing(key: str, start_key: str | None, devices: int = 1) -> Entry:
    return replace(entry(key, devices), start_key=start_key)


def order_on(node: Node, *entries: Entry, order: str = "as_written") -> list[tuple[str, tuple[int, ...]]]:
    spans = play(Scheduler((node,), order=order), entries, lasts_s=lambda one: one.predicted_s)
    return [(span.entry.key, span.placement.devices) for span in spans]


def test_entries_of_one_start_follow_one_another() -> None:
    one_gpu = replace(SPX, devices=SPX.devices[:1])
    entries = [
        sharing("a", "x"),
        sharing("own", None),
        sharing("b", "x"),
        sharing("c", "y"),
        sharing("d", "x"),
    ]
    assert [key for key, _ in order_on(one_gpu, *entries)] == ["a", "b", "d", "own", "c"]


def test_each_start_goes_on_where_it_is() -> None:
    two_gpus = replace(SPX, devices=SPX.devices[:2])
    found = order_on(two_gpus, *(sharing(f"{start}{n}", start) for n in range(3) for start in ("x", "y")))
    assert {(key[0], devices) for key, devices in found} == {("x", (0,)), ("y", (1,))}


def test_start_is_made_twice_only_where_nothing_else_waits() -> None:
    two_gpus = replace(SPX, devices=SPX.devices[:2])
    entries = [*(sharing(f"x{n}", "x") for n in range(4)), sharing("own", None)]
    found = order_on(two_gpus, *entries)
    assert found[:2] == [("x0", (0,)), ("own", (1,))]
    assert {devices for key, devices in found if key != "own"} == {(0,), (1,)}


def test_block_that_others_leave_is_not_kept_for_a_start_elsewhere() -> None:
    two_gpus = replace(SPX, devices=SPX.devices[:2])
    entries = [sharing("x0", "x"), sharing("x1", "x"), entry("own", 1, 1.0), entry("own2", 1, 1.0)]
    assert [key for key, _ in order_on(two_gpus, *entries)] == ["x0", "own", "own2", "x1"]


def test_entry_of_its_own_start_takes_block_where_no_engine_waits() -> None:
    scheduler = waiting_in(Scheduler((SPX,)), sharing("a", "x"))
    first = started(scheduler, now_s=0.0)["a"]
    scheduler.release(first)
    waiting_in(scheduler, sharing("own", None))
    assert started(scheduler, now_s=1.0)["own"].devices != first.devices
    waiting_in(scheduler, sharing("b", "x"))
    assert started(scheduler, now_s=2.0)["b"] == first


def test_wide_entry_is_not_held_up_for_ever_by_start() -> None:
    scheduler = waiting_in(Scheduler((SPX,)), *(sharing(f"x{n}", "x") for n in range(9)))
    running, passed = list(started(scheduler, now_s=0.0).values()), 0
    waiting_in(scheduler, sharing("wide", None, 8))
    for now in range(1, 500):
        scheduler.release(running.pop(0))
        waiting_in(scheduler, sharing(f"later{now}", "x"))
        begun = started(scheduler, now_s=float(now))
        if "wide" in begun:
            break
        running += begun.values()
        passed += len(begun)
    assert "wide" in begun
    assert passed < 64


def test_lost_node_takes_its_starts_with_it() -> None:
    scheduler = waiting_in(Scheduler((named("one"), named("two"))), sharing("a", "x"))
    first = started(scheduler, now_s=0.0)["a"]
    scheduler.lose(first.node)
    waiting_in(scheduler, sharing("b", "x"))
    assert started(scheduler, now_s=1.0)["b"].node != first.node
