"""The commands that repeat a study, go on with it, and read it again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from analysis.study import Study
from sweeper.text.printable import legible


def commands(study: Study) -> list[dict[str, str]]:
    """Return commands, each with what it does; those that the study does not tell are left out."""
    folder = shlex.quote(str(study.folder))
    found = to_run_again(study.folder)
    found += [
        # By the one name that a checkout and a wheel both have.
        {
            "what": "Write charts, report and this page again",
            "line": f"python -m sweeper analysis report {folder}",
        },
        {
            "what": "Compare it with another study",
            "line": f"python -m sweeper analysis compare {folder} OTHER",
        },
        {"what": "Read its measurements in Python", "line": _reading(study)},
    ]
    return [{name: legible(text) for name, text in command.items()} for command in found]


def to_run_again(folder: Path) -> list[dict[str, str]]:
    """Return the command that runs a study again, as it was last given; none where that is not stored."""
    asked = _asked_last(folder)
    line = legible(shlex.join(["python", "-m", "sweeper", *asked]))
    return [{"what": "Run it again: what is stored is not measured twice", "line": line}] if asked else []


def _reading(study: Study) -> str:
    place = study.location if study.location is not None else study.folder
    stored = json.dumps(f"{place}/measurements", ensure_ascii=False)
    return f"python -c {shlex.quote(f'import pandas; print(pandas.read_parquet({stored}))')}"


def _asked_last(folder: Path) -> list[str]:
    """Return the overrides of the last invocation, with passwords masked as they were stored."""
    runs = sorted(folder.glob("runs/*/.hydra/overrides.json"))
    try:
        asked: Any = json.loads(runs[-1].read_text(encoding="utf-8")) if runs else []
    except (OSError, ValueError):
        return []
    return [str(word) for word in asked] if isinstance(asked, list) else []
