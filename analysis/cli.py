"""The commands of ``python -m analysis``; the only place of this package that prints."""

from __future__ import annotations

import argparse
import os
import shutil
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

from analysis import (
    blog,
    claims_report,
    compare,
    costs,
    guide,
    leaderboard,
    leaderboard_json,
    leaderboard_text,
    mad,
    mlflow_export,
    origins,
    regression,
    regression_files,
    report,
    timeline,
)
from analysis.study import Study
from sweeper.errors import ConfigError, SweeperError
from sweeper.records.plurals import amount
from sweeper.store.store import columns_markdown
from sweeper.text.commands import Command
from sweeper.text.confidential import masked, redacted
from sweeper.text.output import Parser, Stream, check_written
from sweeper.text.printable import LINES, legible
from sweeper.text.urls import is_url
from sweeper.text.writing import write_answer

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
        Exit code: 0 when done, 2 when the request cannot be met; the reason is one line on stderr. Of
        ``compare --fail-if`` also 1 (worse) and 5 (inconclusive).
    """
    stream = Stream("stdout")
    try:
        options, unknown = _parser(program).parse_known_args(arguments)
        if unknown:
            of = f"{program} {options.command}"
            raise ConfigError(f"{of}: unrecognized arguments: {' '.join(unknown)}. See: {of} --help")
        command = next(command for command in COMMANDS if command.name == options.command)
        code = command.run(options, stream)
        stream.flush()
        check_written(stream)
    except SweeperError as exc:
        print(f"error: {legible(redacted(str(exc), os.environ), keep=LINES)}", file=Stream("stderr"))
        return 2
    return code


def _parser(program: str) -> argparse.ArgumentParser:
    parser = Parser(prog=program, description=_DESCRIPTION)
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
    """Draw the charts and write the report of a study, as Markdown and for a browser."""

    name = "report"
    summary = "draw the charts and write report.md and report.html, for a browser"

    def declare(self, parser: argparse.ArgumentParser) -> None:
        """Declare the folder and a price."""
        super().declare(parser)
        _declare_price(parser)

    def lines(self, options: argparse.Namespace) -> Iterable[str]:
        """Write it, and return the paths."""
        written = report.write(options.folder, price_per_gpu_hour=options.price, currency=options.currency)
        return [str(path) for path in (*written.figures, written.page, written.report)]


class ShowLeaderboard(_OfOneStudy):
    """Show the settings of a study, best first."""

    name = "leaderboard"
    summary = "show the settings of a study, best first, with their knobs, bounds and cost"

    def declare(self, parser: argparse.ArgumentParser) -> None:
        """Declare what it takes."""
        super().declare(parser)
        parser.add_argument("--all", action="store_true", help="every setting, not the first ten alone")
        parser.add_argument("--json", action="store_true", help="answer as JSON, with every setting")

    def lines(self, options: argparse.Namespace) -> Iterable[str]:
        """Return the table, as wide as the terminal."""
        board = leaderboard.leaderboard(Study.load(options.folder))
        if options.json:
            return leaderboard_json.as_json(board).splitlines()
        width = shutil.get_terminal_size().columns
        return leaderboard_text.lines(board, width=width, is_all=options.all)


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
        return [origins.provenance_sentence(study), "", *told.splitlines()]


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
        parser.add_argument(
            "--with",
            dest="earlier",
            type=Path,
            metavar="CSV",
            help="an earlier claims.csv: answers of sources that no study here has are taken over",
        )

    def lines(self, options: argparse.Namespace) -> Iterable[str]:
        """Check the claims, and return the answers and the files that were written."""
        studies = [Study.load(folder) for folder in options.folders]
        out = options.out or (studies[0].folder if len(studies) == 1 else None)
        earlier = claims_report.kept(options.earlier) if options.earlier else []
        yield from claims_report.text(studies, earlier=earlier).splitlines()
        if out is not None:
            yield ""
            yield from (str(path) for path in claims_report.write(studies, out=out, earlier=earlier))


class Compare(Command[Stream]):
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
        parser.add_argument(
            "--fail-if",
            action="append",
            default=[],
            metavar="CONDITION",
            help="such as 'request_throughput_per_s worse than 5%%'; may be repeated. Exit code 0: equal or "
            "better, 1: worse, 5: inconclusive",
        )
        parser.add_argument("--json", type=Path, metavar="FILE", help="write numbers and checks as JSON")
        parser.add_argument("--junit", type=Path, metavar="FILE", help="write the checks as JUnit XML")
        parser.add_argument(
            "--markdown", type=Path, metavar="FILE", help="write the checks as a summary for a CI run's page"
        )

    def run(self, options: argparse.Namespace, out: Stream) -> int:
        """Write the comparison, hold the conditions against it, and print paths and outcomes."""
        conditions = [regression.read(text) for text in options.fail_if]
        if not conditions and (options.junit or options.markdown):
            raise ConfigError(
                "compare: --junit and --markdown write what --fail-if found, and there is none; expected "
                "such as --fail-if 'request_throughput_per_s worse than 5%'. Add one."
            )
        studies = [Study.load(place) for place in (options.first, options.second, *options.further)]
        checks = [
            regression.check(condition, studies[0], other)
            for other in studies[1:]
            for condition in conditions
        ]
        folder = options.out or studies[1].folder / f"compare-{studies[0].name}"
        written = compare.write_all(studies, out=folder)
        if options.json:
            written.append(write_answer(options.json, regression_files.as_json(studies, checks)))
        if options.junit:
            written.append(write_answer(options.junit, regression_files.as_junit(checks)))
        if options.markdown:
            written.append(write_answer(options.markdown, regression_files.as_markdown(checks)))
        told = [line for other in studies[1:] for line in compare.in_short(studies[0], other)]
        for line in (*told, *map(str, written), *(check.sentence for check in checks)):
            print(legible(line), file=out)
        outcomes = [check.outcome for check in checks]
        return regression.EXIT_CODES[regression.worst(outcomes)] if outcomes else 0


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


class Mlflow(_OfOneStudy):
    """Write a study's trials into MLflow."""

    name = "mlflow"
    summary = "write the trials of a study into MLflow, each once (needs the extra mlflow)"

    def declare(self, parser: argparse.ArgumentParser) -> None:
        """Declare the folder and where MLflow keeps its runs."""
        super().declare(parser)
        parser.add_argument(
            "--tracking",
            default=os.environ.get("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db"),
            help="URL of MLflow's tracking; default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db",
        )

    def lines(self, options: argparse.Namespace) -> Iterable[str]:
        """Write them, and say how many."""
        study = Study.load(options.folder)
        written, known = mlflow_export.write(study, tracking=options.tracking)
        return [f"{amount(written, 'run')} written to {masked(options.tracking)}; {known} were there"]


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


COMMANDS: tuple[Command[Stream], ...] = (
    Figures(),
    Report(),
    ShowLeaderboard(),
    Costs(),
    Claims(),
    Compare(),
    Blog(),
    Mad(),
    Mlflow(),
    Guide(),
    Timeline(),
    Validation(),
    ExperimentTables(),
    Columns(),
)
"""All commands, in the order of the help."""
