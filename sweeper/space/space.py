"""What may vary: knobs with their domains, named series, and rules that join them.

A *space* holds a base assignment, any number of named *series* (a few knobs of difference each, one
bar colour in a chart) and *domains* (knobs to be searched). Its points are every series with every
combination of the domains. A *rule* is a comparison that a point must satisfy, so that a setting which
cannot work costs no engine start. A *condition* on a domain says where its knob is in the space at all: a
chunk's size means nothing where prefill is not chunked, and two points that differ in it alone are one.

How a space is searched is not known here (``search``), nor whether a release has a knob (``knobs``).
"""

from __future__ import annotations

import ast
import itertools
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from sweeper.errors import ConfigError, nearest
from sweeper.records import Assignment, Model, Scalar, content_key

LARGEST_GRID = 100_000
"""Points of a grid at most: each is planned before the first one starts."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A finite domain."""

    values: tuple[Scalar, ...]


@dataclass(frozen=True, kw_only=True)
class Range:
    """A numeric domain.

    Attributes:
        low: Smallest value.
        high: Largest value.
        step: Distance between neighbours; None is continuous, or 1 for whole numbers.
        log: Search in the logarithm.
        is_int: Whole numbers only.
    """

    low: float
    high: float
    step: float | None = None
    log: bool = False
    is_int: bool = False

    def count(self) -> int | None:
        """Count the domain's values, or None where it is continuous or logarithmic."""
        step = self._step()
        if step is None or self.log:
            return None
        return math.floor((self.high - self.low) / step + 1e-9) + 1

    def values(self) -> tuple[Scalar, ...] | None:
        """Enumerate the domain, or None where it is continuous or logarithmic."""
        count, step = self.count(), self._step()
        if count is None or step is None:
            return None
        found = (self.low + i * step for i in range(count))
        return tuple(int(v) if self.is_int else v for v in found)

    def _step(self) -> float | None:
        return self.step if self.step is not None else (1 if self.is_int else None)


Domain = Choice | Range


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
    engine: str = "vllm"
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
class Rule:
    """A condition on an assignment, such as ``max_num_batched_tokens >= max_num_seqs``.

    A rule that names a knob which has neither a value nor a known default holds: an engine reconciles its
    own defaults itself.

    Attributes:
        message: Why it must hold, for whoever broke it; None lets the rule speak for itself.
        where: Key of the configuration that it comes from.
    """

    text: str
    message: str | None = None
    where: str = "space.rules"

    def __post_init__(self) -> None:
        _check_syntax(self._tree(), self.text, self.where)

    def __str__(self) -> str:
        return self.text if self.message is None else f"{self.message} ({self.text})"

    @property
    def names(self) -> frozenset[str]:
        """The knobs that it compares."""
        found = (node.id for node in ast.walk(self._tree()) if isinstance(node, ast.Name))
        return frozenset(found) - frozenset(_LITERALS)

    def holds(self, assignment: Assignment) -> bool:
        """Tell whether the assignment satisfies the rule.

        Raises:
            ConfigError: Values cannot be compared, such as a text with a number.
        """
        if not self.names <= set(assignment):
            return True
        try:
            return bool(_evaluate(self._tree(), assignment))
        except (TypeError, ArithmeticError) as exc:
            raise ConfigError(
                f"{self.where}: '{self.text}' cannot be computed for {dict(assignment)}: {exc}. "
                "Compare numbers with numbers and texts with texts."
            ) from exc

    def _tree(self) -> ast.expr:
        try:
            return ast.parse(self.text, mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError) as exc:
            # Zero bytes are a ValueError, and what nests too deeply the last two.
            raise ConfigError(
                f"{self.where}: '{self.text}' is not an expression; expected a comparison of knobs such as "
                "'max_num_batched_tokens >= max_num_seqs'. Correct it."
            ) from exc


@dataclass(frozen=True, kw_only=True)
class Space:
    """A base assignment, what varies around it, and what must hold.

    The base is vLLM's: a series of another engine has its own knobs and nothing else.

    Attributes:
        conditions: For some of the domains, where the knob is in the space; elsewhere points leave it out,
            also where base or series set it.
    """

    base: Assignment = field(default_factory=dict)
    series: tuple[Series, ...] = ()
    domains: Mapping[str, Domain] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    conditions: Mapping[str, Rule] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_conditions()

    def point(self, choices: Assignment) -> Point:
        """Complete the choices of one point with its series' knobs and the base.

        Choices whose condition does not hold are left out, whoever made them: so two proposals that
        differ in those alone are the same point.

        Raises:
            ConfigError: The choices name a series that does not exist.
        """
        name = choices.get("series")
        series = None if name is None else self.named(str(name))
        is_vllm = series is None or series.engine == "vllm"
        assignment: dict[str, Scalar] = dict(self.base) if is_vllm else {}
        if series is not None:
            assignment.update(series.knobs)
        assignment.update({knob: value for knob, value in choices.items() if knob != "series"})
        absent = self._absent(assignment)
        return Point(
            choices={knob: value for knob, value in choices.items() if knob not in absent},
            assignment={knob: value for knob, value in assignment.items() if knob not in absent},
            series=None if name is None else str(name),
        )

    def is_active(self, knob: str, assignment: Assignment) -> bool:
        """Tell whether a knob is in the space where the others have these values."""
        condition = self.conditions.get(knob)
        return condition is None or (condition.names <= set(assignment) and condition.holds(assignment))

    def domain_order(self) -> tuple[str, ...]:
        """Name the domains so that each comes after those that its condition names."""
        ordered: list[str] = []
        while waiting := [name for name in self.domains if name not in ordered]:
            ready = [n for n in waiting if not self._conditioned_on(n) & set(waiting)]
            if not ready:
                raise ConfigError(
                    f"space.knobs.{waiting[0]}.when: hangs on {' and '.join(waiting)} in a circle; expected "
                    "conditions on knobs that are there without it. Remove one of the conditions."
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
        """Give every combination, some of which are the same point."""
        size = self.size()
        if size is not None and size > LARGEST_GRID:
            raise ConfigError(
                f"space: has {size} points; expected at most {LARGEST_GRID} in a grid. "
                "Give fewer values or a larger step, or search it with search=tpe or search=random."
            )
        axes = {name: self._enumerate(name, domain) for name, domain in self.domains.items()}
        names: list[Mapping[str, Scalar]] = [{"series": s.name} for s in self.series] or [{}]
        for series, values in itertools.product(names, itertools.product(*axes.values())):
            yield self.point({**series, **dict(zip(axes, values, strict=True))})

    def size(self) -> int | None:
        """Count the combinations of all domains, conditions and rules aside; None when one is continuous."""
        count = max(len(self.series), 1)
        for domain in self.domains.values():
            values = len(domain.values) if isinstance(domain, Choice) else domain.count()
            if values is None:
                return None
            count *= values
        return count

    def knob_names(self) -> frozenset[str]:
        """Every knob that some point sets."""
        from_series = itertools.chain.from_iterable(s.knobs for s in self.series)
        return frozenset(self.base) | frozenset(from_series) | frozenset(self.domains)

    def broken_rule(self, assignment: Assignment, *, defaults: Assignment | None = None) -> str | None:
        """Give the first rule that the assignment breaks, in words, or None.

        Args:
            assignment: What is set.
            defaults: What holds for knobs that it leaves unset, and facts that are no knobs.
        """
        known = {**(defaults or {}), **assignment}
        return next((str(rule) for rule in self.rules if not rule.holds(known)), None)

    def named(self, name: str) -> Series:
        """Give the series of this name.

        Raises:
            ConfigError: There is none; the message lists the known ones.
        """
        found = next((s for s in self.series if s.name == name), None)
        if found is None:
            known = ", ".join(s.name for s in self.series)
            raise ConfigError(f"space.series: '{name}' is not a series; expected one of {known}.")
        return found

    def _absent(self, assignment: Assignment) -> frozenset[str]:
        """Name the knobs that are not in the space here; one that is absent is none that others hang on."""
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


_COMPARISONS: dict[type[ast.cmpop], Callable[[object, object], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,  # type: ignore[dict-item]
    ast.LtE: operator.le,  # type: ignore[dict-item]
    ast.Gt: operator.gt,  # type: ignore[dict-item]
    ast.GtE: operator.ge,  # type: ignore[dict-item]
    ast.In: lambda a, b: a in b,  # type: ignore[operator]
    ast.NotIn: lambda a, b: a not in b,  # type: ignore[operator]
}
_ARITHMETIC: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
# As YAML writes them; Python's own words are constants of its grammar.
_LITERALS = {"true": True, "false": False}
_NODES = (ast.Compare, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.BinOp)
_LEAVES = (ast.Name, ast.Load, ast.Constant, ast.Tuple, ast.List)


def _check_syntax(tree: ast.expr, text: str, where: str) -> None:
    # An allow-list: a rule comes from a file, and nothing in it may call or reach into objects.
    allowed = (*_NODES, *_LEAVES, *_COMPARISONS, *_ARITHMETIC)
    for node in ast.walk(tree):
        if not isinstance(node, allowed):
            raise ConfigError(
                f"{where}: '{text}' uses {type(node).__name__}; expected only knob names, values, "
                "comparisons, arithmetic, and/or/not. Rewrite it."
            )


def _evaluate(node: ast.expr, names: Assignment) -> object:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return _LITERALS[name] if name in _LITERALS else names[name]
        case ast.Tuple(elts=items) | ast.List(elts=items):
            return [_evaluate(item, names) for item in items]
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _evaluate(operand, names)
        case ast.UnaryOp(operand=operand):
            return -_evaluate(operand, names)  # type: ignore[operator]
        case ast.BoolOp(op=ast.And(), values=values):
            return all(_evaluate(value, names) for value in values)
        case ast.BoolOp(values=values):
            return any(_evaluate(value, names) for value in values)
        case ast.BinOp(left=left, op=op, right=right):
            return _ARITHMETIC[type(op)](_evaluate(left, names), _evaluate(right, names))  # type: ignore[arg-type]
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            sides = [_evaluate(side, names) for side in (left, *comparators)]
            pairs = zip(ops, sides[:-1], sides[1:], strict=True)
            return all(_COMPARISONS[type(op)](a, b) for op, a, b in pairs)
    raise AssertionError(f"a rule's syntax was checked when it was made: {ast.dump(node)}")
