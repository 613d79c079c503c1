"""The methods by name, and what each needs to be installed."""

from __future__ import annotations

import warnings
from importlib.util import find_spec

import optuna

from sweeper.errors import ConfigError
from sweeper.records import SEARCH_METHODS

LEARNING = frozenset(SEARCH_METHODS) - {"grid", "random"}
"""Methods that learn from what was measured."""

_PACKAGES = {"gp": ("torch", "scipy")}
"""What Optuna's samplers import only after their first random trials: too late for a study to end."""


def check_method(method: str) -> None:
    """Check that a method can work, before a study is touched.

    Raises:
        ConfigError: There is no such method, or a package that it needs is missing.
    """
    if method not in SEARCH_METHODS:
        raise ConfigError(
            f"search.method: '{method}' is not a method; expected one of {', '.join(SEARCH_METHODS)}."
        )
    missing = [name for name in _PACKAGES.get(method, ()) if find_spec(name) is None]
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
        if method in ("tpe", "staged"):
            # Told of running trials, so that parallel asks spread out.
            return optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        if method == "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=_POPULATION)
        if method == "gp":
            return optuna.samplers.GPSampler(seed=seed)
        return optuna.samplers.RandomSampler(seed=seed)


_POPULATION = 16
"""Trials in a generation: Optuna's own 50 would be a whole study of real engine starts."""
