"""``python -m sweeper calibrate``: fits the simulated device, and keeps the result under a name."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.cli import as_json
from sweeper.cli.arguments import ConsoleCommand
from sweeper.cli.exit_codes import OK
from sweeper.errors import ConfigError
from sweeper.records import Platform
from sweeper.records.plurals import amount
from sweeper.simulation import calibration
from sweeper.simulation.calibration import WORDS, NamedCalibration
from sweeper.text.output import Parser

if TYPE_CHECKING:
    from rich.console import Console

    from sweeper.calibrate.figures import Figure

_ROUNDS = 4
_OWN = Path("outputs") / calibration.FOLDER

_DOUBTFUL_PCT = 50.0
"""Mean error of what was not fitted beyond which a calibration is doubted; of studies measured so far the
largest was 29 % (docs/predictor.md)."""


class Calibrate(ConsoleCommand):
    """Fit a calibration to published figures or to measured studies, and write it."""

    name = "calibrate"
    summary = "fit the simulated device to measured studies or published figures"
    description = (
        "Fit the parameters of the simulated MI300X to measured studies, or to the published "
        "figures that the shipped calibration is fitted to. Takes some minutes."
    )

    def declare(self, parser: argparse.ArgumentParser) -> None:
        """Declare what to fit to, and what to call it."""
        parser.add_argument("folders", type=Path, nargs="*", help="folders of measured studies")
        parser.add_argument(
            "--judge-by",
            choices=("settings", "loads"),
            help="what of a study is kept out of the fit and predicted: every fourth setting, or every "
            "second load point of each; default: settings where there are four",
        )
        parser.add_argument(
            "--published",
            nargs="?",
            const="article",
            choices=("article", "tables", "errors"),
            help="fit to published figures instead: of the article (vLLM 0.6.2), or of AMD's validation "
            "tables (its images of vLLM 0.6.6 to 0.10.0; each becomes a calibration of its own) and to the "
            "public sources that others are fitted to; errors "
            "predicts every published number that was not seen, for the intervals",
        )
        parser.add_argument(
            "--table",
            type=Path,
            help="CSV of a few measured numbers of one stack (docs/predictor.md): the nearest stack is moved "
            "by them, every number is predicted from the others, and rows without a value from all",
        )
        parser.add_argument(
            "--choose",
            type=int,
            metavar="RUNS",
            help="fit nothing: of a table's runs without a value, name so many that tell most of the others "
            "once they are measured",
        )
        parser.add_argument("--name", help="what to call it; platform.calibration=NAME chooses it")
        parser.add_argument("--start", help="calibration to start from; default: the nearest")
        parser.add_argument("--rounds", type=int, default=_ROUNDS, help="most steps of the fit")
        parser.add_argument(
            "--fit",
            choices=("all", "effects", "none"),
            default="all",
            help="what to fit: all; of the article's figures the single effects alone; or nothing, to keep "
            "the values and tell their errors",
        )
        parser.add_argument("--values", type=Path, help="JSON of parameters to lay over the start")
        parser.add_argument("--into", type=Path, default=_OWN, help=f"folder to write to; default: {_OWN}")
        as_json.declare(parser)

    def parse(self, parser: Parser, arguments: list[str]) -> argparse.Namespace:
        """Read the arguments, and refuse those that contradict each other."""
        options = parser.parse_args(arguments)
        if sum(map(bool, (options.published, options.folders, options.table))) != 1:
            raise ConfigError(
                "calibrate: give folders of measured studies, or --published, or --table, just one."
            )
        if options.choose is not None and (options.choose < 1 or options.table is None):
            given = f"{options.choose}{'' if options.table else ' without --table'}"
            raise ConfigError(
                f"--choose: is {given}; expected at least 1 run of --table FILE.csv. Correct it, or leave it "
                "out."
            )
        options.name = options.name or ("published" if options.published else None)
        if options.name is None and options.choose is None:
            raise ConfigError(
                "calibrate: got no --name; expected what to call the calibration, such as my_node."
            )
        if options.into == _OWN and options.name in calibration.names():
            raise ConfigError(
                f"--name: '{options.name}' is a shipped calibration; expected a name of your own."
            )
        if options.judge_by and not options.folders:
            raise ConfigError(
                "--judge-by: is given without the folder of a study; expected one, whose runs it splits. "
                "Give the folder, or leave it out."
            )
        if options.published != "article" and options.fit == "effects":
            raise ConfigError(
                "--fit effects: is given without the article; expected --published, whose effects they are."
            )
        if options.json and options.published in ("tables", "errors"):
            raise ConfigError(
                f"--json: is given with --published {options.published}, which answers with files; expected "
                "it without. Leave it out."
            )
        if options.rounds < 1:
            raise ConfigError(f"--rounds: is {options.rounds}; expected at least 1.")
        return options

    def run(self, options: argparse.Namespace, console: Console) -> int:
        """Fit it, write it, and say how far off it is."""
        told = _Told(as_json.telling(options, console))
        if options.published == "errors":
            return _errors(options, told)
        if options.published == "tables":
            return _tables(options, told)
        if options.choose is not None:
            return _choose(options, told, console)
        if options.table is not None:
            made = _table(options, told)
        else:
            made = _article(options, told) if options.published else _measured(options, told)
        path = made.write(options.into)
        _tell_errors(made, told)
        told.say(f"{path}: use it with platform.calibration={options.name}")
        if options.json:
            as_json.answer(
                {"file": str(path), "predicted": told.predicted, "calibration": asdict(made)}, console
            )
        return OK


@dataclass(frozen=True)
class _Told:
    """Where a fit says what it does, and each number that it predicted without having seen it.

    Attributes:
        console: Where it is said.
        predicted: ``of``, ``load_point``, ``metric``, ``value`` and ``predicted`` of each; of one without a
            value ``interval_80``, too.
    """

    console: Console
    predicted: list[dict[str, object]] = field(default_factory=list)

    def say(self, line: str) -> None:
        """Say a line."""
        self.console.print(line, markup=False, soft_wrap=True)

    def keep(self, figure: Figure, predicted: float, **beside: object) -> None:
        """Keep what is predicted of a figure."""
        self.predicted.append(
            {
                "of": figure.series,
                "load_point": figure.point.label,
                "metric": figure.metric,
                "value": figure.value,
                "predicted": predicted,
                **beside,
            }
        )


def _start(options: argparse.Namespace, *, nearest: NamedCalibration | None = None) -> NamedCalibration:
    """Return the calibration to start from, whole, with the values of a file laid over it."""
    start = nearest
    if start is None or options.start is not None:
        start = calibration.load(options.start, folder=options.into)
    if options.values is None:
        return start
    try:
        values = json.loads(options.values.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise ConfigError(f"--values: {options.values} cannot be read ({exc}); expected JSON.") from exc
    calibration.check_values(options.values, values)
    return start.with_changes(values)


def _article(options: argparse.Namespace, told: _Told) -> NamedCalibration:
    """Fit what is common to Cases 1 to 3, then each effect to the figures that its size is taken from."""
    from sweeper.calibrate import article
    from sweeper.calibrate.figures import FIT
    from sweeper.calibrate.fitting import BASE, fit

    start = _start(options)
    figures = article.article_figures()
    _tell_split(figures, told)
    values: Mapping[str, float] = asdict(start.calibration)
    if options.fit == "all":
        together = [figure for figure in figures if figure.role == FIT and figure.parameter is None]
        values = fit(together, values, parameters=article.TOGETHER, rounds=options.rounds, tell=told.say)
    if options.fit != "none":
        for effect in article.EFFECTS:
            own = [figure for figure in figures if figure.parameter == effect.parameter]
            values = fit(own, values, parameters=[effect.parameter], rounds=options.rounds)
            told.say(f"{effect.parameter} = {values[effect.parameter]:.4g}, from {effect.words}")
    fitted = dict.fromkeys(BASE, "Cases 1 to 3") | dict.fromkeys(article.FLOOR, article.FLOOR_WORDS)
    fitted |= {effect.parameter: effect.words for effect in article.EFFECTS}
    known = calibration.load()
    made = _judged(figures, values, options, about=known.about, fitted=fitted)
    return replace(made, stack=known.stack, taken=known.taken)


def _tables(options: argparse.Namespace, told: _Told) -> int:
    """Fit every stack of AMD's validation tables, of a source or of several; write each under its name."""
    from sweeper.calibrate import pooled, shipping, sourced

    today = datetime.now(UTC).date()
    for made in chain(
        shipping.made(date_made=today, tell=told.say),
        sourced.made(date_made=today, tell=told.say),
        pooled.made(date_made=today, tell=told.say),
    ):
        path = made.write(options.into)
        _tell_errors(made, told)
        told.say(f"{path}: use it with platform.calibration={path if options.into != _OWN else made.name}")
    return OK


def _errors(options: argparse.Namespace, told: _Told) -> int:
    """Predict every published number from calibrations that have not seen it, and write how far off."""
    from sweeper.calibrate import unseen
    from sweeper.simulation import intervals

    for path, found in (
        (options.into / intervals.ERRORS.name, unseen.collect(told.say)),
        (options.into / unseen.ANCHORED.name, unseen.collect_anchored(told.say)),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        unseen.write(path, found)
        told.say(str(path))
    return OK


def _table(options: argparse.Namespace, told: _Told) -> NamedCalibration:
    """Move the nearest stack by the numbers of a table, and say how each is predicted from the others."""
    from sweeper.calibrate import table

    read = table.read(options.table)
    basis = calibration.load(options.start, folder=options.into) if options.start else None
    made = _anchored(
        read.figures,
        options,
        told,
        source=str(options.table),
        basis=basis,
        image=read.image,
        date=read.date,
    )
    _tell_asked(read.asked, made, told)
    return made


def _choose(options: argparse.Namespace, told: _Told, console: Console) -> int:
    """Say which runs of a table are worth measuring; rows with a value are known already."""
    from sweeper.calibrate import anchoring, table

    read = table.read(options.table, fewest=0)
    figures = [*read.figures, *read.asked]
    runs: dict[object, list[int]] = {}
    for place in range(len(read.figures), len(figures)):
        runs.setdefault((figures[place].spec.key, figures[place].point), []).append(place)
    if len(runs) <= options.choose:
        raise ConfigError(
            f"--choose: is {options.choose}; expected less than the {amount(len(runs), 'run')} without a "
            f"value in {options.table}, since the others are predicted. Add rows without a value, or choose "
            "fewer."
        )
    start = asdict(_start(options, nearest=anchoring.basis_of(figures)).calibration)
    places = list(runs.values())
    choice = anchoring.worth_measuring(
        figures, start, most=options.choose, known=range(len(read.figures)), runs=places
    )
    chosen = [[figures[place] for place in places[run]] for run in choice.chosen]
    for number, run in enumerate(chosen, start=1):
        lines = ", ".join(figure.series for figure in run)
        told.say(f"{number}. {run[0].point.label}: {', '.join(figure.metric for figure in run)} ({lines})")
    told.say(
        f"stacks differ in the rest by a factor of {math.exp(choice.open_before):.2f}, and of "
        f"{math.exp(choice.open_after):.2f} once these are measured; what the model leaves off comes on top"
    )
    if options.json:
        as_json.answer(
            {
                "measure": [[figure.series for figure in run] for run in chosen],
                "open_before": choice.open_before,
                "open_after": choice.open_after,
            },
            console,
        )
    return OK


def _anchored(
    figures: Sequence[Figure],
    options: argparse.Namespace,
    told: _Told,
    *,
    source: str,
    basis: NamedCalibration | None,
    image: str = "",
    date: str = "",
) -> NamedCalibration:
    """Move a stack by a few numbers, none of which is kept out: each is predicted from the others."""
    from sweeper.calibrate import anchoring

    made, predicted = anchoring.named(
        figures,
        name=options.name,
        source=source,
        image=image,
        date=date,
        basis=basis,
        made=datetime.now(UTC).date(),
    )
    told.say(f"{len(figures)} numbers; {made.about}")
    _tell_predicted(predicted, told, how="from the others")
    return made


def _measured(options: argparse.Namespace, told: _Told) -> NamedCalibration:
    from sweeper.calibrate import anchoring
    from sweeper.calibrate.figures import FIT, predict
    from sweeper.calibrate.fitting import BASE, alike, by_weight, fit
    from sweeper.calibrate.studies import study_figures
    from sweeper.simulation.calibration import CPU_START

    figures = [
        figure
        for folder in options.folders
        for figure in study_figures(folder, judged_by=options.judge_by, tell=told.say)
    ]
    platforms = {figure.platform for figure in figures}
    is_cpu, is_usual = platforms == {str(Platform.CPU)}, platforms == {str(Platform.MI300X)}
    studies = ", ".join(dict.fromkeys(figure.experiment for figure in figures))
    start = _start(options, nearest=anchoring.basis_of(figures))
    unseen = [figure for figure in figures if figure.role != FIT]
    if is_usual and not unseen and options.fit == "all":
        return _anchored(figures, options, told, source=studies, basis=start)
    _tell_split(figures, told)
    values: Mapping[str, float] = {**asdict(start.calibration), **(CPU_START if is_cpu else {})}
    if options.fit == "all":
        own = [figure for figure in figures if figure.role == FIT]
        # A CPU's start is an order of magnitude; a GPU's is a stack that is known.
        rounds, ridge = (3 * options.rounds, 0.02) if is_cpu else (options.rounds, 0.15)
        values = fit(
            own,
            values,
            parameters=BASE,
            rounds=rounds,
            ridge=ridge,
            weigh=alike if is_cpu else by_weight,
            tell=told.say,
        )
    releases = ", ".join(sorted({figure.spec.engine.release for figure in figures}))
    about = f"vLLM {releases} as measured in {studies}; all that was not fitted is that of {start.name}."
    _tell_predicted(list(zip(unseen, predict(unseen, values), strict=True)), told, how="predicted")
    if not unseen:
        told.say("nothing was kept out of the fit to judge it by: measure a second load point for that")
    fitted = dict.fromkeys(BASE, studies)
    made = _judged(figures, values, options, about=about, fitted=fitted, all_count=True)
    # Of another device the stack would say that it is an MI300X.
    return replace(made, stack=anchoring.stack_for(figures, parent=start)) if is_usual else made


def _judged(
    figures: Sequence[Figure],
    values: Mapping[str, float],
    options: argparse.Namespace,
    *,
    about: str,
    fitted: Mapping[str, str],
    all_count: bool = False,
) -> NamedCalibration:
    from sweeper.calibrate.judging import judged

    made = datetime.now(UTC).date()
    return judged(
        figures, values, name=options.name, about=about, fitted=fitted, made=made, all_count=all_count
    )


def _tell_split(figures: Sequence[Figure], told: _Told) -> None:
    from sweeper.calibrate.figures import FIT

    fitted = sum(figure.role == FIT for figure in figures)
    left_out = sum(bool(figure.remark) for figure in figures)
    told.say(
        f"{amount(len(figures), 'figure')}: {fitted} to fit ({left_out} of them passed over), "
        f"{len(figures) - fitted} to judge by",
    )


def _tell_predicted(found: Sequence[tuple[Figure, float]], told: _Told, *, how: str) -> None:
    """Say each number beside what is predicted of it without it."""
    for figure, predicted in found:
        of = f"{figure.series}, {figure.point.label}" if figure.platform else figure.series
        off = 100 * (predicted / figure.value - 1)
        told.say(f"{of}, {figure.metric}: {figure.value:.4g}; {how} {predicted:.4g} ({off:+.0f} %)")
        told.keep(figure, predicted)


def _tell_asked(asked: Sequence[Figure], made: NamedCalibration, told: _Told) -> None:
    """Say what is predicted of rows without a value, by a calibration of their own stack."""
    from sweeper.calibrate.figures import predict
    from sweeper.simulation import intervals

    for figure, predicted in zip(asked, predict(asked, asdict(made.calibration)), strict=True):
        within = intervals.interval(figure.metric, predicted, 0.0)
        words = "" if within is None else f" ({within[0]:.4g} to {within[1]:.4g} in four of five)"
        told.say(f"{figure.series}, {figure.metric}: predicted {predicted:.4g}{words}")
        told.keep(figure, predicted, value=None, interval_80=within)


def _tell_errors(made: NamedCalibration, told: _Told) -> None:
    from sweeper.calibrate.figures import VALIDATION

    for role, errors in made.errors_pct.items():
        words = ", ".join(f"{WORDS[metric]} {error:.1f} %" for metric, error in errors.items())
        told.say(f"mean absolute error, {role}: {words}")
    doubtful = [
        f"{WORDS[metric]} {error:.0f} %"
        for metric, error in made.errors_pct.get(VALIDATION, {}).items()
        if error > _DOUBTFUL_PCT
    ]
    if doubtful:
        told.say(
            f"WARNING: what was not fitted is {', '.join(doubtful)} off: do not plan with these numbers. "
            "Look whether the loads were what they say (other work on the machine, answers cut short, "
            "prompts from the cache), and measure more settings or load points."
        )
