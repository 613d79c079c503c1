"""Reasons that say the same of other numbers are told once, whole, with how many there are."""

from __future__ import annotations

from sweeper.text.reasons import folded, reason_text


def test_many_that_differ_in_numbers_are_the_first_one_and_a_count() -> None:
    said = [f"max_num_seqs = {number}: does not fit in {number / 10} GiB" for number in range(1, 6)]
    assert folded((reason, f"{reason} (log: {place}.log)") for place, reason in enumerate(said)) == [
        "max_num_seqs = 1: does not fit in 0.1 GiB (log: 0.log) (and 4 more like it)"
    ]


def test_few_are_told_one_by_one_and_equal_ones_counted() -> None:
    assert folded([("a 1", "a 1"), ("b", "b"), ("a 2", "a 2"), ("b", "b")]) == ["a 1", "a 2", "2 times b"]


def test_reason_is_one_line_and_names_its_class_once() -> None:
    assert reason_text("client", "client: ValueError: one of:\n(1) this\n(2) that") == (
        "client: ValueError: one of: (1) this (2) that"
    )
    assert reason_text("crash", "ended with exit code 1") == "crash: ended with exit code 1"
    assert reason_text(None, "stopped early") == "stopped early"
