"""``python -m sweeper cleanup``: ends what earlier runs left behind, and puts back what they changed."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.cli.arguments import ConsoleCommand
from sweeper.cli.exit_codes import OK
from sweeper.errors import ConfigError
from sweeper.records.plurals import amount

if TYPE_CHECKING:
    from rich.console import Console

OUTPUTS = Path("outputs")
"""The usual outputs folder."""


class CleanUp(ConsoleCommand):
    """End what killed runs left behind."""

    name = "cleanup"
    summary = "end processes that killed runs left behind"
    description = "End processes that killed runs on this outputs folder left behind; only our own."

    def declare(self, parser: ArgumentParser) -> None:
        """Declare the outputs folder."""
        parser.add_argument("outputs", type=Path, nargs="?", default=OUTPUTS)

    def run(self, options: Namespace, console: Console) -> int:
        """End the processes, and put back what the runs changed of the host."""
        # A run makes its outputs folder, so one that is not there was none's; the usual one may be missing.
        if not options.outputs.is_dir() and options.outputs != OUTPUTS:
            raise ConfigError(
                f"{options.outputs}: is no folder. Name the outputs folder of the runs that were killed."
            )
        from sweeper.processes import orphans
        from sweeper.trial import host_settings

        # First: what runs inside them would be found as processes, and the containers stay behind.
        for abandoned in orphans.end_abandoned_containers(options.outputs):
            console.print(f"ended: {abandoned}", markup=False)
        ended = orphans.end_orphans(options.outputs)
        for process in ended:
            console.print(f"ended: {process}", markup=False)
        console.print(f"{amount(len(ended), 'process')} ended", markup=False)
        for knob, value in host_settings.restore_abandoned(options.outputs).items():
            console.print(f"put back: {knob}={value}", markup=False)
        return OK
