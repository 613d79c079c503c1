"""One sweep: its arguments, the study that they describe, and the work."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.cli.answers import conclude
from sweeper.cli.deferred import DeferredExecutor
from sweeper.cli.exit_codes import OK
from sweeper.cli.forecast import scheduler_of
from sweeper.cli.noting import engine_text, illustrator, study_note
from sweeper.cli.opening import check_search, hints_of
from sweeper.cli.parser import Parser
from sweeper.cli.planning import show_plan
from sweeper.cli.stopping import StopSignals
from sweeper.errors import ConfigError
from sweeper.legible import legible
from sweeper.records import Platform

if TYPE_CHECKING:
    from rich.console import Console

    from sweeper.config import Settings
    from sweeper.executors.cluster import Cluster
    from sweeper.plan import Planner
    from sweeper.prepare import Choice
    from sweeper.sweep import Outcome
    from sweeper.topology import Node


def run_sweep(arguments: list[str], console: Console, *, commands: Collection[str]) -> int:
    """Run one sweep from its arguments to its report.

    Args:
        arguments: Overrides and options, without a command.
        console: Where a person reads.
        commands: Names of the program's commands, for whoever mistyped one.

    Returns:
        The exit code.
    """
    from sweeper import config, prepare, urls

    options, overrides = read_options(arguments, commands)
    composed, choice = prepare.compose_for_platform(overrides, config_dir=options.config_dir)
    if options.cfg:
        import yaml

        shown = yaml.safe_dump(urls.masked(dict(composed)), sort_keys=False)
        console.print(shown, markup=False, soft_wrap=True, end="")
        return OK
    if not composed["study"]["experiment"] and not composed["space"]["knobs"]:
        known = ", ".join(config.groups(options.config_dir).get("experiment", ()))
        raise ConfigError(
            f"no experiment is given. Choose one with +experiment=NAME (known: {known}), or vary a knob with "
            "space.knobs.NAME=VALUE,VALUE."
        )
    settings = config.settings(composed, platform=choice.platform)
    with ExitStack() as stack:
        return _run(settings, choice, overrides, console, stack)


def read_options(arguments: list[str], commands: Collection[str]) -> tuple[argparse.Namespace, list[str]]:
    """Read the options of a sweep, and give them with its overrides.

    Raises:
        ConfigError: A word is neither an option nor an override.
    """
    parser = Parser(prog="python -m sweeper", add_help=False)
    parser.add_argument("--config-dir", type=Path)
    parser.add_argument("--cfg", choices=["job"])
    options, rest = parser.parse_known_args(arguments)
    for text in rest:
        if text in ("-m", "--multirun"):
            raise ConfigError(
                f"command line: '{text}' is not needed: the space says what varies. "
                "Write space.knobs.max_num_seqs=64,256 and leave it out."
            )
        if text.startswith("-"):
            raise ConfigError(f"command line: '{text}' is not an option. See: python -m sweeper --help")
        if "=" not in text:
            from sweeper import config
            from sweeper.errors import nearest

            known = [*commands, *config.groups(options.config_dir).get("experiment", ())]
            raise ConfigError(
                f"command line: '{text}' is neither a command nor key=value.{nearest(text, known)} "
                "An experiment is chosen with +experiment=NAME. See: python -m sweeper --help"
            )
    return options, rest


def _run(settings: Settings, choice: Choice, overrides: list[str], console: Console, stack: ExitStack) -> int:
    from sweeper import database, prepare
    from sweeper.clients import requirements
    from sweeper.study import StudyFolder

    say_platform(settings, choice, console)
    cluster, nodes = _find_nodes(settings, choice, console, stack)
    node = max(nodes, key=lambda node: len(node.devices))
    planner = planner_of(settings, node)
    console.print(f"engine: {engine_text(planner)}, model {planner.model.name}", markup=False, soft_wrap=True)
    check_search(settings)
    if settings.is_plan:
        return show_plan(settings, planner, nodes, console)
    # A missing file or package is found before a folder is made or an engine is started.
    requirements.check(settings.client, settings.load_points, engine=planner.engine)
    if settings.storage is not None:
        database.check(settings.storage)
    if settings.method == "grid":
        planner.grid()  # a mistake in a knob is found before a folder is made or Ray is started
    folder = stack.enter_context(StudyFolder(settings.folder))
    end_strays(settings.outputs, console)
    run_folder = folder.begin_run(resolved=settings.resolved, overrides=overrides)
    folder.describe(
        name=settings.name,
        experiment=settings.experiment,
        question=settings.question,
        source=settings.source,
        platform=settings.platform,
        platform_reason=choice.reason,
        node=node,
        engine_release=planner.engine.release,
        model=planner.model,
        space=settings.space,
        objectives=settings.objectives,
        constraints=settings.constraints,
        load_points=settings.load_points,
        resolved=settings.resolved,
        results=settings.results,
    )
    if cluster is not None:
        needed = prepare.needed_paths(settings, engine=planner.engine, model=planner.model)
        cluster.check_paths(settings.folder, needed=needed)
    outcome, signalled = _work(settings, planner, nodes, cluster, run_folder, console)
    return conclude(settings, planner, outcome, signalled, console)


def _work(
    settings: Settings,
    planner: Planner,
    nodes: Sequence[Node],
    cluster: Cluster | None,
    run_folder: Path,
    console: Console,
) -> tuple[Outcome, int | None]:
    from sweeper import dashboard
    from sweeper.display import Display
    from sweeper.search import Search, storage_url
    from sweeper.store import Store
    from sweeper.sweep import Sweep

    store = Store(settings.folder, settings.results)
    for found in store.set_aside():
        told = f"{found.place} is not a readable part of this study: {found.reason}"
        console.print(
            f"set aside: {legible(told)}",
            markup=False,
            soft_wrap=True,
        )
    search = Search(
        storage=settings.storage or storage_url(settings.outputs),
        name=settings.name,
        space=settings.space,
        objectives=settings.objectives,
        constraints=settings.constraints,
        method=settings.method,
        seed=settings.seed,
        hints=hints_of(settings, planner, console),
        artifacts=dashboard.artifacts_folder(settings.outputs),
    )
    search.note(study_note(settings, planner))
    deferred = DeferredExecutor(settings, nodes, run_folder, console, cluster=cluster)
    with closing(search), StopSignals() as stop, deferred as executor:
        display = Display(console, devices=sum(len(node.devices) for node in nodes))
        sweep = Sweep(
            planner=planner,
            search=search,
            store=store,
            executor=executor,
            scheduler=scheduler_of(settings, nodes),
            observer=display,
            objectives=settings.objectives,
            constraints=settings.constraints,
            method=settings.method,
            trials=settings.trials,
            max_attempts=settings.max_attempts,
            retry_pause_s=settings.retry_pause_s,
            retry_failed=settings.retry_failed,
            endings=settings.endings,
            seed=settings.seed,
            illustrate=illustrator(settings),
        )
        with display:
            outcome = sweep.run(stop=stop.is_set)
    return outcome, stop.signalled


def _find_nodes(
    settings: Settings, choice: Choice, console: Console, stack: ExitStack
) -> tuple[Cluster | None, tuple[Node, ...]]:
    """Read this machine, or the nodes of the cluster that is joined."""
    from sweeper import prepare

    cluster = None
    nodes: tuple[Node, ...]
    if settings.joins_cluster:
        cluster = stack.enter_context(closing(prepare.join_cluster(settings, choice)))
        nodes = cluster.nodes
        for remark in cluster.remarks:
            console.print(remark, markup=False, soft_wrap=True)
    else:
        nodes = (prepare.read_node(settings, choice),)
    for node in nodes:
        console.print(f"node: {node.summary}", markup=False, soft_wrap=True)
    return cluster, nodes


def planner_of(settings: Settings, node: Node) -> Planner:
    """Make the planner of a study: its engine is found and its model provided."""
    from sweeper import knobs, prepare
    from sweeper.plan import Planner
    from sweeper.simulation.device import device_named

    engine, model = settings.engine, prepare.provide_model(settings)
    if engine.kind == "vllm":
        from sweeper.engines.vllm import probe

        python = prepare.find_engine_python(settings)
        engine = replace(engine, python=python, release=probe(python).release)
    elif engine.kind == "attach":
        import os

        from sweeper.engines import attach

        release = attach.find_release(engine, surroundings=os.environ)
        engine = replace(engine, python=prepare.find_engine_python(settings), release=release)
    elif engine.kind == "tgi":
        from sweeper.engines import tgi

        tgi.find_program(engine)
        engine = replace(engine, python=prepare.find_engine_python(settings))
    accelerators: dict[Platform, knobs.Accelerator] = {
        Platform.CUDA: "cuda",
        Platform.CPU: "cpu",
        Platform.SIMULATED: device_named(settings.modelled_device).accelerator,
    }
    return Planner(
        study=settings.name,
        trials_folder=str((settings.folder / "trials").absolute()),
        space=settings.space,
        engine=engine,
        model=model,
        platform=settings.platform,
        node=node,
        accelerator=accelerators.get(settings.platform, "rocm"),
        modelled_device=settings.modelled_device,
        load_points=settings.load_points,
        client=settings.client,
        warmup_prompts=settings.warmup_prompts,
        repeats=settings.repeats,
        runs_per_start=settings.runs_per_start,
        allow_unknown=settings.allow_unknown,
        calibration=settings.calibration,
        calibrated=settings.calibrated,
        control=settings.control,
        control_every=settings.control_every,
    )


def say_platform(settings: Settings, choice: Choice, console: Console) -> None:
    """Print where the numbers will come from, and where they go."""
    console.print(f"platform: {settings.platform}: {choice.reason}", markup=False, soft_wrap=True)
    if settings.platform is Platform.SIMULATED:
        from sweeper.simulation.device import device_named

        product = device_named(settings.modelled_device).product
        console.print(
            "          No GPU is measured: every number below is computed by a model of a node of 8 "
            f"{product}.",
            markup=False,
            soft_wrap=True,
        )
    console.print(f"study: {settings.name} in {settings.folder}", markup=False, soft_wrap=True)


def end_strays(outputs: Path, console: Console) -> None:
    """End what killed runs left behind, put back what they left changed, and say so."""
    from sweeper import host, processes

    for process in processes.end_strays(outputs):
        console.print(
            f"ended a process that an earlier run left behind: {process}", markup=False, soft_wrap=True
        )
    for knob, value in host.restore_abandoned(outputs).items():
        console.print(
            f"put back what an earlier run left changed: {knob}={value}", markup=False, soft_wrap=True
        )
