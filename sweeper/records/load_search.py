"""Searches for the heaviest load that keeps bounds: what each varies, in which steps, and what it answers.

A load point that searches stands for many: a probe per value that was tried, each a load point of its own
with what ``load`` replaces. The steps are counted from 0, at the lightest load.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from sweeper.records.metrics import MAX_RATE, MAX_USERS


@dataclass(frozen=True, kw_only=True)
class RateSearch:
    """A search for the highest request rate at which a running server keeps its bounds.

    Attributes:
        low: Smallest rate tried, requests per second.
        high: Largest rate tried, requests per second.
        resolution: Distance of neighbouring rates: how well the answer is known, requests per second.
        bounds: Pairs of a latency metric, such as ``p99_ttft_ms``, and the most it may be.
    """

    answer: ClassVar[str] = MAX_RATE
    """Metric that it finds."""
    key: ClassVar[str] = "workload.max_rate"
    """Where it is asked for."""

    low: float
    high: float
    resolution: float
    bounds: tuple[tuple[str, float], ...]

    @property
    def steps(self) -> int:
        """How many rates there are to try."""
        return _steps(low=self.low, high=self.high, resolution=self.resolution)

    @property
    def label(self) -> str:
        """What is searched for, in words."""
        return f"highest rate with {self}"

    def value(self, step: int) -> float:
        """Return the rate of a step, requests per second; rounded, so that 0.1 times 3 is 0.3."""
        return round(self.low + step * self.resolution, 9)

    def load(self, step: int) -> Mapping[str, float]:
        """Return what the load point of a step has in place of the search's own."""
        return {"request_rate_per_s": self.value(step)}

    def __str__(self) -> str:
        return bounds_text(self.bounds)


@dataclass(frozen=True, kw_only=True)
class UserSearch:
    """A search for the most users, in a closed loop, with whom a running server keeps its bounds.

    Attributes:
        low: Fewest users tried.
        high: Most users tried.
        resolution: Distance of neighbouring numbers of users: how well the answer is known.
        bounds: As in ``RateSearch``.
        prompts_per_user: Requests that each user sends; None sends as many in all, whatever the users.
    """

    answer: ClassVar[str] = MAX_USERS
    """Metric that it finds."""
    key: ClassVar[str] = "workload.max_users"
    """Where it is asked for."""

    low: int
    high: int
    resolution: int
    bounds: tuple[tuple[str, float], ...]
    prompts_per_user: int | None = None

    @property
    def steps(self) -> int:
        """How many numbers of users there are to try."""
        return _steps(low=self.low, high=self.high, resolution=self.resolution)

    @property
    def label(self) -> str:
        """What is searched for, in words."""
        return f"most users with {self}"

    def value(self, step: int) -> int:
        """Return the users of a step."""
        return self.low + step * self.resolution

    def load(self, step: int) -> Mapping[str, int]:
        """Return what the load point of a step has in place of the search's own."""
        users = self.value(step)
        if self.prompts_per_user is None:
            return {"max_concurrency": users}
        return {"max_concurrency": users, "num_prompts": self.prompts_per_user * users}

    def __str__(self) -> str:
        return bounds_text(self.bounds)


def bounds_text(bounds: tuple[tuple[str, float], ...]) -> str:
    """Return what is kept in words: ``p99_ttft_ms <= 2000, p99_tpot_ms <= 200``."""
    return ", ".join(f"{metric} <= {bound:g}" for metric, bound in bounds)


def _steps(*, low: float, high: float, resolution: float) -> int:
    return math.floor((high - low) / resolution + 1e-9) + 1
