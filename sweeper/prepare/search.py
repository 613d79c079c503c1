"""What a search knows before its first trial, and whether it can work at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sweeper.kinds import ENGINES, SEARCH_METHODS
from sweeper.records import Platform

if TYPE_CHECKING:
    from sweeper.config import Settings
    from sweeper.plan.planner import Planner
    from sweeper.prepare.anchoring import Anchoring
    from sweeper.search import Hints
    from sweeper.search.prior import Estimate
    from sweeper.space.space import Point


def check_search(settings: Settings, planner: Planner) -> None:
    """Check that the method's packages are here, and that its start and stages lie in the space.

    Raises:
        ConfigError: One of them does not; nothing was started.
    """
    method = SEARCH_METHODS[settings.method]
    if method.is_exhaustive and not settings.starts:
        return
    from sweeper.search import check_method, check_stages, check_starts

    if not method.is_exhaustive:
        check_method(settings.method)
    check_starts(settings.starts, planner.space)
    check_stages(settings.stages, planner.space)


def anchoring_of(settings: Settings, planner: Planner) -> Anchoring | None:
    """Return what predicts the trials of a measured study and learns from them; None where nothing does."""
    from sweeper.prepare.anchoring import Anchoring, device_for

    device = None if planner.platform is Platform.SIMULATED else device_for(planner.node)
    if device is None or not ENGINES[planner.engine.kind].takes_vllm_flags:
        return None
    metrics = [goal.metric for goal in settings.objectives] + [bound.metric for bound in settings.constraints]
    return Anchoring(node=planner.node, device=device, metrics=metrics)


def hints_of(
    settings: Settings,
    planner: Planner,
    say: Callable[[str], object],
    *,
    anchoring: Anchoring | None = None,
) -> Hints:
    """Return what a method that learns may know beforehand; say so when it takes its time.

    Of AMD's devices that are modelled the simulated platform has something to say. On itself its ranking
    would be its result, so only the method that is made of it asks there.

    Args:
        settings: The study's settings.
        planner: Plans its points.
        say: Called with what takes its time.
        anchoring: Of a measured study, by whose trials what is expected of a point is moved.
    """
    from sweeper.prepare.estimate import simulated_estimate
    from sweeper.search import Hints
    from sweeper.topology import modelled_as

    is_known = planner.model.built is not None
    may_ask = (settings.platform is Platform.MI300X and is_known) or (
        settings.platform is Platform.SIMULATED and SEARCH_METHODS[settings.method].asks_the_model
    )
    device = modelled_as(planner.node) if may_ask else None
    estimate = None
    if device is not None:
        modelled = simulated_estimate(
            planner.job,
            node=planner.node,
            device=device,
            objectives=settings.objectives,
            constraints=settings.constraints,
            anchoring=anchoring,
        )
        estimate = _announced(modelled, say)
    return Hints(
        defaults=planner.unsaid(planner.space.base, planner.model),
        starts=settings.starts,
        estimate=estimate,
        revision=int if anchoring is None else lambda: anchoring.revision,
        stages=settings.stages,
        trials=settings.trials,
    )


def _announced(estimate: Estimate, say: Callable[[str], object]) -> Estimate:
    """Describe what is going on before the first of many estimates."""
    is_told = False

    def told(point: Point) -> Sequence[float] | None:
        nonlocal is_told
        if not is_told:
            is_told = True
            say("ranking the settings on the simulated platform: the order of trials, no result")
        return estimate(point)

    return told
