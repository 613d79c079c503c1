"""The examples of docs/extending.md, installed as packages and measured by the command line."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sweeper.store.store import Store
from tests.kinds.plug_ins import install

GUIDE = Path(__file__).parents[2] / "docs" / "extending.md"


def blocks(title: str) -> dict[str, str]:
    """Return the code below a heading, by its language."""
    section = GUIDE.read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL))


def run_example(title: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Install what a section adds, and run its command in a folder."""
    found = blocks(title)
    module = found["python"].splitlines()[0].removeprefix("# ")
    declared = tomllib.loads(found["toml"])["project"]["entry-points"]
    site = install(
        folder / "site", module.removesuffix(".py"), modules={module: found["python"]}, entry_points=declared
    )
    words = shlex.split(found["sh"])
    assert words[:3] == ["python", "-m", "sweeper"]
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join((str(site), root))
    return subprocess.run(
        [sys.executable, *words[1:]],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_engine_of_another_package_is_measured(tmp_path: Path) -> None:
    done = run_example("An engine", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = Store(tmp_path / "outputs" / "toy").read().to_dict("records")
    assert {row["engine"] for row in rows} == {"toy"}
    assert {row["state"] for row in rows} == {"complete"}
    # A token takes 10 ms, or a quarter of that in a batch of 4.
    assert {row["knob.batch"]: row["mean_tpot_ms"] for row in rows} == pytest.approx({1: 10.0, 4: 2.5})


def test_dataset_of_another_package_is_measured(tmp_path: Path) -> None:
    done = run_example("A dataset", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = Store(tmp_path / "outputs" / "chats").read().to_dict("records")
    assert (row["dataset"], row["state"]) == ("short_chats", "complete")
    # 20 prompts of 16 to 32 tokens, answered with 32 to 64.
    assert 20 * 16 <= row["total_input_tokens"] <= 20 * 32
    assert 20 * 32 <= row["total_output_tokens"] <= 20 * 64
