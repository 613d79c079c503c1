"""``python -m sweeper size``: how many GPUs serve a load within bounds, with which setting, at what cost."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.cli import as_json
from sweeper.cli.arguments import ConsoleCommand
from sweeper.cli.exit_codes import OK
from sweeper.errors import ConfigError
from sweeper.records import magnitudes
from sweeper.records.plurals import amount
from sweeper.text.output import Parser
from sweeper.text.reasons import folded

if TYPE_CHECKING:
    from rich.console import Console

    from sweeper.goals.sizing import Capacity, Fleet
    from sweeper.records import Constraint
    from sweeper.workload.logs import Log

_SHOWN = 5
_HEAD = ("setting", "GPUs", "instances", "from", "to", "GPUs each", "each serves, 1/s", "cost/hour")


class SizeFleet(ConsoleCommand):
    """Work out how many GPUs serve a load within bounds."""

    name = "size"
    summary = "how many GPUs serve a load within bounds, and what they cost"
    description = (
        "Work out how many instances and GPUs serve a rate of requests within bounds: from the measured load "
        "points of a study, or, without one, from the simulated platform (SIMULATED)."
    )
    epilog = (
        "examples:\n"
        "  python -m sweeper size --rate 50 --input-len 1024 --output-len 128 --slo 'p99_ttft_ms<=2000'\n"
        "  python -m sweeper size outputs/tune --rate 50 --slo 'p99_ttft_ms<=2000' --price 2.50"
    )

    def declare(self, parser: ArgumentParser) -> None:
        """Declare the load, the bounds, and where the numbers come from."""
        parser.add_argument(
            "words",
            nargs="*",
            metavar="FOLDER | key=value",
            help="a study's folder; or keys of the simulated study, such as model=llama_3_1_8b",
        )
        parser.add_argument("--rate", type=float, metavar="R", help="requests per second to be served")
        parser.add_argument("--input-len", type=int, metavar="N", help="tokens of a prompt")
        parser.add_argument("--output-len", type=int, metavar="N", help="tokens of an answer")
        parser.add_argument(
            "--log",
            type=Path,
            help="log of requests ('traffic' reads it): its busiest minute and its lengths",
        )
        parser.add_argument(
            "--slo",
            action="append",
            default=[],
            metavar="'METRIC<=MS'",
            help="a bound to keep; may be repeated",
        )
        parser.add_argument("--price", type=float, help="of a GPU by the hour; else the study's own")
        parser.add_argument("--currency", default=None, help="of the price")
        as_json.declare(parser)

    def parse(self, parser: Parser, arguments: list[str]) -> Namespace:
        """Read the arguments; keys may follow options."""
        return parser.parse_intermixed_args(arguments)

    def run(self, options: Namespace, console: Console) -> int:
        """Work it out, and print it."""
        from analysis.worth import check_price
        from sweeper.goals import sizing

        bounds = [sizing.bound(text) for text in options.slo]
        if not bounds:
            raise ConfigError("--slo: is not given; expected what has to be kept, 'p99_ttft_ms<=2000'.")
        if options.price is not None:
            check_price(options.price)
        load = _load(options)
        folders = [word for word in options.words if "=" not in word]
        if len(folders) > 1 or (folders and len(options.words) > 1):
            raise ConfigError(
                f"command line: got {' '.join(options.words)}; expected one study's folder, or keys and "
                "values of a simulated one. Leave one out."
            )
        source = (
            _of_study(Path(folders[0]), bounds, load, options)
            if folders
            else _simulated(options.words, bounds, load, options)
        )
        found = sizing.fleets(source.capacities, rate_per_s=load.rate_per_s)
        told = _told(found, source, bounds, load)
        if options.json:
            as_json.answer(told, console)
        else:
            _say(found, source, bounds, load, console)
        return OK


@dataclass(frozen=True, kw_only=True)
class _Load:
    rate_per_s: float
    input_len: int | None
    output_len: int | None
    said: str
    log: Log | None = None


@dataclass(frozen=True, kw_only=True)
class _Source:
    capacities: Sequence[Capacity]
    words: str
    is_simulated: bool
    left_out: Sequence[str]
    price: float | None
    currency: str


def _load(options: Namespace) -> _Load:
    """Return the load that is asked about; a log says what is not given."""
    rate, lengths, said, log = options.rate, (options.input_len, options.output_len), "", None
    if options.log is not None:
        from sweeper.workload import logs, traffic

        log = logs.read(options.log)
        summary = traffic.summarize(log)
        rate = rate or summary.busiest_per_s or summary.rate_per_s
        means = (round(summary.input_tokens[0]), round(summary.output_tokens[0]))
        lengths = (lengths[0] or means[0], lengths[1] or means[1])
        said = f" (of {options.log})"
        if rate is None:
            raise ConfigError(f"{options.log}: holds no times; expected them, or --rate. Give --rate.")
    if rate is None:
        raise ConfigError("--rate: is not given; expected requests per second, or --log. Give one of them.")
    if not magnitudes.is_meant(rate):
        raise ConfigError(
            f"--rate: is {rate:g}; expected requests per second, from {magnitudes.SMALLEST:g} to "
            f"{magnitudes.LARGEST:g}. Correct it."
        )
    for name, length in zip(("--input-len", "--output-len"), lengths, strict=True):
        if length is not None and length <= 0:
            raise ConfigError(f"{name}: is {length}; expected tokens, at least 1. Correct it.")
    is_given = options.input_len is not None or options.output_len is not None
    return _Load(
        rate_per_s=rate,
        input_len=lengths[0],
        output_len=lengths[1],
        said=said,
        log=None if is_given else log,
    )


def _of_study(folder: Path, bounds: Sequence[Constraint], load: _Load, options: Namespace) -> _Source:
    """Return what the settings of a study serve, by its stored load points."""
    from analysis import sizing
    from analysis.study import Study

    study = Study.load(folder, price_per_gpu_hour=options.price, currency=options.currency)
    found = sizing.capacities(study, bounds, input_len=load.input_len, output_len=load.output_len)
    return _Source(
        capacities=found.capacities,
        words=f"{'SIMULATED ' if study.is_simulated else ''}study {study.name}: {found.load}",
        is_simulated=study.is_simulated,
        left_out=found.left_out,
        price=study.price_per_gpu_hour,
        currency=study.currency,
    )


def _simulated(
    words: Sequence[str], bounds: Sequence[Constraint], load: _Load, options: Namespace
) -> _Source:
    """Return what each parallel size serves on the simulated platform."""
    from sweeper.prepare import sizing

    if load.input_len is None or load.output_len is None:
        raise ConfigError(
            "--input-len, --output-len: are not both given; expected the tokens of prompts and answers, or "
            "--log, or a study's folder. Give them."
        )
    found = sizing.of_simulated(
        words, bounds, input_len=load.input_len, output_len=load.output_len, log=load.log
    )
    return _Source(
        capacities=found.capacities,
        words=f"SIMULATED: {found.words}",
        is_simulated=True,
        left_out=found.left_out,
        price=options.price,
        currency=options.currency or "",
    )


def _told(
    found: Sequence[Fleet], source: _Source, bounds: Sequence[Constraint], load: _Load
) -> dict[str, Any]:
    """Return the answer for programs."""
    return {
        "provenance": "simulated" if source.is_simulated else "measured",
        "source": source.words,
        "rate_per_s": load.rate_per_s,
        "slo": [bound.name for bound in bounds],
        "price_per_gpu_hour": source.price,
        "currency": source.currency,
        "answer": _fleet(found[0], source) if found else None,
        "others": [_fleet(one, source) for one in found[1:]],
        "left_out": list(source.left_out),
    }


def _fleet(one: Fleet, source: _Source) -> dict[str, Any]:
    return {
        "setting": one.capacity.setting,
        "instances": one.instances,
        "fewest_instances": one.fewest,
        "most_instances": one.most,
        "gpus": one.gpus,
        "fewest_gpus": None if one.fewest is None else one.gpus_for(one.fewest),
        "most_gpus": None if one.most is None else one.gpus_for(one.most),
        "gpus_per_instance": one.capacity.gpus,
        "requests_per_s_per_instance": one.capacity.per_s,
        "cost_per_hour": None if source.price is None else one.cost_per_hour(source.price),
    }


def _say(
    found: Sequence[Fleet], source: _Source, bounds: Sequence[Constraint], load: _Load, console: Console
) -> None:
    """Print the answer for people."""
    kept = ", ".join(bound.name for bound in bounds)

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    say(source.words)
    say(f"asked: {load.rate_per_s:.4g} requests per second{load.said} with {kept}")
    for line in folded((line.partition(": ")[2], line) for line in source.left_out):
        say(f"left out: {line}")
    if not found:
        say(
            "answer: none: no setting keeps the bounds and answers as fast as it is asked at the lightest "
            "load that was tried. Try lighter loads, or looser bounds."
        )
        return
    for line in _answer(found[0], source):
        say(line)
    say("")
    for line in _table(found[:_SHOWN], source):
        say(line)
    say("")
    say(
        f"{found[0].capacity.because}. From and to: instances at the good and at the bad end of what is "
        "known; ? where no load tried broke the bounds, or none is sure to keep them. Requests are shared "
        "out evenly; nothing is kept in reserve."
    )


def _answer(best: Fleet, source: _Source) -> list[str]:
    mark = "SIMULATED: " if source.is_simulated else ""
    lines = [
        f"answer: {mark}{amount(best.gpus, 'GPU')}, {amount(best.instances, 'instance')} of "
        f"{best.capacity.setting}"
    ]
    low = "?" if best.fewest is None else f"{best.gpus_for(best.fewest)}"
    high = "? GPUs" if best.most is None else amount(best.gpus_for(best.most), "GPU")
    is_same = best.fewest is not None and best.fewest == best.most
    lines.append(f"uncertain: no, {high} at either end" if is_same else f"uncertain: {low} to {high}")
    if source.price is not None:
        from sweeper.goals.sizing import HOURS_PER_MONTH

        cost, unit = best.cost_per_hour(source.price), f" {source.currency}" if source.currency else ""
        lines.append(
            f"cost: {cost:,.2f}{unit} an hour, {cost * HOURS_PER_MONTH:,.0f}{unit} a month "
            f"({source.price:,.2f}{unit} per GPU and hour)"
        )
    return lines


def _table(found: Sequence[Fleet], source: _Source) -> list[str]:
    rows = [
        (
            one.capacity.setting,
            str(one.gpus),
            str(one.instances),
            "?" if one.fewest is None else str(one.fewest),
            "?" if one.most is None else str(one.most),
            f"{one.capacity.gpus:g}",
            f"{one.capacity.per_s:.3g}",
            "" if source.price is None else f"{one.cost_per_hour(source.price):,.2f}",
        )
        for one in found
    ]
    shown: list[tuple[str, ...]] = [_HEAD, *rows]
    if source.price is None:
        shown = [row[:-1] for row in shown]
    widths = [max(len(cell) for cell in column) for column in zip(*shown, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in shown
    ]
