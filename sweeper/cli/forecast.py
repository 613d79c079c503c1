"""How long a plan would take, for a person; and the scheduler that a study's settings ask for."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sweeper.cli.analysis import analysis_command
from sweeper.cli.long_work import LongWork
from sweeper.errors import AnswerError
from sweeper.records import Platform
from sweeper.records.plurals import amount, percent
from sweeper.text.durations import duration_text

if TYPE_CHECKING:
    from rich.console import Console

    from sweeper.config import Settings
    from sweeper.plan.forecast import Forecast
    from sweeper.plan.planner import Job
    from sweeper.sweep.ledger import Ledger
    from sweeper.topology import Node
from sweeper.prepare.planner import scheduler_of

_SHOWN_BLOCKS = 4


def forecast_of(
    settings: Settings,
    planned: Sequence[Job],
    to_run: Sequence[Job],
    nodes: Sequence[Node],
    ledger: Ledger,
    console: Console,
) -> Forecast:
    """Predict the trials that a study would still run, from what it has measured already.

    Args:
        settings: The study's settings.
        planned: Its whole grid, or settings that a search may choose, stored ones among them.
        to_run: Those that would start an engine.
        nodes: Where it would run.
        ledger: What is known of it.
        console: Shows the progress of a long forecast.
    """
    from sweeper.plan.forecast import forecast
    from sweeper.schedule.durations import Predictor
    from sweeper.topology import modelled_as

    predictor = Predictor(measured_device=modelled_as(nodes[0]))
    for job in planned:
        predictor.learn(job.spec, ledger.stored.rows_of(job.spec.key))
    return forecast(
        to_run,
        predictor=predictor,
        scheduler=scheduler_of(settings, nodes),
        nodes=nodes,
        seen=LongWork(console, "placing trials").seen,
    )


def forecast_facts(settings: Settings, found: Forecast) -> dict[str, str]:
    """Describe what the plan would cost: where its trials run, for how long, and the price where known."""
    if not found.spans:
        return {}
    where = "a real node" if settings.platform is Platform.SIMULATED else "this node"
    lasting = sorted(prediction.total_s for prediction in found.predictions.values())
    shortest, longest = duration_text(lasting[0]), duration_text(lasting[-1])
    each = shortest if shortest == longest else f"{shortest} to {longest} each"
    facts = {
        "devices": _devices_text(found.nodes),
        "placement": _placement_text(settings, found),
        "predicted": f"on {where}: {amount(len(lasting), 'trial')} of {each} in "
        f"{duration_text(found.makespan_s)}, {found.node_hours:.2f} node-hours, devices idle "
        f"{percent(found.idle_share)} of the time (basis: {found.basis})",
    }
    if settings.price_per_gpu_hour is not None:
        facts["cost"] = _cost_text(settings, settings.price_per_gpu_hour, found)
    return facts


def _devices_text(nodes: Sequence[Node]) -> str:
    """Name which devices are used where that is not all of them; empty where it is."""
    texts = {node.host: node.restriction for node in nodes if node.restriction}
    if len(nodes) == 1:
        return "".join(texts.values())
    return "; ".join(f"{host}: {text}" for host, text in texts.items())


def _placement_text(settings: Settings, found: Forecast) -> str:
    """Describe in what blocks of devices trials of each size stand, and how many side by side."""
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
    return f"{amount(size, 'device')} a trial, {room} ({shown})"


def _blocks(size: int, nodes: Sequence[Node]) -> list[tuple[int, ...]]:
    """Fill the empty nodes with trials of one size; a node that is too small holds none."""
    from sweeper.schedule.allocator import Allocator

    blocks = []
    for node in nodes:
        allocator = Allocator(node)
        while size <= len(node.devices) and (placement := allocator.acquire(size)) is not None:
            blocks.append(placement.devices)
    return blocks


def cost_of(settings: Settings, found: Forecast) -> float | None:
    """Return what the plan would cost, every GPU of its nodes paid for; None where the price is not known."""
    if settings.price_per_gpu_hour is None:
        return None
    return found.makespan_s / 3600 * _gpus(found) * settings.price_per_gpu_hour


def _gpus(found: Forecast) -> int:
    return sum(len({device.parent for device in node.devices}) for node in found.nodes)


def _cost_text(settings: Settings, price: float, found: Forecast) -> str:
    gpus, hours = _gpus(found), found.makespan_s / 3600
    unit = f" {settings.currency}" if settings.currency else ""
    return (
        f"{cost_of(settings, found):,.2f}{unit}: {amount(gpus, 'GPU')} for {hours:.2f} h at "
        f"{price:,.2f}{unit} an hour, idle ones included"
    )


def write_timeline(settings: Settings, found: Forecast, console: Console) -> None:
    """Write the plan's time-line where one is asked for."""
    if settings.plan_csv is not None:
        from sweeper.plan.forecast import write_csv

        try:
            write_csv(found, settings.plan_csv)
        except AnswerError as exc:
            raise AnswerError(f"plan_csv: {exc}") from exc
        draw = f"{analysis_command()} timeline {shlex.quote(str(settings.plan_csv))}"
        console.print(
            f"time-line: {settings.plan_csv}; draw it with: {draw}",
            markup=False,
            soft_wrap=True,
        )
