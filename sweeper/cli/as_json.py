"""``--json``: the answer alone on standard output, for programs; what else is said goes to standard error."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from sweeper.text.output import Stream, json_answer

if TYPE_CHECKING:
    from rich.console import Console


def declare(parser: ArgumentParser) -> None:
    """Declare the option."""
    parser.add_argument("--json", action="store_true", help="answer as JSON; what else is said is on stderr")


def telling(options: Namespace, console: Console) -> Console:
    """Return where to say what is not the answer: the console itself, without ``--json``."""
    return beside() if options.json else console


def beside() -> Console:
    """Return where to say what is not the answer, while that has standard output for itself."""
    from rich.console import Console

    return Console(file=Stream("stderr"), highlight=False, emoji=False)  # type: ignore[arg-type]


def answer(content: Any, console: Console) -> None:
    """Print an answer."""
    console.print(text(content), markup=False, soft_wrap=True)


def text(content: Any) -> str:
    """Return an answer as it is printed."""
    return json_answer(content)
