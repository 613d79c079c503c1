"""The planner and the scheduler that a study's settings ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.kinds import ENGINES
from sweeper.prepare.client import found_client
from sweeper.prepare.interpreter import (
    find_engine_python,
    find_other_python,
)
from sweeper.prepare.model import (
    from_anywhere,
    looked_up,
    provide_model,
    with_models,
)
from sweeper.prepare.questions import found_questions
from sweeper.records import IMAGE, ContainerSpec, EngineSpec

if TYPE_CHECKING:
    from sweeper.config import Settings
    from sweeper.plan.planner import Planner
    from sweeper.records import Model
    from sweeper.schedule.scheduler import Scheduler
    from sweeper.topology import Node


def planner_of(settings: Settings, node: Node) -> Planner:
    """Make the planner of a study: its engine is found, its model provided, and its space fitted to both.

    Raises:
        ConfigError: One of them is not here, or no setting of the space can fit.
    """
    from sweeper import knobs
    from sweeper.engines.images import with_mounts
    from sweeper.plan.fitting import fitted
    from sweeper.plan.planner import Planner

    engine, model, space = found_engine(settings), provide_model(settings), settings.space
    images = found_images(settings, engine)
    engine = images.get(str(space.base.get(IMAGE)), engine)
    if ENGINES[engine.kind].is_run_by_python and engine.python is not None:
        look_up = partial(looked_up, python=engine.python)
        model, space = look_up(model), with_models(space, look_up)
    if not ENGINES[engine.kind].is_modelled:
        model, space = from_anywhere(model), with_models(space, from_anywhere)
    if engine.container is not None:
        read = _read_inside(settings, [model, *(item.model for item in space.series if item.model)])
        engine = with_mounts(engine, read)
        images = {image: with_mounts(other, read) for image, other in images.items()}
    planner = Planner(
        study=settings.name,
        trials_folder=str((settings.folder / "trials").absolute()),
        space=space,
        engine=engine,
        others=_other_engines(settings, engine),
        images=images,
        model=model,
        platform=settings.platform,
        node=node,
        accelerator=knobs.accelerator_of(settings.platform, modelled_device=settings.modelled_device),
        modelled_device=settings.modelled_device,
        load_points=settings.load_points,
        client=found_client(settings),
        accuracy=found_questions(settings),
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
    """Return why no setting of a study may share a start with another; None where some may, or none is to."""
    from sweeper import published

    if settings.live == "false" or published.load(settings.experiment).empty:
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
    if engine.container is None and kind.is_started_by_us and not kind.is_modelled and _images(settings):
        engine = replace(engine, container=ContainerSpec(python=engine.python or ContainerSpec.python))
    if engine.container is not None:
        image = engine.container.image or next(iter(_images(settings)), None)
        return _found_in_image(settings, engine, image=image)
    if kind.is_run_by_python:
        engine = replace(engine, python=find_engine_python(settings))
    found = checks.find(engine, kind=kind)
    if not (kind.is_run_by_python or kind.is_modelled):
        engine = replace(engine, python=_client_python(settings))
    return engine if found is None else _settled(engine, settings, found=found.release, where=found.where)


def found_images(settings: Settings, engine: EngineSpec) -> dict[str, EngineSpec]:
    """Return what serves in each image that the knob ``image`` may name; empty where it names none.

    Args:
        settings: Of the study.
        engine: As ``found_engine`` returned it.

    Raises:
        ConfigError: An image is not there, or its release is not what the settings insist on.
    """
    if engine.container is None:
        return {}
    return {
        image: _found_in_image(settings, replace(engine, kind=kind), image=image)
        for image, kind in _images(settings).items()
    }


def _images(settings: Settings) -> dict[str, str]:
    """Map the values that the knob ``image`` may take in a study to the engine that each is for."""
    from sweeper.space.domains import Choice

    space, own = settings.space, settings.engine.kind
    domain = space.domains.get(IMAGE)
    offered = domain.values if isinstance(domain, Choice) else ()
    found = {str(image): own for image in (space.base.get(IMAGE), *offered) if image is not None}
    for series in space.series:
        if IMAGE in series.knobs:
            is_other = not ENGINES[series.engine].takes_vllm_flags
            found[str(series.knobs[IMAGE])] = series.engine if is_other else own
    return found


def _found_in_image(settings: Settings, engine: EngineSpec, *, image: str | None) -> EngineSpec:
    from sweeper.engines import checks, images

    engine = images.provided(engine, image=image, may_pull=not settings.is_plan)
    kind = ENGINES[engine.kind]
    if not kind.is_run_by_python:
        # The image is another engine's: vLLM's benchmark lies in an environment of this machine.
        checks.find(engine, kind=kind)
        return replace(engine, python=_client_python(settings))
    found = checks.find(engine, kind=kind)
    where = f"image {image}"
    return engine if found is None else _settled(engine, settings, found=found.release, where=where)


def _read_inside(settings: Settings, models: Sequence[Model]) -> list[str]:
    """List what a container reads of this machine: model folders, and files that loads are made from."""
    paths = [*(model.path for model in models), *(point.dataset_path for point in settings.load_points)]
    paths += [settings.client.script]
    return [path for path in paths if path and Path(path).exists()]


def _other_engines(settings: Settings, own: EngineSpec) -> dict[str, EngineSpec]:
    """Find the engines that series name beside the study's own, and that lie in an environment of their own.

    Raises:
        ConfigError: One is not there.
    """
    from sweeper.engines import checks

    found = dict[str, EngineSpec]()
    beside = {series.engine for series in settings.space.series if IMAGE not in series.knobs}
    for name in beside - {own.kind} if own.container is None else ():
        kind = ENGINES[name]
        if ENGINES[own.kind].is_modelled or not kind.lies_without_vllm:
            continue
        engine = replace(own, kind=name, build=None, python=find_other_python(kind))
        told = checks.find(engine, kind=kind)
        found[name] = engine if told is None else replace(engine, release=told.release.partition("+")[0])
    return found


def _settled(engine: EngineSpec, settings: Settings, *, found: str, where: str) -> EngineSpec:
    from sweeper.engines import release

    stated_by, kind = settings.release_stated_by, ENGINES[engine.kind]
    is_other = kind.lies_without_vllm
    return release.settled(
        engine,
        found=found,
        title=kind.title if is_other else "vLLM",
        example=engine.release if is_other else None,
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
