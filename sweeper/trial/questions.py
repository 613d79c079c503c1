"""The questions that a trial's first start is asked before its loads, and whether they settle the trial."""

from __future__ import annotations

from sweeper.clients import accuracy
from sweeper.engines import Cancelled, Server
from sweeper.goals import pruner
from sweeper.trial.record import TrialRecord


def ask(record: TrialRecord, server: Server, *, restart: int, cancelled: Cancelled) -> str | None:
    """Ask them, and keep the score in the record.

    Args:
        record: Of the trial; without questions nothing is asked.
        server: Its engine.
        restart: Which start it is; all are of one setting, so only the first is asked.
        cancelled: Polled; true ends the asking.

    Returns:
        Why the trial need not be loaded, where it may be stopped early and breaks a bound; else None.

    Raises:
        EngineError: Cancelled, past the limit, or the engine died.
        MeasurementError: There is no score.
    """
    if record.spec.accuracy is None or restart > 0:
        return None
    record.begin("answers questions")
    record.accuracy = accuracy.score(record.spec, server, cancelled=cancelled)
    rule = record.spec.stop_rule
    return None if rule is None else pruner.broken_before(rule, record.accuracy)
