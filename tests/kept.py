"""What a study keeps between its trials (``sweeper.processes.kept``), as its start files tell."""

from __future__ import annotations

import json
from pathlib import Path

from sweeper.processes import process


def kept(study: Path) -> set[int]:
    """Process ids of what is kept in a study's folder, and of its supervisors, as far as it lives."""
    files = [json.loads(path.read_text(encoding="utf-8")) for path in study.glob("kept/*.start.json")]
    return {
        int(facts[name])
        for facts in files
        for name in ("pid", "program_pid")
        if "ended_at" not in facts and process.find(int(facts[name])) is not None
    }
