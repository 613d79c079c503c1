"""What is asked for and would never happen with this release: rules that never apply, second runs of nothing.

``config.unused`` refuses what the configuration alone shows; here the release is known, and its defaults.

A rule whose knob has neither a value nor a known default holds (``space.Rule``), for an engine reconciles its
own defaults. So a misspelt name would make a rule hold everywhere, without a word.
"""

from __future__ import annotations

from sweeper import knobs
from sweeper.engines import checks as engine_checks
from sweeper.engines import instances
from sweeper.errors import ConfigError, nearest
from sweeper.kinds import ENGINES
from sweeper.plan.planner import Planner
from sweeper.records import INSTANCES, Scalar
from sweeper.space.domains import Choice, Domain
from sweeper.space.rules import Rule
from sweeper.space.space import Point

_CACHE = "enable_prefix_caching"


def check(planner: Planner) -> None:
    """Check that every rule can apply, a second run repeats something, and the client can load all settings.

    Raises:
        ConfigError: A rule names what no setting has, with the nearest name; or nothing would be run twice;
            or some setting has several servers whose load the client cannot split.
    """
    _check_client(planner)
    found = values(planner)
    for number, rule in enumerate(planner.space.rules):
        for name in sorted(rule.names - found):
            raise ConfigError(_refusal(planner, number, rule, name, found))
    if any(point.keeps_prefix_cache for point in planner.load_points) and not _runs_twice(planner):
        raise ConfigError(
            f"workload.second_run: is true, and no setting keeps prompts for it: {_CACHE} is off in all of "
            f"them (vLLM {planner.engine.release}). Set knobs.{_CACHE}=true, or workload.second_run=false."
        )


def _check_client(planner: Planner) -> None:
    """Check the client against the most servers that any setting has; a search may come to it hours later."""
    for named in _named(planner):
        for number in _instances(planner.space.domains.get(INSTANCES)):
            series = {} if named.series is None else {"series": named.series}
            point = planner.space.point(series if number is None else {**series, INSTANCES: number})
            asked = {INSTANCES: point.assignment.get(INSTANCES, 1)}
            instances.check_client(asked, engine=planner.engine_of(point), client=planner.client)


def _instances(domain: Domain | None) -> tuple[Scalar | None, ...]:
    """Return the numbers of servers that a search may choose, of a range the largest; None for no choice."""
    if domain is None:
        return (None,)
    return domain.values if isinstance(domain, Choice) else (int(domain.high),)


def _runs_twice(planner: Planner) -> bool:
    if _CACHE in planner.space.domains:
        return True
    return any(load.keeps_prefix_cache for point in _named(planner) for load in planner.loads_of(point))


def _named(planner: Planner) -> list[Point]:
    """Return the settings that have a name: each series, or the base where there are none."""
    space = planner.space
    return [space.point({"series": series.name}) for series in space.series] or [space.point({})]


def values(planner: Planner) -> frozenset[str]:
    """Return the values that rules may compare: knobs that are set, known defaults, facts of the node."""
    unsaid = (name for point in _named(planner) for name in planner.rule_defaults(point.assignment))
    return planner.space.knob_names() | frozenset(unsaid)


def _refusal(planner: Planner, number: int, rule: Rule, name: str, found: frozenset[str]) -> str:
    release = planner.engine.release
    where = f"space.rules[{number}]: '{rule.text}' names '{name}'"
    kinds = [planner.engine.kind, *(series.engine for series in planner.space.series)]
    if name in knobs.known_names(release) or any(
        name in engine_checks.flags(ENGINES[kind]) for kind in kinds
    ):
        return (
            f"{where}, which no setting of this study gives a value, and whose default is not known; the "
            f"rule would never apply. Give it a value (knobs.{name}=...), or remove the rule."
        )
    near = nearest(name, found) or nearest(name, knobs.known_names(release))
    return (
        f"{where}, which is no knob of this study and none of vLLM {release}; the rule would never apply."
        f"{near} Correct it."
    )
