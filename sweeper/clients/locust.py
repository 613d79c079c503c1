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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sweeper.clients import plausibility, program
from sweeper.clients.measuring import Load, ProgramClient, Reading
from sweeper.clients.requirements import check_locust
from sweeper.engines.environment import client_environment
from sweeper.errors import MeasurementError
from sweeper.kinds import ENGINES
from sweeper.metrics import RequestRecords, summarize
from sweeper.processes import process
from sweeper.records import FailureClass, LoadPoint, Placement, TrialSpec
from sweeper.records.plurals import amount
from sweeper.text import trial_files

LOCUSTFILE = Path(__file__).with_name("locustfile.py")

# Token ids that a model of unknown shape has, too: the vocabulary of Llama 2, one of the smallest in use.
_USUAL_VOCAB = 32000

MOST_USERS = 1000
"""Requests that can be under way at once where no cap is asked for."""


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What came of one run of Locust."""

    requests: Sequence[Mapping[str, Any]]
    peak_kv_cache_usage: float | None


class LocustClient(ProgramClient[_Run]):
    """Runs Locust once for each load point.

    Requests are sent at a constant rate: ``num_prompts`` is rate times duration.
    """

    def __init__(self, spec: TrialSpec, placement: Placement) -> None:
        """Open one for a trial; nothing is started yet.

        Raises:
            ConfigError: Locust is not installed.
        """
        check_locust()
        super().__init__(spec, placement)

    def _send(self, load: Load) -> _Run:
        result = self._raw(load)
        settings = load_settings(self._spec, load.point, result=result)
        load_file = trial_files.write(
            result.with_name(f"{load.name}.load.json"), json.dumps(settings, indent=1)
        )
        environment = client_environment(
            self._spec, surroundings=os.environ, python=sys.executable, owner=process.current(), stub=None
        )
        ended = self._run(
            load,
            locust_command(load.point, base_url=load.server.base_url),
            # Neither the key nor what is sent stands in the command line, which every user can read.
            env={**environment, "SWEEPER_LOAD": str(load_file), "OPENAI_API_KEY": load.server.api_key},
        )
        if not result.is_file():
            program.blame_engine(load.server)
            raise self._no_result(load, ended, named="Locust")
        requests = written_requests(result, log_path=str(self._log_path(load)))
        return _Run(requests=requests, peak_kv_cache_usage=ended.peak_kv_cache_usage)

    def _read(self, load: Load, sent: _Run) -> Reading:
        metrics = summarize(read_requests(sent.requests))
        self._check_complete(load, sent.requests, metrics)
        # Against 1 / rate it shows whether the rate was kept.
        latest_s = max(request["sent_s"] - request["due_s"] for request in sent.requests)
        return Reading(
            metrics=metrics,
            raw_path=self._raw(load),
            telemetry={"client_latest_s": latest_s},
            peak_kv_cache_usage=sent.peak_kv_cache_usage,
        )

    def _check_complete(
        self, load: Load, requests: Sequence[Mapping[str, Any]], metrics: Mapping[str, float | None]
    ) -> None:
        wanted = load.point.num_prompts
        if metrics["completed"] == wanted and not metrics["failed"]:
            return
        program.blame_engine(load.server)
        errors = [request["error"] for request in requests if request["error"] is not None]
        raise MeasurementError(
            f"client: {metrics['completed']:g} of {amount(wanted, 'request')} completed, "
            f"{metrics['failed']:g} failed; "
            f"expected all to complete. The first error: {errors[0] if errors else 'none was told'}",
            failure=FailureClass.CLIENT,
            log_path=str(self._log_path(load)),
        )


def written_requests(result: Path, *, log_path: str | None) -> Sequence[Mapping[str, Any]]:
    """Read what the locustfile wrote, and check the form of each request.

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
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as exc:
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
    """Return the settings of one load point for ``locustfile.py``."""
    return {
        "model": spec.model.name,
        "vocab": _USUAL_VOCAB if spec.model.shape is None else spec.model.shape.vocab,
        "num_prompts": point.num_prompts,
        "rate_per_s": point.request_rate_per_s,
        "input_len": point.input_len,
        "output_len": point.output_len,
        "range_ratio": point.range_ratio,
        "ignore_eos": point.ignore_eos,
        # vLLM reports at the end of a stream how many tokens it had.
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
