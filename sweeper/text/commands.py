"""What a command is: a class that names itself, declares its arguments and runs.

The commands of ``sweeper`` and of ``analysis`` are of this kind.
A command that is added is its class, and its line in the list of its program.
"""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

Out = TypeVar("Out")
"""What a command of the program prints to."""


class Command(ABC, Generic[Out]):
    """One command.

    Attributes:
        name: Its name on the command line.
        summary: One line for the list of commands.
        description: The first paragraph of its own help; empty repeats the summary.
        epilog: The last one; None where there is none.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    description: ClassVar[str] = ""
    epilog: ClassVar[str | None] = None

    # Most commands have arguments; one that has none needs no method that says so.
    def declare(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments; none unless a command has some."""

    @abstractmethod
    def run(self, options: argparse.Namespace, out: Out) -> int:
        """Do it, print to ``out``, and return the exit code."""
