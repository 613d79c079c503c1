"""The command line: commands, exit codes, and the only place that prints.

Exit codes: 0 everything asked for is there; 1 some trials failed, the others are complete; 2 a mistake in
the configuration, nothing was started; 3 no trial is complete; 4 results are at risk or the machine does
not answer; 130 stopped by Ctrl-C, 143 by SIGTERM (the same command goes on). A plan ends with 0 where a trial
would run, else with what the run would end with.

Here are help and the choice of a command. ``sweep`` is one sweep; every other command is a class in the
module of its name (``make``: the three that make something), which reads its arguments by ``arguments``.

Heavy packages are imported where they are needed, so that help and mistakes are answered at once.
"""

from __future__ import annotations

import os
import signal
import tempfile
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

import sweeper
from sweeper.cli.analysis import Analyse, load_own_analysis
from sweeper.cli.arguments import ConsoleCommand
from sweeper.cli.audit import AuditNode
from sweeper.cli.calibrate import Calibrate
from sweeper.cli.cleanup import CleanUp
from sweeper.cli.completion import PrintCompletion
from sweeper.cli.dashboard import OpenDashboard
from sweeper.cli.exit_codes import AT_RISK, MISTAKE, NOTHING_COMPLETE, OK, SOME_FAILED, STOPPED
from sweeper.cli.experiments import ListExperiments
from sweeper.cli.explain import Explain
from sweeper.cli.fit import ShowFit
from sweeper.cli.help import HELP_WORDS, help_on
from sweeper.cli.interference import CheckInterference
from sweeper.cli.make import InstallClient, InstallCpuVllm, MakeShareGpt, MakeTinyModel
from sweeper.cli.models import ShowModels
from sweeper.cli.node import ShowNode
from sweeper.cli.partitions import ShowPartitions
from sweeper.cli.size import SizeFleet
from sweeper.cli.sweep import run_sweep
from sweeper.cli.traffic import Traffic
from sweeper.cli.watch import WatchStudy
from sweeper.errors import AnswerError, ConfigError, SweeperError
from sweeper.text.output import Stream, check_written, failure_text
from sweeper.text.printable import LINES, legible

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["AT_RISK", "MISTAKE", "NOTHING_COMPLETE", "OK", "SOME_FAILED", "main"]

_COMMANDS: dict[str, ConsoleCommand] = {
    command.name: command
    for command in (
        ListExperiments(),
        Explain(),
        ShowNode(),
        AuditNode(),
        ShowFit(),
        ShowPartitions(),
        ShowModels(),
        SizeFleet(),
        Analyse(),
        Calibrate(),
        InstallCpuVllm(),
        InstallClient(),
        MakeTinyModel(),
        MakeShareGpt(),
        Traffic(),
        OpenDashboard(),
        WatchStudy(),
        CheckInterference(),
        CleanUp(),
        PrintCompletion(lambda: tuple(_COMMANDS)),
    )
}
"""All commands by name, in the order of the help."""

_HELP = """\
usage: python -m sweeper [+experiment=NAME] [key=value ...] [--config-dir DIR] [--cfg job]
       python -m sweeper COMMAND [...]

Sweeps the knobs of an LLM server over the devices of a node, and answers with charts and tables.

  python -m sweeper +experiment=case2_sched_steps                  on whatever this machine is
  python -m sweeper +experiment=case2_sched_steps platform=mi300x  insist on MI300X
  python -m sweeper +experiment=cpu_smoke                          the real vLLM on this CPU
  python -m sweeper +experiment=case2_sched_steps plan=true        show what would run; start nothing
  python -m sweeper --config-dir my_conf +experiment=mine          an experiment of your own

commands
{commands}

options
  --config-dir DIR   a folder with experiments of your own (DIR/experiment/NAME.yaml)
  --cfg job          print the composed configuration and stop
  --version          print the version and stop

groups (choose with group=name)
{groups}

The same command again measures nothing twice; after Ctrl-C or a crash it goes on where it was.
Exit codes: 0 all there, 1 some trials failed, 2 mistake in the configuration, 3 no trial complete,
4 results at risk or machine not answering, 130 Ctrl-C, 143 SIGTERM.
"""


def main(arguments: Sequence[str]) -> int:
    """Run one command.

    Args:
        arguments: The command line without the program's name.

    Returns:
        The exit code.
    """
    from rich.console import Console

    load_own_analysis()
    stream = Stream("stdout")
    console, errors = (
        # No emoji: in /data:x:y, an image or a label, the colons are not the name of a picture.
        Console(file=file, highlight=False, emoji=False)  # type: ignore[arg-type]
        for file in (stream, Stream("stderr"))
    )
    try:
        code = _dispatch(list(arguments), console)
        if is_only_said(arguments):
            check_written(stream)
        elif failure_text(stream):
            errors.print(failure_text(stream), markup=False, soft_wrap=True)
        return code
    except SweeperError as exc:
        errors.print(
            f"error: {legible(_without_secrets(str(exc)), keep=LINES)}", markup=False, soft_wrap=True
        )
        return MISTAKE if isinstance(exc, ConfigError | AnswerError) else AT_RISK
    except KeyboardInterrupt:
        errors.print("stopped")
        return STOPPED + signal.SIGINT
    except Exception as exc:
        errors.print(legible(_crash_text(exc), keep=LINES), markup=False, soft_wrap=True)
        return AT_RISK


def _without_secrets(text: str) -> str:
    from sweeper.text import confidential

    return confidential.redacted(text, os.environ)


def is_only_said(arguments: Sequence[str]) -> bool:
    """Return whether a command is there for what it prints: anything but a sweep, and a sweep's plan."""
    is_sweep = bool(arguments) and arguments[0] not in (*_COMMANDS, *HELP_WORDS, "help", "--version")
    return not is_sweep or "plan=true" in arguments or "--cfg" in arguments


def _crash_text(exc: Exception) -> str:
    """Write the traceback of a defect into a file, and say where it is."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="sweeper-defect-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        file.write(_without_secrets("".join(traceback.format_exception(exc))))
    what = f"{type(exc).__name__}: {_without_secrets(str(exc))}"
    return (
        f"error: a defect of this program: {what}. What is finished is kept; the same command goes on. "
        f"Please report it with {file.name}"
    )


def _dispatch(arguments: list[str], console: Console) -> int:
    if not arguments or arguments[0] in (*HELP_WORDS, "help"):
        console.print(_help_text(), markup=False, soft_wrap=True)
        return OK
    if arguments[0] == "--version":
        console.print(sweeper.__version__)
        return OK
    command = _COMMANDS.get(arguments[0])
    if command is not None:
        return command(arguments[1:], console)
    if any(word in arguments for word in HELP_WORDS):
        console.print(help_on(arguments) or _help_text(), markup=False, soft_wrap=True)
        return OK
    return run_sweep(arguments, console, commands=_COMMANDS)


def _help_text() -> str:
    from sweeper import config

    commands = "\n".join(f"  {name:<12} {command.summary}" for name, command in _COMMANDS.items())
    groups = "\n".join(f"  {group:<12} {', '.join(names)}" for group, names in config.groups().items())
    return _HELP.format(commands=commands, groups=groups)
