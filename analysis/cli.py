"""The commands of ``python -m analysis``; the only place of this package that prints."""

from __future__ import annotations

import argparse
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

from analysis import blog, claims_report, compare, costs, guide, mad, report, timeline
from analysis.study import Study
from sweeper.errors import SweeperError
from sweeper.store.store import columns_markdown
from sweeper.text.commands import Command
from sweeper.text.output import HelpParser, Stream, check_written
from sweeper.text.printable import LINES, legible
from sweeper.text.urls import is_url

_DESCRIPTION = "Charts, tables and reports from the stored results of a study."


class _Answer(Command[Stream]):
    """A command that answers with lines: what it found, or the paths that it wrote."""

    @abstractmethod
    def lines(self, options: argparse.Namespace) -> Iterable[str]:
        """Do it, and return the lines to print."""

    def run(self, options: argparse.Namespace, out: Stream) -> int:
        """Do it, and print each line when it is there."""
        for line in self.lines(options):
            print(legible(line), file=out)
        return 0


class _OfOneStudy(_Answer):
    """A command on one study."""

    def declare(self, parser: argparse.ArgumentParser) -> None:
        """Declare the study's folder."""
        parser.add_argument(
            "folder",
            type=_place,
            help="the study's folder, such as outputs/case2_sched_steps, or its results' URL",
        )


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
        command.run(options, stream)
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
        command.declare(
            commands.add_parser(
                command.name, help=command.summary, description=command.description or command.summary
            )
        )
    return parser


def _declare_price(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--price", type=float, help="of a GPU by the hour; else the study's own")
    parser.add_argument("--currency", help="of the price")


def _priced(options: argparse.Namespace) -> Study:
    return Study.load(options.folder, price_per_gpu_hour=options.price, currency=options.currency)


def _place(text: str) -> Path | str:
    """Read a folder or a URL; a path would lose one of a URL's slashes."""
    return text if is_url(text) else Path(text)


class Figures(_OfOneStudy):
    """Draw the charts of a study."""

    name = "figures"
    summary = "draw the charts of a study into its figures/ folder"

    def declare(self, parser: argparse.ArgumentParser) -> None:
        """Declare the folder and a price."""
        super().declare(parser)
        _declare_price(parser)

    def lines(self, options: argparse.Namespace) -> Iterable[str]:
        """Write it, and return the paths."""
        return [str(path) for path in report.draw(_priced(options))]


class Report(_OfOneStudy):
    """Draw the charts and write the report of a study."""

    name = "report"
    summary = "draw the charts and write report.md"

    def declare(self, parser: argparse.ArgumentParser) -> None:
        """Declare the folder and a price."""
        super().declare(parser)
        _declare_price(parser)

    def lines(self, options: argparse.Namespace) -> Iterable[str]:
        """Write it, and return the paths."""
        written = report.write(options.folder, price_per_gpu_hour=options.price, currency=options.currency)
        return [str(path) for path in (*written.figures, written.report)]


class Costs(_OfOneStudy):
    """Show what tokens cost, in money and energy."""

    name = "costs"
    summary = "show what tokens cost: money where a price is known, energy where power was told"

    def declare(self, parser: argparse.ArgumentParser) -> None:
        """Declare the folder, a price, and how to answer."""
        super().declare(parser)
        _declare_price(parser)
        parser.add_argument("--json", action="store_true", help="answer as JSON")

    def lines(self, options: argparse.Namespace) -> Iterable[str]:
        """Return the tables."""
        study = _priced(options)
        if options.json:
            return costs.as_json(study).splitlines()
        told = report.costs_section(study) or costs.nothing_known(study)
        return [report.provenance_sentence(study), "", *told.splitlines()]


class Claims(_Answer):
    """Check what the source claims."""

    name = "claims"
    summary = "check what the source claims against published figures and studies"

    def declare(self, parser: argparse.ArgumentParser) -> None:
        """Declare what it takes."""
        parser.add_argument(
            "folders",
            type=_place,
            nargs="*",
            help="folders of studies; none takes the published figures alone",
        )
        parser.add_argument(
            "--out",
            type=Path,
            help="folder for claims.md and claims.csv; by default that of the one study named",
        )

    def lines(self, options: argparse.Namespace) -> Iterable[str]:
        """Check the claims, and return the answers and the files that were written."""
        studies = [Study.load(folder) for folder in options.folders]
        out = options.out or (studies[0].folder if len(studies) == 1 else None)
        yield from claims_report.text(studies).splitlines()
        if out is not None:
            yield ""
            yield from (str(path) for path in claims_report.write(studies, out=out))


class Compare(_Answer):
    """Show studies side by side."""

    name = "compare"
    summary = "show two or more studies side by side, with their differences"

    def declare(self, parser: argparse.ArgumentParser) -> None:
        """Declare what it takes."""
        parser.add_argument("first", type=_place, help="folder of the study to compare with")
        parser.add_argument("second", type=_place, help="folder of the study that is compared")
        parser.add_argument(
            "further", type=_place, nargs="*", help="folders of more studies, each compared with the first"
        )
        parser.add_argument(
            "--out",
            type=Path,
            help="folder for compare.md and its charts; by default compare-FIRST in the second "
            "study's folder",
        )

    def lines(self, options: argparse.Namespace) -> Iterable[str]:
        """Write it, and return the paths."""
        studies = [Study.load(place) for place in (options.first, options.second, *options.further)]
        out = options.out or studies[1].folder / f"compare-{studies[0].name}"
        written = compare.write_all(studies, out=out)
        return [str(path) for path in written]


class Blog(_Answer):
    """Write an article from studies."""

    name = "blog"
    summary = "write an article from studies, for a site generator"

    def declare(self, parser: argparse.ArgumentParser) -> None:
        """Declare what it takes."""
        parser.add_argument("out", type=Path, help="folder to write the article into")
        parser.add_argument("folders", type=_place, nargs="+", help="folders of studies, a section each")

    def lines(self, options: argparse.Namespace) -> Iterable[str]:
        """Write it, and return the paths."""
        studies = [Study.load(folder) for folder in options.folders]
        return [str(path) for path in blog.write(studies, out=options.out)]


class Mad(_OfOneStudy):
    """Write AMD's reports of a study."""

    name = "mad"
    summary = "write AMD's latency and throughput reports (CSV)"

    def lines(self, options: argparse.Namespace) -> Iterable[str]:
        """Write it, and return the paths."""
        return [str(path) for path in mad.write(Study.load(options.folder))]


class Guide(_OfOneStudy):
    """Write a study as vLLM's serving benchmark prints it."""

    name = "guide"
    summary = "write benchmark_results.md: the blocks that vLLM's serving benchmark prints"

    def lines(self, options: argparse.Namespace) -> Iterable[str]:
        """Write it, and return the paths."""
        return [str(guide.write(Study.load(options.folder)))]


class Timeline(_Answer):
    """Draw which trial ran on which devices, and when."""

    name = "timeline"
    summary = "draw who ran on which devices and when, of a study or of a plan"

    def declare(self, parser: argparse.ArgumentParser) -> None:
        """Declare what it takes."""
        parser.add_argument(
            "source",
            type=_place,
            help="the study's folder or its results' URL, or the file that plan=true plan_csv=FILE wrote",
        )

    def lines(self, options: argparse.Namespace) -> Iterable[str]:
        """Write it, and return the paths."""
        return [str(path) for path in timeline.write(options.source)]


class Validation(_Answer):
    """Run the model on every published figure."""

    name = "validation"
    summary = "run the model on every published figure and write docs/validation.md"

    def declare(self, parser: argparse.ArgumentParser) -> None:
        """Declare what it takes."""
        parser.add_argument(
            "--out", type=Path, default=Path("docs"), help="folder of the page; default: docs"
        )
        parser.add_argument("--calibration", help="calibration to judge; default: the one that studies get")

    def lines(self, options: argparse.Namespace) -> Iterable[str]:
        """Write it, and return the paths."""
        from analysis import validation

        return [str(path) for path in validation.write(options.out, name=options.calibration)]


class ExperimentTables(_Answer):
    """Renew the simulated tables of the experiments."""

    name = "experiment-tables"
    summary = "run the model on every experiment and renew the simulated tables of experiments/*/README.md"

    def declare(self, parser: argparse.ArgumentParser) -> None:
        """Declare what it takes."""
        parser.add_argument(
            "names", nargs="*", help="experiments; none takes all whose page has such a table"
        )

    def lines(self, options: argparse.Namespace) -> Iterable[str]:
        """Write it, and return the paths."""
        from analysis import experiment_tables

        return [str(path) for path in experiment_tables.renew(options.names)]


class Columns(_Answer):
    """Describe every column of the results."""

    name = "columns"
    summary = "describe every column of measurements/ in Markdown"

    def lines(self, options: argparse.Namespace) -> Iterable[str]:
        """Return the page."""
        return columns_markdown().splitlines()


COMMANDS: tuple[_Answer, ...] = (
    Figures(),
    Report(),
    Costs(),
    Claims(),
    Compare(),
    Blog(),
    Mad(),
    Guide(),
    Timeline(),
    Validation(),
    ExperimentTables(),
    Columns(),
)
"""All commands, in the order of the help."""
