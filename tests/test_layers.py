"""The shape of the package: imports go down its rows, and each heavy dependency has one door."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Top to bottom; a module imports from rows below its own, or within its row where that goes one way.
ROWS = (
    {"__main__", "cli", "calibrate", "display", "prepare", "config"},
    {
        *(
            "sweep",
            "pauses",
            "interference",
            "plan",
            "predict",
            "forecast",
            "search",
            "database",
        ),
        *("study", "executors", "dashboard", "dashboard_server", "survey", "progress", "finals", "telling"),
        *("outstanding", "outlook", "idle"),
    },
    {"trial", "proof", "rate_search", "telemetry", "clients", "engines", "cpu_vllm", "tiny_model"},
    {
        *("space", "workload", "sharegpt", "topology", "host", "numa", "placement", "schedule"),
        *("fit", "model_config", "description", "metrics", "simulation", "files", "control", "provenance"),
        *("stopping_rules", "stages"),
        *("store", "rows", "parts", "columns"),
    },
    {
        *("knobs", "processes", "errors", "records", "data", "urls", "confidential", "__init__"),
        *("objectives", "legible", "output"),
    },
)
DOORS = {
    "hydra": {"config"},
    "omegaconf": {"config"},
    "optuna": {"search", "database", "dashboard", "dashboard_server"},
    "optuna_dashboard": {"search", "dashboard", "dashboard_server"},
    "ray": {"executors"},
    "rich": {"cli", "display"},
    "pyarrow": {"store", "rows", "parts", "columns", "files"},
    "pandas": {"store"},
    "matplotlib": set(),
    "locust": {"clients"},
    "gevent": {"clients"},
    "vllm": {"clients"},  # the worker that runs inside the engine's own environment
}


MODEL_PAGES = {"validation.py", "validation_chart.py", "experiment_tables.py"}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / "sweeper").rglob("*.py")):
        parts = path.relative_to(ROOT / "sweeper").with_suffix("").parts
        yield parts[0], path


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            if node.module == "sweeper":
                yield from (f"sweeper.{alias.name}" for alias in node.names)
            else:
                yield node.module


def row_of(module: str) -> int:
    found = [i for i, row in enumerate(ROWS) if module in row]
    assert found, f"sweeper/{module} is in no row: give it one in this test and in docs/architecture.md"
    return found[0]


@pytest.mark.parametrize(
    ("module", "path"), list(modules()), ids=lambda value: str(value).rpartition("sweeper/")[2]
)
def test_a_module_imports_only_from_its_row_and_below(module: str, path: Path) -> None:
    for name in imported(path):
        if not name.startswith("sweeper."):
            continue
        other = name.split(".")[1]
        if other in ("__version__", module):
            continue
        assert row_of(other) >= row_of(module), f"{path.name} reaches up to {name}"


def test_imports_between_modules_of_a_row_go_one_way() -> None:
    arrows = {
        (module, name.split(".")[1])
        for module, path in modules()
        for name in imported(path)
        if name.startswith("sweeper.") and name.split(".")[1] not in ("__version__", module)
    }
    both_ways = {(a, b) for a, b in arrows if (b, a) in arrows and a < b}
    assert not both_ways


def test_each_heavy_dependency_has_one_door() -> None:
    for module, path in modules():
        for name in imported(path):
            top = name.split(".")[0]
            assert module in DOORS.get(top, {module}), f"{path.name} imports {name}; its door is {DOORS[top]}"


def test_the_analysis_reads_results_and_nothing_above_them() -> None:
    allowed = {
        "store",
        "description",
        "files",
        "urls",
        "records",
        "metrics",
        "errors",
        "knobs",
        "__version__",
    }
    allowed |= {"objectives", "legible", "output"}
    for path in sorted((ROOT / "analysis").rglob("*.py")):
        reached = {name.split(".")[1] for name in imported(path) if name.startswith("sweeper.")}
        # What compares the model with published figures has to run it.
        runs_the_model = {"calibrate", "simulation", "trial"} if path.name in MODEL_PAGES else set()
        assert reached <= allowed | runs_the_model, f"{path.name} reaches {reached - allowed}"


def test_only_the_command_line_prints() -> None:
    for module, path in modules():
        if module in ("cli",):
            continue
        calls = [
            node.func.id
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        ]
        assert "print" not in calls, f"{path.name} prints"
