"""What an assignment becomes on a release that lacks some of its knobs."""

from __future__ import annotations

import csv
from importlib import resources

import pytest

from sweeper import knobs
from sweeper.knobs.history import runs_of


def test_knob_that_another_took_the_place_of_is_translated_and_the_rest_is_kept() -> None:
    found = knobs.translated({"num_scheduler_steps": 10, "max_num_seqs": 64}, release="0.32.0")
    assert found.assignment == {"max_num_seqs": 64, "async_scheduling": True}
    assert found.changes == ("num_scheduler_steps=10 becomes async_scheduling=True",)


def test_value_that_needs_nothing_is_left_out() -> None:
    found = knobs.translated({"num_scheduler_steps": 1}, release="0.32.0")
    assert found.assignment == {}
    assert found.changes == ("num_scheduler_steps is left out (V1 overlaps the work of the host by itself)",)


def test_what_was_given_for_the_new_knob_stands() -> None:
    given = {"num_scheduler_steps": 10, "async_scheduling": False}
    assert knobs.translated(given, release="0.10.1").assignment == {"async_scheduling": False}


def test_successor_that_is_gone_too_is_left_out() -> None:
    # AMD's VLLM_USE_ROCM_CUSTOM_PAGED_ATTN became upstream's in 0.8.3, which went with 0.19.0.
    given = {"VLLM_USE_ROCM_CUSTOM_PAGED_ATTN": 1}
    assert knobs.translated(given, release="0.18.1").assignment == {"VLLM_ROCM_CUSTOM_PAGED_ATTN": 1}
    assert knobs.translated(given, release="0.19.0").assignment == {}


@pytest.mark.parametrize(
    ("names", "release", "expected"),
    [
        (["async_scheduling"], "0.9.2", "0.10.0"),
        (["async_scheduling", "stream_interval"], "0.9.2", "0.11.1"),
        (["num_scheduler_steps", "max_num_seqs"], "0.32.0", None),
    ],
)
def test_first_release_with_all_knobs(names: list[str], release: str, expected: str | None) -> None:
    assert knobs.first_with(names, release=release) == expected


def test_only_what_earlier_releases_had_is_lost() -> None:
    names = ["num_scheduler_steps", "async_scheduling", "host_numa_balancing", "instances", "no_knob"]
    assert knobs.lost(names, release="0.32.0") == ("num_scheduler_steps",)
    assert knobs.lost(names, release="0.6.2") == ()


def test_every_row_is_between_knobs_that_releases_had_and_has_a_source() -> None:
    path = resources.files("sweeper.knobs").joinpath("data", "vllm_translations.csv")
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    for row in rows:
        assert runs_of(row["knob"]), row
        assert runs_of(row["becomes"]), row
        assert row["source"].startswith("vllm_"), row
