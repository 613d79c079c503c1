"""What holds for every search method of the registry."""

from __future__ import annotations

import importlib.util

import optuna
import pytest

from sweeper.kinds import SEARCH_METHODS
from sweeper.search.samplers import check_method, sampler


@pytest.mark.parametrize("name", list(SEARCH_METHODS))
def test_its_sampler_proposes_within_space(name: str) -> None:
    method = SEARCH_METHODS[name]
    if any(importlib.util.find_spec(package) is None for package in method.packages):
        pytest.skip(f"needs {' and '.join(method.packages)}")
    check_method(name)
    study = optuna.create_study(sampler=sampler(name, seed=1))
    study.optimize(lambda trial: trial.suggest_int("max_num_seqs", 1, 8), n_trials=3)
    assert all(1 <= trial.params["max_num_seqs"] <= 8 for trial in study.trials)


def test_only_what_measures_everything_is_exhaustive() -> None:
    assert [method.name for method in SEARCH_METHODS.values() if method.is_exhaustive] == ["grid"]
    assert not any(method.is_exhaustive and method.learns for method in SEARCH_METHODS.values())
