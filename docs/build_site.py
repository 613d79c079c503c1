"""Build the documents as a site: ``make docs``, or ``python docs/build_site.py FOLDER`` with mkdocs-material.

The documents lie where they are read in a checkout and link to one another and to files there. So they are
staged as they lie, with every file that one of them links to; a link to a folder, or to nothing, is an error.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    *("README.md", "CHANGELOG.md", "analysis/README.md", "benchmarks/README.md", "conf/README.md"),
    *("docs/*.md", "examples/README.md", "experiments/README.md", "experiments/*/README.md"),
)
_LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)")


def main() -> int:
    """Build the site into the folder that is named, and return mkdocs's exit code."""
    built = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory(prefix="sweeper-docs-") as folder:
        staged = Path(folder) / "pages"
        _copy(ROOT / "docs" / "site.css", staged)
        for page in pages():
            _copy(page, staged)
            for target in linked(page):
                _copy(target, staged)
        settings = (ROOT / "docs" / "site.yml").read_text(encoding="utf-8")
        config = Path(folder) / "mkdocs.yml"
        config.write_text(
            settings.replace("STAGED", str(staged)).replace("BUILT", str(built)), encoding="utf-8"
        )
        command = [
            sys.executable,
            "-m",
            "mkdocs",
            "build",
            "--strict",
            "--quiet",
            "--config-file",
            str(config),
        ]
        return subprocess.run(command, check=False).returncode


def pages() -> list[Path]:
    """Return the documents of the site."""
    return sorted(path for pattern in PAGES for path in ROOT.glob(pattern))


def linked(page: Path) -> Iterator[Path]:
    """Return the files of this repository that a page links to."""
    for target in _LINK.findall(page.read_text(encoding="utf-8")):
        path = (page.parent / unquote(target)).resolve()
        if "://" not in target and path.is_file():
            yield path


def _copy(path: Path, staged: Path) -> None:
    to = staged / path.relative_to(ROOT)
    if not to.exists():
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to)


if __name__ == "__main__":
    sys.exit(main())
