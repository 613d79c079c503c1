"""Reading the arguments of one command."""

from __future__ import annotations

from typing import Any

from sweeper.errors import ConfigError
from sweeper.text.output import HelpParser


class Parser(HelpParser):
    """Reports a mistake as one of ours instead of leaving the program."""

    def error(self, message: str) -> Any:
        """Raise the mistake, with the command that explains it."""
        raise ConfigError(f"{self.prog}: {message}. See: {self.prog} --help")
