"""Pauses after a failure: of a trial that is to be repeated, and of devices on which something failed.

What made a trial fail by no fault of its own (a taken port, a worker that died, another process on its
devices) is often still there a moment later. So a repetition waits, and each further one twice as long; and
devices on which something went wrong are given to no trial meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from sweeper.records import Placement

Retry = TypeVar("Retry")


@dataclass(frozen=True, kw_only=True)
class Resting(Generic[Retry]):
    """Devices, a repetition, or both.

    Attributes:
        until_s: When the pause ends, by the owner's clock.
        placement: Devices that rest; None where they were given back at once.
        retry: What is then to be run again; None for nothing.
    """

    until_s: float
    placement: Placement | None
    retry: Retry | None


class Backoff(Generic[Retry]):
    """All pauses that run now. It has no clock: the owner passes the time."""

    def __init__(self, *, first_s: float) -> None:
        """Start empty.

        Args:
            first_s: Length of the pause after a first try.
        """
        self._first_s = first_s
        self._resting: list[Resting[Retry]] = []

    def __bool__(self) -> bool:
        return bool(self._resting)

    @property
    def retries(self) -> list[Retry]:
        """Repetitions that wait for the end of their pause."""
        return [resting.retry for resting in self._resting if resting.retry is not None]

    def begin(self, *, now_s: float, tries: int, placement: Placement | None, retry: Retry | None) -> None:
        """Begin a pause, as long as this number of tries asks for."""
        until_s = now_s + self._first_s * 2 ** (tries - 1)
        self._resting.append(Resting(until_s=until_s, placement=placement, retry=retry))

    def ended(self, *, now_s: float) -> list[Resting[Retry]]:
        """Return what has rested long enough, oldest first; it rests no longer."""
        ended = [resting for resting in self._resting if resting.until_s <= now_s]
        self._resting = [resting for resting in self._resting if resting.until_s > now_s]
        return ended

    def forget_retries(self) -> None:
        """Forget all repetitions; devices still rest."""
        self._resting = [
            Resting(until_s=resting.until_s, placement=resting.placement, retry=None)
            for resting in self._resting
            if resting.placement is not None
        ]
