"""Loads an engine by ``benchmarks/benchmark_serving.py``, for releases whose benchmark is no command yet.

The script is a file of vLLM's repository and not in its wheel, so its place is configured; it has to be of
the engine's release. Its flags changed with the releases: what a release cannot send is refused with the
reason, before anything starts. Each run is a process of its own; the result is read as that of the command.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sweeper import knobs
from sweeper.clients import dataset_arguments, given_arguments, plausibility, program
from sweeper.clients.bench_report import check_complete, read_object, read_report
from sweeper.clients.measuring import Load, ProgramClient, Reading
from sweeper.clients.tokenizer import tokenizer_of
from sweeper.clients.vllm_bench import goodput_arguments
from sweeper.engines.environment import client_environment, find_interpreter
from sweeper.engines.vllm_environment import probe, write_metadata_stub
from sweeper.errors import ConfigError
from sweeper.kinds import DATASETS
from sweeper.processes import process
from sweeper.records import LoadPoint, Placement, TrialSpec
from sweeper.records.metrics import PERCENTILES, REQUEST_LATENCIES

SCRIPT = "benchmark_serving.py"


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What came of one run of the script."""

    report: Mapping[str, object]
    peak_kv_cache_usage: float | None


class BenchScriptClient(ProgramClient[_Run]):
    """Runs the script once for each load point."""

    # Older scripts count the answers' tokens by tokenizing their text again.
    counts_tokens = False

    def __init__(self, spec: TrialSpec, placement: Placement) -> None:
        """Find script and interpreter; nothing is started yet.

        Args:
            spec: The trial; ``spec.client`` says where the script is.
            placement: Its devices; the client itself uses none of them.

        Raises:
            ConfigError: The script or an interpreter is missing, or its release cannot send a load point.
        """
        super().__init__(spec, placement)
        self._script = find_script(spec.client.script, SCRIPT, release=spec.engine.release)
        engine_python = spec.engine.python or ""
        self._python = find_interpreter(spec.client.python or engine_python)
        for point in spec.load_points:
            check_point(point, release=spec.engine.release)
        # From 0.8.0 on the script imports vLLM, which may have to be made known by its name.
        self._stub = write_metadata_stub(self._folder, probe(engine_python))

    def _send(self, load: Load) -> _Run:
        environment = client_environment(
            self._spec,
            surroundings=os.environ,
            python=self._python,
            owner=process.current(),
            stub=self._stub,
        )
        arguments = script_arguments(
            self._spec,
            load.point,
            base_url=load.server.base_url,
            release=self._spec.engine.release,
            result=self._raw(load),
            tokenizer=tokenizer_of(self._spec, environment=environment),
        )
        ended = self._run(
            load,
            [self._python, str(self._script), *arguments],
            # Read by the script for each request; an environment is not shown to other users.
            env={**environment, "OPENAI_API_KEY": load.server.api_key},
        )
        report = read_result(self._raw(load)) if ended.exit_code == 0 else None
        if report is None or report.get("completed") != load.point.num_prompts:
            program.blame_engine(load.server)
        if report is None:
            raise self._no_result(load, ended, named=SCRIPT)
        return _Run(report=report, peak_kv_cache_usage=ended.peak_kv_cache_usage)

    def _read(self, load: Load, sent: _Run) -> Reading:
        log_path = str(self._log_path(load))
        check_complete(sent.report, wanted=load.point.num_prompts, log_path=log_path)
        plausibility.check_single_requests(sent.report, log_path=log_path)
        return Reading(
            metrics=read_report(sent.report, log_path=log_path),
            raw_path=self._raw(load),
            peak_kv_cache_usage=sent.peak_kv_cache_usage,
        )


def find_script(given: str | None, name: str, *, release: str) -> Path:
    """Find one of the scripts of vLLM's folder ``benchmarks/``.

    Args:
        given: The folder, or any script in it.
        name: The script that is wanted.
        release: Release of the engine, for the message.

    Raises:
        ConfigError: Nothing is given, or the script is not there.
    """
    if given is None:
        raise ConfigError(
            f"client.script: is not given, and vLLM {release} has no command that does it; expected the "
            f"folder that holds {name}. Take benchmarks/ of vLLM's repository at tag v{release}, and set "
            "client.script=PATH."
        )
    path = Path(given).absolute()
    script = (path if path.is_dir() else path.parent) / name
    if not script.is_file():
        raise ConfigError(
            f"client.script: there is no {script}; expected {name} of vLLM's repository at tag v{release}. "
            "Name the folder benchmarks/ of that tag."
        )
    return script


def check_point(point: LoadPoint, *, release: str) -> None:
    """Check that the script of a release can send a load point.

    Raises:
        ConfigError: It cannot; the message names flag and release.

    Source:
        data/vllm_bench.csv.
    """
    if point.max_concurrency is not None and not _has("--max-concurrency", release):
        raise ConfigError(
            f"workload.max_concurrency: is {point.max_concurrency}, and {SCRIPT} of vLLM {release} cannot "
            "cap the requests under way (it has --max-concurrency from 0.6.4). Set it to null, or take a "
            "later release."
        )
    if point.ignore_eos and not _has("--ignore-eos", release):
        raise ConfigError(
            f"workload.ignore_eos: is true, and {SCRIPT} of vLLM {release} cannot make answers run to their "
            "full length (it has --ignore-eos from 0.6.3). Set it to false, or take a later release."
        )
    if DATASETS[point.dataset].script_arguments is None:
        raise ConfigError(
            f"workload.dataset: is '{point.dataset}', and {SCRIPT} of vLLM {release} is not given it here; "
            "expected sharegpt or random. Take a later release, or name one for the client "
            "(client.python=...)."
        )
    for key, said in (
        ("ramp_up and burstiness", point.arrivals),
        ("endpoint and sampling", point.request_form),
    ):
        if said is not None:
            raise ConfigError(
                f"workload: {key}: is {said}, which {SCRIPT} of vLLM {release} is not told here; expected "
                "the usual. Leave it out, or take a later release."
            )
    if point.options:
        raise ConfigError(
            f"workload.options: is {point.dataset_options}, which {SCRIPT} of vLLM {release} is not told "
            "here; expected none. Leave it out, or take a later release."
        )
    if point.goodput_ms and not _has("--goodput", release):
        raise ConfigError(
            f"workload.goodput: is given, and {SCRIPT} of vLLM {release} counts no good requests (it has "
            "--goodput from 0.6.4). Leave it out, or take a later release."
        )


def script_arguments(
    spec: TrialSpec,
    point: LoadPoint,
    *,
    base_url: str,
    release: str,
    result: Path,
    tokenizer: str | None = None,
) -> list[str]:
    """The arguments of the script for one load point, in the form of a release; as ``vllm_bench`` has them.

    Raises:
        ConfigError: The release's script cannot send this load point.
    """
    check_point(point, release=release)
    rate = "inf" if point.request_rate_per_s is None else f"{point.request_rate_per_s:g}"
    # Before 0.7.0 the model's name in the requests is that of --model, and its files those of --tokenizer.
    has_name = _has("--served-model-name", release)
    names = (
        ("--model", spec.model.path, "--served-model-name", spec.model.name)
        if has_name
        else ("--model", spec.model.name)
    )
    concurrency = [] if point.max_concurrency is None else ["--max-concurrency", str(point.max_concurrency)]
    return [
        *("--backend", "vllm", "--base-url", base_url, "--endpoint", "/v1/completions"),
        *names,
        *knobs.client_arguments(
            spec.assignment,
            release=release,
            tokenizer=tokenizer or spec.model.path,
            trusts=spec.client.trust_remote_code,
        ),
        *dataset_arguments.of_script(point, release=release),
        *("--num-prompts", str(point.num_prompts), "--request-rate", rate),
        *concurrency,
        *("--seed", str(point.client_seed)),
        # Earlier ones send 0 whatever is asked.
        *(["--temperature", "0"] if _has("--temperature", release) else []),
        *(["--ignore-eos"] if point.ignore_eos else []),
        *given_arguments.words(spec.client.arguments, release=release),
        *goodput_arguments(point),
        *("--percentile-metrics", ",".join(latency.name for latency in REQUEST_LATENCIES)),
        *("--metric-percentiles", ",".join(map(str, PERCENTILES))),
        *("--disable-tqdm", "--save-result"),
        *("--result-dir", str(result.parent), "--result-filename", result.name),
    ]


def read_result(path: Path) -> Mapping[str, object] | None:
    """Read the script's result; None where it left none.

    Scripts of the 0.4 and 0.5 era write the throughput of the input alone in place of the total.
    """
    content = read_object(path)
    if content is None:
        return None
    if "total_token_throughput" not in content:
        parts = [plausibility.number(content, f"{name}_throughput") for name in ("input", "output")]
        known = [part for part in parts if part is not None]
        content["total_token_throughput"] = sum(known) if len(known) == len(parts) else None
    return content


def _has(flag: str, release: str) -> bool:
    return knobs.bench_flag(flag, release) is not None
