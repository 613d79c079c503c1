"""``python -m sweeper models``: published models counted beside what their makers state, as Markdown."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from sweeper.cli.arguments import ConsoleCommand
from sweeper.cli.exit_codes import OK

if TYPE_CHECKING:
    from rich.console import Console


class ShowModels(ConsoleCommand):
    """Print docs/models.md."""

    name = "models"
    summary = "published models counted beside what their makers state, as Markdown"
    description = (
        "Print, in Markdown, the weights and the KV cache of published models as they follow from "
        "config.json, beside what their makers state. Downloads nothing."
    )

    def run(self, options: Namespace, console: Console) -> int:
        """Print the page."""
        from sweeper.models import published

        console.print(published.page(), markup=False, soft_wrap=True, end="")
        return OK
