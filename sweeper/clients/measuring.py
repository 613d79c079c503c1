"""One load from beginning to end: the steps that every client of a real engine takes, in their order.

The engine's counters are read, the load is sent and watched, the report is read and held against what was
asked and against what the engine counted, and a measurement is made of it. What is sent and how a report is
read differs from client to client; each supplies just that.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from sweeper.clients import plausibility, program, short_answers, warm_up_point
from sweeper.clients.short_answers import RequestLengths, Short
from sweeper.engines import Cancelled, Server
from sweeper.engines.endpoint import Endpoint
from sweeper.errors import EngineError
from sweeper.records import FailureClass, LoadPoint, Measurement, Placement, TrialSpec, content_key
from sweeper.text import trial_files

Sent = TypeVar("Sent")
"""What is known of a load when it has ended, before its report is believed."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """One load to be sent.

    Attributes:
        name: Tells its files from those of other loads in the trial's folder.
        limit_s: Seconds that it may take.
    """

    server: Server
    point: LoadPoint
    name: str
    limit_s: float
    cancelled: Cancelled
    restart: int = 0
    repeat: int = 0


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a client read out of the report of one load.

    Attributes:
        raw_path: The report as it came.
        telemetry: What the client itself reports besides, such as how long it waited for a core.
        peak_kv_cache_usage: Largest share of the engine's KV cache seen in use, 0 to 1; None where unknown.
        lengths: Tokens of the single requests; None where they are not reported.
    """

    metrics: Mapping[str, float | None]
    raw_path: Path
    telemetry: Mapping[str, float | None] = field(default_factory=dict)
    peak_kv_cache_usage: float | None = None
    lengths: RequestLengths | None = None


class MeasuringClient(ABC, Generic[Sent]):
    """A client that makes a measurement out of each load by the same steps."""

    def __init__(self, spec: TrialSpec, placement: Placement) -> None:
        """Open one for a trial.

        Args:
            spec: The trial, whose folder takes logs and raw results.
            placement: Its devices; a client itself uses none of them.
        """
        self._spec = spec
        self._placement = placement
        self._folder = Path(spec.folder).resolve()

    def measure(
        self, server: Server, point: LoadPoint, *, restart: int, repeat: int, cancelled: Cancelled
    ) -> Measurement:
        """Load the server once at this load point.

        Raises:
            EngineError: The client failed, hung past the load time limit, or the engine died meanwhile.
            MeasurementError: Not every request completed, or the report cannot be believed.
        """
        began = time.monotonic()
        load = Load(
            server=server,
            point=point,
            name=f"{self._spec.attempt}-{restart}-{repeat}-{content_key(asdict(point))[:8]}",
            limit_s=self._limit_s(),
            cancelled=cancelled,
            restart=restart,
            repeat=repeat,
        )
        self._prepare(load)
        before = server.counters()
        started_at = time.time()
        sent = self._send(load)
        ended_at = time.time()
        reading = self._read(load, sent)
        short = self._short(load, reading)
        counted = self._counted(load, reading, before)
        measured_s = reading.metrics["duration_s"] or 0.0
        return Measurement(
            load_point=point,
            restart=restart,
            repeat=repeat,
            metrics=reading.metrics,
            telemetry=counted if short is None else {**counted, "short_answers": float(short.count)},
            measured_s=measured_s,
            client_overhead_s=time.monotonic() - began - measured_s,
            started_at=started_at,
            ended_at=ended_at,
            raw_path=str(reading.raw_path),
            short_answers_because=short.because if short is not None and short.count else None,
        )

    def close(self) -> None:
        """Do nothing; no process outlives its load."""

    def _limit_s(self) -> float:
        """Return the seconds that a load may take."""
        return self._spec.engine.load_timeout_s

    @abstractmethod
    def _prepare(self, load: Load) -> None:
        """Do what has to be done before the counters are read and the clock starts."""

    @abstractmethod
    def _send(self, load: Load) -> Sent:
        """Send the load, and wait until it has ended.

        Raises:
            EngineError: It failed, hung, was cancelled, or the engine died meanwhile.
        """

    @abstractmethod
    def _read(self, load: Load, sent: Sent) -> Reading:
        """Read the report of a load that has ended.

        Raises:
            MeasurementError: It is not the report of this load, or not of all of it.
        """

    def _counted(
        self, load: Load, reading: Reading, before: Mapping[str, float]
    ) -> Mapping[str, float | None]:
        """Return the telemetry of a load: what the engine counted during it, and what the client reported."""
        after, peak = load.server.counters(), reading.peak_kv_cache_usage
        return {**telemetry(before, after, peak_kv_cache_usage=peak), **reading.telemetry}

    def _short(self, load: Load, reading: Reading) -> Short | None:
        """Find the answers that are shorter than asked; None where that is not known."""
        return short_answers.find(reading.lengths, self._spec, load.point, effective=load.server.effective)

    def _raw(self, load: Load) -> Path:
        """Return the path of a load's report as it came."""
        return self._folder / "raw" / f"{load.name}.json"


class ServerClient(MeasuringClient[Sent]):
    """A client that sends requests to one server, whose prefix cache it empties and whose counters it reads.

    Attributes:
        counts_tokens: Whether its count of the answers' tokens is exact, so that it can be held against what
            was asked for.
    """

    counts_tokens = True

    def warm_up(self, server: Server, point: LoadPoint, *, prompts: int, cancelled: Cancelled) -> float:
        """Send some requests at once whose numbers are thrown away; return the seconds it took."""
        began = time.monotonic()
        load = Load(
            server=server,
            point=warm_up_point(point, prompts=prompts),
            name=f"{self._spec.attempt}-warm-up",
            limit_s=self._spec.engine.warmup_timeout_s,
            cancelled=cancelled,
        )
        self._wait_ready(load)
        self._send(load)
        return time.monotonic() - began

    def _prepare(self, load: Load) -> None:
        """Empty the prefix cache, where the release can do it.

        Loads of one trial send the same prompts and would otherwise profit from each other.
        """
        self._wait_ready(load)
        if not load.point.keeps_prefix_cache:
            empty_prefix_cache(load.server, cancelled=load.cancelled)

    def _wait_ready(self, load: Load) -> None:
        """Wait until the client itself can send; one that is started for each load can at once."""

    def _counted(
        self, load: Load, reading: Reading, before: Mapping[str, float]
    ) -> Mapping[str, float | None]:
        """Return the telemetry of a load, after the engine's counts were held against the client's.

        Raises:
            MeasurementError: They disagree.
        """
        log_path = str(self._log_path(load))
        check_engine(before, load.server, answered=load.point.num_prompts, log_path=log_path)
        if self.counts_tokens:
            tokens = reading.metrics["total_output_tokens"]
            short = self._short(load, reading)
            short_answers.check(tokens, self._spec, load.point, short=short, log_path=log_path)
        return super()._counted(load, reading, before)

    @abstractmethod
    def _log_path(self, load: Load) -> Path:
        """Return the log of what sends the load."""


class ProgramClient(ServerClient[Sent]):
    """A client that is one program for each load."""

    def _run(self, load: Load, command: Sequence[str], *, env: Mapping[str, str]) -> program.Ended:
        """Run the program of a load to its end.

        Args:
            load: What it sends.
            command: Program and arguments, without secrets: every user of the machine can read them.
            env: Its whole environment.
        """
        trial_files.clear(self._raw(load))
        return program.run_to_end(
            command,
            env=env,
            cwd=self._folder,
            log_path=self._log_path(load),
            note={"trial": self._spec.key, "devices": list(self._placement.devices)},
            limit_s=load.limit_s,
            launch_s=self._spec.engine.launch_timeout_s,
            server=load.server,
            cancelled=load.cancelled,
        )

    def _no_result(
        self, load: Load, ended: program.Ended, *, named: str, why: str | None = None
    ) -> EngineError:
        """Return the failure of a program that left no result.

        Args:
            load: What it was to send.
            ended: How it ended.
            named: Its name.
            why: What it said of its failure elsewhere; None takes it from its log.
        """
        log_path = self._log_path(load)
        said = f"last line: {program.last_words(log_path)}" if why is None else f"it says: {why}"
        return EngineError(
            f"client: {named} ended with exit code {ended.exit_code} and left no result; {said}",
            failure=FailureClass.CLIENT,
            log_path=str(log_path),
        )

    def _log_path(self, load: Load) -> Path:
        return self._folder / f"client-{load.name}.log"


def check_engine(before: Mapping[str, float], server: Server, *, answered: int, log_path: str | None) -> None:
    """Compare the client's count with that of an engine that has no other client (``plausibility``).

    An endpoint that others started may be several servers, of which one reports its counters.
    """
    if server.pids() is not None:
        plausibility.check_engine_agrees(before, server.counters, answered=answered, log_path=log_path)


# vLLM's, and SGLang's, which refuses while it still ends a request, unless it may wait for that.
# Source: sglang/srt/entrypoints/http_server.py of 0.4.10 (without a wait) and 0.5.23.
_EMPTIES_CACHE = ("/reset_prefix_cache", "/flush_cache?timeout=10")


def telemetry(
    before: Mapping[str, float], after: Mapping[str, float], *, peak_kv_cache_usage: float | None
) -> dict[str, float | None]:
    """Return what the engine counted during one load: differences of its counters, None where it has none."""
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
    # Releases without these routes answer 404, and nothing is lost.
    return any(there.post(path, {}).is_ok for path in _EMPTIES_CACHE)


def _difference(before: Mapping[str, float], after: Mapping[str, float], name: str) -> float | None:
    return after[name] - before[name] if name in before and name in after else None
