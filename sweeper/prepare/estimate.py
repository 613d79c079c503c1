"""What the simulated platform expects of a point, for a search to rank its points by.

Points are served by the model of an MI300X node (``simulation``) under the study's own load, cut short. Where
the study searches for the heaviest load within bounds, so does the estimate. Trials that the study has
measured move what the model says of the others (``anchoring``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sweeper.goals.objectives import is_feasible, trial_values, violations
from sweeper.plan.planner import Job
from sweeper.prepare.anchoring import Anchoring
from sweeper.records import Constraint, Objective
from sweeper.search.candidates import identity
from sweeper.search.prior import Estimate
from sweeper.space.space import Point
from sweeper.topology import Node


def simulated_estimate(
    job: Callable[[Point], Job],
    *,
    node: Node,
    device: str,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint] = (),
    anchoring: Anchoring | None = None,
) -> Estimate:
    """Return the estimate of the simulated platform.

    Args:
        job: Plans a point, as the study would run it.
        node: Where the study runs: it says in which partition mode devices are.
        device: Which of ``simulation.device.DEVICES`` its devices are.
        objectives: What is better.
        constraints: What must be kept; nothing good is expected of a point that breaks one.
        anchoring: Of the study, which learns from its trials; None takes the model at its word.
    """
    expected = anchoring or Anchoring(node=node, device=device)
    jobs: dict[str, Job] = {}

    def estimate(point: Point) -> Sequence[float] | None:
        # Each trial that teaches has all points estimated anew: planning them again would take the longest.
        key = identity(point)
        planned = jobs.get(key) or jobs.setdefault(key, job(point))
        rows = None if planned.refusal is not None else expected.rows(planned.spec)
        if rows is None:
            return None
        values = trial_values(objectives, rows) if is_feasible(violations(constraints, rows)) else None
        if values is None:
            return None
        return [objective.sign * value for objective, value in zip(objectives, values, strict=True)]

    return estimate
