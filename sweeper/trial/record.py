"""What is known of a trial while it runs: what it does now, what it measured, and what its time went into."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sweeper.engines import Server
from sweeper.records import Measurement, Placement, Scalar, TrialSpec
from sweeper.trial import stages


@dataclass(kw_only=True)
class TrialRecord:
    """The record of one trial; whatever happens, its result is made from here.

    Attributes:
        started_at: Unix time.
        measurements: Those that ended well so far, in the order in which they were made.
        phases: Seconds, by the names of ``records.PHASES``.
        server: The newest that came up; None before the first.
        answers: To the greedy question, one for each start.
        accuracy: How the first start answered the trial's questions.
        kernels: What the log of each start told of its kernels, once it had ended.
        host: Settings of the host that the trial changed.
        audit: Digest of the node's settings before the engine started; None where it starts none here.
        numa_binding: Where its processes were bound; None where they were not.
    """

    spec: TrialSpec
    placement: Placement
    started_at: float = field(default_factory=time.time)
    measurements: list[Measurement] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)
    server: Server | None = None
    answers: list[str | None] = field(default_factory=list)
    accuracy: Mapping[str, Scalar] = field(default_factory=dict)
    kernels: list[Mapping[str, Scalar]] = field(default_factory=list)
    host: Mapping[str, Scalar] = field(default_factory=dict)
    audit: str | None = None
    numa_binding: str | None = None

    def begin(self, stage: str) -> None:
        """Write where others can read it what the trial does from here on; a modelled one is over at once."""
        if not self.spec.is_modelled:
            stages.announce(Path(self.spec.folder), stage)

    def end(self) -> None:
        """Remove what ``begin`` wrote."""
        if not self.spec.is_modelled:
            stages.forget(Path(self.spec.folder))

    def spend(self, phase: str, seconds: float) -> None:
        """Add seconds to a phase."""
        self.phases[phase] = self.phases.get(phase, 0.0) + seconds
