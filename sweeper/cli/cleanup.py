"""``python -m sweeper cleanup``: ends what earlier runs left behind, and puts back what they changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.cli.arguments import Parser
from sweeper.cli.exit_codes import OK
from sweeper.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

from sweeper.cli.node import _OUTPUTS


def clean_up(arguments: list[str], console: Console) -> int:
    """End what killed runs left behind."""
    parser = Parser(
        prog="python -m sweeper cleanup",
        description="End processes that killed runs on this outputs folder left behind; only our own.",
    )
    parser.add_argument("outputs", type=Path, nargs="?", default=_OUTPUTS)
    options = parser.parse_args(arguments)
    # A run makes its outputs folder, so one that is not there was none's; the usual one may be missing.
    if not options.outputs.is_dir() and options.outputs != _OUTPUTS:
        raise ConfigError(
            f"{options.outputs}: is no folder. Name the outputs folder of the runs that were killed."
        )
    from sweeper.processes import orphans
    from sweeper.trial import host_settings

    ended = orphans.end_orphans(options.outputs)
    for process in ended:
        console.print(f"ended: {process}", markup=False)
    console.print(f"{len(ended)} processes ended", markup=False)
    for knob, value in host_settings.restore_abandoned(options.outputs).items():
        console.print(f"put back: {knob}={value}", markup=False)
    return OK
