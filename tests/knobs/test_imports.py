"""Importing the knobs costs nothing, and their files import one way."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from sweeper import knobs


def test_importing_reads_no_table() -> None:
    code = (
        "import sweeper.knobs, sys; from sweeper.knobs.tables import table; "
        "print(table.cache_info().currsize, 'csv' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    assert done.stdout.split() == ["0", "False"]


# Each imports only from those before it, as the docstring of the package tells.
ORDER = (
    "tables",
    "release_order",
    "names",
    "runtime_variables",
    "history",
    "translation",
    "catalogue",
    "forms",
    "generations",
    "parallelism",
    "live",
    "engine_defaults",
    "bench",
    "numerics",
    "aiter",
    "refusals",
    "launcher",
    "sglang",
    "presence",
    "values",
    "conflicts",
    "sharing",
    "checks",
    "__init__",
)


def test_files_of_package_import_one_way() -> None:
    folder = Path(knobs.__file__).parent
    assert {path.stem for path in folder.glob("*.py")} == set(ORDER)
    for place, name in enumerate(ORDER):
        text = (folder / f"{name}.py").read_text(encoding="utf-8")
        reached = re.findall(r"^ *(?:from|import) sweeper\.knobs\.(\w+)", text, flags=re.MULTILINE)
        assert set(reached) <= set(ORDER[:place]), f"{name} imports {reached}"
        assert "from sweeper.knobs import" not in text, f"{name} goes round by the door of the package"
