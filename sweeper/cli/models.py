"""``python -m sweeper models``: published models, and published starts, counted beside what is stated."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from sweeper.cli.arguments import ConsoleCommand
from sweeper.cli.exit_codes import OK

if TYPE_CHECKING:
    from rich.console import Console


class ShowModels(ConsoleCommand):
    """Print docs/models.md or docs/starts.md."""

    name = "models"
    summary = "published models counted beside what their makers state, as Markdown"
    description = (
        "Print, in Markdown, the weights and the KV cache of published models as they follow from "
        "config.json, beside what their makers state. Downloads nothing."
    )

    def declare(self, parser: ArgumentParser) -> None:
        """Declare which page."""
        parser.add_argument(
            "--starts",
            action="store_true",
            help="memory that vLLM logged on Instinct GPUs instead, beside what fit says of it",
        )

    def run(self, options: Namespace, console: Console) -> int:
        """Print the page."""
        from sweeper.models import published, starts

        page = starts.page() if options.starts else published.page()
        console.print(page, markup=False, soft_wrap=True, end="")
        return OK
