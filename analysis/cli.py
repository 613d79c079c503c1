"""The commands of ``python -m analysis``; the only place of this package that prints."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis import blog, claims_report, compare, figures, guide, mad, report, timeline
from analysis.study import Study
from sweeper.errors import SweeperError
from sweeper.store.store import columns_markdown
from sweeper.text.legible import legible
from sweeper.text.output import HelpParser, Stream, check_written
from sweeper.text.urls import is_url

LINES = "\n\t"
"""Control characters that a message may have."""

_DESCRIPTION = "Charts, tables and reports from the stored results of a study."


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command.

    Attributes:
        name: Its name on the command line.
        meaning: One line for the help.
        declare: Declares its arguments.
        run: Does it, and gives the lines to print.
    """

    name: str
    meaning: str
    declare: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Iterable[str]]


def main(arguments: Sequence[str] | None = None, *, program: str = "python -m analysis") -> int:
    """Run one command.

    Args:
        arguments: Command line without the program's name; None takes the process's own.
        program: What the user typed before it, for the help.

    Returns:
        Exit code: 0 when done, 2 when the request cannot be met; the reason is one line on stderr.
    """
    stream = Stream("stdout")
    try:
        options = _parser(program).parse_args(arguments)
        command = next(command for command in COMMANDS if command.name == options.command)
        for line in command.run(options):
            print(legible(line), file=stream)
        stream.flush()
        check_written(stream)
    except SweeperError as exc:
        print(f"error: {legible(exc, keep=LINES)}", file=Stream("stderr"))
        return 2
    return 0


def _parser(program: str) -> argparse.ArgumentParser:
    parser = HelpParser(prog=program, description=_DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.declare(commands.add_parser(command.name, help=command.meaning, description=command.meaning))
    return parser


# ---- what each command takes ----


def _place(text: str) -> Path | str:
    """Read a folder or a URL; a path would lose one of a URL's slashes."""
    return text if is_url(text) else Path(text)


def _nothing(parser: argparse.ArgumentParser) -> None:
    """Take no arguments."""


def _one_study(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        type=_place,
        help="the study's folder, such as outputs/case2_sched_steps, or its results' URL",
    )


def _claims_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folders", type=_place, nargs="*", help="folders of studies; none takes the published figures alone"
    )
    parser.add_argument(
        "--out", type=Path, help="folder for claims.md and claims.csv; by default that of the one study named"
    )


def _timeline_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        type=_place,
        help="the study's folder or its results' URL, or the file that plan=true plan_csv=FILE wrote",
    )


def _compare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", type=_place, help="folder of the study to compare with")
    parser.add_argument("second", type=_place, help="folder of the study that is compared")
    parser.add_argument(
        "--out",
        type=Path,
        help="folder for compare.md and its charts; by default compare-FIRST in the second study's folder",
    )


def _validation_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the page; default: docs")
    parser.add_argument("--calibration", help="calibration to judge; default: the one that studies get")


def _experiment_tables_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", help="experiments; none takes all whose page has such a table")


def _blog_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, help="folder to write the article into")
    parser.add_argument("folders", type=_place, nargs="+", help="folders of studies, a section each")


# ---- what each command does ----


def _draw(options: argparse.Namespace) -> Iterable[str]:
    return [str(path) for path in figures.write(Study.load(options.folder))]


def _report(options: argparse.Namespace) -> Iterable[str]:
    written = report.write(options.folder)
    return [str(path) for path in (*written.figures, written.report)]


def _claims(options: argparse.Namespace) -> Iterable[str]:
    studies = [Study.load(folder) for folder in options.folders]
    out = options.out or (studies[0].folder if len(studies) == 1 else None)
    yield from claims_report.text(studies).splitlines()
    if out is not None:
        yield ""
        yield from (str(path) for path in claims_report.write(studies, out=out))


def _compare(options: argparse.Namespace) -> Iterable[str]:
    first, second = Study.load(options.first), Study.load(options.second)
    written = compare.write(first, second, out=options.out or second.folder / f"compare-{first.name}")
    return [str(path) for path in written]


def _blog(options: argparse.Namespace) -> Iterable[str]:
    studies = [Study.load(folder) for folder in options.folders]
    return [str(path) for path in blog.write(studies, out=options.out)]


def _mad(options: argparse.Namespace) -> Iterable[str]:
    return [str(path) for path in mad.write(Study.load(options.folder))]


def _guide(options: argparse.Namespace) -> Iterable[str]:
    return [str(guide.write(Study.load(options.folder)))]


def _timeline(options: argparse.Namespace) -> Iterable[str]:
    return [str(path) for path in timeline.write(options.source)]


def _validation(options: argparse.Namespace) -> Iterable[str]:
    from analysis import validation

    return [str(path) for path in validation.write(options.out, name=options.calibration)]


def _experiment_tables(options: argparse.Namespace) -> Iterable[str]:
    from analysis import experiment_tables

    return [str(path) for path in experiment_tables.renew(options.names)]


def _columns(options: argparse.Namespace) -> Iterable[str]:
    return columns_markdown().splitlines()


COMMANDS: tuple[Command, ...] = (
    Command(
        name="figures",
        meaning="draw the charts of a study into its figures/ folder",
        declare=_one_study,
        run=_draw,
    ),
    Command(name="report", meaning="draw the charts and write report.md", declare=_one_study, run=_report),
    Command(
        name="claims",
        meaning="check what the source claims against published figures and studies",
        declare=_claims_arguments,
        run=_claims,
    ),
    Command(
        name="compare",
        meaning="show two studies side by side, with their differences",
        declare=_compare_arguments,
        run=_compare,
    ),
    Command(
        name="blog",
        meaning="write an article from studies, for a site generator",
        declare=_blog_arguments,
        run=_blog,
    ),
    Command(
        name="mad",
        meaning="write AMD's latency and throughput reports (CSV)",
        declare=_one_study,
        run=_mad,
    ),
    Command(
        name="guide",
        meaning="write benchmark_results.md: the blocks that vLLM's serving benchmark prints",
        declare=_one_study,
        run=_guide,
    ),
    Command(
        name="timeline",
        meaning="draw who ran on which devices and when, of a study or of a plan",
        declare=_timeline_arguments,
        run=_timeline,
    ),
    Command(
        name="validation",
        meaning="run the model on every published figure and write docs/validation.md",
        declare=_validation_arguments,
        run=_validation,
    ),
    Command(
        name="experiment-tables",
        meaning="run the model on every experiment and renew the simulated tables of experiments/*/README.md",
        declare=_experiment_tables_arguments,
        run=_experiment_tables,
    ),
    Command(
        name="columns",
        meaning="describe every column of measurements/ in Markdown",
        declare=_nothing,
        run=_columns,
    ),
)
"""All commands, in the order of the help."""
