"""YAML aliases that unfold to more than any configuration holds.

A reader of YAML shares what an alias names; whatever walks through the result later, as Hydra does, meets
it again at every mention, so a file of ten lines can stand for more values than memory has room for.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from sweeper.errors import ConfigError

MOST_VALUES = 100_000
"""Values of one file, with every alias written out. The largest grid has as many points."""


def check_aliases(folder: Path) -> None:
    """Look through the YAML files of a folder of the user's own.

    Raises:
        ConfigError: A file's aliases unfold to more than ``MOST_VALUES`` values, or contain themselves.
    """
    for path in sorted(folder.rglob("*.yaml")):
        try:
            text = path.read_text(encoding="utf-8")
            root = yaml.compose(text, Loader=yaml.SafeLoader) if "*" in text else None
            count = 0 if root is None else _unfolded(root, {}, MOST_VALUES)
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            continue  # What cannot be read is named where the file is used.
        if count > MOST_VALUES:
            raise ConfigError(
                f"{path}: its YAML aliases (*name) unfold to more than {MOST_VALUES:,} values; expected a "
                "configuration that can be written out. Remove the aliases that hold other aliases."
            )


def _unfolded(node: yaml.Node, known: dict[int, int], limit: int) -> int:
    """Count the values below a node with its aliases written out, or return more than the limit."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        # Until it is counted, a node that contains itself is endless.
        known[id(node)] = limit + 1
        children = (
            node.value if isinstance(node, yaml.SequenceNode) else [n for pair in node.value for n in pair]
        )
        known[id(node)] = 1 + sum(_unfolded(child, known, limit) for child in children)
    return known[id(node)]
