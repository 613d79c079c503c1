"""``python -m sweeper audit``: this node against AMD's guides for MI300X."""

from __future__ import annotations

import socket
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.cli import as_json
from sweeper.cli.arguments import ConsoleCommand
from sweeper.cli.exit_codes import OK, SOME_FAILED
from sweeper.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from sweeper.audit import Audit


class AuditNode(ConsoleCommand):
    """Compare the node with AMD's guides."""

    name = "audit"
    summary = "compare this node's settings with AMD's guides for MI300X"
    description = (
        "Compare this node with AMD's system guides for MI300X: what was found, what is expected, why, the "
        "command that changes it, and the source. It reads and never changes."
    )

    def declare(self, parser: ArgumentParser) -> None:
        """Declare the form of the answer."""
        as_json.declare(parser)
        parser.add_argument(
            "--root",
            type=Path,
            default=Path("/"),
            help="where proc and sys lie, such as /host in a container that has the host's root there",
        )
        parser.add_argument(
            "--strict", action="store_true", help="leave with 1 where something differs or is unreadable"
        )

    def run(self, options: Namespace, console: Console) -> int:
        """Read the node, and show every finding."""
        from sweeper.audit import Verdict, audit_node

        if not options.root.is_dir():
            raise ConfigError(
                f"--root: {options.root} is no folder; expected where proc and sys lie, such as /host. "
                "Correct it."
            )
        audit = audit_node(root=options.root)
        if options.json:
            as_json.answer(_told(audit), console)
        else:
            _show(audit, console)
        is_good = len(audit.names(Verdict.GOOD)) == len(audit.findings)
        return SOME_FAILED if options.strict and not is_good else OK


def _told(audit: Audit) -> dict[str, object]:
    return {
        "host": socket.gethostname(),
        "digest": audit.digest,
        "findings": [finding.as_json() for finding in audit.findings],
    }


def _show(audit: Audit, console: Console) -> None:
    from rich.markup import escape
    from rich.table import Table

    from sweeper.audit import Verdict

    table = Table(title=f"{socket.gethostname()} against AMD's guides for MI300X", title_justify="left")
    for name in ("check", "verdict", "found", "expected"):
        table.add_column(name, overflow="fold")
    for finding in audit.findings:
        cells = (finding.check.name, str(finding.verdict), finding.reading.found, finding.check.expected)
        table.add_row(*map(escape, cells))
    console.print(table)
    for finding in audit.findings:
        if finding.verdict is Verdict.DIFFERS:
            _say(console, f"\n{finding.check.name}: found {finding.reading.found}")
            _say(console, f"  expected: {finding.check.expected}, since {finding.check.why}")
            _say(console, f"  to change it: {finding.check.command}")
            _say(console, f"  source: {finding.check.source}")
    for (found, remedy), names in _unreadable(audit).items():
        _say(console, f"\nunreadable: {', '.join(names)}: {found}\n  to read it: {remedy}")
    good, differs, unreadable = (len(audit.names(verdict)) for verdict in Verdict)
    _say(console, f"\n{good} good, {differs} different, {unreadable} unreadable; nothing was changed")
    _say(console, f"digest: {audit.digest}")


def _unreadable(audit: Audit) -> dict[tuple[str, str | None], list[str]]:
    """Group the names of what could not be read by reason and remedy, most of which are shared."""
    groups: dict[tuple[str, str | None], list[str]] = {}
    for finding in audit.findings:
        if finding.reading.remedy is not None:
            groups.setdefault((finding.reading.found, finding.reading.remedy), []).append(finding.check.name)
    return groups


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
