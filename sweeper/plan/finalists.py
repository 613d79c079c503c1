"""Finalists: the best settings of a study and its default, measured again once the search is over.

The winner of a search is in part the luckiest of many: its number is the largest of noisy numbers, so it is
too good. Hence the best few and the default are measured anew, with engine starts of their own, and only
these starts are compared (``analysis.verdicts``). Starts are interleaved: each round has every setting once,
in an order of its own, so that a machine that drifts favours none.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sweeper.plan.planner import Job, Planner
from sweeper.records import Scalar
from sweeper.space.domains import Domain, Range
from sweeper.space.space import Point, Space
from sweeper.store.store import knobs_of


def rounds(best: Sequence[Job], default: Job | None, *, repeats: int, seed: int) -> list[list[Job]]:
    """Plan the rounds.

    Args:
        best: The finalists, best first; one that is the default is taken once.
        default: What they are compared with; None where it cannot run here.
        repeats: Rounds, which are engine starts of each setting.
        seed: Of the order within each round.
    """
    # What decides is measured on starts of its own, whatever the search did.
    fresh = [replace(job, spec=job.spec.fresh) for job in best]
    settings = [job for job in fresh if default is None or job.spec.key != default.spec.key]
    chances = random.Random(seed)
    planned = []
    for number in range(repeats):
        jobs = [_start(job, number) for job in settings]
        if default is not None:
            jobs.append(_start(default, number, is_default=True))
        chances.shuffle(jobs)
        planned.append(jobs)
    return planned


def settings_of(keys: Sequence[str], jobs: Mapping[str, Job]) -> list[Job]:
    """Return the settings that trials measured, best first: one of two trials may have shared a start.

    Args:
        keys: Trials, best first.
        jobs: Of the study by the key of their trial, as they are planned now.
    """
    by_key = {key: job for job in jobs.values() for key in job.spec.keys}
    by_key |= jobs
    found = (by_key[key] for key in keys if key in by_key)
    return list({job.spec.fresh.key: job for job in found}.values())


def stored_jobs(planner: Planner, rows: Mapping[str, Mapping[str, Any]]) -> list[Job]:
    """Plan trials of the store again, from the knobs in their rows; no search is asked for its points.

    Args:
        planner: Whose space they belong to.
        rows: A row of each trial by its key, in the order wanted; one that this planner would no longer plan
            is left out.
    """
    jobs = {key: planner.job(_point(planner.space, row)) for key, row in rows.items()}
    return [job for key, job in jobs.items() if key in (job.spec.key, job.spec.shared_key)]


def _point(space: Space, row: Mapping[str, Any]) -> Point:
    """Work out from a stored row which point of the space it is."""
    stored = knobs_of(row)
    choices: dict[str, Scalar] = {"series": str(row["series"][0])} if space.series else {}
    choices |= {
        name: _as_written(stored[name], domain) for name, domain in space.domains.items() if name in stored
    }
    return space.point(choices)


def _as_written(value: Scalar, domain: Domain) -> Scalar:
    """Return a stored value with its domain's type: a column has one type for all rows."""
    if isinstance(domain, Range):
        return domain.own(int(value) if domain.is_int else float(value))
    return next((known for known in domain.values if str(known) == str(value) or known == value), value)


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
