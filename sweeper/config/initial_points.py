"""How a search begins: checks of ``search.start`` and ``search.stages``.

Whether they fit the space is looked at where the space and its search are known (``sweeper.search``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweeper.config.checks import scalar
from sweeper.errors import ConfigError
from sweeper.records import Scalar


def starts(search: Mapping[str, Any]) -> tuple[dict[str, Scalar], ...]:
    """Read the settings that a search is to try first.

    Methods that choose by themselves take none, so that an experiment that names some runs with those, too.

    Raises:
        ConfigError: One is no mapping of knobs to values.
    """
    found = []
    for number, start in enumerate(search["start"]):
        where = f"search.start[{number}]"
        if not isinstance(start, Mapping):
            raise ConfigError(
                f"{where}: is {start!r}; expected knobs and values, such as {{max_num_seqs: 512}}. "
                "Correct it."
            )
        found.append({str(name): scalar(f"{where}.{name}", value) for name, value in start.items()})
    return tuple(found)


def stages(search: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    """Read the stages of a staged search.

    Raises:
        ConfigError: One is no list of names.
    """
    given = search["stages"]
    for number, stage in enumerate(given):
        if not isinstance(stage, list) or not all(isinstance(name, str) for name in stage):
            raise ConfigError(
                f"search.stages[{number}]: is {stage!r}; expected a list of knobs, such as [max_num_seqs]. "
                "Correct it."
            )
    return tuple(tuple(stage) for stage in given)
