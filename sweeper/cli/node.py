"""``python -m sweeper node``: the devices of this machine, or of the modelled one."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sweeper.cli import as_json
from sweeper.cli.arguments import ConsoleCommand
from sweeper.cli.exit_codes import OK
from sweeper.errors import ConfigError
from sweeper.records import Platform
from sweeper.text.printable import legible

if TYPE_CHECKING:
    from rich.console import Console

    from sweeper.topology import Node


class ShowNode(ConsoleCommand):
    """Show the node's devices."""

    name = "node"
    summary = "show the devices of this node"
    description = "Show the devices of this node."

    def declare(self, parser: ArgumentParser) -> None:
        """Declare the platform, and what is to be modelled of it."""
        parser.add_argument("--platform", default="auto")
        parser.add_argument("--mode", help="compute mode of the modelled node; others are read, never set")
        parser.add_argument("--memory-mode", help="its memory mode")
        parser.add_argument("--device", help="GPU of the modelled node, such as h200; mi300x unless given")
        as_json.declare(parser)

    def run(self, options: Namespace, console: Console) -> int:
        """Read the node, and show a row for each device."""
        from rich.table import Table
        from rich.text import Text

        from sweeper import topology
        from sweeper.prepare.platform import choose_platform

        choice = choose_platform(options.platform)
        given = options.mode or options.memory_mode or options.device
        if choice.platform is not Platform.SIMULATED and given:
            raise ConfigError(
                f"--mode, --memory-mode, --device: are given for {choice.platform}; expected with --platform "
                "simulated, since the mode of a real node is read and never changed. Drop them."
            )
        node = choice.node
        if node is None:
            readers: Mapping[Platform, Callable[[], Any]] = {
                Platform.SIMULATED: lambda: topology.modelled_node(
                    options.device, mode=options.mode, memory_mode=options.memory_mode
                ),
                Platform.CPU: topology.read_cpu,
                Platform.MI300X: topology.read_amd,
                Platform.CUDA: topology.read_nvidia,
            }
            node = readers[choice.platform]()
        if not options.json:
            console.print(f"platform: {choice.platform}: {choice.reason}", markup=False, soft_wrap=True)
        if isinstance(node, topology.Absent):
            raise ConfigError(f"platform {choice.platform}: {node.reason}. Run this on such a node.")
        node = topology.chosen(node, ids=None, environment=os.environ)
        rows = topology.node_table(node)
        if options.json:
            told = {"platform": str(choice.platform), "reason": choice.reason, "summary": node.summary}
            as_json.answer({**told, **_facts(node), "devices": rows}, console)
            return OK
        own, shared = _apart(rows)
        console.print(f"node: {node.summary}", markup=False, soft_wrap=True)
        # Without edges, so that a uuid has room in a terminal of 80 columns.
        table = Table(show_edge=False)
        for name in own[0]:
            table.add_column(name, overflow="fold")
        for row in own:
            table.add_row(*(Text(legible(cell)) for cell in row.values()))
        console.print(table)
        if shared:
            each = ", ".join(f"{name} {value}" for name, value in shared.items())
            console.print(f"each device: {each}", markup=False, highlight=False)
        console.print(_about(node), markup=False, soft_wrap=True)
        return OK


def _apart(rows: Sequence[Mapping[str, str]]) -> tuple[list[dict[str, str]], dict[str, str]]:
    """Return rows of what tells devices apart, and what they have in common; empty cells in neither."""
    shared = {name: value for name, value in rows[0].items() if len({row[name] for row in rows}) == 1}
    if len(rows) == 1:
        shared = {name: value for name, value in shared.items() if not value}
    told = [{name: value for name, value in row.items() if name not in shared} for row in rows]
    return told, {name: value for name, value in shared.items() if value}


def _about(node: Node) -> str:
    """Describe what holds for the whole node, and where its numbers come from."""
    return "; ".join(f"{name}: {value}" for name, value in _facts(node).items() if value is not None)


def _facts(node: Node) -> dict[str, str | None]:
    return {
        "compute mode": node.partition_mode,
        "memory mode": node.memory_mode,
        "driver": node.driver,
        "ROCm": node.rocm,
        "kernels for": node.gfx_target,
        "read from": node.source,
    }
