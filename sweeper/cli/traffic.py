"""``traffic``: a workload from a log of one's own requests."""

from __future__ import annotations

import re
import shlex
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.cli import as_json
from sweeper.cli.arguments import ConsoleCommand
from sweeper.cli.exit_codes import OK
from sweeper.errors import ConfigError
from sweeper.records.plurals import amount, percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from sweeper.workload.logs import Log
    from sweeper.workload.traffic import Summary


class Traffic(ConsoleCommand):
    """Make a workload from a log of requests."""

    name = "traffic"
    summary = "make a workload from a log of your own requests"
    description = (
        "Read a log of requests, say what is in it, and write a workload that replays it or sends its "
        "lengths. The workload holds times, lengths and which prompts begin alike, and no text. Where the "
        "log holds conversations (session_id, or messages that go on), a second workload sends them turn by "
        "turn."
    )
    epilog = (
        "Reads JSON lines with OpenAI's usage, Mooncake's and Bailian's traces, and JSON lines or CSV with a "
        "time and the tokens of prompt and answer (Azure's traces and BurstGPT among them), packed by "
        "gzip or not."
    )

    def declare(self, parser: ArgumentParser) -> None:
        """Declare the log, and where the workload goes."""
        parser.add_argument("log", type=Path)
        parser.add_argument(
            "--output", type=Path, default=Path("outputs/traffic"), help="folder of the workload"
        )
        parser.add_argument("--name", help="of the workload; the log's own name unless given")
        parser.add_argument(
            "--most-tokens",
            type=int,
            metavar="N",
            help="leave out requests with more, prompt and answer together, such as the longest sequence of "
            "your model",
        )
        as_json.declare(parser)

    def run(self, options: Namespace, console: Console) -> int:
        """Read the log, print what it says, and write trace and workload."""
        from sweeper.text.writing import write_answer
        from sweeper.workload import logs, traffic

        told = as_json.telling(options, console)
        name = _name(options)
        log = logs.read(options.log, most_tokens=options.most_tokens)
        found = traffic.summarize(log)
        for line in said(found):
            told.print(line, markup=False, soft_wrap=True)
        trace = write_answer(options.output / f"{name}.jsonl", traffic.trace(log))
        preset = _write_preset(
            options.output / "workload" / f"{name}.yaml", trace, log.has_times, len(log.requests)
        )
        told.print(f"wrote {trace} and {preset}", markup=False, soft_wrap=True)
        made = {"trace": str(trace), "workload": str(preset)}
        for line in _how(name, options.output, log.has_times, found.rate_per_s):
            told.print(line, markup=False, soft_wrap=True)
        if log.has_conversations:
            lines, files = _write_conversations(f"{name}_conversations", options.output, log)
            for line in lines:
                told.print(line, markup=False, soft_wrap=True)
            made |= files
        if options.json:
            as_json.answer({**asdict(found), **made}, console)
        return OK


def _name(options: Namespace) -> str:
    """Return the name of the workload, which stands in commands and names files and studies.

    Raises:
        ConfigError: The given one cannot.
    """
    if options.name is None:
        # A log may be called anything.
        return re.sub(r"[^A-Za-z0-9_-]+", "_", options.log.name.partition(".")[0]).strip("_-") or "log"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", options.name):
        raise ConfigError(
            f"--name: '{options.name}' cannot name a workload; expected letters, digits, '_' and '-', the "
            "first a letter or digit. Choose another."
        )
    return str(options.name)


def said(found: Summary) -> Iterator[str]:
    """Describe a log in lines."""
    yield f"{amount(found.requests, 'request')} ({found.layout})" + "".join(
        f"; left out {count}: {reason}" for reason, count in found.left_out.items()
    )
    if found.requests == 1:
        yield "arrivals: one request has no rate"
    elif found.span_s == 0:
        yield "arrivals: all at the same moment, so there is no rate: replayed, all is sent at once"
    elif found.span_s is None:
        yield "arrivals: the log has no times, so only its lengths can be sent"
    else:
        busiest = (
            "" if found.busiest_per_s is None else f", {found.busiest_per_s:.3g}/s in the busiest minute"
        )
        bursts = "" if found.burstiness is None else f"; {_spacing(found.burstiness)}"
        yield f"arrivals: {found.span_s:.4g} s, {found.rate_per_s or 0:.3g}/s{busiest}{bursts}"
    for what, (mean, median, high, most) in (
        ("prompts", found.input_tokens),
        ("answers", found.output_tokens),
    ):
        middle = f"{mean:.0f} tokens in the mean, median {median:.0f}"
        yield f"{what}: {middle}, 99 % below {high:.0f}, longest {most}"
    if found.shared_frac is not None:
        yield f"prompts that begin alike: {percent(found.shared_frac, '.1')} of all prompt tokens came before"


def _spacing(burstiness: float) -> str:
    """Say how evenly requests came."""
    from sweeper.workload.traffic import EVEN

    if burstiness == EVEN:
        return "evenly spaced"
    return f"burstiness {burstiness:.2g} (1 is Poisson)"


def _write_preset(path: Path, trace: Path, has_times: bool, requests: int) -> Path:
    from sweeper.text.writing import write_answer

    dataset = "timed_trace" if has_times else "trace_lengths"
    lines = [
        f"# Traffic of {trace.name}: lengths, times and equal beginnings; no text.",
        f"dataset: {dataset}",
        _path_line(trace),
        f"num_prompts: {requests}",
        "request_rate_per_s: [null]   # its own times; with dataset trace_lengths, rates of your choice",
        "ignore_eos: true             # answers as long as they were",
        "",
    ]
    return write_answer(path, "\n".join(lines))


def _path_line(path: Path) -> str:
    """Return the line of a workload that names its file; a path may hold what means something in YAML."""
    import yaml

    named = {"dataset_path": str(path.absolute())}
    return yaml.safe_dump(named, allow_unicode=True, width=10_000).strip()


def _command(name: str, folder: Path) -> str:
    return f"python -m sweeper --config-dir {shlex.quote(str(folder))} +experiment=tune workload={name}"


def _how(name: str, folder: Path, has_times: bool, rate_per_s: float | None) -> Iterator[str]:
    """Write how to use a workload; each load is a study of its own, as a search is of one load."""
    rates = ",".join(f"{float(f'{times * (rate_per_s or 1):.2g}'):g}" for times in (1, 2, 4))
    base = _command(name, folder)
    if has_times:
        yield f"replay it:          {base} study.name={name}"
        yield f"twice as fast:      {base} workload.options.speed=2 study.name={name}_fast"
    yield (
        f"its lengths, rates: {base} workload.dataset=trace_lengths "
        f"'workload.request_rate_per_s=[{rates}]' study.name={name}_rates"
    )
    yield f"the most it serves: {base} workload.dataset=trace_lengths study.name={name}_at_once"
    yield "add model=NAME for another model than that experiment's, llama_3_1_70b_instruct"
    yield (
        "by its own times or a rate, all settings that keep up complete the same: compare their latencies "
        "there, and how much each can serve with the last command"
    )


def _write_conversations(name: str, folder: Path, log: Log) -> tuple[list[str], dict[str, str]]:
    """Write the conversations of a log and their workload; return what is said of them, and the files."""
    from sweeper.text.writing import write_answer
    from sweeper.workload import sessions

    found = sessions.conversations(log)
    told = list(sessions.said(found))
    path = write_answer(folder / f"{name}.jsonl", "\n".join(sessions.lines(found)) + "\n")
    dataset = "timed_conversations" if log.has_times else "custom_conversations"
    lines = [
        f"# Conversations of {path.name}: messages, answers and times; no text.",
        f"dataset: {dataset}",
        _path_line(path),
        f"num_prompts: {len(log.requests)}   # turns, those of all conversations together",
        "request_rate_per_s: [null]   # its own times; with custom_conversations, your rates or users",
        "ignore_eos: true             # answers as long as they were",
        "endpoint: chat               # a conversation is sent as messages",
        "",
    ]
    preset = write_answer(folder / "workload" / f"{name}.yaml", "\n".join(lines))
    told.append(f"wrote {path} and {preset}")
    base = _command(name, folder)
    if log.has_times:
        told.append(f"turn by turn:       {base} study.name={name}")
    by_users = "workload.dataset=custom_conversations 'workload.max_concurrency=[4,16,64]'"
    # Without it users would answer at once, which nobody does.
    by_users += "" if found.pauses_s else " workload.options.pause_s=10"
    told.append(f"by so many users:   {base} {by_users} study.name={name}_users")
    return told, {"conversations": str(path), "workload_of_conversations": str(preset)}
