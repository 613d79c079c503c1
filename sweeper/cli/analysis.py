"""``python -m sweeper analysis``: the commands of ``analysis``, wherever this program is installed.

In a checkout ``analysis`` lies next to ``sweeper``, and ``python -m analysis`` runs it. The wheel carries it
inside ``sweeper``, as it carries ``conf`` and ``experiments``: a package of that name at top level would meet
the user's own. ``python -m`` puts the current folder first on ``sys.path``, and an ``analysis`` there is not
ours. So ours is loaded by its place, never by looking along ``sys.path``.
"""

from __future__ import annotations

import importlib.util
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

import sweeper
from sweeper.cli.arguments import ConsoleCommand

if TYPE_CHECKING:
    from rich.console import Console

_NAME = "analysis"


class Analyse(ConsoleCommand):
    """The commands of ``analysis``, which read their own arguments."""

    name = "analysis"
    summary = "charts, tables and reports from stored results"

    def __call__(self, arguments: list[str], console: Console) -> int:
        """Hand the arguments on as they are."""
        return self.run(Namespace(words=arguments), console)

    def run(self, options: Namespace, console: Console) -> int:
        """Run one command of ``analysis``."""
        from analysis import cli

        return cli.main(options.words, program="python -m sweeper analysis")


def analysis_command() -> str:
    """Return how a user reaches ``analysis`` from here: its own name is a command in a checkout alone."""
    return "python -m sweeper analysis" if _inside().is_dir() else "python -m analysis"


def load_own_analysis() -> None:
    """Make the name ``analysis`` stand for the package that belongs to this program, in this process.

    Another package of that name which is loaded already stays with those who hold it.
    """
    folder = _inside() if _inside().is_dir() else _inside().parents[1] / _NAME
    loaded = getattr(sys.modules.get(_NAME), "__path__", ())
    if [Path(path).resolve() for path in loaded] == [folder]:
        return
    for name in [name for name in sys.modules if name.split(".")[0] == _NAME]:
        del sys.modules[name]
    spec = importlib.util.spec_from_file_location(_NAME, folder / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[_NAME] = module
    spec.loader.exec_module(module)


def _inside() -> Path:
    """Return where the wheel puts it."""
    return Path(sweeper.__file__).resolve().parent / _NAME
