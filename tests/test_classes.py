"""The size of classes: one that does too much is taken apart before it grows further."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MOST_METHODS = 20
MOST_ATTRIBUTES = 15


def classes(source: str) -> Iterator[ast.ClassDef]:
    """Yield every class of a module that is no record."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and not any(map(is_frozen, node.decorator_list)):
            yield node


def is_frozen(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Call) and any(
        keyword.arg == "frozen" and isinstance(keyword.value, ast.Constant) and keyword.value.value is True
        for keyword in decorator.keywords
    )


def methods_of(node: ast.ClassDef) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]


def attributes_of(node: ast.ClassDef) -> set[str]:
    """Return the names that the methods of a class assign on self, in whatever form."""
    return {
        each.attr
        for method in methods_of(node)
        for each in ast.walk(method)
        if isinstance(each, ast.Attribute)
        and isinstance(each.ctx, ast.Store)
        and isinstance(each.value, ast.Name)
        and each.value.id == "self"
    }


def test_what_counts() -> None:
    (found,) = classes(
        """
@dataclass(frozen=True)
class Record:
    def one(self): ...

class Thing:
    def __init__(self):
        self.a, self.b = 1, 2
        self.c: int = 3
        self.a = self.d.e

    @property
    def f(self):
        self.g += 1
        other.h = 1
"""
    )
    assert found.name == "Thing"
    assert [method.name for method in methods_of(found)] == ["__init__", "f"]
    assert attributes_of(found) == {"a", "b", "c", "g"}


@pytest.mark.parametrize("top", ["sweeper", "analysis"])
def test_no_class_does_too_much(top: str) -> None:
    too_large = []
    for path in sorted((ROOT / top).rglob("*.py")):
        for node in classes(path.read_text(encoding="utf-8")):
            methods, attributes = len(methods_of(node)), len(attributes_of(node))
            if methods > MOST_METHODS or attributes > MOST_ATTRIBUTES:
                too_large.append(f"{path.name}: {node.name}: {methods} methods, {attributes} attributes")
    assert not too_large, f"expected at most {MOST_METHODS} methods and {MOST_ATTRIBUTES} attributes"
