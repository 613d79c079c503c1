"""The documents as a site: every link leads somewhere, and every page is in its contents."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pytest
import yaml

from tests.conftest import ROOT

LINK = re.compile(r"\]\(([^)\s]+)\)")
# As Markdown renderers make anchors of headings: lower case, words joined, punctuation dropped.
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_site", ROOT / "docs" / "build_site.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGES: list[Path] = builder().pages()


def anchors(page: Path) -> set[str]:
    headings = HEADING.findall(page.read_text(encoding="utf-8"))
    words = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings)
    return {re.sub(r"\s", "-", text) for text in words}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = unquote(target).partition("#")
        path = (page.parent / name).resolve() if name else page
        is_there = path.exists() and path.is_relative_to(ROOT)
        if not is_there or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            broken.append(target)
    assert broken == []


def test_contents_of_the_site_name_every_page_once() -> None:
    settings = yaml.safe_load((ROOT / "docs" / "site.yml").read_text(encoding="utf-8"))
    named: list[str] = []

    def walk(entry: object) -> None:
        if isinstance(entry, str):
            named.append(entry)
        elif isinstance(entry, dict):
            for below in entry.values():
                walk(below)
        elif isinstance(entry, list):
            for below in entry:
                walk(below)

    walk(settings["nav"])
    # The page of each experiment is reached from the list of them.
    wanted = {str(page.relative_to(ROOT)) for page in PAGES if page.parent.parent.name != "experiments"}
    assert sorted(named) == sorted(wanted)


@pytest.mark.slow
def test_site_is_built_without_a_complaint(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="mkdocs-material is not installed (pip install -e '.[docs]')")
    command = [sys.executable, str(ROOT / "docs" / "build_site.py"), str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "index.html").is_file()
