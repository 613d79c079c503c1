"""What a sweep is to find, by which method, when it ends, and how it deals with failures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sweeper.goals.termination import Termination
from sweeper.records import Constraint, Objective


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The terms of a study.

    Attributes:
        objectives: What is better.
        constraints: What has to be kept.
        method: How its trials are chosen: ``grid``, or the name of a search.
        trials: How many a search may spend; None leaves it to the space.
        endings: When trials and the study end besides the budget of trials.
        seed: Of the order in which finalists are measured again.
        retry_failed: Whether failures of earlier runs that do not go away by themselves are tried again, too.
    """

    objectives: Sequence[Objective]
    constraints: Sequence[Constraint] = ()
    method: str
    trials: int | None = None
    endings: Termination = field(default_factory=Termination)
    seed: int = 0
    retry_failed: bool = False


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How failures of this run are repeated.

    Attributes:
        max_attempts: How often a trial runs, at most, that fails by no fault of its own.
        first_pause_s: Before such a trial is repeated, and before the devices on which it met trouble are
            given out again; doubles with each time.
    """

    max_attempts: int = 2
    first_pause_s: float = 0.0
