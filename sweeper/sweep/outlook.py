"""How a sweep stands and how long it will still take, for the person who waits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sweeper.plan.planner import Job, Planner
from sweeper.records import Platform
from sweeper.sweep.ledger import Ledger
from sweeper.sweep.queue import Queue, Running
from sweeper.sweep.sources import Source


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """How a sweep stands.

    Attributes:
        left_s: Predicted seconds until its end; None where the platform is modelled and takes no such time.
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


def outlook_of(
    *,
    ledger: Ledger,
    source: Source,
    queue: Queue,
    running: Iterable[Running],
    planner: Planner,
    now_s: float,
) -> Outlook:
    """Return how a sweep stands.

    Args:
        ledger: What is known.
        source: What is still to come.
        queue: What waits.
        running: What runs.
        planner: On which platform and node.
        now_s: The queue's clock.
    """
    key = ledger.progress.leader
    job = None if key is None else source.job_of(key)
    takes_time = planner.platform is not Platform.SIMULATED
    devices = len(planner.node.devices)
    return Outlook(
        left_s=_left_s(source, queue, list(running), now_s=now_s, devices=devices) if takes_time else None,
        leader=key if job is None else job.spec.label,
        value=None if key is None else ledger.progress.value_of(key),
    )


def _left_s(source: Source, queue: Queue, running: Sequence[Running], *, now_s: float, devices: int) -> float:
    def whole(job: Job) -> Work:
        return Work(seconds=queue.predicted_s(job), devices=job.spec.devices_wanted)

    rest = [Work(seconds=each.left_s(now_s), devices=len(each.placement.devices)) for each in running]
    waiting = [Work(seconds=entry.predicted_s, devices=entry.devices) for entry in queue.entries]
    waiting += [whole(control) for control in source.controls.jobs]
    return left_s(
        running=rest,
        waiting=waiting,
        unasked=source.unasked(),
        usual=waiting or [whole(each.job) for each in running],
        devices=devices,
    )


def left_s(
    *, running: Sequence[Work], waiting: Sequence[Work], unasked: int, usual: Sequence[Work], devices: int
) -> float:
    """Return the seconds that it all takes, spread evenly over devices, but no less than the longest run.

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
