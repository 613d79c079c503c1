"""What a search is told before its first trial, and whether it can work at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweeper.records import Platform

if TYPE_CHECKING:
    from sweeper.config import Settings
    from sweeper.plan import Planner
    from sweeper.search import Hints


def check_search(settings: Settings) -> None:
    """See that the method's packages are here, and that its start and stages lie in the space.

    Raises:
        ConfigError: One of them does not; nothing was started.
    """
    if settings.method == "grid":
        return
    from sweeper.search import check_method, check_stages, check_starts

    check_method(settings.method)
    check_starts(settings.starts, settings.space)
    check_stages(settings.stages, settings.space)


def hints_of(settings: Settings, planner: Planner) -> Hints:
    """Give what a method that learns may know beforehand.

    The simulated platform models an MI300X, so on that it has something to say. On itself its ranking would
    be its result, so only the method that is made of it asks there.
    """
    from sweeper import knobs
    from sweeper.search import Hints, simulated_estimate

    is_modelled = settings.platform is Platform.MI300X or (
        settings.platform is Platform.SIMULATED and settings.method == "guided"
    )
    estimate = simulated_estimate(
        planner.job, node=planner.node, objectives=settings.objectives, constraints=settings.constraints
    )
    return Hints(
        defaults=knobs.defaults(
            planner.engine.release,
            accelerator=planner.accelerator,
            assignment=settings.space.base,
            max_positions=planner.model.shape.max_positions,
        ),
        starts=settings.starts,
        estimate=estimate if is_modelled else None,
        stages=settings.stages,
        trials=settings.trials,
    )
