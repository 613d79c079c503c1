"""A space in Optuna's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from sweeper.records import Assignment, Scalar
from sweeper.space.domains import Choice, Domain
from sweeper.space.space import Space


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Return each domain of a space, and its series, as a distribution."""
    found: dict[str, BaseDistribution] = {}
    if space.series:
        found["series"] = CategoricalDistribution([s.name for s in space.series])
    for name, domain in space.domains.items():
        found[name] = _distribution(domain)
    # A space of one point has nothing to suggest, and Optuna needs a parameter to show.
    return found or {"series": CategoricalDistribution(["only"])}


def to_optuna(choices: Assignment) -> dict[str, Scalar]:
    """Return a point's choices as parameters of a trial."""
    return dict(choices) or {"series": "only"}


def from_optuna(params: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return a trial's parameters as choices of a point."""
    return {} if params == {"series": "only"} else dict(params)


def _distribution(domain: Domain) -> BaseDistribution:
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.values)
    if domain.is_int:
        step = 1 if domain.step is None or domain.log else int(domain.step)
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log, step=step)
    return FloatDistribution(
        domain.low, domain.high, log=domain.log, step=None if domain.log else domain.step
    )
