"""How a sweep stands and how long it will still take, for the person who waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """How a sweep stands.

    Attributes:
        left_s: Until its end, as predicted; None where the platform is modelled and takes no such time.
        leader: The best trial so far, by its label; None before there is one.
        value: Its value of the first objective.
    """

    left_s: float | None
    leader: str | None
    value: float | None


@dataclass(frozen=True, kw_only=True)
class Work:
    """A trial as a predicted time on a number of devices."""

    seconds: float
    devices: int


def left_s(
    *, running: Sequence[Work], waiting: Sequence[Work], unasked: int, usual: Sequence[Work], devices: int
) -> float:
    """Return how long it all takes, evenly spread over the devices, but no less than the longest running.

    Args:
        running: What is left of the trials that run.
        waiting: Trials that wait for devices.
        unasked: How many more a search will ask for; each costs about as much as a usual one.
        usual: Trials of the kind that it asks for.
        devices: How many there are.
    """
    work = sum(each.seconds * each.devices for each in (*running, *waiting))
    if usual:
        work += unasked * sum(each.seconds * each.devices for each in usual) / len(usual)
    return max([work / max(devices, 1), *(each.seconds for each in running)])
