"""Nobody but the declarations compares the name of an engine, a client, a dataset or a search method."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeper.kinds import CLIENTS, DATASETS, ENGINES, SEARCH_METHODS

ROOT = Path(__file__).parents[2]
NAMES = frozenset((*ENGINES, *CLIENTS, *DATASETS, *SEARCH_METHODS))
LISTS = frozenset({"DEFAULT_ENGINE", "DEFAULT_CLIENT", "MODEL_OF_ENGINE"})

# What is compared there has the same word and is something else.
OTHERS = {
    ("sweeper/engines/vllm_environment.py", "environment.distribution"),  # a package
    ("sweeper/executors/cluster_checks.py", "node.platform"),  # a platform
    ("sweeper/knobs/engine_defaults.py", "assignment.get('performance_mode')"),  # a value of a knob
    ("sweeper/clients/vllm_bench.py", "server.versions"),  # a program that a server names
}


def compared(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Find the comparisons with such a name: the line, and what is compared with it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = (node.left, *node.comparators)
            if any(names_in(side) for side in sides):
                yield node.lineno, next((ast.unparse(side) for side in sides if not names_in(side)), "")
        if isinstance(node, ast.MatchValue) and names_in(node.value):
            yield node.lineno, "match"


def names_in(node: ast.expr) -> bool:
    """Return whether this is such a name, or a collection of some: written down, not computed."""
    if isinstance(node, ast.Constant):
        return node.value in NAMES
    if isinstance(node, ast.Name):
        return node.id in LISTS
    if isinstance(node, ast.Set | ast.Tuple | ast.List):
        return any(names_in(item) for item in node.elts)
    if isinstance(node, ast.Call):
        return ast.unparse(node.func) in ("frozenset", "set") and any(map(names_in, node.args))
    return False


@pytest.mark.parametrize(
    "line",
    [
        'spec.engine.kind == "tgi"',
        'engine.kind in ("simulated", "attach")',
        'run.engines == {"attach"}',
        '"sharegpt" not in run.datasets',
        'datasets <= frozenset({"latency"})',
        "client.kind != DEFAULT_CLIENT",
        'frame["engine"] == "tgi"',
    ],
)
def test_comparison_with_name_is_found(line: str) -> None:
    assert list(compared(ast.parse(line)))


def test_nobody_compares_name() -> None:
    found = []
    for path in sorted([*(ROOT / "sweeper").rglob("*.py"), *(ROOT / "analysis").rglob("*.py")]):
        place = path.relative_to(ROOT).as_posix()
        if place.startswith("sweeper/kinds/"):
            continue
        for line, other in compared(ast.parse(path.read_text(encoding="utf-8"))):
            if (place, other) not in OTHERS:
                found.append(f"{place}:{line}: {other}")
    assert not found, "ask sweeper.kinds what it can do:\n" + "\n".join(found)
