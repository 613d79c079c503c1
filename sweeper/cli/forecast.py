"""How long a plan would take, for a person; and the scheduler that a study's settings ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sweeper.records import Platform, TrialState

if TYPE_CHECKING:
    from rich.console import Console

    from sweeper.config import Settings
    from sweeper.forecast import Forecast
    from sweeper.plan import Job
    from sweeper.schedule import Scheduler
    from sweeper.topology import Node


def scheduler_of(settings: Settings, nodes: Sequence[Node]) -> Scheduler:
    """Make the scheduler of a study over these nodes."""
    from sweeper.schedule import Scheduler

    return Scheduler(
        nodes,
        max_parallel=settings.max_parallel,
        isolation=settings.isolation,
        order=settings.order,
        seed=settings.seed,
    )


def forecast_of(settings: Settings, jobs: Sequence[Job], nodes: Sequence[Node]) -> Forecast:
    """Predict the trials that a study would still run, from what it has measured already.

    Args:
        settings: The study's settings.
        jobs: Its whole grid.
        nodes: Where it would run.
    """
    from sweeper.forecast import forecast
    from sweeper.predict import Predictor
    from sweeper.store import FinishedTrial, Store
    from sweeper.sweep import must_run

    predictor, finished = Predictor(), dict[str, FinishedTrial]()
    if settings.folder.is_dir():
        store = Store(settings.folder, settings.results)
        finished = store.finished()
        frame = store.read()
        for job in jobs:
            rows = frame[(frame["trial_key"] == job.spec.key) & (frame["state"] == str(TrialState.COMPLETE))]
            predictor.learn(
                job.spec, [{str(k): v for k, v in row.items()} for row in rows.to_dict("records")]
            )
    to_run = [
        job
        for job in jobs
        if job.refusal is None
        and must_run(job, finished.get(job.spec.key), retry_failed=settings.retry_failed)
    ]
    return forecast(to_run, predictor=predictor, scheduler=scheduler_of(settings, nodes), nodes=nodes)


def show_forecast(settings: Settings, found: Forecast, console: Console) -> None:
    """Print what the plan would cost, and write its time-line where one is asked for."""
    if found.spans:
        where = "a real node" if settings.platform is Platform.SIMULATED else "this node"
        console.print(
            f"predicted on {where}: {len(found.spans)} trials in {duration_text(found.makespan_s)}, "
            f"{found.node_hours:.2f} node-hours, devices idle {found.idle_share:.0%} of the time "
            f"({found.basis})",
            markup=False,
            soft_wrap=True,
        )
    if settings.plan_csv is not None:
        from sweeper.forecast import write_csv

        write_csv(found, settings.plan_csv)
        console.print(
            f"time-line: {settings.plan_csv}; draw it with: python -m analysis timeline {settings.plan_csv}",
            markup=False,
            soft_wrap=True,
        )


def duration_text(seconds: float) -> str:
    """Write a time as people read it: ``45 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"
