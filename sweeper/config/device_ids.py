"""Which devices of a node are used: ``platform.device_ids``."""

from __future__ import annotations

from typing import Any

from sweeper.errors import ConfigError
from sweeper.topology import numbers_of


def device_ids(given: Any) -> tuple[int, ...] | None:
    """Read the devices that a study may use, ascending; None where nothing is said.

    Args:
        given: A list of numbers, one number, or a text such as ``0-3,8``, which the first lines print.

    Raises:
        ConfigError: It is anything else, empty, or a number comes twice.
    """
    if given is None:
        return None
    words = given if isinstance(given, list) else [given]
    is_text = all(isinstance(word, int | str) and not isinstance(word, bool) for word in words)
    found = numbers_of(",".join(map(str, words))) if words and is_text else None
    if found is None:
        raise ConfigError(
            f"platform.device_ids: is {given!r}; expected numbers of devices, each once. Write "
            "platform.device_ids=[4,5,6,7] or platform.device_ids=4-7."
        )
    return found
