"""A look over the space of a search before it starts: what can run, what is refused and why.

A space that is small enough is looked at whole, a larger one at points drawn evenly at random. Nothing is
started, and which points the search will choose is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sweeper.plan.planner import Job, Planner, Seen, unseen
from sweeper.space.random_point import draw
from sweeper.text.reasons import kind_of

LOOKED_AT = 2000
"""Points looked at, at most: each is planned as if it were to run, about a thousand in a second."""


@dataclass(frozen=True, kw_only=True)
class RefusedAlike:
    """Settings that are refused for the same reason, numbers aside.

    Attributes:
        count: How many.
        reason: Of the first of them, in words.
        is_same: Whether the numbers are the same, too.
    """

    count: int
    reason: str
    is_same: bool


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What was found in a space.

    Attributes:
        combinations: Combinations of all domains; None where one is continuous.
        is_whole: Whether all of them were looked at.
        looked_at: How many were.
        jobs: Distinct settings that can run, in random order.
        refusals: Why others cannot, the most frequent reason first.
    """

    combinations: int | None
    is_whole: bool
    looked_at: int
    jobs: tuple[Job, ...]
    refusals: tuple[RefusedAlike, ...]

    @property
    def share_that_runs(self) -> float:
        """Which part of the distinct settings that were looked at can run, 0 to 1."""
        return len(self.jobs) / self.looked_at if self.looked_at else 0.0


def survey(planner: Planner, *, seed: int, limit: int = LOOKED_AT, seen: Seen = unseen) -> Survey:
    """Survey a planner's space.

    Args:
        planner: Whose space and node it is.
        seed: Of the drawn points and of the order of the jobs.
        limit: Points looked at, at most.
        seen: Is called with the points planned so far and all there are.

    Raises:
        KnobError: A knob does not exist in this release, or has a value that it does not take.
    """
    generator = np.random.default_rng(seed)
    combinations = planner.space.size()
    is_whole = combinations is not None and combinations <= limit
    drawn = (draw(planner.space, generator) for _ in range(limit))
    points = list(planner.space.grid() if is_whole else drawn)
    planned: dict[str, Job] = {}
    for number, point in enumerate(points, start=1):
        seen(number, len(points))
        job = planner.job(point)
        planned[job.spec.key] = job
    found = list(planned.values())
    jobs = [job for job in found if job.refusal is None]
    return Survey(
        combinations=combinations,
        is_whole=is_whole,
        looked_at=len(found),
        jobs=tuple(jobs[place] for place in generator.permutation(len(jobs))),
        refusals=_alike([str(job.refusal) for job in found if job.refusal is not None]),
    )


def _alike(reasons: list[str]) -> tuple[RefusedAlike, ...]:
    groups: dict[str, list[str]] = {}
    for reason in reasons:
        groups.setdefault(kind_of(reason), []).append(reason)
    found = (
        RefusedAlike(count=len(group), reason=group[0], is_same=len(set(group)) == 1)
        for group in groups.values()
    )
    return tuple(sorted(found, key=lambda alike: -alike.count))
