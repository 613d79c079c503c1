"""Which settings one start can serve, and why others need a start of their own."""

from __future__ import annotations

import itertools

import pytest

from sweeper import knobs
from sweeper.knobs import live
from sweeper.records import Assignment

GRID: list[Assignment] = [
    {"max_num_seqs": seqs, "max_num_batched_tokens": tokens, "block_size": block}
    for block, seqs, tokens in itertools.product((16, 32), (8, 32), (512, 2048))
]


def test_grid_of_live_knobs_takes_one_start_for_each_value_of_others() -> None:
    found = live.groups(GRID, release="0.32.0")
    assert [len(group.members) for group in found] == [4, 4]
    first = found[0]
    assert first.start == {"max_num_seqs": 32, "max_num_batched_tokens": 2048, "block_size": 16}
    assert [first.limits(member) for member in first.members] == [
        {"max_num_batched_tokens": tokens, "max_num_seqs": seqs}
        for seqs, tokens in itertools.product((8, 32), (512, 2048))
    ]
    assert all(group.reason is None for group in found)


def test_members_keep_their_order_and_none_is_lost() -> None:
    mixed = [GRID[0], GRID[4], GRID[1], {"block_size": 16}, GRID[5]]
    found = live.groups(mixed, release="0.32.0")
    assert [list(group.members) for group in found] == [
        [GRID[0], GRID[1]],
        [GRID[4], GRID[5]],
        [{"block_size": 16}],
    ]
    assert found[2].start == {"block_size": 16}
    assert "it sets none of" in str(found[2].reason)


def test_default_left_unsaid_is_never_mixed_with_value() -> None:
    found = live.groups(
        [{"max_num_seqs": 8}, {"max_num_seqs": 8, "max_num_batched_tokens": 512}], release="0.32.0"
    )
    assert [len(group.members) for group in found] == [1, 1]


def test_equal_values_of_other_types_are_other_settings() -> None:
    found = live.groups([{"max_num_seqs": 8, "x": True}, {"max_num_seqs": 16, "x": 1}], release="0.32.0")
    assert [len(group.members) for group in found] == [1, 1]


def test_refused_settings_start_as_asked_each_by_itself() -> None:
    found = live.groups(GRID[:4], release="0.9.0")
    assert [group.start for group in found] == GRID[:4]
    assert {group.reason for group in found} == {
        "vLLM 0.9.0 is before 0.9.1, the first release read and found to allow it"
    }


@pytest.mark.parametrize("release", knobs.releases())
def test_allowed_from_first_to_last_release_that_was_read(release: str) -> None:
    reason = live.why_not_live({"max_num_seqs": 8}, release=release, accelerator="cuda")
    is_read = knobs.release_key("0.9.1") <= knobs.release_key(release) <= knobs.release_key("0.32.0")
    assert (reason is None) is is_read


@pytest.mark.parametrize(
    ("changes", "release", "reason"),
    [
        ({}, "0.33.0", "after 0.32.0"),
        ({"VLLM_USE_V1": False}, "0.9.2", "V0 engine"),
        ({"scheduler_cls": "mine.Scheduler"}, "0.32.0", "one scheduler only"),
        ({"data_parallel_size": 2}, "0.32.0", "a scheduler each"),
        ({"async_scheduling": True}, "0.11.0", "ignores the scheduler that it is given"),
        ({"max_num_seqs": "many"}, "0.32.0", "takes whole numbers"),
        ({"max_num_seqs": True}, "0.32.0", "takes whole numbers"),
    ],
)
def test_refused_with_its_reason(changes: dict[str, object], release: str, reason: str) -> None:
    refused = live.why_not_live({"max_num_seqs": 8, **changes}, release=release)  # type: ignore[dict-item]
    assert reason in str(refused)


@pytest.mark.parametrize("release", ["0.9.2", "0.11.1", "0.32.0", "0.32.0+cpu"])
def test_asynchronous_scheduling_is_no_hindrance_elsewhere(release: str) -> None:
    asked: Assignment = {"max_num_seqs": 8, "async_scheduling": True}
    assert live.why_not_live(asked, release=release) is None
