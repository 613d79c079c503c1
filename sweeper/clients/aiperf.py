"""Loads an engine by aiperf, which replays traces at their times and conversations turn by turn.

aiperf lies in an environment of its own and is run once for each load, with one file of configuration. Its
report is kept as it came: the summary as the raw JSON, the times of single requests beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper.clients import aiperf_config, aiperf_report, program, steady_state
from sweeper.clients.aiperf_datasets import Dataset
from sweeper.clients.bench_report import read_object
from sweeper.clients.foreign import ForeignClient
from sweeper.clients.measuring import Load, Reading
from sweeper.clients.tokenizer import tokenizer_of
from sweeper.errors import MeasurementError
from sweeper.kinds import CLIENTS, opened
from sweeper.metrics import summarize
from sweeper.records import FailureClass
from sweeper.text import trial_files

_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What came of one run of aiperf."""

    summary: Mapping[str, object]
    requests: Sequence[Mapping[str, Any]]
    dataset: Dataset
    peak_kv_cache_usage: float | None


class AiperfClient(ForeignClient[_Run]):
    """Runs aiperf once for each load point."""

    def _send(self, load: Load) -> _Run:
        environment = self._environment()
        tokenizer = tokenizer_of(self._spec, environment=environment)
        dataset = self._dataset(load)
        artifacts = self._emptied(load, "aiperf")
        settings = aiperf_config.settings(
            self._spec,
            load.point,
            dataset,
            base_url=load.server.base_url,
            has_key=bool(load.server.api_key),
            tokenizer=tokenizer,
            artifacts=artifacts,
        )
        config = trial_files.write(self._beside(load, "config.yaml"), json.dumps(settings, indent=1))
        if Path(tokenizer).is_dir():
            # aiperf takes a folder for the name of a repository where it is told to stay off the network.
            environment = {name: value for name, value in environment.items() if name not in _OFFLINE}
        ended = self._run(
            load,
            (self._python, "-m", "aiperf", "profile", "--config", str(config)),
            env={**environment, aiperf_config.KEY_VARIABLE: load.server.api_key},
        )
        requests = self._requests(load, ended, artifacts)
        return _Run(
            summary=read_object(artifacts / aiperf_report.SUMMARY) or {},
            requests=aiperf_report.sending_order(requests),
            dataset=dataset,
            peak_kv_cache_usage=ended.peak_kv_cache_usage,
        )

    def _read(self, load: Load, sent: _Run) -> Reading:
        log_path = str(self._log_path(load))
        aiperf_report.check_complete(sent.requests, wanted=load.point.num_prompts, log_path=log_path)
        self._check_version(sent.summary.get("aiperf_version"), log_path=log_path)
        records = aiperf_report.records_of(sent.requests, log_path=log_path)
        metrics = summarize(records, goodput_bounds_ms=dict(load.point.goodput_ms) or None)
        self._check_answers(sent.dataset, metrics["total_output_tokens"], load)
        self._keep(load, sent)
        return Reading(
            metrics=metrics,
            raw_path=self._raw(load),
            telemetry=steady_state.of_records(records),
            peak_kv_cache_usage=sent.peak_kv_cache_usage,
        )

    def _requests(self, load: Load, ended: program.Ended, artifacts: Path) -> Sequence[Mapping[str, Any]]:
        """Read what aiperf wrote of each request.

        Raises:
            EngineError: It wrote nothing, or ended early; or the engine died.
            MeasurementError: It wrote something else.
        """
        no_result = self._no_result(load, ended, named="aiperf", why=aiperf_report.why_ended(artifacts))
        path = artifacts / aiperf_report.RECORDS
        try:
            found = aiperf_report.read_requests(path, log_path=str(self._log_path(load)))
        except MeasurementError as exc:
            program.blame_engine(load.server)
            if path.is_file() and not ended.exit_code:
                raise
            raise no_result from exc
        has_failed = any(row.get("error") for row in found)
        if has_failed or len(found) != load.point.num_prompts:
            program.blame_engine(load.server)
        # Where requests failed it ends with a code, too, and their errors say more.
        if ended.exit_code and not has_failed:
            raise no_result
        return found

    def _dataset(self, load: Load) -> Dataset:
        """Write the dataset of a load point for aiperf."""
        write = opened(CLIENTS[self._spec.client.kind].writers[load.point.dataset])
        found: Dataset = write(load.point, file=self._beside(load, "input.jsonl"))
        return found

    def _check_answers(self, dataset: Dataset, told: float | None, load: Load) -> None:
        """Check that answers with lengths of their own have them, where they ignore the end of a text.

        Raises:
            MeasurementError: There are more or fewer tokens.
        """
        wanted = dataset.output_tokens if load.point.ignore_eos and self._heeds_ignore_eos() else None
        if wanted is not None and told != wanted:
            raise MeasurementError(
                f"client: the answers have {told:g} tokens together; expected {wanted}, as their lengths ask "
                "for, since they ignore the end of a text. Look whether the model's length (max_model_len) "
                "or the engine cut them short.",
                failure=FailureClass.CLIENT,
                log_path=str(self._log_path(load)),
            )

    def _keep(self, load: Load, sent: _Run) -> None:
        """Keep the report, and remove what else was written: prompts, and messages one by one."""
        trial_files.write(self._raw(load), json.dumps(sent.summary))
        shown = sent.requests
        if not self._spec.client.keeps_requests:
            shown = [aiperf_report.without_tokens(row) for row in shown]
        lines = "".join(f"{json.dumps(row)}\n" for row in shown)
        trial_files.write(self._beside(load, "requests.jsonl"), lines)
        self._remove(load, "aiperf", "input.jsonl")
