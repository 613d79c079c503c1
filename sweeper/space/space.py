"""What may vary: knobs with their domains, named series, and rules that join them.

A *space* holds a base assignment, any number of named *series* (a few knobs of difference each, one
bar colour in a chart) and *domains* (knobs to be searched). Its points are every series with every
combination of the domains. A *rule* is a comparison that a point must satisfy, so that a setting which
cannot work costs no engine start. A *condition* on a domain says where its knob is in the space at all: a
chunk's size means nothing where prefill is not chunked, and two points that differ in it alone are one.

How a space is searched is not known here (``search``), nor whether a release has a knob (``knobs``).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from sweeper.errors import ConfigError, nearest
from sweeper.kinds import DEFAULT_ENGINE, ENGINES
from sweeper.records import Assignment, Model, Scalar, content_key
from sweeper.records.plurals import amount
from sweeper.space.domains import Choice, Domain, Fitting
from sweeper.space.rules import Rule

LARGEST_GRID = 100_000
"""Points of a grid at most: each is planned before the first one starts."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """A named assignment that becomes one bar colour or line in a chart.

    Attributes:
        published: Name of the same series among the published figures, if there is one.
        run: Which run of a load point it shows, where each is run twice: ``fresh``, ``second``, or None,
            which is the fresh one. Two series of equal assignment so show the two runs of one trial.
        engine: What serves it: ``vllm`` or ``tgi``.
        model: What is served, where it differs from the study's model.
    """

    name: str
    label: str
    knobs: Assignment
    published: str | None = None
    run: str | None = None
    engine: str = DEFAULT_ENGINE
    model: Model | None = None


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of a space.

    Attributes:
        choices: What identifies it within the space: ``series`` where there are any, and each domain.
        assignment: Every knob's value, base and series included.
    """

    choices: Assignment
    assignment: Assignment
    series: str | None


@dataclass(frozen=True, kw_only=True)
class Space:
    """A base assignment, what varies around it, and what must hold.

    The base is vLLM's: a series of another engine has its own knobs and nothing else.

    Attributes:
        conditions: For some of the domains, where the knob is in the space; elsewhere points leave it out,
            also where base or series set it.
        fittings: Domains whose values are still to be taken from what model, devices and release allow
            (``plan.fitting``); a planned space has none.
    """

    base: Assignment = field(default_factory=dict)
    series: tuple[Series, ...] = ()
    domains: Mapping[str, Domain] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    conditions: Mapping[str, Rule] = field(default_factory=dict)
    fittings: Mapping[str, Fitting] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_conditions()

    def point(self, choices: Assignment) -> Point:
        """Complete the choices of one point with its series' knobs and the base.

        Choices whose condition does not hold are left out, whatever their source: so two proposals that
        differ in those alone are the same point.

        Raises:
            ConfigError: The choices name a series that does not exist.
        """
        name = choices.get("series")
        series = None if name is None else self.named(str(name))
        is_vllm = series is None or ENGINES[series.engine].takes_vllm_flags
        assignment: dict[str, Scalar] = dict(self.base) if is_vllm else {}
        if series is not None:
            assignment.update(series.knobs)
        choices = {knob: self._own(knob, value) for knob, value in choices.items()}
        assignment.update({knob: value for knob, value in choices.items() if knob != "series"})
        absent = self._absent(assignment)
        return Point(
            choices={knob: value for knob, value in choices.items() if knob not in absent},
            assignment={knob: value for knob, value in assignment.items() if knob not in absent},
            series=None if name is None else str(name),
        )

    def is_active(self, knob: str, assignment: Assignment) -> bool:
        """Return whether a knob is in the space where the others have these values."""
        condition = self.conditions.get(knob)
        return condition is None or (condition.names <= set(assignment) and condition.holds(assignment))

    def domain_order(self) -> tuple[str, ...]:
        """Sort the domains so that each comes after those that its condition names."""
        ordered: list[str] = []
        while waiting := [name for name in self.domains if name not in ordered]:
            ready = [n for n in waiting if not self._conditioned_on(n) & set(waiting)]
            if not ready:
                raise ConfigError(
                    f"space.knobs.{waiting[0]}.when: depends on {' and '.join(waiting)} in a circle; "
                    "expected conditions on knobs that are there without it. Remove one of the conditions."
                )
            ordered += ready
        return tuple(ordered)

    def grid(self) -> Iterator[Point]:
        """Enumerate the distinct points, series by series, the last domain fastest.

        Raises:
            ConfigError: A domain is continuous, which the message names, or the grid has too many points.
        """
        seen: set[str] = set()
        for point in self._product():
            identity = content_key(dict(point.choices)) if self.conditions else ""
            if not identity or identity not in seen:
                seen.add(identity)
                yield point

    def _product(self) -> Iterator[Point]:
        """Return every combination, some of which are the same point."""
        size = self.size()
        if size is not None and size > LARGEST_GRID:
            raise ConfigError(
                f"space: has {amount(size, 'point')}; expected at most {LARGEST_GRID} in a grid. "
                "Give fewer values or a larger step, or search it with search=tpe or search=random."
            )
        axes = {name: self._enumerate(name, domain) for name, domain in self.domains.items()}
        names: list[Mapping[str, Scalar]] = [{"series": s.name} for s in self.series] or [{}]
        for series, values in itertools.product(names, itertools.product(*axes.values())):
            yield self.point({**series, **dict(zip(axes, values, strict=True))})

    def size(self) -> int | None:
        """Count the combinations of all domains, conditions and rules aside.

        Returns:
            The count; None when one is continuous, or has its values from the devices yet to come.
        """
        count = max(len(self.series), 1)
        for domain in self.domains.values():
            values = (len(domain.values) or None) if isinstance(domain, Choice) else domain.count()
            if values is None:
                return None
            count *= values
        return count

    def knob_names(self) -> frozenset[str]:
        """Every knob that some point sets."""
        from_series = itertools.chain.from_iterable(s.knobs for s in self.series)
        return frozenset(self.base) | frozenset(from_series) | frozenset(self.domains)

    def broken_rule(self, assignment: Assignment, *, defaults: Assignment | None = None) -> str | None:
        """Return the first rule that the assignment breaks, in words, or None.

        Args:
            assignment: What is set.
            defaults: What holds for knobs that it leaves unset, and facts that are no knobs.
        """
        known = {**(defaults or {}), **assignment}
        return next((str(rule) for rule in self.rules if not rule.holds(known)), None)

    def named(self, name: str) -> Series:
        """Return the series of this name.

        Raises:
            ConfigError: There is none; the message lists the known ones.
        """
        found = next((s for s in self.series if s.name == name), None)
        if found is None:
            known = ", ".join(s.name for s in self.series)
            raise ConfigError(f"space.series: '{name}' is not a series; expected one of {known}.")
        return found

    def _own(self, knob: str, value: Scalar) -> Scalar:
        """Return a choice as its domain writes it: the same setting, however it is written, is one point."""
        domain = self.domains.get(knob)
        return value if domain is None else domain.own(value)

    def _absent(self, assignment: Assignment) -> frozenset[str]:
        """Return the knobs that are not in the space here; others cannot depend on an absent one."""
        left = dict(assignment)
        for knob in self.domain_order() if self.conditions else ():
            if not self.is_active(knob, left):
                left.pop(knob, None)
        return frozenset(assignment) - frozenset(left)

    def _conditioned_on(self, knob: str) -> frozenset[str]:
        condition = self.conditions.get(knob)
        return frozenset() if condition is None else condition.names

    def _check_conditions(self) -> None:
        known = self.knob_names()
        for condition in self.conditions.values():
            for name in sorted(condition.names - known):
                raise ConfigError(
                    f"{condition.where}: names '{name}', which is no knob of this space; expected one of "
                    f"{', '.join(sorted(known))}.{nearest(name, known)} "
                    "Give that knob a value under knobs, or correct the condition."
                )
        self.domain_order()

    @staticmethod
    def _enumerate(name: str, domain: Domain) -> tuple[Scalar, ...]:
        values = domain.values if isinstance(domain, Choice) else domain.values()
        if values is None:
            raise ConfigError(
                f"space.knobs.{name}: a continuous or logarithmic range has no grid; expected choices or a "
                "step. Give a list of values, or search it with search=tpe or search=random."
            )
        return values
