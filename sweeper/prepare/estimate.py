"""What the simulated platform expects of a point, for a search to rank its points by.

Points are served by the model of an MI300X node (``simulation``) under the study's own load, cut short. Where
the study searches for the heaviest load within bounds, so does the estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from sweeper.clients.simulated import SimulatedClient
from sweeper.engines.simulated import SimulatedEngine
from sweeper.errors import EngineError, MeasurementError, PlacementError
from sweeper.goals.objectives import is_feasible, measured_row, trial_values, violations
from sweeper.plan.planner import Job
from sweeper.records import Constraint, EngineSpec, LoadPoint, Objective, Placement, Platform, TrialSpec
from sweeper.schedule.allocator import Allocator
from sweeper.search.prior import Estimate
from sweeper.space.space import Point
from sweeper.topology import Node
from sweeper.workload import load_search

MOST_PROMPTS = 500
"""Prompts of a load point at most: enough to fill a batch, and about a hundredth of a second to model."""

FEWEST_ROUNDS = 2
"""Prompts of each user at least, however many users: the first of them all begin at once."""


def simulated_estimate(
    job: Callable[[Point], Job],
    *,
    node: Node,
    device: str,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint] = (),
) -> Estimate:
    """Return the estimate of the simulated platform.

    Args:
        job: Plans a point, as the study would run it.
        node: Where the study runs: it says in which partition mode devices are.
        device: Which of ``simulation.device.DEVICES`` its devices are.
        objectives: What is better.
        constraints: What must be kept; nothing good is expected of a point that breaks one.
    """

    def estimate(point: Point) -> Sequence[float] | None:
        planned = job(point)
        placement = None if planned.refusal is not None else _placed(node, planned.spec.devices_wanted)
        rows = None if placement is None else _rows(_modelled(planned.spec, device), placement)
        if rows is None:
            return None
        values = trial_values(objectives, rows) if is_feasible(violations(constraints, rows)) else None
        if values is None:
            return None
        return [objective.sign * value for objective, value in zip(objectives, values, strict=True)]

    return estimate


def _modelled(spec: TrialSpec, device: str) -> TrialSpec:
    """Return the same trial on the simulated platform, with its load cut short."""
    points = tuple(_cut(point) for point in spec.load_points)
    engine = EngineSpec(kind="simulated", release=spec.engine.release)
    return replace(
        spec, engine=engine, platform=Platform.SIMULATED, modelled_device=device, load_points=points
    )


def _cut(point: LoadPoint) -> LoadPoint:
    """Return a load point with fewer prompts; a search keeps its steps, which are what it answers in."""
    search = point.user_search
    users = point.users if search is None else search.high
    most = max(MOST_PROMPTS, FEWEST_ROUNDS * (users or 0))
    if search is not None and search.prompts_per_user is not None:
        rounds = min(search.prompts_per_user, max(FEWEST_ROUNDS, MOST_PROMPTS // search.high))
        search = replace(search, prompts_per_user=rounds)
    return replace(point, num_prompts=min(point.num_prompts, most), user_search=search)


def _placed(node: Node, devices: int) -> Placement | None:
    try:
        return Allocator(node).acquire(devices)
    except PlacementError:
        return None


def _rows(spec: TrialSpec, placement: Placement) -> list[dict[str, Any]] | None:
    """Serve the load points on one modelled start; None where the model cannot."""
    try:
        server = SimulatedEngine().start(spec, placement, restart=0, cancelled=_never)
        client = SimulatedClient(spec)
        measure = partial(client.measure, server, restart=0, repeat=0, cancelled=_never)
        measured = [one for point in spec.load_points for one in load_search.measurements(point, measure)]
    except (EngineError, MeasurementError):
        return None
    return [measured_row(one, placement) | {"engine_start_s": server.start_s} for one in measured]


def _never() -> bool:
    return False
