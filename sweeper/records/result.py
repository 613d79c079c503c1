"""What came of a trial: its measurements with their metrics, or the reason why there are none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sweeper.errors import FailureClass
from sweeper.records.kinds import Provenance, Scalar, TrialState
from sweeper.records.load import LoadPoint
from sweeper.records.trial import Placement, TrialSpec


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One client run at one load point.

    Attributes:
        metrics: Names and units as in ``sweeper.store`` (``mean_ttft_ms``, ``completed``, ...).
        telemetry: What the engine counted during the run (``prefix_cache_hit_rate``, ...).
        raw_path: The client's own JSON, kept as it came; None for the simulated client.
        short_answers_because: Why answers are shorter than asked, in a sentence; None where none is.
    """

    load_point: LoadPoint
    restart: int
    repeat: int
    metrics: Mapping[str, float | None]
    telemetry: Mapping[str, float | None]
    measured_s: float
    client_overhead_s: float
    started_at: float
    ended_at: float
    raw_path: str | None = None
    short_answers_because: str | None = None


LIVE_COLUMNS = ("set_live", "started_with", "live_trial")
"""What a server whose start several settings share says of that, among its ``effective`` values."""

PHASES = ("free_wait_s", "engine_start_s", "warmup_s", "stop_s")
"""What a trial spends its time on besides its loads, in seconds."""


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """What became of a trial. A failure is a result as good as any other.

    Attributes:
        failure_message: The engine's own line where it left one, else ours.
        effective: Configuration that the engine itself reported, by knob name.
        kernels: What its log told of the kernels that ran, by the names of the columns ``kernel_*``.
        versions: ``vllm``, ``torch``, ``rocm``, ``driver``, ``kernel``, ... as far as they are known.
        surroundings: Under what it ran: ``container``, ``numa_balancing``, ``environment``,
            ``audit``.
        sanity_text: The answer to a greedy question, before and after the loads; that of all starts where
            they differ.
        phases: Seconds spent on each of ``PHASES``.
        accuracy: How it answered questions before the loads, by ``ACCURACY_COLUMNS``; empty where none were
            asked.
    """

    spec: TrialSpec
    placement: Placement | None
    state: TrialState
    provenance: Provenance
    measurements: tuple[Measurement, ...] = ()
    failure_class: FailureClass | None = None
    failure_message: str | None = None
    log_path: str | None = None
    effective: Mapping[str, Scalar] = field(default_factory=dict)
    kernels: Mapping[str, Scalar] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    surroundings: Mapping[str, Scalar] = field(default_factory=dict)
    phases: Mapping[str, float] = field(default_factory=dict)
    accuracy: Mapping[str, Scalar] = field(default_factory=dict)
    sanity_fingerprint: str | None = None
    sanity_text: str | None = None
    command: tuple[str, ...] = ()
    started_at: float | None = None
    ended_at: float | None = None
