"""Loads an engine by vLLM's own serving benchmark, so that numbers compare with what others publish.

The benchmark runs in the engine's environment, in one warm process per engine (``bench_worker``). A run
counts only when every request completed; its JSON is kept as it came, next to our reading of it
(``bench_report``).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sweeper import knobs
from sweeper.clients import (
    dataset_arguments,
    given_arguments,
    plausibility,
    sendable,
    short_answers,
    single_requests,
    steady_state,
)
from sweeper.clients.bench_report import check_complete, read_object, read_report
from sweeper.clients.bench_worker import BenchWorker
from sweeper.clients.measuring import Load, Reading, ServerClient
from sweeper.clients.program import blame_engine
from sweeper.clients.tokenizer import tokenizer_of
from sweeper.engines.environment import client_environment, find_interpreter, is_of_image, kept_folder
from sweeper.engines.packages import install_command
from sweeper.engines.vllm_environment import probe, write_metadata_stub
from sweeper.errors import ConfigError, MeasurementError
from sweeper.processes import process
from sweeper.processes.warm import WarmProcesses
from sweeper.records import FailureClass, LoadPoint, Placement, TrialSpec
from sweeper.records.metrics import PERCENTILES, REQUEST_LATENCIES
from sweeper.text import trial_files

_MISSING_PACKAGE = re.compile(r"No module named '([\w.]+)'")

_BACKENDS: Mapping[str, tuple[str, ...]] = {
    "completions": ("openai", "--endpoint", "/v1/completions"),
    "chat": ("openai-chat", "--endpoint", "/v1/chat/completions"),
}
"""What ``--backend`` is told for each endpoint, and where it is."""


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What came of one run of the benchmark."""

    report: Mapping[str, object]
    peak_kv_cache_usage: float | None
    cpu_wait_s: float | None
    uncounted: int
    erred: int
    first_error: str | None


class VllmBenchClient(ServerClient[_Run]):
    """One warm benchmark process for one trial; opening it returns at once, while it still imports."""

    def __init__(
        self,
        spec: TrialSpec,
        placement: Placement,
        *,
        python: str | None = None,
        warm: WarmProcesses | None = None,
    ) -> None:
        """Start the worker.

        Args:
            spec: The trial, whose folder takes log and raw results.
            placement: Its devices; the client itself uses none of them.
            python: Interpreter whose vLLM has the benchmark; None takes the one that ``spec.client`` names,
                else the engine's own.
            warm: Who keeps what has imported the benchmark for later trials; None keeps nothing. Nothing
                is kept in a container.

        Raises:
            ConfigError: No interpreter, or its vLLM has no usable benchmark.
        """
        super().__init__(spec, placement)
        python = python or spec.client.python or _python(spec)
        environment = probe(python)
        self._release = _release_of(environment.release, spec, python)
        _check_has_command(self._release, python)
        given_arguments.check(spec.client.arguments, release=self._release)
        for point in spec.load_points:
            sendable.check(point, release=self._release)
        trial_files.make_folder(self._folder)
        interpreter = find_interpreter(python)
        if is_of_image(python, spec.engine):
            # Who keeps imports hands over open files, which no container runtime passes on.
            warm = None
        self._environment = client_environment(
            spec,
            surroundings=os.environ,
            python=interpreter,
            owner=process.current(),
            stub=write_metadata_stub(self._folder if warm is None else kept_folder(spec), environment),
        )
        self._python = interpreter
        self._worker = BenchWorker(spec, placement, interpreter=interpreter, env=self._environment, warm=warm)

    def close(self) -> None:
        """End the worker; safe to call twice."""
        self._worker.close()

    def _wait_ready(self, load: Load) -> None:
        self._worker.wait_import(load.server, load.cancelled)

    def _send(self, load: Load) -> _Run:
        """Have the worker run the benchmark once."""
        path, log_path = trial_files.clear(self._raw(load)), str(self._worker.log_path)
        arguments = benchmark_arguments(
            self._spec,
            load.point,
            base_url=load.server.base_url,
            release=self._release,
            result=path,
            tokenizer=tokenizer_of(self._spec, environment=self._environment),
        )
        reply, peak = self._worker.run(arguments, load)
        report = read_object(path) if reply.get("ok") else None
        if report is None or report.get("completed") != load.point.num_prompts:
            blame_engine(load.server)
        if report is None:
            reason = str(reply.get("error") or "it left no result")
            raise self._worker.error(
                f"client: {with_missing_package(reason, self._python)}", FailureClass.CLIENT
            )
        return _Run(
            report=report,
            peak_kv_cache_usage=peak,
            cpu_wait_s=plausibility.number(reply, "cpu_wait_s", log_path=log_path),
            uncounted=int(plausibility.number(reply, "uncounted", log_path=log_path) or 0),
            erred=int(plausibility.number(reply, "erred", log_path=log_path) or 0),
            first_error=str(reply.get("first_error") or "it does not say"),
        )

    def _read(self, load: Load, sent: _Run) -> Reading:
        log_path = str(self._worker.log_path)
        check_complete(sent.report, wanted=load.point.num_prompts, log_path=log_path)
        self._check_whole(load, sent)
        plausibility.check_single_requests(sent.report, log_path=log_path)
        metrics = read_report(sent.report, log_path=log_path)
        raw = self._raw(load)
        steady = steady_state.columns([sent.report])
        if not self._spec.client.keeps_requests:
            # Answers and the gaps between tokens would be most of what a study takes on disk.
            trial_files.write(raw, json.dumps(single_requests.without_tokens(sent.report)))
        return Reading(
            metrics=metrics,
            raw_path=raw,
            # Large against duration_s: the latencies are those of a client that had no core.
            telemetry={"client_cpu_wait_s": sent.cpu_wait_s, **steady},
            peak_kv_cache_usage=sent.peak_kv_cache_usage,
            lengths=short_answers.lengths_of(sent.report),
        )

    def _check_whole(self, load: Load, sent: _Run) -> None:
        """Check that no answer broke off: a whole one ends with the server's own count of its tokens.

        The benchmark takes a stream that ends early, or has an error in it, for a complete answer. Servers
        that never count (not vLLM) are believed, but not where they send an error.
        """
        server, prompts = load.server, load.point.num_prompts
        never_counts = "vllm" not in server.versions and sent.uncounted >= prompts
        uncounted = 0 if never_counts else sent.uncounted
        if not uncounted and not sent.erred:
            return
        blame_engine(server)
        reason = (
            f"the server sent an error amid the stream, the first: {sent.first_error}"
            if sent.erred
            else "they ended without the server's count of their tokens, which comes last"
        )
        raise MeasurementError(
            f"client: {uncounted + sent.erred} of {prompts} answers broke off: {reason}; expected all to be "
            "whole. Look into the engine's log.",
            failure=FailureClass.WRONG_ANSWER,
            log_path=server.log_path or str(self._worker.log_path),
        )

    def _log_path(self, load: Load) -> Path:
        return self._worker.log_path


def with_missing_package(reason: str, python: str) -> str:
    """Add to a reason what to install, where a package is missing that only some datasets are read with."""
    missing = _MISSING_PACKAGE.search(reason)
    if missing is None:
        return reason
    package = missing[1].partition(".")[0]
    return f"{reason}; expected it beside vLLM. Install it: {install_command(python, package)}"


def benchmark_arguments(
    spec: TrialSpec,
    point: LoadPoint,
    *,
    base_url: str,
    release: str,
    result: Path,
    tokenizer: str | None = None,
) -> list[str]:
    """The arguments of ``vllm bench serve`` for one load point, in the form of a release.

    Args:
        spec: The trial; what its knobs say of the tokenizer is said to the client, too.
        point: What to send.
        base_url: Of the server.
        release: Of the vLLM whose benchmark it is.
        result: The JSON file to write.
        tokenizer: Folder or hub id of the server's tokenizer; the model's unless given.

    Raises:
        ConfigError: The load point names a dataset that this client does not know.
    """
    if knobs.bench_client(release) == "command":
        sendable.check(point, release=release)
    # The flag that chooses the API was called otherwise before 0.11.1; both take the same word.
    backend = "--endpoint-type" if knobs.bench_flag("--endpoint-type", release) else "--backend"
    concurrency = [] if point.max_concurrency is None else ["--max-concurrency", str(point.max_concurrency)]
    return [
        *(backend, *_BACKENDS[point.form.endpoint]),
        *("--base-url", base_url),
        *("--model", spec.model.path, "--served-model-name", spec.model.name),
        *knobs.client_arguments(
            spec.assignment,
            release=release,
            tokenizer=tokenizer or spec.model.path,
            trusts=spec.client.trust_remote_code,
        ),
        *dataset_arguments.of(point),
        *dataset_arguments.untemplated(point, release=release, tokenizer=tokenizer or spec.model.path),
        *("--num-prompts", str(point.num_prompts)),
        *arrival_arguments(point),
        *concurrency,
        *("--seed", str(point.client_seed)),
        *form_arguments(point),
        *(["--ignore-eos"] if point.ignore_eos else []),
        *given_arguments.words(spec.client.arguments, release=release),
        *goodput_arguments(point),
        *("--percentile-metrics", ",".join(latency.name for latency in REQUEST_LATENCIES)),
        *("--metric-percentiles", ",".join(map(str, PERCENTILES))),
        *("--disable-tqdm", "--save-result"),
        "--save-detailed",
        *("--result-dir", str(result.parent), "--result-filename", result.name),
    ]


def arrival_arguments(point: LoadPoint) -> list[str]:
    """When requests are sent, in the benchmark's words: at a rate, rising or in bursts."""
    rate = "inf" if point.request_rate_per_s is None else f"{point.request_rate_per_s:g}"
    ramp, is_poisson = point.ramp, point.burstiness == LoadPoint.burstiness
    if ramp is not None:
        words = ["--ramp-up-strategy", ramp.strategy]
        words += ["--ramp-up-start-rps", str(ramp.start_per_s), "--ramp-up-end-rps", str(ramp.end_per_s)]
    else:
        words = ["--request-rate", rate]
    return [*words, *([] if is_poisson else ["--burstiness", f"{point.burstiness:g}"])]


def form_arguments(point: LoadPoint) -> list[str]:
    """How requests are put, in the benchmark's words: sampling, and what is added to their body."""
    sampling = {"temperature": 0.0, **dict(point.form.sampling)}
    words = [
        word for name, value in sampling.items() for word in (f"--{name.replace('_', '-')}", f"{value:g}")
    ]
    return [*words, *([] if point.form.extra_body is None else ["--extra-body", point.form.extra_body])]


def goodput_arguments(point: LoadPoint) -> list[str]:
    """What a request has to keep to count as good, in the benchmark's words; nothing without bounds."""
    bounds = point.goodput_bounds
    return [] if bounds is None else ["--goodput", *bounds.split()]


def _release_of(found: str, spec: TrialSpec, python: str) -> str:
    """Return the release of a benchmark: the engine's in whose environment it is, else the one it reports."""
    if spec.engine.build is not None and found == spec.engine.version:
        return spec.engine.release
    unplaced = knobs.why_unplaced(found)
    if unplaced is not None:
        raise ConfigError(
            f"client.python: {python} has vLLM '{found}', which {unplaced}; expected one that tells its "
            "release, whose flags are known. Name another interpreter, or leave it out."
        )
    return found


def _check_has_command(release: str, python: str) -> None:
    # 0.8.x has the command with the random dataset only, and without a choice of temperature.
    if knobs.bench_client(release) == "script":
        raise ConfigError(
            f"client: vLLM {release} of {python} has no 'vllm bench serve' with all that is needed; "
            "expected 0.9.1 or later. Set client.script to the folder benchmarks/ of vLLM's repository at "
            "that release, or client.python to the interpreter of a newer vLLM."
        )


def _python(spec: TrialSpec) -> str:
    if spec.engine.python is None:
        raise ConfigError(
            "engine.python: it is empty; expected the interpreter of vLLM's environment, in which its "
            "benchmark runs too. Set engine.python=PATH."
        )
    return spec.engine.python
