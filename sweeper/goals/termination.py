"""When trials and studies end, besides having nothing left to do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Termination:
    """When trials and studies end, besides having nothing left to do; None leaves a limit out.

    Attributes:
        stop_margin: Ends a trial early that is behind the best by this share; None measures all of each.
        max_hours: Of this run, by the clock.
        max_node_hours: Of all trials of the study, those of earlier runs too; a trial on half of a node's
            devices counts half. Modelled time where the platform is modelled.
        min_improvement: Share by which a trial has to be better than all before it.
        patience: So many trials in a row may miss that.
        finalists: How many of the best settings are measured again at the end, limits or not; 0 is none.
        final_repeats: Engine starts of each of them.
    """

    stop_margin: float | None = None
    max_hours: float | None = None
    max_node_hours: float | None = None
    min_improvement: float | None = None
    patience: int = 20
    finalists: int = 0
    final_repeats: int = 3
