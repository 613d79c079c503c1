"""The command ``interference``: its arguments, its study, and what it prints."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from sweeper.cli import as_json
from sweeper.cli.arguments import ConsoleCommand
from sweeper.cli.exit_codes import NOTHING_COMPLETE, OK, SOME_FAILED, STOPPED
from sweeper.cli.signals import StopSignals
from sweeper.cli.sweep import end_orphans, read_options, say_platform
from sweeper.errors import ConfigError, EngineError
from sweeper.prepare.planner import planner_of
from sweeper.records.plurals import amount
from sweeper.text.output import Parser

if TYPE_CHECKING:
    from rich.console import Console

    from sweeper.config import Settings
    from sweeper.plan.planner import Planner
    from sweeper.prepare.platform import Choice
    from sweeper.records import TrialSpec
    from sweeper.sweep.interference import Finding, Pair
    from sweeper.topology import Node

_PAIRS = 3
"""Enough for an interval, with two degrees of freedom; each pair costs two starts of the engine."""


class CheckInterference(ConsoleCommand):
    """Measure one trial alone and next to copies of itself."""

    name = "interference"
    summary = "measure whether trials side by side disturb each other"
    description = (
        "Measure one trial of an experiment alone and beside copies of itself on the other free "
        "blocks of the node, in turn, and say whether neighbours change its numbers."
    )
    epilog = (
        "All other arguments are those of a sweep: +experiment=NAME key=value. The first trial of the "
        "grid that leaves room for a neighbour is taken; pin knobs to choose another."
    )

    def declare(self, parser: argparse.ArgumentParser) -> None:
        """Declare the number of pairs."""
        parser.add_argument("--pairs", type=int, default=_PAIRS, help="how often each side is measured")
        as_json.declare(parser)

    def parse(self, parser: Parser, arguments: list[str]) -> argparse.Namespace:
        """Read the arguments; those of a sweep are kept as ``rest``."""
        options, rest = parser.parse_known_args(arguments)
        if options.pairs < 1:
            raise ConfigError(f"--pairs: is {options.pairs}; expected at least 1.")
        options.rest = rest
        return options

    def run(self, options: argparse.Namespace, console: Console) -> int:
        """Prepare the control trial, and measure it."""
        said = as_json.telling(options, console)
        code, found = self._measure(options, said)
        if options.json and found is not None:
            as_json.answer(found, console)
        return code

    def _measure(self, options: argparse.Namespace, console: Console) -> tuple[int, dict[str, object] | None]:
        from sweeper import config
        from sweeper.clients import requirements
        from sweeper.prepare import node as prepare
        from sweeper.prepare import platform

        shared, overrides = read_options(options.rest, ())
        composed, choice = platform.compose_for_platform(overrides, config_dir=shared.config_dir)
        stated_by = config.release_stated_by(overrides, config_dir=shared.config_dir)
        settings = config.settings(composed, platform=choice.platform, release_stated_by=stated_by)
        name = f"{settings.name}-interference"
        settings = replace(settings, name=name, folder=settings.outputs / name)
        say_platform(settings, choice, console)
        node = prepare.read_node(settings, choice)
        planner = planner_of(settings, node)
        requirements.check(planner.client, settings.load_points, engine=planner.engine)
        control = _control(planner, node)
        _say(console, f"node: {node.summary}")
        _say(
            console,
            f"control trial: {control.label}, {amount(control.devices_wanted, 'device')}, "
            f"{amount(options.pairs, 'pair')}",
        )
        return _check(settings, choice, planner, control, options.pairs, overrides, console)


def _control(planner: Planner, node: Node) -> TrialSpec:
    """Take the first trial of the grid that can run here and leaves room for a copy of itself."""
    from sweeper.schedule.allocator import Allocator

    for job in planner.grid():
        if job.refusal is not None or job.spec.is_exclusive:
            continue
        allocator = Allocator(node)
        if all(allocator.acquire(job.spec.devices_wanted) is not None for _ in range(2)):
            return job.spec
    raise ConfigError(
        f"interference: no trial of this experiment leaves room for a neighbour on {node.summary}; expected "
        "one that can run, changes no setting of the host, and takes at most half of the devices. "
        "Choose a smaller knobs.tensor_parallel_size."
    )


def _check(
    settings: Settings,
    choice: Choice,
    planner: Planner,
    control: TrialSpec,
    wanted: int,
    overrides: list[str],
    console: Console,
) -> tuple[int, dict[str, object] | None]:
    from sweeper.schedule.allocator import Allocator
    from sweeper.store.store import Store
    from sweeper.store.study_folder import StudyFolder
    from sweeper.sweep.interference import run_pairs

    with StudyFolder(settings.folder) as folder, StopSignals() as stop:
        end_orphans(settings.outputs, console)
        folder.begin_run(resolved=settings.resolved, overrides=overrides)
        folder.describe(
            name=settings.name,
            experiment=settings.experiment,
            question="Do trials on this node disturb each other?",
            source=settings.source,
            platform=settings.platform,
            platform_reason=choice.reason,
            node=planner.node,
            engine_release=planner.engine.release,
            model=planner.model,
            space=planner.space,
            objectives=settings.objectives,
            load_points=settings.load_points,
            resolved=settings.resolved,
        )
        store = Store(settings.folder)
        known = store.finished().get(control.key)
        done: list[Pair] = []
        try:
            for pair in run_pairs(
                control,
                Allocator(planner.node),
                pairs=wanted,
                keep=lambda result: store.append(result, queued_s=0.0, knobs=planner.space.knob_names()),
                cancelled=stop.is_set,
                first_attempt=1 if known is None else known.attempt + 1,
            ):
                done.append(pair)
                _say(console, f"pair {len(done)} of {wanted} done")
        except EngineError as exc:
            _say(console, f"stopped: {exc}" + (f" (log: {exc.log_path})" if exc.log_path else ""))
        found = _tell(settings, done, console) if done else None
    if stop.signalled is not None:
        return STOPPED + stop.signalled, found
    if len(done) == wanted:
        return OK, found
    return (SOME_FAILED if done else NOTHING_COMPLETE), found


def _tell(settings: Settings, pairs: Sequence[Pair], console: Console) -> dict[str, object]:
    """Say what was found, and write it; return what was written."""
    from rich.table import Table

    from sweeper.store.study_folder import write_json
    from sweeper.sweep.interference import conclusion, findings, neighbours_of

    found = findings(pairs)
    beside = neighbours_of(pairs[0].beside)
    sentence = conclusion(found, provenance=pairs[0].alone.provenance, neighbours=beside)
    table = Table(title=f"beside {beside} / alone, {amount(len(pairs), 'pair')}", title_justify="left")
    for heading in ("metric", "ratio", "95 % interval", "verdict"):
        table.add_column(heading)
    for item in found:
        table.add_row(item.metric, f"{item.ratio:.3f}", _interval(item), item.verdict)
    console.print(table)
    _say(console, f"interference: {sentence}")
    path = settings.folder / "interference.json"
    findings_ = [{**asdict(item), "verdict": item.verdict} for item in found]
    content: dict[str, object] = {"conclusion": sentence, "neighbours": beside, "findings": findings_}
    write_json(path, content)
    _say(console, f"written: {path}")
    return content


def _interval(item: Finding) -> str:
    return "none" if item.low is None or item.high is None else f"{item.low:.3f} to {item.high:.3f}"


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
