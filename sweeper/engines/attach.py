"""Measures an endpoint that already runs, started by others; it is never stopped or changed.

What it serves, and how it is configured, is what it reports itself: the model under ``/v1/models``, the
version, the labels of its metrics, and its configuration where that is open. Its key comes from an
environment variable whose name is configured; the key is in no record, row, log or file of ours.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from sweeper.engines import Cancelled, vllm_reports
from sweeper.engines.checks import Found
from sweeper.engines.endpoint import Answer, Endpoint
from sweeper.errors import ConfigError, EngineError, MeasurementError, Stopped
from sweeper.records import EngineSpec, FailureClass, Placement, Provenance, Scalar, TrialSpec
from sweeper.text.printable import shortened

_CONNECT_S = 10.0
_LONGEST_VERSION = 100
# Looked at so often at most: a process that waits asks four times a second.
_LOOK_S = 2.0


def endpoint(engine: EngineSpec, *, surroundings: Mapping[str, str]) -> Endpoint:
    """Describe where the endpoint answers, with its key.

    Raises:
        ConfigError: No address is given, or the variable that shall hold the key is not set.
    """
    if engine.url is None:
        raise ConfigError(
            "engine.url: is not given; expected the address of the endpoint that runs, such as "
            "http://127.0.0.1:8000. Set engine.url=ADDRESS."
        )
    key = surroundings.get(engine.api_key_env or "", "")
    if engine.api_key_env is not None and not key:
        raise ConfigError(
            f"engine.api_key_env: the variable {engine.api_key_env} is not set; expected it to hold the "
            f"endpoint's key. Export {engine.api_key_env}, or leave engine.api_key_env out."
        )
    return Endpoint(base_url=engine.url, api_key=key)


def find_release(engine: EngineSpec, *, surroundings: Mapping[str, str]) -> str:
    """Ask the endpoint which vLLM it is; the configured release where it does not say.

    Raises:
        ConfigError: No server answers at the address.
    """
    there = endpoint(engine, surroundings=surroundings)
    answer = there.get("/version", timeout_s=_CONNECT_S)
    if answer.status is None:
        raise ConfigError(
            f"engine.url: nobody answers at {engine.url} ({answer.problem}); expected an endpoint "
            "that runs. Start it, or correct the address."
        )
    return _version(answer).partition("+")[0] or engine.release


def _version(answer: Answer) -> str:
    """Return the version in an answer, as much of it as a message can show; empty where there is none."""
    version = answer.content.get("version") if answer.is_ok else None
    return shortened(version, _LONGEST_VERSION) if isinstance(version, str) else ""


class AttachEngine:
    """Attaches to the endpoint that the trial's engine names."""

    def start(
        self, spec: TrialSpec, placement: Placement, *, restart: int, cancelled: Cancelled
    ) -> AttachedServer:
        """Check that the endpoint serves the model, and read what it reports; nothing is started.

        Raises:
            EngineError: Cancelled.
            MeasurementError: It serves something else, or is another release than was planned with.
            ConfigError: Address or key are missing.
        """
        if cancelled():
            raise Stopped
        there = replace(endpoint(spec.engine, surroundings=os.environ), cancelled=cancelled)
        server = AttachedServer(spec, there)
        server.prove()
        return server


class AttachedServer:
    """An endpoint that others started.

    Attributes:
        start_s: 0; it runs already.
        command: Empty; it is not ours.
        log_path: None as well.
    """

    provenance = Provenance.MEASURED

    def __init__(self, spec: TrialSpec, endpoint: Endpoint) -> None:
        """Name the endpoint; nothing is asked yet."""
        self._spec = spec
        self._endpoint = endpoint
        self._looked = float("-inf")
        self.base_url = endpoint.base_url
        self.api_key = endpoint.api_key
        self.start_s = 0.0
        self.command: tuple[str, ...] = ()
        self.effective: Mapping[str, Scalar] = {}
        self.versions: Mapping[str, str] = {}
        self.log_path: str | None = None
        self._served: list[object] = []
        self._started_at: float | None = None

    def prove(self) -> None:
        """Check that it serves the model, and keep what it reports.

        Raises:
            MeasurementError: Model or release are not the expected ones.
        """
        names = self._endpoint.served_models()
        if self._spec.model.name not in names:
            raise MeasurementError(
                f"engine: {self.base_url} serves {names}; expected '{self._spec.model.name}' among them. "
                "Choose the model that it serves (model=...), or give the right address and key.",
                failure=FailureClass.WRONG_ENGINE,
            )
        version = _version(self._endpoint.get("/version"))
        if version:
            self._prove_release(version)
            self.versions = {"vllm": version}
        told = self._endpoint.get("/server_info?config_format=json", timeout_s=60.0)
        metrics = self._endpoint.get("/metrics").text
        self._served, self._started_at = names, vllm_reports.read_start_time(metrics)
        self.effective = vllm_reports.read_effective(
            server_info=told.content if told.is_ok else None,
            metrics=metrics,
            log="",
            asked=(),
        )

    def sanity(self) -> str:
        """Ask a greedy question and return the text of the answer.

        Raises:
            MeasurementError: No answer, an empty one, or not within the sanity time limit.
        """
        answer = self._endpoint.ask_greedily(
            self._spec.model.name, timeout_s=self._spec.engine.sanity_timeout_s
        )
        problem = answer.why_no_text(who=self.base_url, look="Look at the endpoint's own log.")
        if problem is not None:
            raise MeasurementError(problem, failure=FailureClass.WRONG_ANSWER)
        return answer.first_text

    def check_alive(self) -> None:
        """Return quietly while a server listens at the address.

        Raises:
            EngineError: Nobody does any more.
        """
        if time.monotonic() - self._looked < _LOOK_S:
            return
        self._looked = time.monotonic()
        where = urlsplit(self.base_url)
        port = where.port or (443 if where.scheme == "https" else 80)
        try:
            # A connection and no request: it costs a loaded endpoint nothing.
            socket.create_connection((where.hostname or "", port), timeout=_CONNECT_S).close()
        except OSError as exc:
            raise EngineError(
                f"engine: {self.base_url} is gone ({exc}); expected it to run as long as it is measured. "
                "Start it again and repeat.",
                failure=FailureClass.CRASH,
            ) from exc

    def prove_ours(self) -> None:
        """Check that it serves the same model from the same process, as far as it reports when that started.

        Raises:
            EngineError: Nobody answers any more.
            MeasurementError: It serves other models, or was started anew meanwhile.
        """
        names = self._endpoint.served_models()
        started_at = vllm_reports.read_start_time(self._endpoint.get("/metrics").text)
        is_silent = None in (started_at, self._started_at)
        if names == self._served and (is_silent or started_at == self._started_at):
            return
        self._looked = float("-inf")
        self.check_alive()
        raise MeasurementError(
            f"engine: {self.base_url} serves {names}, started at {started_at}; expected {self._served}, "
            f"started at {self._started_at}, as before the load. Do not change the endpoint while it is "
            "measured.",
            failure=FailureClass.WRONG_ENGINE,
        )

    def pids(self) -> None:
        """Return nothing: its processes belong to others, and may run elsewhere."""

    def counters(self) -> Mapping[str, float]:
        """Return what it has counted so far, for all clients; empty if it reports nothing."""
        return vllm_reports.read_metrics(self._endpoint.metrics())

    def stop(self) -> float:
        """Leave it running."""
        return 0.0

    def _prove_release(self, version: str) -> None:
        if version.partition("+")[0] != self._spec.engine.version:
            raise MeasurementError(
                f"engine: {self.base_url} says it is vLLM {version}; expected {self._spec.engine.version}, "
                "which answered when the study was planned. Do not change the endpoint while a study runs.",
                failure=FailureClass.WRONG_ENGINE,
            )


def find(engine: EngineSpec) -> Found:
    """Return the release that the endpoint reports, or the configured one.

    Raises:
        ConfigError: No server answers at the address.
    """
    return Found(release=find_release(engine, surroundings=os.environ), where=str(engine.url))
