"""What the simulated platform expects of a point, for a search to rank its points by.

Points are served by the model of an MI300X node (``simulation``) under the study's own load, cut short. Where
the study searches for the heaviest load within bounds, so does the estimate. Trials that the study has
measured move what the model says of the others (``anchoring``). Of what it does not model, right answers and
power, it has no say: points are ranked by the other objectives and bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sweeper.goals.objectives import is_feasible, trial_values, violations
from sweeper.plan.planner import Job
from sweeper.prepare.anchoring import Anchoring
from sweeper.records import Constraint, Objective
from sweeper.records.derived import ENERGY, OF_QUESTIONS
from sweeper.search.candidates import identity
from sweeper.search.prior import Estimate
from sweeper.space.space import Point
from sweeper.topology import Node

_NOT_MODELLED = OF_QUESTIONS | {ENERGY}


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
    goals = [objective for objective in objectives if objective.metric not in _NOT_MODELLED]
    bounds = [constraint for constraint in constraints if constraint.metric not in _NOT_MODELLED]
    expected = anchoring or Anchoring(node=node, device=device)
    jobs: dict[str, Job] = {}

    def estimate(point: Point) -> Sequence[float] | None:
        # Each trial that teaches has all points estimated anew: planning them again would take the longest.
        key = identity(point)
        planned = jobs.get(key) or jobs.setdefault(key, job(point))
        rows = None if planned.refusal is not None or not goals else expected.rows(planned.spec)
        if rows is None:
            return None
        values = trial_values(goals, rows) if is_feasible(violations(bounds, rows)) else None
        if values is None:
            return None
        return [goal.sign * value for goal, value in zip(goals, values, strict=True)]

    return estimate
