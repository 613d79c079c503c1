"""Rules between knobs, as people write them: read, checked and evaluated."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from dataclasses import dataclass

from sweeper.errors import ConfigError
from sweeper.records import Assignment


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A condition on an assignment, such as ``max_num_batched_tokens >= max_num_seqs``.

    A rule that names a knob which has neither a value nor a known default holds: an engine reconciles its
    own defaults itself.

    Attributes:
        message: Why it must hold, for the user who broke it; None lets the rule speak for itself.
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
        """Return whether the assignment satisfies the rule.

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
