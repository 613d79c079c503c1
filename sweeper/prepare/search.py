"""What a search knows before its first trial, and whether it can work at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sweeper.errors import ConfigError
from sweeper.kinds import ENGINES, SEARCH_METHODS
from sweeper.records import Platform
from sweeper.space.domains import Choice

if TYPE_CHECKING:
    from sweeper.config import Settings
    from sweeper.plan.planner import Job, Planner
    from sweeper.prepare.anchoring import Anchoring
    from sweeper.search import Hints
    from sweeper.search.prior import Estimate
    from sweeper.space.space import Point, Space


def is_too_large(settings: Settings, planner: Planner) -> bool:
    """Whether a study is a grid of more points than it may measure one by one."""
    size = planner.space.size() if SEARCH_METHODS[settings.method].is_exhaustive else None
    return size is not None and size > settings.grid_limit


def check_size(settings: Settings, planner: Planner) -> None:
    """Check that a grid is not larger than its limit, before anything of it is planned.

    Raises:
        ConfigError: It is; the message has its size and what to do.
    """
    if is_too_large(settings, planner):
        raise ConfigError(size_text(settings, planner))


def size_text(settings: Settings, planner: Planner) -> str:
    """Return in words how a grid is larger than its limit, and what to do about it."""
    aside = ", rules aside" if planner.space.rules else ""
    return (
        f"space.knobs: is a grid of {planner.space.size():,} points ({_factors_text(planner.space)}{aside}); "
        f"expected at most {settings.grid_limit:,} (search.grid_limit), for each of them would be measured. "
        "Search it with search=guided search.trials=100 (or search=tpe), give knobs fewer values, or raise "
        "search.grid_limit."
    )


def _factors_text(space: Space) -> str:
    """Return what is multiplied to the size of a space: ``max_num_seqs 100 x block_size 3``."""
    series = [f"series {len(space.series)}"] if space.series else []
    counts = {
        name: len(domain.values) if isinstance(domain, Choice) else domain.count()
        for name, domain in space.domains.items()
    }
    return " x ".join([*series, *(f"{name} {count:,}" for name, count in counts.items())])


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


def first_jobs(settings: Settings, planner: Planner) -> list[Job]:
    """Return what a method that learns measures first and that can run: the defaults and what is given."""
    from sweeper.search.samplers import LEARNING
    from sweeper.search.starts import starting_points

    if settings.method not in LEARNING:
        return []
    defaults = planner.unsaid(planner.space.base, planner.model)
    points = starting_points(planner.space, defaults=defaults, given=settings.starts)
    return [job for job in map(planner.job, points) if job.refusal is None]


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
