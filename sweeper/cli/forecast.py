"""How long a plan would take, for a person; and the scheduler that a study's settings ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sweeper.errors import AnswerError
from sweeper.records import Platform, TrialState

if TYPE_CHECKING:
    from rich.console import Console

    from sweeper.config import Settings
    from sweeper.forecast import Forecast
    from sweeper.plan import Job
    from sweeper.schedule import Scheduler
    from sweeper.topology import Node

_SHOWN_BLOCKS = 4


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


def forecast_of(
    settings: Settings, jobs: Sequence[Job], nodes: Sequence[Node], *, most: int | None = None
) -> Forecast:
    """Predict the trials that a study would still run, from what it has measured already.

    Args:
        settings: The study's settings.
        jobs: Its whole grid, or settings that a search may choose.
        nodes: Where it would run.
        most: How many of the jobs are predicted, the first ones; None is all.
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
    return forecast(to_run[:most], predictor=predictor, scheduler=scheduler_of(settings, nodes), nodes=nodes)


def forecast_facts(settings: Settings, found: Forecast) -> dict[str, str]:
    """Say what the plan would cost: where its trials stand, how long they take, and the price where known."""
    if not found.spans:
        return {}
    where = "a real node" if settings.platform is Platform.SIMULATED else "this node"
    lasting = sorted(prediction.total_s for prediction in found.predictions.values())
    shortest, longest = duration_text(lasting[0]), duration_text(lasting[-1])
    each = shortest if shortest == longest else f"{shortest} to {longest} each"
    facts = {
        "placement": _placement_text(settings, found),
        "predicted": f"on {where}: {len(lasting)} trial{'s' if len(lasting) > 1 else ''} of {each} in "
        f"{duration_text(found.makespan_s)}, {found.node_hours:.2f} node-hours, devices idle "
        f"{found.idle_share:.0%} of the time (basis: {found.basis})",
    }
    if settings.price_per_gpu_hour is not None:
        facts["cost"] = _cost_text(settings.price_per_gpu_hour, settings.currency, found)
    return facts


def _placement_text(settings: Settings, found: Forecast) -> str:
    """Say in what blocks of devices trials of each size stand, and how many side by side."""
    sizes = sorted({job.spec.devices_wanted for job in found.jobs.values()}, reverse=True)
    texts = [_blocks_text(size, _blocks(size, found.nodes)) for size in sizes]
    if settings.isolation != "shared":
        texts.append(f"one trial at a time on a node (study.isolation={settings.isolation})")
    if settings.max_parallel is not None:
        texts.append(f"at most {settings.max_parallel} at once (executor.max_parallel)")
    return "; ".join(texts)


def _blocks_text(size: int, blocks: Sequence[Sequence[int]]) -> str:
    spans = [f"{block[0]}" if len(block) == 1 else f"{block[0]}-{block[-1]}" for block in blocks]
    shown = ", ".join(spans[:_SHOWN_BLOCKS]) + (", ..." if len(spans) > _SHOWN_BLOCKS else "")
    room = f"room for {len(blocks)} side by side" if len(blocks) > 1 else "one at a time"
    return f"{size} device{'s' if size > 1 else ''} a trial, {room} ({shown})"


def _blocks(size: int, nodes: Sequence[Node]) -> list[tuple[int, ...]]:
    """Fill the empty nodes with trials of one size; a node that is too small holds none."""
    from sweeper.placement import Allocator

    blocks = []
    for node in nodes:
        allocator = Allocator(node)
        while size <= len(node.devices) and (placement := allocator.acquire(size)) is not None:
            blocks.append(placement.devices)
    return blocks


def _cost_text(price: float, currency: str, found: Forecast) -> str:
    gpus = sum(len({device.parent for device in node.devices}) for node in found.nodes)
    hours = found.makespan_s / 3600
    unit = f" {currency}" if currency else ""
    return (
        f"{hours * gpus * price:,.2f}{unit}: {gpus} GPU{'s' if gpus > 1 else ''} for {hours:.2f} h at "
        f"{price:,.2f}{unit} an hour, idle ones included"
    )


def write_timeline(settings: Settings, found: Forecast, console: Console) -> None:
    """Write the plan's time-line where one is asked for."""
    if settings.plan_csv is not None:
        from sweeper.forecast import write_csv

        try:
            write_csv(found, settings.plan_csv)
        except AnswerError as exc:
            raise AnswerError(f"plan_csv: {exc}") from exc
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
