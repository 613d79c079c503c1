"""How the tests of the node ask: recorded outputs of the vendors' tools stand in for the tools."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeper.topology import Absent, Answer, Node, Runner

RECORDED = Path(__file__).parents[1] / "recorded"

Rows = list[dict[str, Any]]


def replay(outputs: Mapping[str, str | Answer]) -> Runner:
    """Answer each command from its first three words, or refuse it as amd-smi refuses an unknown option."""

    def run(command: Sequence[str]) -> Answer:
        if not any(known.split()[0] == command[0] for known in outputs):
            raise FileNotFoundError(command[0])
        for known, output in outputs.items():
            words = known.split()
            if list(command[: len(words)]) == words:
                return output if isinstance(output, Answer) else Answer(exit_status=0, stdout=output)
        return Answer(exit_status=2, stdout="", stderr=f"unknown option in {' '.join(command)}")

    return run


def recorded(folder: str) -> dict[str, str]:
    """The three amd-smi outputs of a folder, by command."""
    names = {"amd-smi list": "list", "amd-smi static": "static", "amd-smi version": "version"}
    return {command: (RECORDED / folder / f"{name}.json").read_text() for command, name in names.items()}


def changed(folder: str, **edits: Callable[[Rows], object]) -> Runner:
    """A recorded node with an edit to the rows of ``listed`` or ``static``."""
    outputs = recorded(folder)
    for name, edit in edits.items():
        command = {"listed": "amd-smi list", "static": "amd-smi static"}[name]
        rows: Rows = json.loads(outputs[command])
        edit(rows)
        outputs[command] = json.dumps(rows)
    return replay(outputs)


def node_of(answer: Node | Absent) -> Node:
    assert isinstance(answer, Node)
    return answer
