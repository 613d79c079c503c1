"""What is known of a study that settings describe: a plan and a run ask the same ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeper.config import Settings
    from sweeper.plan.planner import Planner
    from sweeper.store.store import Store
    from sweeper.sweep.ledger import Ledger


def ledger_of(settings: Settings, planner: Planner, store: Store | None = None) -> Ledger:
    """Read what a study has measured so far; a study that never ran has nothing."""
    from sweeper.store.store import Store
    from sweeper.sweep.ledger import Ledger
    from sweeper.sweep.terms import Terms

    terms = Terms(
        objectives=settings.objectives,
        constraints=settings.constraints,
        method=settings.method,
        trials=settings.trials,
        endings=settings.endings,
        seed=settings.seed,
        retry_failed=settings.retry_failed,
    )
    return Ledger(store or Store(settings.folder, settings.results), planner, terms)
