"""Why trials have no numbers, as people read it.

Reasons that differ in their numbers alone say the same: the first is shown whole, and the others are counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

SHOWN = 3
"""So many that say the same are shown one by one; of more, the first stands for all."""

_NUMBER = re.compile(r"\d+([.,]\d+)*")


def reason_text(kind: object, message: object) -> str:
    """Return a class of failure and its message in one line; a class that the message names comes once."""
    told = " ".join(str(message).split())
    return told if kind is None or told.startswith(f"{kind}: ") else f"{kind}: {told}"


def kind_of(message: object) -> str:
    """Return what messages that say the same have in common: to compare them, never to be shown."""
    return _NUMBER.sub("#", str(message))


def and_more(message: str, others: int) -> str:
    """Add to a message how many more say the same of other numbers; none adds nothing."""
    return f"{message} (and {others:,} more like it)" if others > 0 else message


def folded(messages: Iterable[tuple[str, str]]) -> list[str]:
    """Return what to show of many messages, in the order of the first of each kind.

    Args:
        messages: A text that is compared, such as a reason, and the one that is shown, with its log.
    """
    groups: dict[str, list[str]] = {}
    for reason, shown in messages:
        groups.setdefault(kind_of(reason), []).append(shown)
    found = []
    for group in groups.values():
        if len(group) > SHOWN:
            found.append(and_more(group[0], len(group) - 1))
        else:
            counted = Counter(group).items()
            found += [f"{count} times {shown}" if count > 1 else shown for shown, count in counted]
    return found
