"""When a search asks for a neighbour of a running engine: a setting that costs a load and no start.

A search that only followed what is cheap would never leave its first start, and one that never does so pays
for a start with every trial. So each start is used until its trials took as long as it did: then about half
of the time goes into starts at most, as long as it has so many neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from sweeper.knobs.live import LIVE_KNOBS
from sweeper.plan.planner import Job
from sweeper.records import Assignment
from sweeper.schedule.durations import Predictor


@dataclass(kw_only=True)
class _Start:
    rest: Assignment
    trials: int = 0
    worth: int = 1


class Neighbours:
    """The starts that trials of a search shared, and how many more trials each is good for."""

    def __init__(self, predictor: Predictor) -> None:
        """Begin without any; ``predictor`` tells what starts and loads take."""
        self._predictor = predictor
        self._starts: dict[str, _Start] = {}

    def note(self, job: Job) -> None:
        """Note a trial that is to run; one on a start of its own has no neighbours."""
        if job.spec.start_key is None or not job.points:
            return
        choices = job.points[0].choices
        rest = {name: value for name, value in choices.items() if name not in LIVE_KNOBS}
        start = self._starts.setdefault(job.spec.start_key, _Start(rest=rest))
        start.trials += 1
        found = self._predictor.predict(job.spec)
        start.worth = max(start.worth, 1 + math.ceil(found.start_s / max(found.load_s, 1e-9)))

    def held(self, idle: Iterable[str]) -> Assignment | None:
        """Return what the next proposal has to keep; None where a start would be made as well.

        Args:
            idle: Starts that wait for a trial, by key.
        """
        known = (self._starts[key] for key in idle if key in self._starts)
        return next((start.rest for start in known if start.trials < start.worth), None)

    def exhaust(self, rest: Assignment) -> None:
        """Note that no neighbour is left of the starts that share this."""
        for start in self._starts.values():
            if start.rest == rest:
                start.worth = 0
