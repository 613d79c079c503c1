"""The planner and the scheduler that a study's settings ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sweeper.kinds import ENGINES
from sweeper.prepare.client import found_client
from sweeper.prepare.interpreter import find_engine_python
from sweeper.prepare.model import (
    from_anywhere,
    looked_up,
    provide_model,
    with_models_from_anywhere,
    with_models_looked_up,
)
from sweeper.records import EngineSpec

if TYPE_CHECKING:
    from sweeper.config import Settings
    from sweeper.plan.planner import Planner
    from sweeper.schedule.scheduler import Scheduler
    from sweeper.topology import Node


def planner_of(settings: Settings, node: Node) -> Planner:
    """Make the planner of a study: its engine is found, its model provided, and its space fitted to both.

    Raises:
        ConfigError: One of them is not here, or no setting of the space can fit.
    """
    from sweeper import knobs
    from sweeper.plan.fitting import fitted
    from sweeper.plan.planner import Planner

    engine, model, space = found_engine(settings), provide_model(settings), settings.space
    if ENGINES[engine.kind].is_run_by_python and engine.python is not None:
        model = looked_up(model, python=engine.python)
        space = with_models_looked_up(space, python=engine.python)
    if not ENGINES[engine.kind].is_modelled:
        model, space = from_anywhere(model), with_models_from_anywhere(space)
    planner = Planner(
        study=settings.name,
        trials_folder=str((settings.folder / "trials").absolute()),
        space=space,
        engine=engine,
        model=model,
        platform=settings.platform,
        node=node,
        accelerator=knobs.accelerator_of(settings.platform, modelled_device=settings.modelled_device),
        modelled_device=settings.modelled_device,
        load_points=settings.load_points,
        client=found_client(settings),
        warmup_prompts=settings.warmup_prompts,
        repeats=settings.repeats,
        runs_per_start=settings.runs_per_start,
        allow_unknown=settings.allow_unknown,
        calibration=settings.calibration,
        calibrated=settings.calibrated,
        control=settings.control,
        control_every=settings.control_every,
        live=settings.live,
        fresh_because=_why_fresh(settings),
    )
    return fitted(planner)


def _why_fresh(settings: Settings) -> str | None:
    """Return why no setting of a study may share a start with another; None where some may."""
    from sweeper import published

    if published.load(settings.experiment).empty:
        return None
    return f"{settings.experiment} is compared with published figures, and each of those had its own start"


def found_engine(settings: Settings) -> EngineSpec:
    """Return what serves, with the interpreter and the release that were found.

    Raises:
        ConfigError: It is not there, or its release is not what the settings insist on.
    """
    from sweeper.engines import checks

    engine = settings.engine
    kind = ENGINES[engine.kind]
    if kind.is_run_by_python:
        engine = replace(engine, python=find_engine_python(settings))
    found = checks.find(engine, kind=kind)
    if not (kind.is_run_by_python or kind.is_modelled):
        engine = replace(engine, python=_client_python(settings))
    return engine if found is None else _settled(engine, settings, found=found.release, where=found.where)


def _settled(engine: EngineSpec, settings: Settings, *, found: str, where: str) -> EngineSpec:
    from sweeper.engines import release

    stated_by = settings.release_stated_by
    return release.settled(
        engine,
        found=found,
        where=where,
        stated=stated_by is not None,
        insists=stated_by == "command line",
    )


def _client_python(settings: Settings) -> str | None:
    """Find the interpreter of the load generator, where vLLM's own is one and does not serve."""
    return find_engine_python(settings) if settings.needs_engine_python else None


def scheduler_of(settings: Settings, nodes: Sequence[Node]) -> Scheduler:
    """Make the scheduler of a study over these nodes."""
    from sweeper.schedule.scheduler import Scheduler

    return Scheduler(
        nodes,
        max_parallel=settings.max_parallel,
        isolation=settings.isolation,
        order=settings.order,
        seed=settings.seed,
    )
