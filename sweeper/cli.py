"""The command line: commands, exit codes, and the only place that prints.

Exit codes: 0 everything asked for is there; 1 some trials failed, the others are complete; 2 a mistake in
the configuration, nothing was started; 3 no trial is complete; 4 results are at risk or the machine does
not answer; 130 stopped by Ctrl-C, 143 by SIGTERM (the same command goes on).

Heavy packages are imported where they are needed, so that help and mistakes are answered at once.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import sweeper
from sweeper.errors import ConfigError, SweeperError
from sweeper.records import Platform, TrialState

if TYPE_CHECKING:
    from rich.console import Console

    from sweeper.config import Settings
    from sweeper.executors import Executor
    from sweeper.prepare import Choice
    from sweeper.sweep import Outcome, Planner
    from sweeper.topology import Node

OK, SOME_FAILED, MISTAKE, NOTHING_COMPLETE, AT_RISK = 0, 1, 2, 3, 4
_STOPPED = 128

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

    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    try:
        return _dispatch(list(arguments), console)
    except SweeperError as exc:
        errors.print(f"error: {exc}", markup=False, soft_wrap=True)
        return MISTAKE if isinstance(exc, ConfigError) else AT_RISK
    except KeyboardInterrupt:
        errors.print("stopped")
        return _STOPPED + signal.SIGINT
    except BrokenPipeError:
        return OK
    except Exception as exc:
        errors.print(_crash_text(exc), markup=False, soft_wrap=True)
        return AT_RISK


def _crash_text(exc: Exception) -> str:
    """Write the traceback of a defect into a file, and say where it is."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="sweeper-defect-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        traceback.print_exception(exc, file=file)
    return (
        f"error: a defect of this program: {type(exc).__name__}: {exc}. What is finished is kept; the same "
        f"command goes on. Please report it with {file.name}"
    )


def _dispatch(arguments: list[str], console: Console) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        console.print(_help_text(), markup=False, soft_wrap=True)
        return OK
    if arguments[0] == "--version":
        console.print(sweeper.__version__)
        return OK
    command = _COMMANDS.get(arguments[0])
    if command is not None:
        return command[1](arguments[1:], console)
    return _sweep(arguments, console)


def _help_text() -> str:
    from sweeper import config

    commands = "\n".join(f"  {name:<12} {about}" for name, (about, _) in _COMMANDS.items())
    groups = "\n".join(f"  {group:<12} {', '.join(names)}" for group, names in config.groups().items())
    return _HELP.format(commands=commands, groups=groups)


# --- the sweep itself ---------------------------------------------------------------------------------


def _sweep(arguments: list[str], console: Console) -> int:
    from sweeper import config, prepare

    options, overrides = _sweep_options(arguments)
    composed, choice = prepare.compose_for_platform(overrides, config_dir=options.config_dir)
    if options.cfg:
        import yaml

        console.print(yaml.safe_dump(dict(composed), sort_keys=False), markup=False, soft_wrap=True, end="")
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


def _sweep_options(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = _Parser(prog="python -m sweeper", add_help=False)
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

            known = [*_COMMANDS, *config.groups(options.config_dir).get("experiment", ())]
            raise ConfigError(
                f"command line: '{text}' is neither a command nor key=value.{nearest(text, known)} "
                "An experiment is chosen with +experiment=NAME. See: python -m sweeper --help"
            )
    return options, rest


def _run(settings: Settings, choice: Choice, overrides: list[str], console: Console, stack: ExitStack) -> int:
    from sweeper import prepare
    from sweeper.study import StudyFolder

    _say_platform(settings, choice, console)
    node = prepare.read_node(settings, choice)
    console.print(f"node: {node.summary}", markup=False, soft_wrap=True)
    planner = _planner(settings, node)
    console.print(
        f"engine: {_engine_text(planner)}, model {planner.model.name}", markup=False, soft_wrap=True
    )
    if settings.is_plan:
        return _show_plan(settings, planner, console)
    if settings.method == "grid":
        planner.grid()  # a mistake in a knob is found before a folder is made or Ray is started
    folder = stack.enter_context(StudyFolder(settings.folder))
    _end_strays(settings.outputs, console)
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
        load_points=settings.load_points,
        resolved=settings.resolved,
    )
    outcome, signalled = _work(settings, planner, node, run_folder, console)
    return _conclude(settings, planner, outcome, signalled, console)


def _work(
    settings: Settings, planner: Planner, node: Node, run_folder: Path, console: Console
) -> tuple[Outcome, int | None]:
    from sweeper.display import Display
    from sweeper.placement import Allocator
    from sweeper.search import Search, storage_url
    from sweeper.store import Store
    from sweeper.sweep import Sweep

    store = Store(settings.folder)
    for path in store.set_aside_unreadable():
        console.print(f"set aside: {path} is not a readable part of this study", markup=False, soft_wrap=True)
    search = Search(
        storage=settings.storage or storage_url(settings.outputs),
        name=settings.name,
        space=settings.space,
        objectives=settings.objectives,
        method=settings.method,
        seed=settings.seed,
    )
    search.note(_study_note(settings, planner))
    with _StopSignals() as stop, _LazyExecutor(settings, node, run_folder, console) as executor:
        display = Display(console, devices=len(node.devices))
        sweep = Sweep(
            planner=planner,
            search=search,
            store=store,
            executor=executor,
            allocator=Allocator(node),
            observer=display,
            objectives=settings.objectives,
            method=settings.method,
            trials=settings.trials,
            max_attempts=settings.max_attempts,
            max_parallel=settings.max_parallel,
            retry_failed=settings.retry_failed,
        )
        with display:
            outcome = sweep.run(stop=stop.is_set)
    return outcome, stop.signalled


def _planner(settings: Settings, node: Node) -> Planner:
    from sweeper import knobs, prepare
    from sweeper.sweep import Planner

    engine, model = settings.engine, prepare.provide_model(settings)
    if engine.kind == "vllm":
        from sweeper.engines.vllm import probe

        python = prepare.find_engine_python(settings)
        engine = replace(engine, python=python, release=probe(python).release)
    accelerators: dict[Platform, knobs.Accelerator] = {Platform.CUDA: "cuda", Platform.CPU: "cpu"}
    return Planner(
        study=settings.name,
        trials_folder=str((settings.folder / "trials").absolute()),
        space=settings.space,
        engine=engine,
        model=model,
        platform=settings.platform,
        node=node,
        accelerator=accelerators.get(settings.platform, "rocm"),
        load_points=settings.load_points,
        warmup_prompts=settings.warmup_prompts,
        repeats=settings.repeats,
        runs_per_start=settings.runs_per_start,
        allow_unknown=settings.allow_unknown,
        calibration=settings.calibration,
    )


def _say_platform(settings: Settings, choice: Choice, console: Console) -> None:
    console.print(f"platform: {settings.platform}: {choice.reason}", markup=False, soft_wrap=True)
    if settings.platform is Platform.SIMULATED:
        console.print(
            "          No GPU is measured: every number below is computed by a model of an MI300X node.",
            markup=False,
            soft_wrap=True,
        )
    console.print(f"study: {settings.name} in {settings.folder}", markup=False, soft_wrap=True)


def _engine_text(planner: Planner) -> str:
    if planner.engine.kind == "simulated":
        return f"model of vLLM {planner.engine.release}"
    return f"vLLM {planner.engine.release} at {planner.engine.python}"


def _end_strays(outputs: Path, console: Console) -> None:
    from sweeper import processes

    for process in processes.end_strays(outputs):
        console.print(
            f"ended a process that an earlier run left behind: {process}", markup=False, soft_wrap=True
        )


def _study_note(settings: Settings, planner: Planner) -> str:
    simulated = "**Simulated: no GPU was measured.**\n\n" if settings.platform is Platform.SIMULATED else ""
    return (
        f"# {settings.question or settings.name}\n\n{simulated}"
        f"{_engine_text(planner)}; model {planner.model.name}; {planner.node.summary}.\n\n"
        f"Results: `{settings.folder}` (Parquet, charts, report). Source: {settings.source or 'none given'}."
    )


# --- afterwards ---------------------------------------------------------------------------------------


def _conclude(
    settings: Settings, planner: Planner, outcome: Outcome, signalled: int | None, console: Console
) -> int:
    if signalled is not None:
        console.print(
            "stopped. What is finished is kept; the same command goes on from here.",
            markup=False,
            soft_wrap=True,
        )
    if outcome.states.get(TrialState.COMPLETE, 0):
        _report(settings, planner, console)
    _count_up(outcome, console)
    if signalled is not None:
        return _STOPPED + signalled
    if not outcome.states.get(TrialState.COMPLETE, 0):
        return NOTHING_COMPLETE
    return SOME_FAILED if outcome.states.get(TrialState.FAILED, 0) else OK


def _count_up(outcome: Outcome, console: Console) -> None:
    counted = ", ".join(f"{count} {state}" for state, count in sorted(outcome.states.items()))
    console.print(f"trials: {counted or 'none'}; started now: {outcome.measured_now}", markup=False)
    for result in outcome.failures:
        log = f" (log: {result.log_path})" if result.log_path else ""
        reason = result.failure_class or result.state
        console.print(f"  {reason}: {result.failure_message}{log}", markup=False, soft_wrap=True)


def _report(settings: Settings, planner: Planner, console: Console) -> None:
    from analysis import report

    files = report.write(settings.folder)
    _show_summary(settings, planner, console)
    console.print("charts:", markup=False)
    for path in files.figures:
        console.print(f"  {path}", markup=False, soft_wrap=True)
    console.print(f"report: {files.report}", markup=False, soft_wrap=True)
    console.print(f"data:   {settings.folder / 'measurements'}", markup=False, soft_wrap=True)
    if settings.platform is Platform.SIMULATED:
        console.print("No GPU was measured: these numbers are simulated.", style="bold")


def _show_summary(settings: Settings, planner: Planner, console: Console) -> None:
    """Print series by load point, the best setting, and the line that puts it into production."""
    from rich.table import Table

    from analysis import figures, tables
    from analysis.study import Study

    study = Study.load(settings.folder)
    provenance = "simulated" if study.is_simulated else "measured"
    for metric in figures.metrics_of(study):
        summary = tables.summary(study.frame, metric=metric.column, series=study.series)
        is_repeated = bool((summary["n"] > 1).any())
        layout = tables.by_load_point(summary, None if is_repeated else _number_or_reason)
        table = Table(title=f"{metric.title} ({provenance})", title_justify="left")
        for number, name in enumerate(layout.columns):
            table.add_column(str(name), justify="right" if number else "left")
        for row in layout.itertuples(index=False):
            table.add_row(*(str(cell) for cell in row))
        console.print(table)
    for answer in tables.best(study.frame, objectives=study.objectives, series=study.series).to_dict(
        "records"
    ):
        console.print(
            f"best: {answer['setting']}: {answer['objective']}: {tables.number_text(answer['value'])} "
            f"({answer['verdict']})",
            markup=False,
            soft_wrap=True,
        )
        line = tables.serve_line(study.frame, str(answer["trial_key"]))
        console.print(f"  {line}", markup=False, soft_wrap=True)


def _number_or_reason(row: Any) -> str:
    from analysis import tables

    return tables.number_text(row["mean"]) if row["n"] else tables.no_number_text(row)


def _show_plan(settings: Settings, planner: Planner, console: Console) -> int:
    """Print what would run; start nothing."""
    from rich.table import Table

    from sweeper.store import Store

    finished = Store(settings.folder).finished() if settings.folder.is_dir() else {}
    if settings.method != "grid":
        known = planner.space.size()
        console.print(
            f"plan: {settings.method} search, {settings.trials} trials over "
            f"{known or 'infinitely many'} points; {len(finished)} trials in the store",
            markup=False,
        )
        return OK
    table = Table(title=f"{settings.name}: nothing is started", title_justify="left")
    for name in ("trial", "devices", "load points", "what happens"):
        table.add_column(name)
    jobs = planner.grid()
    for job in jobs:
        known_trial = finished.get(job.spec.key)
        what = f"cannot run: {job.refusal}" if job.refusal else "runs"
        if known_trial is not None and not job.refusal:
            what = f"in the store: {known_trial.state}"
        table.add_row(job.spec.label, str(job.spec.devices_wanted), str(len(job.spec.load_points)), what)
    console.print(table)
    return OK


# --- small commands -----------------------------------------------------------------------------------


def _node_command(arguments: list[str], console: Console) -> int:
    """Show the node's devices."""
    from rich.table import Table

    from sweeper import prepare, topology

    parser = _Parser(prog="python -m sweeper node", description="Show the devices of this node.")
    parser.add_argument("--platform", default="auto")
    options = parser.parse_args(arguments)
    choice = prepare.choose_platform(options.platform)
    node = choice.node
    if node is None:
        readers: Mapping[Platform, Callable[[], Any]] = {
            Platform.SIMULATED: topology.modelled_mi300x,
            Platform.CPU: topology.read_cpu,
            Platform.MI300X: topology.read_amd,
            Platform.CUDA: topology.read_nvidia,
        }
        node = readers[choice.platform]()
    console.print(f"platform: {choice.platform}: {choice.reason}", markup=False, soft_wrap=True)
    if isinstance(node, topology.Absent):
        raise ConfigError(f"platform {choice.platform}: {node.reason}. Run this on such a node.")
    rows = topology.node_table(node)
    table = Table(title=node.summary)
    for name in rows[0]:
        table.add_column(name)
    for row in rows:
        table.add_row(*row.values())
    console.print(table)
    return OK


def _cpu_vllm_command(arguments: list[str], console: Console) -> int:
    """Install the CPU build of vLLM."""
    from sweeper import cpu_vllm, prepare

    parser = _Parser(
        prog="python -m sweeper cpu-vllm",
        description="Install the CPU build of vLLM into an environment of its own (3 GB).",
    )
    parser.add_argument("--into", type=Path, default=prepare.CPU_VLLM_FOLDER)
    parser.add_argument("--release", default=cpu_vllm.DEFAULT_RELEASE)
    parser.add_argument("--installer", choices=["auto", "uv", "pip"], default="auto")
    options = parser.parse_args(arguments)
    python = cpu_vllm.install(options.into, release=options.release, installer=options.installer)
    console.print(f"vLLM {options.release} (CPU build): {python}", markup=False, soft_wrap=True)
    return OK


def _tiny_model_command(arguments: list[str], console: Console) -> int:
    """Make the tiny model."""
    from sweeper import tiny_model

    parser = _Parser(
        prog="python -m sweeper tiny-model",
        description="Make a tiny Llama with random weights: config.json and tokenizer, no download.",
    )
    parser.add_argument("folder", type=Path, nargs="?", default=Path("outputs/models/tiny-llama"))
    options = parser.parse_args(arguments)
    console.print(str(tiny_model.make(options.folder)), markup=False, soft_wrap=True)
    return OK


def _cleanup_command(arguments: list[str], console: Console) -> int:
    """End what killed runs left behind."""
    parser = _Parser(
        prog="python -m sweeper cleanup",
        description="End processes that killed runs on this outputs folder left behind; only our own.",
    )
    parser.add_argument("outputs", type=Path, nargs="?", default=Path("outputs"))
    options = parser.parse_args(arguments)
    from sweeper import processes

    ended = processes.end_strays(options.outputs)
    for process in ended:
        console.print(f"ended: {process}", markup=False)
    console.print(f"{len(ended)} processes ended", markup=False)
    return OK


def _dashboard_command(arguments: list[str], console: Console) -> int:
    """Open the Optuna dashboard."""
    import os

    from sweeper.search import storage_url

    parser = _Parser(
        prog="python -m sweeper dashboard",
        description="Open the Optuna dashboard on all studies of an outputs folder, on loopback only.",
    )
    parser.add_argument("outputs", type=Path, nargs="?", default=Path("outputs"))
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args(arguments)
    database = options.outputs / "optuna.db"
    if not database.exists():
        raise ConfigError(f"{database}: does not exist. Run an experiment first, or name its outputs folder.")
    program = Path(sys.executable).with_name("optuna-dashboard")
    console.print(f"http://127.0.0.1:{options.port}/dashboard  (Ctrl-C ends it)", markup=False)
    sys.stdout.flush()
    os.execv(
        program,
        [str(program), storage_url(options.outputs), "--host", "127.0.0.1", "--port", str(options.port)],
    )


_COMMANDS: dict[str, tuple[str, Callable[[list[str], Any], int]]] = {
    "node": ("show the devices of this node", _node_command),
    "cpu-vllm": ("install the CPU build of vLLM into an environment of its own", _cpu_vllm_command),
    "tiny-model": ("make a tiny model with random weights, without a download", _tiny_model_command),
    "dashboard": ("open the Optuna dashboard on all studies", _dashboard_command),
    "cleanup": ("end processes that killed runs left behind", _cleanup_command),
}


class _Parser(argparse.ArgumentParser):
    """Reports a mistake as one of ours instead of leaving the program."""

    def error(self, message: str) -> Any:
        raise ConfigError(f"{self.prog}: {message}. See: {self.prog} --help")


class _StopSignals:
    """The first Ctrl-C or SIGTERM asks for a clean stop; the second one means now."""

    def __init__(self) -> None:
        self.signalled: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> _StopSignals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def is_set(self) -> bool:
        """Tell whether a stop was asked for."""
        return self.signalled is not None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signalled is not None:
            raise KeyboardInterrupt
        self.signalled = number


class _LazyExecutor:
    """Starts the executor with the first trial: a study that is complete needs none."""

    def __init__(self, settings: Settings, node: Node, run_folder: Path, console: Console) -> None:
        self.name = settings.executor
        self._settings = settings
        self._node = node
        self._run_folder = run_folder
        self._console = console
        self._executor: Executor | None = None

    def __enter__(self) -> _LazyExecutor:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def submit(self, spec: Any, placement: Any) -> Any:
        """Start a trial."""
        if self._executor is None:
            self._executor = self._start()
        return self._executor.submit(spec, placement)

    def wait(self, timeout_s: float) -> list[Any]:
        """Give finished trials."""
        if self._executor is None:
            time.sleep(min(timeout_s, 0.05))
            return []
        return self._executor.wait(timeout_s)

    def cancel(self) -> None:
        """Stop running trials."""
        if self._executor is not None:
            self._executor.cancel()

    def close(self) -> None:
        """End the executor."""
        if self._executor is not None:
            self._executor.close()

    def _start(self) -> Executor:
        devices = len(self._node.devices)
        if self._settings.executor == "inline":
            from sweeper.executors.inline import InlineExecutor

            return InlineExecutor(max_parallel=devices)
        from sweeper.executors.ray import RayExecutor

        where = "" if self._settings.address == "local" else f" at {self._settings.address}"
        self._console.print(
            f"starting Ray{where} (its output: {self._run_folder / 'ray.log'})", markup=False, soft_wrap=True
        )
        return RayExecutor(
            devices=devices, address=self._settings.address, log_path=self._run_folder / "ray.log"
        )
