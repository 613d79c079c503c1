"""The files of the package import one way, so that each can be read with only those before it in mind."""

from __future__ import annotations

import re
from pathlib import Path

from sweeper import topology

# Each imports only from those before it, as the docstring of the package tells.
ORDER = (
    "node",
    "granted",
    "probes",
    "values",
    "modes",
    "modelled",
    "amd_smi",
    "amd",
    "nvidia",
    "cpu",
    "device_processes",
    "shown_devices",
    "gauges",
    "free_devices",
    "detection",
    "__init__",
)


def test_files_of_package_import_one_way() -> None:
    folder = Path(topology.__file__).parent
    assert {path.stem for path in folder.glob("*.py")} == set(ORDER)
    for place, name in enumerate(ORDER):
        text = (folder / f"{name}.py").read_text(encoding="utf-8")
        reached = re.findall(r"^ *(?:from|import) sweeper\.topology\.(\w+)", text, flags=re.MULTILINE)
        assert set(reached) <= set(ORDER[:place]), f"{name} imports {reached}"
        assert "from sweeper.topology import" not in text, f"{name} goes round by the door of the package"
