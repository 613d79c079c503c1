"""The search methods: how a space can be walked."""

from __future__ import annotations

from dataclasses import dataclass

from sweeper.kinds.registry import Registry


@dataclass(frozen=True, kw_only=True)
class SearchMethod:
    """What is known of a search method without importing Optuna.

    Attributes:
        name: Value of ``search.method``.
        sampler: Function from a seed to the Optuna sampler behind it, as ``module:name``; a method of our own
            takes it where it has no opinion.
        packages: What the sampler imports only after its first random trials.
        learns: It learns from what was measured.
        is_exhaustive: It measures every point of the space, and draws nothing.
        asks_the_model: It begins with what the simulated platform ranks first.
        has_stages: It walks the space in stages, a few knobs at a time.
    """

    name: str
    sampler: str = "sweeper.search.samplers:random"
    packages: tuple[str, ...] = ()
    learns: bool = True
    is_exhaustive: bool = False
    asks_the_model: bool = False
    has_stages: bool = False


SEARCH_METHODS = Registry(
    "search.method",
    (
        SearchMethod(name="grid", learns=False, is_exhaustive=True),
        SearchMethod(name="random", learns=False),
        SearchMethod(name="tpe", sampler="sweeper.search.samplers:tpe"),
        SearchMethod(name="nsga2", sampler="sweeper.search.samplers:nsga2"),
        SearchMethod(name="gp", sampler="sweeper.search.samplers:gp", packages=("torch", "scipy")),
        SearchMethod(name="guided", asks_the_model=True),
        SearchMethod(name="staged", sampler="sweeper.search.samplers:tpe", has_stages=True),
    ),
    declared_by=SearchMethod,
)
"""How a space can be walked."""
