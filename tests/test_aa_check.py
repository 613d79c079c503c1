"""Equal settings are called different at most as often as promised."""

from __future__ import annotations

import itertools

from benchmarks.aa_check import found_verdicts, noisy, rate_text, starts_of, wrong_verdicts


def test_two_equal_settings_are_called_different_in_at_most_5_percent_of_200_pairs() -> None:
    values = starts_of(noisy(restart_noise=0.02, run_noise=0.01))
    assert wrong_verdicts(values, pairs=200, starts=3) <= 10


def test_setting_that_is_truly_faster_is_found() -> None:
    values = starts_of(noisy(restart_noise=0.01, run_noise=0.0))
    # Five starts each, 10 % apart with a noise of 1 %: more than ten errors apart.
    assert found_verdicts(values, pairs=10, starts=5, faster=0.1) == 10


def test_each_start_draws_its_own_noise_and_without_any_all_are_equal() -> None:
    loud = list(itertools.islice(starts_of(noisy(restart_noise=0.02, run_noise=0.0)), 4))
    assert len(set(loud)) == 4
    quiet = list(itertools.islice(starts_of(noisy(restart_noise=0.0, run_noise=0.0)), 4))
    assert len(set(quiet)) == 1


def test_rate_comes_with_its_interval() -> None:
    # Wilson: centre (0.05 + 1.9208 / 200) / (1 + 3.8415 / 200) = 0.0585, half width 0.0311.
    assert rate_text(10, 200) == "10 of 200: 5.0 % (95 % interval 2.7 % to 9.0 %)"
