"""How long a sweep will still take."""

from __future__ import annotations

from sweeper.sweep.outlook import Work, left_s


def test_what_waits_and_what_runs_is_spread_over_devices() -> None:
    running = [Work(seconds=100.0, devices=4)]
    waiting = [Work(seconds=200.0, devices=4), Work(seconds=100.0, devices=8)]
    # 400 + 800 + 800 device-seconds on 8 devices
    assert left_s(running=running, waiting=waiting, unasked=0, usual=(), devices=8) == 250.0


def test_it_is_no_less_than_longest_trial_that_runs() -> None:
    assert left_s(running=[Work(seconds=90.0, devices=1)], waiting=(), unasked=0, usual=(), devices=8) == 90.0


def test_what_search_has_not_asked_for_costs_as_much_as_what_it_asked_for() -> None:
    usual = [Work(seconds=60.0, devices=2), Work(seconds=100.0, devices=2)]
    # 10 trials of 160 device-seconds
    assert left_s(running=(), waiting=(), unasked=10, usual=usual, devices=8) == 200.0
