"""The final rounds of a study: its finalists and its default, measured again once all else is done."""

from __future__ import annotations

from sweeper.plan import finalists
from sweeper.plan.planner import Job, Planner
from sweeper.sweep.ledger import Ledger
from sweeper.sweep.sources import Source


class Finals:
    """Rounds of engine starts; who the finalists are is settled when the first round is asked for."""

    def __init__(self, planner: Planner, ledger: Ledger, source: Source) -> None:
        """Store the parts; nothing is planned yet."""
        self._planner = planner
        self._ledger = ledger
        self._source = source
        self._rounds: list[list[Job]] | None = None

    def next_round(self) -> list[Job]:
        """Return the engine starts of the next round that the store does not hold; none when all are over."""
        if self._rounds is None:
            self._rounds = self._plan()
        while self._rounds:
            starts = [job for job in self._rounds.pop(0) if self._ledger.includes(job)]
            if starts:
                return [self._ledger.next_attempt(job) for job in starts]
        return []

    def _plan(self) -> list[list[Job]]:
        terms = self._ledger.terms
        endings = terms.endings
        # A setting may have been measured in two ways, which are two trials.
        keys = self._ledger.progress.best(2 * endings.finalists)
        if not keys:
            return []
        best = finalists.settings_of(keys, self._source.jobs())[: endings.finalists]
        return finalists.rounds(best, self._planner.default(), repeats=endings.final_repeats, seed=terms.seed)
