"""The methods by name, and what each needs to be installed."""

from __future__ import annotations

import warnings
from importlib.util import find_spec

import optuna

from sweeper.errors import ConfigError
from sweeper.kinds import SEARCH_METHODS, opened

LEARNING = frozenset(method.name for method in SEARCH_METHODS.values() if method.learns)
"""Methods that learn from what was measured."""


def check_method(method: str) -> None:
    """Check that a method can work, before a study is touched.

    Raises:
        ConfigError: There is no such method, or a package that it needs is missing.
    """
    if method not in SEARCH_METHODS:
        raise ConfigError(
            f"search.method: '{method}' is not a method; expected one of {', '.join(SEARCH_METHODS)}."
        )
    missing = [name for name in SEARCH_METHODS[method].packages if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"search.method: '{method}' needs {' and '.join(missing)}, which "
            f"{'is' if len(missing) == 1 else 'are'} not installed; expected the packages of the extra "
            f"'{method}'. Run: pip install \"mi300x-sweeper[{method}]\", or use "
            "search=guided, which needs none."
        )


def sampler(method: str, *, seed: int) -> optuna.samplers.BaseSampler:
    """Make the sampler behind a method; methods of our own use it where they have no opinion."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=optuna.exceptions.ExperimentalWarning)
        made: optuna.samplers.BaseSampler = opened(SEARCH_METHODS[method].sampler)(seed)
        return made


def random(seed: int) -> optuna.samplers.BaseSampler:
    """Make the sampler that draws at random."""
    return optuna.samplers.RandomSampler(seed=seed)


def tpe(seed: int) -> optuna.samplers.BaseSampler:
    """Make the sampler that models good and bad trials apart; running ones count, so that asks spread out."""
    return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


def nsga2(seed: int) -> optuna.samplers.BaseSampler:
    """Make the sampler that crosses the best of a generation."""
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=_POPULATION)


def gp(seed: int) -> optuna.samplers.BaseSampler:
    """Make the sampler that models the objective as a Gaussian process."""
    return optuna.samplers.GPSampler(seed=seed)


_POPULATION = 16
"""Trials in a generation: Optuna's own 50 would be a whole study of real engine starts."""
