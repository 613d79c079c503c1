"""Loads an engine by vLLM's own serving benchmark, so that numbers compare with what others publish.

The benchmark runs in the engine's environment, in one worker process per trial
(``vllm_bench_worker``): starting it anew for each run would cost more than most runs take. A run counts
only when every request completed; its JSON is kept as it came, beside our reading of it.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from sweeper import knobs
from sweeper.clients import check_lengths, dataset_arguments, plausibility, warm_up_point
from sweeper.clients.program import blame_engine, flood, last_words
from sweeper.clients.tokenizer import tokenizer_of
from sweeper.engines import Cancelled, Server
from sweeper.engines.endpoint import Endpoint
from sweeper.engines.vllm import client_environment, find_interpreter, probe, write_metadata_stub
from sweeper.errors import ConfigError, EngineError, MeasurementError
from sweeper.processes import process, supervisor
from sweeper.processes.supervisor import Supervised
from sweeper.records import FailureClass, LoadPoint, Measurement, Placement, TrialSpec, content_key

METRICS = ("ttft", "tpot", "itl", "e2el")
PERCENTILES = (50, 90, 95, 99)

_STATISTICS = ("mean", "median", "std", *(f"p{percentile}" for percentile in PERCENTILES))
# Names as vLLM's benchmark writes them that we keep, and those that need a unit.
_KEPT = (
    "completed",
    "failed",
    "total_input_tokens",
    "total_output_tokens",
    *(f"{statistic}_{metric}_ms" for metric in METRICS for statistic in _STATISTICS),
)
_RENAMED = {
    "request_throughput_per_s": ("request_throughput",),
    "output_throughput_tok_per_s": ("output_throughput",),
    "total_throughput_tok_per_s": ("total_token_throughput",),
    # Releases before 0.9.2 really write the colon.
    "request_goodput_per_s": ("request_goodput", "request_goodput:"),
    "duration_s": ("duration",),
}

_WORKER = Path(__file__).with_name("vllm_bench_worker.py")
_POLL_S = 0.25
_TELEMETRY_S = 1.0
_STOP_GRACE_S = 2.0
_LONGEST_REPLY = 2**20


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What came of one run of the benchmark."""

    report: Mapping[str, object]
    path: Path
    peak_kv_cache_usage: float | None
    cpu_wait_s: float | None
    uncounted: int


class VllmBenchClient:
    """One warm benchmark process for one trial; opening it returns at once, while it still imports."""

    def __init__(self, spec: TrialSpec, placement: Placement, *, python: str | None = None) -> None:
        """Start the worker.

        Args:
            spec: The trial, whose folder takes log and raw results.
            placement: Its devices; the client itself uses none of them.
            python: Interpreter whose vLLM has the benchmark; None takes the one that ``spec.client`` names,
                else the engine's own.

        Raises:
            ConfigError: No interpreter, or its vLLM has no usable benchmark.
        """
        self._spec = spec
        self._python = python or spec.client.python or _python(spec)
        environment = probe(self._python)
        self._release = _release_of(environment.release, spec, self._python)
        _check_release(self._release, self._python)
        folder = Path(spec.folder).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        self._raw = folder / "raw"
        self._log_path = folder / f"client-{spec.attempt}.log"
        self._next = 1
        self._is_ready = False
        interpreter = find_interpreter(self._python)
        requests_read, self._requests = os.pipe()
        self._replies, replies_write = os.pipe()
        self._unread = b""
        try:
            self._environment = client_environment(
                spec,
                surroundings=os.environ,
                python=interpreter,
                owner=process.current(),
                stub=write_metadata_stub(folder, environment),
            )
            self._worker = Supervised.start(
                [interpreter, str(_WORKER), str(requests_read), str(replies_write)],
                env=self._environment,
                cwd=folder,
                log_path=self._log_path,
                start_file=folder / f"client-{spec.attempt}{process.START_FILE_SUFFIX}",
                grace_s=_STOP_GRACE_S,
                launch_s=spec.engine.launch_timeout_s,
                note={"trial": spec.key, "devices": list(placement.devices)},
                pass_fds=(requests_read, replies_write),
            )
        except BaseException:
            os.close(self._requests)
            os.close(self._replies)
            raise
        finally:
            os.close(requests_read)
            os.close(replies_write)
        self._is_open = True

    def measure(
        self, server: Server, point: LoadPoint, *, restart: int, repeat: int, cancelled: Cancelled
    ) -> Measurement:
        """Load the server once at this load point.

        The prefix cache is emptied before, where the release can do it: runs of one trial send the same
        prompts and would otherwise profit from each other.

        Raises:
            EngineError: The client failed, hung past the load time limit, or the engine died meanwhile.
            MeasurementError: Not every request completed, or not with as many tokens as asked.
        """
        began = time.monotonic()
        self._wait_import(server, cancelled)
        if not point.keeps_prefix_cache:
            empty_prefix_cache(server, cancelled=cancelled)
        name = f"{self._spec.attempt}-{restart}-{repeat}-{content_key(asdict(point))[:8]}.json"
        before = server.counters()
        started_at = time.time()
        run = self._run(server, point, self._raw / name, cancelled, limit_s=self._spec.engine.load_timeout_s)
        ended_at = time.time()
        log_path = str(self._log_path)
        check_complete(run.report, wanted=point.num_prompts, log_path=log_path)
        self._check_whole(run, server, point)
        plausibility.check_single_requests(run.report, log_path=log_path)
        metrics = read_report(run.report, log_path=log_path)
        check_engine(before, server, answered=point.num_prompts, log_path=log_path)
        check_lengths(metrics["total_output_tokens"], self._spec, point, log_path=str(self._log_path))
        measured_s = metrics["duration_s"] or 0.0
        return Measurement(
            load_point=point,
            restart=restart,
            repeat=repeat,
            metrics=metrics,
            telemetry={
                **telemetry(before, server.counters(), peak_kv_cache_usage=run.peak_kv_cache_usage),
                # Large against duration_s: the latencies are those of a client that had no core.
                "client_cpu_wait_s": run.cpu_wait_s,
            },
            measured_s=measured_s,
            client_overhead_s=time.monotonic() - began - measured_s,
            started_at=started_at,
            ended_at=ended_at,
            raw_path=str(run.path),
        )

    def warm_up(self, server: Server, point: LoadPoint, *, prompts: int, cancelled: Cancelled) -> float:
        """Send some requests at once whose numbers are thrown away; return the seconds it took."""
        began = time.monotonic()
        self._wait_import(server, cancelled)
        warm = warm_up_point(point, prompts=prompts)
        limit_s = self._spec.engine.warmup_timeout_s
        path = self._raw / f"{self._spec.attempt}-warm-up.json"
        self._run(server, warm, path, cancelled, limit_s=limit_s)
        return time.monotonic() - began

    def close(self) -> None:
        """End the worker; safe to call twice."""
        if not self._is_open:
            return
        self._is_open = False
        self._worker.stop()
        os.close(self._requests)
        os.close(self._replies)

    def _run(
        self, server: Server, point: LoadPoint, path: Path, cancelled: Cancelled, *, limit_s: float
    ) -> _Run:
        """Have the worker run the benchmark once, watching engine, clock and worker meanwhile."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        began = time.monotonic()
        number = self._send(server, point, path)
        peak: float | None = None
        looked = began
        while (reply := self._receive(_POLL_S)) is None:
            self._watch(server, cancelled)
            if time.monotonic() - began > limit_s:
                raise self._error(f"client: no result after {limit_s:g} s of load", FailureClass.HANG)
            if time.monotonic() - looked >= _TELEMETRY_S:
                looked = time.monotonic()
                usage = server.counters().get("kv_cache_usage")
                peak = usage if peak is None or usage is None else max(peak, usage)
        report = _read_json(path) if reply.get("ok") and reply.get("id") == number else None
        if report is None or report.get("completed") != point.num_prompts:
            blame_engine(server)
        if report is None:
            raise self._error(f"client: {reply.get('error') or 'it left no result'}", FailureClass.CLIENT)
        return _Run(
            report=report,
            path=path,
            peak_kv_cache_usage=peak,
            cpu_wait_s=plausibility.number(reply, "cpu_wait_s", log_path=str(self._log_path)),
            uncounted=int(plausibility.number(reply, "uncounted", log_path=str(self._log_path)) or 0),
        )

    def _check_whole(self, run: _Run, server: Server, point: LoadPoint) -> None:
        """Check that no answer broke off: a whole one ends with the server's own count of its tokens.

        The benchmark takes a stream that ends early, or with an error, for a complete answer. Servers that
        never count (not vLLM) are believed.
        """
        never_counts = "vllm" not in server.versions and run.uncounted >= point.num_prompts
        if not run.uncounted or never_counts:
            return
        blame_engine(server)
        raise MeasurementError(
            f"client: {run.uncounted} of {point.num_prompts} answers broke off: they ended without the "
            "server's count of their tokens, which comes last; expected all to be whole. Look into the "
            "engine's log.",
            failure=FailureClass.WRONG_ANSWER,
            log_path=server.log_path or str(self._log_path),
        )

    def _send(self, server: Server, point: LoadPoint, path: Path) -> int:
        number = self._next
        self._next += 1
        args = benchmark_arguments(
            self._spec,
            point,
            base_url=server.base_url,
            release=self._release,
            result=path,
            tokenizer=tokenizer_of(self._spec, environment=self._environment),
        )
        line = json.dumps({"id": number, "api_key": server.api_key, "args": args}) + "\n"
        try:
            os.write(self._requests, line.encode())
        except OSError as exc:
            raise self._error(
                f"client: its process is gone ({exc}); see its log", FailureClass.CLIENT
            ) from exc
        return number

    def _wait_import(self, server: Server, cancelled: Cancelled) -> None:
        began, limit_s = time.monotonic(), self._spec.client.start_timeout_s
        while not self._is_ready:
            reply = self._receive(_POLL_S)
            if reply is None:
                self._watch(server, cancelled)
                if time.monotonic() - began > limit_s:
                    late = f"client: not ready after {limit_s:g} s (client.start_timeout_s)"
                    raise self._error(f"{late}; see its log", FailureClass.CLIENT)
            elif reply.get("ready"):
                self._is_ready = True
            else:
                raise self._error(f"client: cannot import: {reply.get('error')}", FailureClass.CLIENT)

    def _watch(self, server: Server, cancelled: Cancelled) -> None:
        """Look for every reason to stop waiting but the clock."""
        if cancelled():
            raise self._error("stopped on request", FailureClass.INTERRUPTED)
        server.check_alive()
        code = self._worker.poll()
        if code is not None:
            said = last_words(self._log_path)
            raise self._error(
                f"client: its process ended with exit code {code}; last line: {said}", FailureClass.CLIENT
            )
        if self._worker.floods():
            raise self._error(flood(supervisor.LARGEST_LOG), FailureClass.CLIENT)

    def _receive(self, seconds: float) -> Mapping[str, object] | None:
        """The worker's next line, or None when it does not come in time or the worker is gone."""
        if b"\n" not in self._unread:
            ready, _, _ = select.select([self._replies], [], [], seconds)
            if not ready:
                return None
            received = os.read(self._replies, 65536)
            if not received:
                # The other end is closed; whoever waits will see that the process has ended.
                time.sleep(min(seconds, 0.05))
            self._unread += received
            if len(self._unread) > _LONGEST_REPLY:
                raise self._error("client: its worker's reply has no end", FailureClass.CLIENT)
        line, newline, rest = self._unread.partition(b"\n")
        if not newline:
            return None
        self._unread = rest
        try:
            content = json.loads(line)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise self._error(f"client: its worker says {line[:80]!r}; expected JSON", FailureClass.CLIENT)
        return content

    def _error(self, message: str, failure: FailureClass) -> EngineError:
        return EngineError(message, failure=failure, log_path=str(self._log_path))


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
    # The flag that chooses the API was called otherwise before 0.11.1; both take the same word.
    backend = "--endpoint-type" if knobs.client_flag_exists("--endpoint-type", release) else "--backend"
    rate = "inf" if point.request_rate_per_s is None else f"{point.request_rate_per_s:g}"
    concurrency = [] if point.max_concurrency is None else ["--max-concurrency", str(point.max_concurrency)]
    return [
        *(backend, "openai", "--base-url", base_url, "--endpoint", "/v1/completions"),
        *("--model", spec.model.path, "--served-model-name", spec.model.name),
        *knobs.client_arguments(spec.assignment, release=release, tokenizer=tokenizer or spec.model.path),
        *dataset_arguments.of(point),
        *("--num-prompts", str(point.num_prompts), "--request-rate", rate),
        *concurrency,
        *("--seed", str(point.client_seed), "--temperature", "0"),
        *(["--ignore-eos"] if point.ignore_eos else []),
        *goodput_arguments(point),
        *("--percentile-metrics", ",".join(METRICS)),
        *("--metric-percentiles", ",".join(map(str, PERCENTILES))),
        *("--disable-tqdm", "--save-result"),
        *(["--save-detailed"] if spec.client.keeps_requests else []),
        *("--result-dir", str(result.parent), "--result-filename", result.name),
    ]


def goodput_arguments(point: LoadPoint) -> list[str]:
    """What a request has to keep to count as good, in the benchmark's words; nothing without bounds."""
    bounds = point.goodput_bounds
    return [] if bounds is None else ["--goodput", *bounds.split()]


def read_report(report: Mapping[str, object], *, log_path: str | None = None) -> dict[str, float | None]:
    """Translate the benchmark's JSON to our names; what a release does not report is None.

    Raises:
        MeasurementError: A value that should be a number is not one.
    """

    def told(name: str) -> float | None:
        return plausibility.number(report, name, log_path=log_path)

    metrics = {name: told(name) for name in _KEPT}
    for name, sources in _RENAMED.items():
        values = (told(source) for source in sources)
        metrics[name] = next((value for value in values if value is not None), None)
    if metrics["failed"] is None:
        # Not written before 0.11.1; whoever did not complete has failed.
        wanted, completed = told("num_prompts"), metrics["completed"]
        metrics["failed"] = None if wanted is None or completed is None else wanted - completed
    return metrics


def check_complete(report: Mapping[str, object], *, wanted: int, log_path: str | None) -> None:
    """Check that every request completed; the benchmark itself only warns when all of them failed.

    Raises:
        MeasurementError: Some did not; the message tells how many.
    """
    completed, failed, sent = (
        plausibility.number(report, name, log_path=log_path)
        for name in ("completed", "failed", "num_prompts")
    )
    if completed != wanted or failed:
        raise MeasurementError(
            f"client: {_count(completed)} of {wanted} requests completed, {_count(failed)} failed; "
            "expected all to complete. See the client's log for the first error.",
            failure=FailureClass.CLIENT,
            log_path=log_path,
        )
    if sent is not None and sent != wanted:
        plausibility.refuse(f"num_prompts is {sent:g}; expected {wanted}, as asked", log_path=log_path)
    if plausibility.number(report, "duration", log_path=log_path) is None:
        plausibility.refuse("it has no duration; expected seconds", log_path=log_path)


def check_engine(before: Mapping[str, float], server: Server, *, answered: int, log_path: str | None) -> None:
    """Compare the client's count with that of an engine that nobody else asks (``plausibility``).

    An endpoint that somebody else started may be several servers, of which one tells its counters.
    """
    if server.pids() is not None:
        plausibility.check_engine_agrees(before, server.counters, answered=answered, log_path=log_path)


def telemetry(
    before: Mapping[str, float], after: Mapping[str, float], *, peak_kv_cache_usage: float | None
) -> dict[str, float | None]:
    """What the engine counted during one run: differences of its counters, None where it has none."""
    queries = _difference(before, after, "prefix_cache_queries")
    hits = _difference(before, after, "prefix_cache_hits")
    return {
        "prefix_cache_hit_rate": hits / queries if queries and hits is not None else None,
        "preemptions": _difference(before, after, "preemptions"),
        "kv_cache_usage": peak_kv_cache_usage,
    }


def empty_prefix_cache(server: Server, *, cancelled: Cancelled) -> bool:
    """Ask the engine to forget the prompts it has seen; whether it did.

    Raises:
        EngineError: A stop was asked for meanwhile.
    """
    there = Endpoint(base_url=server.base_url, api_key=server.api_key, cancelled=cancelled)
    # Releases without this route answer 404, and nothing is lost.
    return there.post("/reset_prefix_cache", {}).is_ok


def _release_of(found: str, spec: TrialSpec, python: str) -> str:
    """Return the release of a benchmark: the engine's in whose environment it is, else the one it tells."""
    if spec.engine.build is not None and found == spec.engine.version:
        return spec.engine.release
    unplaced = knobs.why_unplaced(found)
    if unplaced is not None:
        raise ConfigError(
            f"client.python: {python} has vLLM '{found}', which {unplaced}; expected one that tells its "
            "release, whose flags are known. Name another interpreter, or leave it out."
        )
    return found


def _check_release(release: str, python: str) -> None:
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


def _read_json(path: Path) -> Mapping[str, object] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _count(number: float | None) -> str:
    return "an unknown number" if number is None else f"{number:g}"


def _difference(before: Mapping[str, float], after: Mapping[str, float], name: str) -> float | None:
    return after[name] - before[name] if name in before and name in after else None
