"""The commands of ``python -m analysis``; the only place of this package that prints."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis import figures, report
from analysis.study import Study
from sweeper.errors import SweeperError
from sweeper.store import columns_markdown

_DESCRIPTION = "Charts, tables and reports from the stored results of a study."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Command line without the program's name; None takes the process's own.

    Returns:
        Exit code: 0 when done, 2 when the request cannot be met; the reason is one line on stderr.
    """
    options = _parser().parse_args(arguments)
    try:
        _run(options.command, options)
    except SweeperError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analysis", description=_DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, meaning in (
        ("figures", "draw the charts of a study into its figures/ folder"),
        ("report", "draw the charts and write report.md"),
    ):
        command = commands.add_parser(name, help=meaning, description=meaning)
        command.add_argument(
            "folder", type=Path, help="the study's folder, such as outputs/case2_sched_steps"
        )
    commands.add_parser("columns", help="describe every column of measurements/ in Markdown")
    return parser


def _run(command: str, options: argparse.Namespace) -> None:
    if command == "columns":
        print(columns_markdown(), end="")
    elif command == "figures":
        for path in figures.write(Study.load(options.folder)):
            print(path)
    else:
        written = report.write(options.folder)
        for path in (*written.figures, written.report):
            print(path)
