"""A command of ``python -m sweeper``, and how its arguments are read."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from sweeper.text.commands import Command
from sweeper.text.output import Parser

if TYPE_CHECKING:
    from rich.console import Console


class ConsoleCommand(Command["Console"]):
    """A command that reads its own part of the command line."""

    def __call__(self, arguments: list[str], console: Console) -> int:
        """Read the arguments and run.

        Raises:
            ConfigError: An argument is unknown, missing or none of those allowed.
        """
        parser = Parser(
            prog=f"python -m sweeper {self.name}", description=self.description, epilog=self.epilog
        )
        self.declare(parser)
        return self.run(self.parse(parser, arguments), console)

    def parse(self, parser: Parser, arguments: list[str]) -> Namespace:
        """Read the arguments by their declarations; every one must be known."""
        return parser.parse_args(arguments)
