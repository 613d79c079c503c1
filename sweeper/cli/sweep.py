"""One sweep: its arguments, the study that they describe, and the work."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.cli import as_json
from sweeper.cli.analysis import analysis_command
from sweeper.cli.dashboard import engine_text, illustrator, image_lines, model_lines, study_note
from sweeper.cli.exit_codes import OK
from sweeper.cli.ledger import ledger_of
from sweeper.cli.long_work import LongWork
from sweeper.cli.outcome import conclude
from sweeper.cli.plan import show_plan
from sweeper.cli.plan_json import STANDARD_OUTPUT
from sweeper.cli.signals import StopSignals
from sweeper.errors import ConfigError, KnobError, MissingFileError, StoreError
from sweeper.executors.deferred import DeferredExecutor
from sweeper.kinds import ENGINES, SEARCH_METHODS
from sweeper.prepare.executor import start_executor
from sweeper.prepare.planner import scheduler_of
from sweeper.prepare.search import anchoring_of, check_search, check_size, hints_of
from sweeper.records import Platform
from sweeper.text.output import Parser
from sweeper.text.printable import legible

if TYPE_CHECKING:
    from rich.console import Console

    from sweeper.config import Settings
    from sweeper.executors.cluster import Cluster
    from sweeper.plan.planner import Planner
    from sweeper.prepare.platform import Choice
    from sweeper.prepare.today import Release
    from sweeper.store.store import Store
    from sweeper.sweep.outlook import Outlook
    from sweeper.sweep.sweep import Outcome
    from sweeper.topology import Node
from sweeper.prepare.planner import planner_of


def run_sweep(arguments: list[str], console: Console, *, commands: Collection[str]) -> int:
    """Run one sweep from its arguments to its report.

    Args:
        arguments: Overrides and options, without a command.
        console: Where a person reads.
        commands: Names of the program's commands, for the hint on a mistyped one.

    Returns:
        The exit code.
    """
    options, overrides = read_options(arguments, commands)
    asked = composed(overrides, config_dir=options.config_dir)
    if options.cfg:
        import yaml

        from sweeper.text import confidential

        shown = yaml.safe_dump(confidential.masked(dict(asked.release.composed)), sort_keys=False)
        console.print(shown, markup=False, soft_wrap=True, end="")
        return OK
    return run_settings(asked, settings_of(asked), console)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A sweep as its words ask for it.

    Attributes:
        overrides: The words.
        config_dir: A folder with experiments of the user's own.
        choice: Which platform this machine is, and why.
        release: The configuration, fitted to the vLLM that is here.
    """

    overrides: list[str]
    config_dir: Path | None
    choice: Choice
    release: Release


def composed(overrides: list[str], *, config_dir: Path | None) -> Asked:
    """Compose a sweep's configuration for this machine.

    Raises:
        ConfigError: There is a mistake in the words.
    """
    from sweeper.prepare import today
    from sweeper.prepare.platform import compose_for_platform

    content, choice = compose_for_platform(overrides, config_dir=config_dir)
    release = today.fitted(overrides, content, choice, config_dir=config_dir)
    return Asked(overrides=overrides, config_dir=config_dir, choice=choice, release=release)


def settings_of(asked: Asked) -> Settings:
    """Return the settings of a sweep, checked.

    Raises:
        ConfigError: Nothing is to be swept, or a key is wrong.
    """
    from sweeper import config

    content = asked.release.composed
    if not content["study"]["experiment"] and not content["space"]["knobs"]:
        known = ", ".join(config.groups(asked.config_dir).get("experiment", ()))
        raise ConfigError(
            f"no experiment is given. Choose one with +experiment=NAME (known: {known}), or vary a knob with "
            "space.knobs.NAME=VALUE,VALUE."
        )
    stated_by = config.release_stated_by(asked.overrides, config_dir=asked.config_dir)
    return config.settings(content, platform=asked.choice.platform, release_stated_by=stated_by)


def run_settings(asked: Asked, settings: Settings, console: Console) -> int:
    """Run a sweep whose settings are known; return the exit code."""
    answer = console
    if settings.plan_json == STANDARD_OUTPUT:
        console = as_json.beside()
    for line in asked.release.lines:
        console.print(line, markup=False, soft_wrap=True)
    with ExitStack() as stack:
        try:
            return _run(settings, asked.choice, asked.overrides, console, stack, answer=answer)
        except KnobError as exc:
            raise KnobError("\n  ".join(filter(None, (str(exc), asked.release.remedy)))) from exc


def read_options(arguments: list[str], commands: Collection[str]) -> tuple[argparse.Namespace, list[str]]:
    """Read the options of a sweep, and return them with its overrides.

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
        if "=" not in text and not text.startswith("~"):
            from sweeper import config
            from sweeper.errors import nearest

            experiments = config.groups(options.config_dir).get("experiment", ())
            if text in experiments:
                raise ConfigError(
                    f"command line: '{text}' is an experiment; expected +experiment={text}. Write it so."
                )
            if text in _of_analysis():
                raise ConfigError(
                    f"command line: '{text}' is a command of the analysis; expected {analysis_command()} "
                    f"{text}. Its help: {analysis_command()} {text} --help"
                )
            raise ConfigError(
                f"command line: '{text}' is neither a command nor key=value."
                f"{nearest(text, [*commands, *experiments])} "
                "An experiment is chosen with +experiment=NAME. See: python -m sweeper --help"
            )
    return options, rest


def _of_analysis() -> frozenset[str]:
    from analysis import cli

    return frozenset(command.name for command in cli.COMMANDS)


def _run(
    settings: Settings,
    choice: Choice,
    overrides: list[str],
    console: Console,
    stack: ExitStack,
    *,
    answer: Console,
) -> int:
    from sweeper.clients import requirements
    from sweeper.plan import no_effect
    from sweeper.plan.live import search_line, shared_starts
    from sweeper.prepare import node as prepare
    from sweeper.search import database
    from sweeper.store.study_folder import StudyFolder

    say_platform(settings, choice, console)
    cluster, nodes = _find_nodes(settings, choice, console, stack)
    node = max(nodes, key=lambda node: len(node.devices))
    planner = planner_of(settings, node)
    console.print(f"engine: {engine_text(planner)}", markup=False, soft_wrap=True)
    for line in [*image_lines(planner), *model_lines(planner)]:
        console.print(line, markup=False, soft_wrap=True)
    say_release(settings, planner, console)
    say_left_out(planner, console)
    check_search(settings, planner)
    no_effect.check(planner)
    _refuse_changed(settings, planner, node, console)
    code = show_plan(settings, planner, nodes, console, answer=answer) if settings.is_plan else OK
    # A missing file or package is found before a folder is made or an engine is started, and by a plan, too.
    try:
        requirements.check(planner.client, settings.load_points, engine=planner.engine)
    except MissingFileError as exc:
        if not settings.is_plan:
            raise
        # What would run is shown all the same: it does not depend on what the file holds.
        console.print(f"still missing: {exc}", markup=False, soft_wrap=True)
        return code
    for sentence in requirements.repetitions(settings.load_points, engine=planner.engine):
        console.print(sentence, markup=False, soft_wrap=True)
    if settings.is_plan:
        return code
    check_size(settings, planner)
    if settings.storage is not None:
        database.check(settings.storage)
    if SEARCH_METHODS[settings.method].is_exhaustive:
        # A mistake in a knob is found before a folder is made or Ray is started.
        grid = planner.grid(seen=LongWork(console, "planning settings").seen)
        say_shared(shared_starts(planner, grid).lines, console)
    else:
        say_shared(filter(None, [search_line(planner)]), console)
    folder = stack.enter_context(StudyFolder(settings.folder))
    end_orphans(settings.outputs, console)
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
        space=planner.space,
        objectives=settings.objectives,
        constraints=settings.constraints,
        load_points=settings.load_points,
        resolved=settings.resolved,
        results=settings.results,
    )
    if cluster is not None:
        cluster.check_paths(settings.folder, needed=prepare.needed_paths(planner))
    outcome, signalled = _work(settings, planner, nodes, cluster, run_folder, console)
    return conclude(settings, outcome, signalled, console)


def _refuse_changed(settings: Settings, planner: Planner, node: Node, console: Console) -> None:
    """Refuse to go on with a study that has begun as another one; a plan says so, as the run would.

    Before the run describes itself in the study's folder: a run that is refused must not rewrite that.

    Raises:
        ConfigError: It was begun on another platform, model or load, or with another space or goal.
        StoreError: What is stored of it cannot be read.
    """
    from sweeper.search import refuse_other_terms, storage_url
    from sweeper.store.study_folder import refuse_other_question, refuse_other_study

    folder = settings.folder
    refuse_other_study(folder, platform=settings.platform, node=node, results=settings.results)
    if not SEARCH_METHODS[settings.method].is_exhaustive:
        refuse_other_question(folder, model=planner.model, load_points=settings.load_points)
    try:
        refuse_other_terms(
            storage=settings.storage or storage_url(settings.outputs),
            name=settings.name,
            space=planner.space,
            objectives=settings.objectives,
            constraints=settings.constraints,
            method=settings.method,
            keys_of=lambda point: planner.job(point).spec.keys,
        )
    except StoreError as exc:
        if not settings.is_plan:
            raise
        # A plan may be made where the database cannot be reached.
        console.print(f"not compared with the study's past: {legible(exc)}", markup=False, soft_wrap=True)


def _work(
    settings: Settings,
    planner: Planner,
    nodes: Sequence[Node],
    cluster: Cluster | None,
    run_folder: Path,
    console: Console,
) -> tuple[Outcome, int | None]:
    from sweeper.cli import expected
    from sweeper.cli.display import Display
    from sweeper.cli.progress import Progress, Together
    from sweeper.search import Search, dashboard, storage_url
    from sweeper.store.store import Store
    from sweeper.sweep.sweep import STOP_MARGIN_S, Sweep
    from sweeper.sweep.terms import Retries

    say = partial(console.print, markup=False, soft_wrap=True)
    store = Store(settings.folder, settings.results)
    for found in store.set_aside():
        told = f"{found.place} is not a readable part of this study: {found.reason}"
        console.print(
            f"set aside: {legible(told)}",
            markup=False,
            soft_wrap=True,
        )
    compact(store, console)
    anchoring = anchoring_of(settings, planner)
    search = Search(
        storage=settings.storage or storage_url(settings.outputs),
        name=settings.name,
        space=planner.space,
        objectives=settings.objectives,
        constraints=settings.constraints,
        method=settings.method,
        seed=settings.seed,
        hints=hints_of(settings, planner, say, anchoring=anchoring),
        artifacts=dashboard.artifacts_folder(settings.outputs),
    )
    search.note(study_note(settings, planner))
    deferred = DeferredExecutor(
        settings.executor,
        partial(start_executor, settings, nodes, run_folder=run_folder, cluster=cluster, say=say),
    )
    patience_s = planner.engine.stop_timeout_s + STOP_MARGIN_S
    waits_for = f"the trials that run to end their engines, at most {patience_s:g} s"
    with StopSignals(waits_for=waits_for) as stop, closing(search), deferred as executor:
        devices = sum(len(node.devices) for node in nodes)
        display, progress = Display(console, devices=devices), Progress(run_folder, devices=devices)

        def look_ahead(outlook: Outlook) -> None:
            display.look_ahead(outlook)
            progress.look_ahead(outlook)

        sweep = Sweep(
            planner=planner,
            search=search,
            ledger=ledger_of(settings, planner, store),
            executor=executor,
            scheduler=scheduler_of(settings, nodes),
            observer=Together([display, progress]),
            retries=Retries(max_attempts=settings.max_attempts, first_pause_s=settings.retry_pause_s),
            illustrate=illustrator(settings),
            show_outlook=look_ahead,
            anchoring=anchoring,
        )
        try:
            with display, progress:
                outcome = sweep.run(stop=stop.is_set)
        finally:
            stop.settle()
    compact(store, console)
    if anchoring is not None and stop.signalled is None:
        expected.write(settings, anchoring, console)
    return outcome, stop.signalled


def compact(store: Store, console: Console) -> None:
    """Bring the parts of many trials together, and say so; a study goes on without."""
    try:
        merged = store.compact()
    except StoreError as exc:
        console.print(f"not compacted: {legible(exc)}", markup=False, soft_wrap=True)
        return
    if merged:
        console.print(f"compacted: {merged} files of results are one now", markup=False, soft_wrap=True)


def _find_nodes(
    settings: Settings, choice: Choice, console: Console, stack: ExitStack
) -> tuple[Cluster | None, tuple[Node, ...]]:
    """Read this machine, or the nodes of the cluster that is joined."""
    from sweeper.prepare import node as prepare

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
    say_other_devices(nodes[0], console)
    return cluster, nodes


def say_left_out(planner: Planner, console: Console) -> None:
    """Print what the space could not have here, and why."""
    for sentence in planner.left_out:
        console.print(f"left out: {sentence}", markup=False, soft_wrap=True)


def say_shared(lines: Iterable[str], console: Console) -> None:
    """Print which settings share an engine's start, and why others do not."""
    for line in lines:
        console.print(f"live: {line}", markup=False, soft_wrap=True)


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
    for sentence in settings.left_out:
        console.print(sentence, markup=False, soft_wrap=True)
    console.print(f"study: {settings.name} in {settings.folder}", markup=False, soft_wrap=True)


def say_other_devices(node: Node, console: Console) -> None:
    """Print what holds for GPUs that run as platform mi300x and are not MI300X."""
    from sweeper.simulation.device import USUAL_DEVICE, device_named
    from sweeper.topology import modelled_as

    modelled = modelled_as(node)
    if node.platform is not Platform.MI300X or modelled == USUAL_DEVICE:
        return
    what = (
        "nothing models them: durations are assumed, and no search is guided by predictions"
        if modelled is None
        else f"predictions are the MI300X's, with the peaks of {device_named(modelled).product} and unproven"
    )
    console.print(
        f"      These are not MI300X, which the platform and its recommendations are named for; {what}.",
        markup=False,
        soft_wrap=True,
    )


def say_release(settings: Settings, planner: Planner, console: Console) -> None:
    """Print that another release is measured than the experiment names, where that is so."""
    named, found = settings.engine.release, planner.engine.release
    if ENGINES[planner.engine.kind].is_run_by_python and named != found:
        console.print(
            f"engine.release: {named} is what this was written for; found and measured is {found}",
            markup=False,
            soft_wrap=True,
        )


def end_orphans(outputs: Path, console: Console) -> None:
    """End what killed runs left behind, put back what they left changed, and say so."""
    from sweeper.processes import orphans
    from sweeper.trial import host_settings

    for abandoned in orphans.end_abandoned_containers(outputs):
        console.print(f"ended a {abandoned}, which an earlier run left", markup=False, soft_wrap=True)
    for process in orphans.end_orphans(outputs):
        console.print(
            f"ended a process that an earlier run left behind: {process}", markup=False, soft_wrap=True
        )
    for knob, value in host_settings.restore_abandoned(outputs).items():
        console.print(
            f"put back what an earlier run left changed: {knob}={value}", markup=False, soft_wrap=True
        )
