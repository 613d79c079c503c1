"""Finalists: the best settings of a study and its default, measured again once the search is over.

The winner of a search is in part the luckiest of many: its number is the largest of noisy numbers, so it is
too good. Hence the best few and the default are measured anew, with engine starts of their own, and only
these starts are compared (``analysis.verdicts``). Starts are interleaved: each round has every setting once,
in an order of its own, so that a machine that drifts favours none.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from sweeper.plan import Job


def rounds(best: Sequence[Job], default: Job | None, *, repeats: int, seed: int) -> list[list[Job]]:
    """Plan the rounds.

    Args:
        best: The finalists, best first; one that is the default is taken once.
        default: What they are compared with; None where it cannot run here.
        repeats: Rounds, which are engine starts of each setting.
        seed: Of the order within each round.
    """
    settings = [job for job in best if default is None or job.spec.key != default.spec.key]
    chances = random.Random(seed)
    planned = []
    for number in range(repeats):
        jobs = [_start(job, number) for job in settings]
        if default is not None:
            jobs.append(_start(default, number, is_default=True))
        chances.shuffle(jobs)
        planned.append(jobs)
    return planned


def _start(job: Job, number: int, *, is_default: bool = False) -> Job:
    """Plan one engine start of a setting, as a trial of its own that belongs to no point of the search."""
    trials_folder = job.spec.folder.rpartition("/")[0]
    spec = replace(
        job.spec,
        final=number,
        is_default=is_default,
        repeats=1,
        attempt=1,
        label=f"final {number + 1} ({'default' if is_default else job.spec.label})",
    )
    return replace(job, spec=replace(spec, folder=f"{trials_folder}/{spec.key}"), points=())
