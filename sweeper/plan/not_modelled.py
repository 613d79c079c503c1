"""Which series of a chart a model cannot tell apart: their bars would be equal, and say nothing.

A model of a server knows some knobs only. Two series that differ in others alone are one setting to it, and
two equal bars would read as a result: that the switch changes nothing. So the later one is refused with what
is not modelled, and its place in the chart stays empty, with that reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sweeper import knobs
from sweeper.records import Scalar, TrialSpec
from sweeper.simulation.settings import ignored_knobs
from sweeper.space.space import Space


def why_no_bar(space: Space, spec: TrialSpec) -> str | None:
    """Say why the model has no number of its own for a trial's series; None where it has.

    Args:
        space: Whose series they are, in the order of the chart.
        spec: The trial as planned, on the simulated platform.
    """
    if not spec.series or not unmodelled(spec):
        return None
    own = space.named(spec.series[0])
    for other in space.series:
        if other.name == own.name:
            return None
        if (other.engine, other.model) != (own.engine, own.model):
            continue
        theirs = replace(spec, assignment={**space.base, **other.knobs})
        ours = replace(spec, assignment={**space.base, **own.knobs})
        if _modelled(theirs) == _modelled(ours) and theirs.assignment != ours.assignment:
            differing = [
                name
                for name in sorted({*theirs.assignment, *ours.assignment})
                if theirs.assignment.get(name) != ours.assignment.get(name)
            ]
            return (
                f"{', '.join(differing)}: no effect in the model, so it would repeat series {other.name}. "
                "Measure it."
            )
    return None


def unmodelled(spec: TrialSpec) -> frozenset[str]:
    """Return the knobs of an assignment that cannot change the model's numbers; the sweeper's own all can."""
    return frozenset(name for name in ignored_knobs(spec) if not knobs.is_of_sweeper(name))


def _modelled(spec: TrialSpec) -> Mapping[str, Scalar]:
    unknown = unmodelled(spec)
    return {name: value for name, value in spec.assignment.items() if name not in unknown}
