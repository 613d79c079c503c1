"""The package of examples/plugins, installed, and measured by the commands of docs/extending.md."""

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

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "extending.md"
PACKAGE = ROOT / "examples" / "plugins"


def command(title: str) -> str:
    """Return the command below a heading."""
    section = GUIDE.read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]
    (found,) = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    return found.replace("\\\n", " ")


def run_example(title: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Install the example's package, and run the command of a section in a folder."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text(encoding="utf-8"))
    modules = project["tool"]["hatch"]["build"]["targets"]["wheel"]["include"]
    site = install(
        folder / "site",
        project["project"]["name"].replace("-", "_"),
        modules={module: (PACKAGE / module).read_text(encoding="utf-8") for module in modules},
        entry_points=project["project"]["entry-points"],
    )
    words = shlex.split(command(title))
    assert words[:3] == ["python", "-m", "sweeper"]
    path = os.pathsep.join((str(site), str(ROOT)))
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
