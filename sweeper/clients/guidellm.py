"""Loads an engine by guidellm, so that its numbers can be held against those of vLLM's own benchmark.

guidellm lies in an environment of its own and is run once for each load, with one scenario.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweeper.clients import guidellm_config, guidellm_report, program, steady_state
from sweeper.clients.bench_report import read_object
from sweeper.clients.foreign import ForeignClient
from sweeper.clients.measuring import Load, Reading
from sweeper.clients.tokenizer import tokenizer_of
from sweeper.metrics import summarize
from sweeper.text import trial_files


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What came of one run of guidellm."""

    report: Mapping[str, Any]
    peak_kv_cache_usage: float | None


class GuidellmClient(ForeignClient[_Run]):
    """Runs guidellm once for each load point."""

    def _send(self, load: Load) -> _Run:
        environment = self._environment()
        result = self._raw(load)
        settings = guidellm_config.settings(
            self._spec,
            load.point,
            base_url=load.server.base_url,
            tokenizer=tokenizer_of(self._spec, environment=environment),
            result=result,
        )
        scenario = trial_files.write(self._beside(load, "scenario.json"), json.dumps(settings, indent=1))
        key = {guidellm_config.KEY_VARIABLE: load.server.api_key} if load.server.api_key else {}
        ended = self._run(
            load,
            (
                self._python,
                "-m",
                "guidellm",
                "run",
                "--scenario",
                str(scenario),
                "--disable-console-interactive",
            ),
            env={**environment, **guidellm_config.variables(os.environ), **key},
        )
        report = read_object(result)
        if report is None:
            program.blame_engine(load.server)
            raise self._no_result(load, ended, named="guidellm")
        return _Run(report=report, peak_kv_cache_usage=ended.peak_kv_cache_usage)

    def _read(self, load: Load, sent: _Run) -> Reading:
        log_path, point = str(self._log_path(load)), load.point
        benchmark = guidellm_report.benchmark_of(sent.report, log_path=log_path)
        requests = guidellm_report.requests_of(benchmark, wanted=point.num_prompts, log_path=log_path)
        self._check_version((sent.report.get("metadata") or {}).get("guidellm_version"), log_path=log_path)
        is_scheduled = point.request_rate_per_s is not None
        if is_scheduled and point.max_concurrency is None:
            guidellm_report.check_schedule(requests, log_path=log_path)
        latest_s = guidellm_report.latest_s(requests, log_path=log_path) if is_scheduled else None
        records = guidellm_report.records_of(requests, log_path=log_path)
        if not self._spec.client.keeps_requests:
            trial_files.write(self._raw(load), json.dumps(guidellm_report.without_texts(sent.report)))
        return Reading(
            metrics=summarize(records, goodput_bounds_ms=dict(point.goodput_ms) or None),
            raw_path=self._raw(load),
            telemetry={
                **({} if latest_s is None else {"client_latest_s": latest_s}),
                **guidellm_report.own_metrics(benchmark),
                **steady_state.of_records(records),
            },
            peak_kv_cache_usage=sent.peak_kv_cache_usage,
        )
