"""Runs without a server, asked again with other parameters: their schedule does not depend on time.

Everything is there at the start, so what a step holds follows from the settings alone. It is recorded once,
and another calibration only weighs the steps anew: a thousandth of the time. A run whose recorded steps do
not add up to its duration is not taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sweeper.clients.simulated import SimulatedClient
from sweeper.engines import never_cancelled
from sweeper.engines.simulated import SimulatedEngine
from sweeper.kinds import DATASETS
from sweeper.metrics import summarize
from sweeper.records import LoadPoint, Placement, TrialSpec
from sweeper.simulation.calibration import Calibration
from sweeper.simulation.costs import CostModel, Step

_SAME = 1e-6


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One run of an offline benchmark.

    Attributes:
        costs: With which it was recorded.
        steps: First step, steps of a group, and groups, one after the other.
        duration_s: Of the whole run.
        metrics: What the benchmark reported.
    """

    costs: CostModel
    steps: tuple[tuple[Step, int, int], ...]
    duration_s: float
    metrics: Mapping[str, float | None]

    def told(self, found: Calibration, metric: str) -> float:
        """Return the metric with other parameters."""
        slower = _duration_s(replace(self.costs, calibration=found), self.steps) / self.duration_s
        value = self.metrics[metric] or 0.0
        return value / slower if metric.endswith("_per_s") else value * slower


_KEPT: dict[tuple[str, LoadPoint], Recording | None] = {}


def recording(spec: TrialSpec, placement: Placement, point: LoadPoint) -> Recording | None:
    """Record a run, once; None where its schedule depends on time, or on chance."""
    if DATASETS[point.dataset].needs_server:
        return None
    key = (spec.key, point)
    if key not in _KEPT:
        _KEPT[key] = _recorded(replace(spec, calibration={}), placement, point)
    return _KEPT[key]


def _recorded(spec: TrialSpec, placement: Placement, point: LoadPoint) -> Recording | None:
    server = SimulatedEngine().start(spec, placement, restart=0, cancelled=never_cancelled)
    client = SimulatedClient(spec)
    told = client.measure(server, point, restart=0, repeat=0, cancelled=never_cancelled)
    if not spec.assignment.get("enable_prefix_caching"):
        server.forget_prefixes()
    steps: list[tuple[Step, int, int]] = []
    server.watch(lambda step, size, groups: steps.append((step, size, groups)))
    once = summarize(client.serve(server, point, seed=point.client_seed, cancelled=never_cancelled).records)
    server.watch(None)
    whole_s = once["duration_s"] or 0.0
    # Where answers are read a step late, the last step is computed after the last answer.
    for counted in (steps, steps[:-1]):
        duration_s = _duration_s(server.costs, counted)
        if abs(duration_s - whole_s) <= _SAME * whole_s:
            return Recording(
                costs=server.costs, steps=tuple(counted), duration_s=duration_s, metrics=told.metrics
            )
    return None


def _duration_s(costs: CostModel, steps: Sequence[tuple[Step, int, int]]) -> float:
    return sum(float(costs.groups_s(step, steps=size, groups=count).sum()) for step, size, count in steps)
