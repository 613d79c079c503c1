"""Loads an engine by Locust: a constant rate and streamed answers, as a running service is often probed.

vLLM's benchmark draws Poisson arrivals; here requests go out at equal distances, so that the numbers of the
two are not comparable. Locust runs in the sweeper's own environment, one process per load point, with the
file ``locustfile.py``; from the times that it writes down of every request the metrics are computed with the
same definitions as everywhere else.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sweeper.clients import check_lengths, plausibility, program, warm_up_point
from sweeper.clients.requirements import check_locust
from sweeper.clients.vllm_bench import check_engine, empty_prefix_cache, telemetry
from sweeper.engines import Cancelled, Server
from sweeper.engines.vllm import client_environment
from sweeper.errors import EngineError, MeasurementError
from sweeper.kinds import ENGINES
from sweeper.metrics import RequestRecords, summarize
from sweeper.processes import process
from sweeper.records import FailureClass, LoadPoint, Measurement, Placement, TrialSpec, content_key

LOCUSTFILE = Path(__file__).with_name("locustfile.py")

# Token ids that a model of unknown shape has, too: the vocabulary of Llama 2, one of the smallest in use.
_USUAL_VOCAB = 32000

MOST_USERS = 1000
"""Requests that can be under way at once where no cap is asked for."""


class LocustClient:
    """Runs Locust once for each load point."""

    def __init__(self, spec: TrialSpec, placement: Placement) -> None:
        """Open one for a trial; nothing is started yet.

        Raises:
            ConfigError: Locust is not installed.
        """
        check_locust()
        self._spec = spec
        self._placement = placement
        self._folder = Path(spec.folder).resolve()
        (self._folder / "raw").mkdir(parents=True, exist_ok=True)

    def measure(
        self, server: Server, point: LoadPoint, *, restart: int, repeat: int, cancelled: Cancelled
    ) -> Measurement:
        """Send the load point's requests at their constant rate: ``num_prompts`` is rate times duration.

        Raises:
            EngineError: Locust failed, hung past the load time limit, or the engine died meanwhile.
            MeasurementError: Not every request completed, or not with as many tokens as asked.
        """
        began = time.monotonic()
        if not point.keeps_prefix_cache:
            empty_prefix_cache(server, cancelled=cancelled)
        name = f"{self._spec.attempt}-{restart}-{repeat}-{content_key(asdict(point))[:8]}"
        before = server.counters()
        started_at = time.time()
        requests, peak = self._run(server, point, name, cancelled, limit_s=self._spec.engine.load_timeout_s)
        ended_at = time.time()
        metrics = summarize(read_requests(requests))
        self._check(requests, metrics, wanted=point.num_prompts, server=server, log_path=self._log(name))
        check_engine(before, server, answered=point.num_prompts, log_path=str(self._log(name)))
        check_lengths(metrics["total_output_tokens"], self._spec, point, log_path=str(self._log(name)))
        measured_s = metrics["duration_s"] or 0.0
        return Measurement(
            load_point=point,
            restart=restart,
            repeat=repeat,
            metrics=metrics,
            telemetry={
                **telemetry(before, server.counters(), peak_kv_cache_usage=peak),
                # Against 1 / rate it tells whether the rate was kept.
                "client_latest_s": max(request["sent_s"] - request["due_s"] for request in requests),
            },
            measured_s=measured_s,
            client_overhead_s=time.monotonic() - began - measured_s,
            started_at=started_at,
            ended_at=ended_at,
            raw_path=str(self._result(name)),
        )

    def warm_up(self, server: Server, point: LoadPoint, *, prompts: int, cancelled: Cancelled) -> float:
        """Send some requests at once whose numbers are thrown away; return the seconds it took."""
        began = time.monotonic()
        warm = warm_up_point(point, prompts=prompts)
        limit_s = self._spec.engine.warmup_timeout_s
        self._run(server, warm, f"{self._spec.attempt}-warm-up", cancelled, limit_s=limit_s)
        return time.monotonic() - began

    def close(self) -> None:
        """Do nothing; no process outlives its run."""

    def _run(
        self, server: Server, point: LoadPoint, name: str, cancelled: Cancelled, *, limit_s: float
    ) -> tuple[Sequence[Mapping[str, Any]], float | None]:
        result, load = self._result(name), self._folder / "raw" / f"{name}.load.json"
        result.unlink(missing_ok=True)
        told = load_settings(self._spec, point, result=result)
        load.write_text(json.dumps(told, indent=1), encoding="utf-8")
        environment = client_environment(
            self._spec, surroundings=os.environ, python=sys.executable, owner=process.current(), stub=None
        )
        ended = program.run_to_end(
            locust_command(point, base_url=server.base_url),
            # Neither the key nor what is sent stands in the command line, which every user can read.
            env={**environment, "SWEEPER_LOAD": str(load), "OPENAI_API_KEY": server.api_key},
            cwd=self._folder,
            log_path=self._log(name),
            note={"trial": self._spec.key, "devices": list(self._placement.devices)},
            limit_s=limit_s,
            server=server,
            cancelled=cancelled,
        )
        if not result.is_file():
            program.blame_engine(server)
            raise EngineError(
                f"client: Locust ended with exit code {ended.exit_code} and left no result; last line: "
                f"{program.last_words(self._log(name))}",
                failure=FailureClass.CLIENT,
                log_path=str(self._log(name)),
            )
        return written_requests(result, log_path=str(self._log(name))), ended.peak_kv_cache_usage

    def _check(
        self,
        requests: Sequence[Mapping[str, Any]],
        metrics: Mapping[str, float | None],
        *,
        wanted: int,
        server: Server,
        log_path: Path,
    ) -> None:
        if metrics["completed"] == wanted and not metrics["failed"]:
            return
        program.blame_engine(server)
        errors = [request["error"] for request in requests if request["error"] is not None]
        raise MeasurementError(
            f"client: {metrics['completed']:g} of {wanted} requests completed, {metrics['failed']:g} failed; "
            f"expected all to complete. The first error: {errors[0] if errors else 'none was told'}",
            failure=FailureClass.CLIENT,
            log_path=str(log_path),
        )

    def _result(self, name: str) -> Path:
        return self._folder / "raw" / f"{name}.json"

    def _log(self, name: str) -> Path:
        return self._folder / f"client-{name}.log"


def written_requests(result: Path, *, log_path: str | None) -> Sequence[Mapping[str, Any]]:
    """Read what the locustfile wrote down, each request seen to be of its form.

    Raises:
        MeasurementError: It is not.
    """
    try:
        content = json.loads(result.read_text(encoding="utf-8"))
        requests = content["requests"]
        for request in requests:
            plausibility.numbers(request, "token_s", log_path=log_path)
            for name in ("sent_s", "due_s", "input_tokens", "output_tokens"):
                if plausibility.number(request, name, log_path=log_path) is None:
                    plausibility.refuse(f"a request has no {name}; expected a number", log_path=log_path)
            request["error"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        plausibility.refuse(f"{result} is not as it was written ({exc!r})", log_path=log_path)
    return list(requests)


def locust_command(point: LoadPoint, *, base_url: str) -> tuple[str, ...]:
    """The command line of Locust for one load point."""
    users = min(point.num_prompts, point.max_concurrency or MOST_USERS)
    return (
        *(sys.executable, "-m", "locust", "--locustfile", str(LOCUSTFILE)),
        *("--headless", "--only-summary", "--host", base_url),
        *("--users", str(users), "--spawn-rate", str(users)),
    )


def load_settings(spec: TrialSpec, point: LoadPoint, *, result: Path) -> dict[str, Any]:
    """What ``locustfile.py`` is told about one load point."""
    return {
        "model": spec.model.name,
        "vocab": _USUAL_VOCAB if spec.model.shape is None else spec.model.shape.vocab,
        "num_prompts": point.num_prompts,
        "rate_per_s": point.request_rate_per_s,
        "input_len": point.input_len,
        "output_len": point.output_len,
        "range_ratio": point.range_ratio,
        "ignore_eos": point.ignore_eos,
        # vLLM tells at the end of a stream how many tokens it had.
        "must_count": ENGINES[spec.engine.kind].counts_tokens,
        "seed": point.client_seed,
        "timeout_s": spec.engine.load_timeout_s,
        "result": str(result),
    }


def read_requests(requests: Sequence[Mapping[str, Any]]) -> RequestRecords:
    """Turn what the locustfile wrote down of each request into records; failed ones have no last token."""
    done = [request["error"] is None for request in requests]
    tokens = [request["token_s"] if ok else [] for request, ok in zip(requests, done, strict=True)]
    gaps = [np.diff(times) for times in tokens if len(times) > 1]
    return RequestRecords(
        arrival_s=np.array([request["sent_s"] for request in requests], np.float64),
        first_token_s=np.array([times[0] if times else np.nan for times in tokens], np.float64),
        last_token_s=np.array([times[-1] if times else np.nan for times in tokens], np.float64),
        input_tokens=np.array([request["input_tokens"] for request in requests], np.int64),
        output_tokens=np.array(
            [request["output_tokens"] if ok else 0 for request, ok in zip(requests, done, strict=True)],
            np.int64,
        ),
        inter_token_s=np.concatenate(gaps) if gaps else np.array([], np.float64),
    )
