"""The engine inside vLLM's latency and throughput benchmarks: no server, a process for each load point.

These benchmarks start the engine themselves, measure it from inside, and end it. So there is nothing to be
started beforehand and no server to ask: starting proves the environment only, the question
that others are asked is left out, and each run is proven by the configuration that its own log reports.
The devices, the environment and the knobs are those that a server would get.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sweeper import knobs
from sweeper.engines import Cancelled, vllm_reports
from sweeper.engines.environment import check_release, find_interpreter, without_secrets
from sweeper.engines.launched import seen
from sweeper.engines.vllm_environment import (
    EngineEnvironment,
    probe,
    server_environment,
    vllm_python,
    write_metadata_stub,
)
from sweeper.errors import EngineError, MeasurementError, Stopped
from sweeper.kinds import DATASETS
from sweeper.processes import orphans
from sweeper.processes import process as processes
from sweeper.records import (
    MEASURED_ITERATIONS,
    Assignment,
    FailureClass,
    LoadPoint,
    Placement,
    Provenance,
    Scalar,
    TrialSpec,
)
from sweeper.text import trial_files

WARM_UP_ITERATIONS = 3
"""Of the latency benchmark. Source: AMD's vllm_benchmark_report.sh, which calls it with this."""

FIRST_COMMAND = "0.8.5"
"""First release with ``vllm bench latency`` and ``throughput``. Source: data/vllm_bench.csv."""

# The latency benchmark draws its prompts from these token ids whatever the model's vocabulary.
# Source: vllm/benchmarks/latency.py of 0.32.0, np.random.randint(10000).
_DRAWN_TOKEN_IDS = 10_000
_LOG_BYTES = 400_000
_PROBE = """
import importlib.util, pathlib
spec = importlib.util.find_spec("vllm")
folder = pathlib.Path(spec.submodule_search_locations[0]) / "benchmarks" if spec else pathlib.Path("none")
file = folder / "throughput.py"
text = file.read_text(encoding="utf-8") if file.is_file() else ""
print("yes" if "add_random_dataset_base_args" in text or "--random-input-len" in text else "no")
"""
# Only a server that is asked over a network has these.
_OF_SERVERS = ("VLLM_API_KEY", "VLLM_SERVER_DEV_MODE")


@dataclass(frozen=True, kw_only=True)
class Program:
    """One run of a benchmark, ready to be started.

    Attributes:
        command: Program and arguments.
        env: Its whole environment.
        cwd: Its working directory.
        log_path: Takes its output.
        result: The JSON file that it writes.
    """

    command: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    log_path: Path
    result: Path


class Scripts(Protocol):
    """Finds a script of vLLM's repository by its name."""

    def __call__(self, name: str) -> Path:
        """Return its path.

        Raises:
            ConfigError: It is not there.
        """
        ...


class OfflineEngine:
    """Prepares what each benchmark process needs."""

    def start(
        self, spec: TrialSpec, placement: Placement, *, restart: int, cancelled: Cancelled
    ) -> OfflineServer:
        """Look into the engine's environment; no engine is started before its load point.

        Raises:
            EngineError: Cancelled.
            MeasurementError: The environment holds another release than was planned with.
            ConfigError: The interpreter is missing or has no vLLM.
        """
        if cancelled():
            raise Stopped
        environment = probe(vllm_python(spec.engine))
        check_release(spec.engine, environment.release, title="vLLM")
        return OfflineServer(spec, placement, environment=environment, restart=restart)


class OfflineServer:
    """Stands where a server would; each load point has an engine of its own.

    Attributes:
        base_url: Empty; there is nothing to connect to.
        api_key: Empty.
        start_s: 0; the starts are part of each run's overhead.
        command: That of the first load point; each one's own lies next to its log.
        effective: What the engines of all runs so far reported alike.
    """

    provenance = Provenance.MEASURED

    def __init__(
        self, spec: TrialSpec, placement: Placement, *, environment: EngineEnvironment, restart: int
    ) -> None:
        """Prepare the environment; nothing is started."""
        self._spec = spec
        self._restart = restart
        self._folder = trial_files.make_folder(Path(spec.folder).resolve())
        self._python = find_interpreter(spec.engine.python or "")
        env = server_environment(
            spec,
            placement,
            surroundings=os.environ,
            python=self._python,
            api_key="",
            owner=processes.current(),
            stub=write_metadata_stub(self._folder, environment),
        )
        self._env = {name: value for name, value in env.items() if name not in _OF_SERVERS}
        self.base_url = ""
        self.api_key = ""
        self.start_s = 0.0
        self.versions: Mapping[str, str] = environment.versions
        self.effective: Mapping[str, Scalar] = {}
        self._is_proven = False
        self._start_file: Path | None = None
        self.log_path: str | None = None
        self.command: tuple[str, ...] = ()

    def program(self, point: LoadPoint, *, name: str, scripts: Scripts) -> Program:
        """Make the benchmark's process for a load point ready, and write down what will be run.

        Args:
            point: Of dataset latency or throughput.
            name: Tells this run's files from its siblings'.
            scripts: Finds the benchmark's script, for releases where it is no command.

        Raises:
            ConfigError: The release has no such command, and the script is missing.
        """
        result = trial_files.clear(self._folder / "raw" / f"{name}.json")
        launcher = benchmark_launcher(
            point, python=self._python, release=self._spec.engine.release, scripts=scripts
        )
        has_random_lengths = len(launcher) > 2 and takes_random_lengths(self._python)
        arguments = benchmark_arguments(
            self._spec, point, result=result, has_random_lengths=has_random_lengths
        )
        command = (*launcher, *arguments)
        log_path = self._folder / f"offline-{name}.log"
        stored = {"argv": command, "environment": without_secrets(self._env)}
        trial_files.write(log_path.with_suffix(".command.json"), json.dumps(stored, indent=1))
        self.command = self.command or command
        self.log_path = str(log_path)
        start_file = log_path.with_name(f"{log_path.stem}{processes.START_FILE_SUFFIX}")
        self._start_file = trial_files.clear(start_file)
        return Program(command=command, env=self._env, cwd=self._folder, log_path=log_path, result=result)

    def prove(self, program: Program) -> None:
        """Check that the engine of a finished run was configured as asked, and keep what it reported.

        Raises:
            MeasurementError: A knob differs from what was asked.
        """
        asked = self._spec.assignment
        with program.log_path.open(encoding="utf-8", errors="replace") as log:
            opening = log.read(_LOG_BYTES)
        reported = {
            **vllm_reports.read_effective(server_info=None, metrics="", log=opening, asked=asked),
            **seen(program.log_path),
        }
        reported |= vllm_reports.not_compared(asked, reported)
        # The two benchmarks have defaults of their own (latency leaves prefix caching off); a trial's rows
        # tell only what was so in all of its runs.
        known = self.effective if self._is_proven else reported
        self.effective = {name: value for name, value in known.items() if reported.get(name) == value}
        self._is_proven = True
        different = vllm_reports.differences(asked, reported)
        if different:
            listed = vllm_reports.told(different)
            raise MeasurementError(
                f"engine: it reports another configuration than was asked ({listed}); expected the same. "
                "Ask for what this release and platform can do.",
                failure=FailureClass.WRONG_ENGINE,
                log_path=str(program.log_path),
            )

    def death(self, program: Program, *, exit_code: int) -> EngineError:
        """Explain why a run ended without a result, by the engine's own log."""
        with program.log_path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_BYTES))
            last = log.read().decode(errors="replace")
        death = vllm_reports.why_it_ended(last, exit_code=exit_code, was_ready=False)
        return EngineError(death.message, failure=death.failure, log_path=str(program.log_path))

    def sanity(self) -> None:
        """Return no answer: there is no server to ask."""

    def check_alive(self) -> None:
        """Return quietly; between runs nothing has to live."""

    def prove_ours(self) -> None:
        """Do nothing: the benchmark holds the engine in its own process, and no server listens."""

    def pids(self) -> frozenset[int] | None:
        """Return the ids of the benchmark's processes, which are the engine's; None before there are any."""
        launch = None if self._start_file is None else orphans.read_start_file(self._start_file)
        if launch is None:
            return None
        return frozenset(process.pid for process in launch.members() if process != launch.supervisor)

    def counters(self) -> Mapping[str, float]:
        """Return nothing: an engine inside a benchmark shows no counters."""
        return {}

    def stop(self) -> float:
        """Do nothing; no engine outlives its run."""
        return 0.0


def benchmark_launcher(point: LoadPoint, *, python: str, release: str, scripts: Scripts) -> tuple[str, ...]:
    """Describe how a release starts the benchmark of a load point.

    The module is used and not the ``vllm`` script, which does not work in the CPU build's environment.

    Raises:
        ConfigError: The release has no such command, and the script is missing.
    """
    if knobs.release_key(release) >= knobs.release_key(FIRST_COMMAND):
        return (python, "-m", "vllm.entrypoints.cli.main", "bench", point.dataset)
    return (python, str(scripts(f"benchmark_{point.dataset}.py")))


@functools.cache
def takes_random_lengths(python: str) -> bool:
    """Return whether the throughput benchmark has ``--random-input-len`` besides ``--input-len``.

    Where it has, its default of 1024 wins over what ``--input-len`` says, without a word (seen on 0.32.0). No
    table says when that came, so the installed file is read; vLLM is not imported.
    """
    answer = subprocess.run(
        [python, "-c", _PROBE],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=60,
        check=False,
    )
    return "yes" in answer.stdout.split()


def benchmark_arguments(
    spec: TrialSpec, point: LoadPoint, *, result: Path, has_random_lengths: bool
) -> tuple[str, ...]:
    """The arguments of vLLM's latency or throughput benchmark for one load point, engine included.

    A model of random weights whose vocabulary is smaller than the token ids that the latency benchmark
    draws is given a vocabulary of that size.

    Args:
        spec: The trial.
        point: Of dataset latency or throughput.
        result: The JSON file to write.
        has_random_lengths: What ``takes_random_lengths`` says.
    """
    model = spec.model
    is_on_hub = not Path(model.path).is_dir()
    is_batch = DATASETS[point.dataset].is_batch
    count = "--batch-size" if is_batch else "--num-prompts"
    iterations = (
        *("--num-iters-warmup", str(WARM_UP_ITERATIONS)),
        *("--num-iters", str(MEASURED_ITERATIONS)),
    )
    is_random = has_random_lengths and not is_batch
    lengths = ("--random-input-len", "--random-output-len") if is_random else ("--input-len", "--output-len")
    is_too_small = model.is_dummy and model.built is not None and model.built.vocab < _DRAWN_TOKEN_IDS
    wider = ("--hf-overrides", json.dumps({"vocab_size": _DRAWN_TOKEN_IDS})) if is_too_small else ()
    return (
        *("--model", model.path),
        *(("--revision", model.revision) if model.revision and is_on_hub else ()),
        *(("--load-format", "dummy") if model.is_dummy else ()),
        *(count, str(point.num_prompts)),
        *(("--dataset-name", "random") if is_random else ()),
        *(lengths[0], str(point.input_len), lengths[1], str(point.output_len)),
        *(iterations + wider if is_batch else ()),
        *(() if "seed" in spec.assignment else ("--seed", str(point.client_seed))),
        *("--output-json", str(result)),
        *knobs.command_line(_of_the_engine(spec.assignment), release=spec.engine.release),
    )


# Flags of the server and not of the engine in it; the offline benchmarks do not know them.
_SERVER_FLAGS = frozenset(
    {"disable_log_requests", "enable_log_requests", "disable_frontend_multiprocessing", "api_server_count"}
)


def _of_the_engine(assignment: Assignment) -> Assignment:
    return {name: value for name, value in assignment.items() if name not in _SERVER_FLAGS}
