"""The shape of the package: folders on floors, imports that go down, one door for each heavy dependency."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FLOORS = (
    {"__main__", "api"},
    {"cli"},
    {"analysis"},
    {"calibrate"},
    {"prepare", "sweep"},
    {"executors"},
    {"search", "trial"},
    {"clients", "config", "plan"},
    {"audit", "engines", "schedule", "store"},
    {"topology"},
    {"simulation"},
    {"models"},
    {"knobs", "metrics", "processes", "published", "space", "text", "workload"},
    {"goals"},
    {"records"},
    {"kinds"},
    {"errors", "interrupts", "intervals"},
)
"""Folders of ``sweeper``, its flat modules, and ``analysis``, from the top down. What lies on one floor does
not know of its neighbours there."""

MOST_FLAT_MODULES = 8
DOORS = {
    "hydra": {"config"},
    "omegaconf": {"config"},
    "optuna": {"search"},
    "optuna_dashboard": {"search"},
    "ray": {"executors"},
    "rich": {"cli", "api"},
    "pyarrow": {"store"},
    "pandas": {"store", "published", "analysis"},
    "matplotlib": {"analysis"},
    "locust": {"clients"},
    "gevent": {"clients"},
    "mlflow": {"analysis"},
    "vllm": {"clients", "engines"},  # files that run inside the engine's own environment
}


def modules() -> dict[str, Path]:
    """Map the dotted name of every module to its file."""
    found = {}
    for top in ("sweeper", "analysis"):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imported(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports, in functions and for types too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in inside)


def folder_of(module: str) -> str:
    """Return the folder of ``sweeper`` that a module lies in, or its own name where it lies flat."""
    parts = module.split(".")
    return "analysis" if parts[0] == "analysis" else (parts[1] if len(parts) > 1 else "sweeper")


def floor_of(folder: str) -> int:
    found = [floor for floor, folders in enumerate(FLOORS) if folder in folders]
    assert found, f"sweeper/{folder} is on no floor: give it one in this test and in docs/architecture.md"
    return found[0]


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """Find a way along the arrows that comes back to where it began, of any length; empty without one."""
    done: set[str] = set()

    def walk(node: str, way: list[str]) -> list[str]:
        if node in way:
            return [*way[way.index(node) :], node]
        if node in done:
            return []
        found = next(filter(None, (walk(aim, [*way, node]) for aim in sorted(arrows.get(node, ())))), [])
        done.add(node)
        return found

    return next(filter(None, (walk(node, []) for node in sorted(arrows))), [])


@pytest.mark.parametrize(("module", "path"), list(MODULES.items()), ids=lambda value: str(value))
def test_imports_go_down_floors(module: str, path: Path) -> None:
    own = folder_of(module)
    if own == "sweeper":
        return
    for name in imported(path):
        if name not in MODULES:
            continue
        other = folder_of(name)
        if other not in (own, "sweeper"):
            assert floor_of(other) > floor_of(own), f"{path.name} reaches up or aside to {name}"


def test_circle_of_three() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": {"b"}}) == ["b", "c", "d", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_folders_in_no_circle() -> None:
    arrows: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        aims = {folder_of(name) for name in imported(path) if name in MODULES}
        arrows.setdefault(folder_of(module), set()).update(aims - {folder_of(module), "sweeper"})
    assert not circle(arrows)


def test_modules_in_no_circle() -> None:
    # A package that gathers the names of its modules is imported by them for nothing but its folder.
    arrows = {
        module: {name for name in imported(path) if name in MODULES and name != module}
        for module, path in MODULES.items()
    }
    assert not circle(arrows)


def test_few_modules_lie_flat() -> None:
    flat = [path.name for path in MODULES.values() if path.parent == ROOT / "sweeper"]
    assert len(flat) <= MOST_FLAT_MODULES, flat


def test_every_folder_says_its_idea() -> None:
    for path in (ROOT / "sweeper").rglob("__init__.py"):
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert doc and doc.splitlines()[0].strip().endswith("."), path


def test_each_heavy_dependency_has_one_door() -> None:
    for module, path in MODULES.items():
        for name in imported(path):
            top, folder = name.split(".")[0], folder_of(module)
            assert folder in DOORS.get(top, {folder}), f"{path.name} imports {name}; its door is {DOORS[top]}"


MODEL_PAGES = {"validation.py", "validation_chart.py", "experiment_tables.py"}


def test_analysis_reads_results_and_nothing_above_them() -> None:
    allowed = {
        "errors",
        "goals",
        "intervals",
        "kinds",
        "knobs",
        "published",
        "records",
        "store",
        "sweeper",
        "text",
        "analysis",
    }
    for path in sorted((ROOT / "analysis").rglob("*.py")):
        reached = {folder_of(name) for name in imported(path) if name in MODULES}
        # What compares the model with published figures has to run it.
        runs_the_model = {"calibrate", "simulation", "trial"} if path.name in MODEL_PAGES else set()
        # Importance of knobs is Optuna's, whose one door is there.
        asks_optuna = {"search"} if path.name == "importance.py" else set()
        assert reached <= allowed | runs_the_model | asks_optuna, f"{path.name} reaches {reached - allowed}"


def test_only_command_line_prints() -> None:
    for module, path in MODULES.items():
        if folder_of(module) in ("cli", "analysis"):
            continue
        calls = [
            node.func.id
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        ]
        assert "print" not in calls, f"{path.name} prints"
