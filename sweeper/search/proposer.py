"""Which point is measured next, worked out from the trials of a study and nothing else.

Optuna's samplers are asked in a copy of the study that lives in memory. There a proposal that is not wanted
costs nothing: one that was run, is running, breaks a rule or is held back by a lesson is asked again, and at
last replaced by the free point nearest to it. So the study itself holds only what was really to be measured.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweeper.kinds import SEARCH_METHODS
from sweeper.records import Assignment
from sweeper.search import candidates, guided, out_of_memory, stages
from sweeper.search.candidates import Geometry, identity
from sweeper.search.distributions import distributions, from_optuna
from sweeper.search.prior import Estimate, Ranking
from sweeper.search.samplers import sampler
from sweeper.space.space import Point, Space

CUT_OFF = "interrupted"
"""Attribute of a trial that was cut off: it says nothing, and its point is free again."""

IS_START = "is_start"
"""Attribute of the first trials, which are given and no method's choice."""

_ASKS = 10
_BEST_WITH_NEIGHBOURS = 3
_TELLING = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A point to be measured, and what its sampler wants to be remembered with it."""

    point: Point
    notes: Mapping[str, Any]


class Proposer:
    """Proposes the points of one study."""

    def __init__(
        self,
        *,
        space: Space,
        directions: Sequence[StudyDirection],
        method: str,
        seed: int,
        skip: int = 0,
        trials: int | None = None,
        stage_knobs: Sequence[Sequence[str]] = (),
        estimate: Estimate | None = None,
        revision: Callable[[], int] = int,
    ) -> None:
        """Prepare a method; nothing is ranked or proposed yet.

        Args:
            seed: Of everything that is drawn.
            skip: Trials that the study has already: a search that goes on must not draw again what it drew.
            trials: The budget, which a staged search shares out.
            stage_knobs: Stages of a staged search; empty takes the usual ones.
            estimate: What the simulated platform expects; only ``guided`` asks it.
            revision: Changes whenever the estimate has learned.
        """
        self._space = space
        self._directions = list(directions)
        self._signs = np.array([1.0 if d is StudyDirection.MAXIMIZE else -1.0 for d in directions])
        self._method = method
        self._distributions = distributions(space)
        self._rng = np.random.default_rng([seed, skip])
        self._sampler = sampler(method, seed=int(self._rng.integers(2**31)))
        self._pool_seed = seed
        self._trials = trials
        self._stages = stages.stages_of(space, stage_knobs)
        self._estimate = estimate
        self._revision = revision
        self._ranked: tuple[int, Ranking] | None = None
        self._geometry = Geometry.of(space)

    @cached_property
    def pool(self) -> list[Point]:
        """The valid points of the space, or a sample of them; the same for every start of a study."""
        return candidates.pool(self._space, np.random.default_rng([self._pool_seed]))

    @property
    def ranking(self) -> Ranking | None:
        """The simulated platform's ranking, made when it is needed and anew once a trial has taught it."""
        if self._estimate is None:
            return None
        revision = self._revision()
        if self._ranked is None or self._ranked[0] != revision:
            self._ranked = revision, Ranking(self._estimate, self.pool)
        return self._ranked[1]

    def propose(self, trials: Sequence[FrozenTrial], *, held: Assignment | None = None) -> Proposal | None:
        """Propose a point, given all trials of the study; None when no point is left.

        Args:
            trials: Of the study.
            held: Choices that the point has to have; a staged search, which holds its own, heeds none.

        A space without a single valid point proposes its invalid ones, so that the user learns what refuses
        them.
        """
        past = _Past(self._space, trials)
        if SEARCH_METHODS[self._method].asks_the_model:
            point = self._guided(past, held or {})
            return None if point is None else Proposal(point=point, notes={})
        if SEARCH_METHODS[self._method].has_stages:
            return self._staged(past)
        free = None if held is None else frozenset(self._distributions) - frozenset(held)
        return self._sampled(past, trials=past.telling, free=free, held=held)

    def _staged(self, past: _Past) -> Proposal | None:
        known = [
            stages.Past(choices=point.choices, value=self._value(trial))
            for point, trial in zip(past.points, past.trials, strict=True)
        ]
        starts = sum(bool(trial.user_attrs.get(IS_START)) for trial in past.trials)
        for stage in stages.current(self._stages, known, starts=starts, trials=self._trials):
            own = [t for t in past.telling if stage.has(self._point(t).choices)]
            found = self._sampled(past, trials=own, free=stage.free, held=stage.held)
            if found is not None:
                return found
        return self._sampled(past, trials=past.telling)

    def _sampled(
        self,
        past: _Past,
        *,
        trials: Sequence[FrozenTrial],
        free: frozenset[str] | None = None,
        held: Assignment | None = None,
    ) -> Proposal | None:
        """Ask the sampler, in a copy of the study, until it names a free point.

        Args:
            trials: What the sampler may learn from.
            free: Coordinates that it may choose; None is all.
            held: Values of the others.
        """
        kept = held or {}
        wanted = {n: d for n, d in self._distributions.items() if free is None or n in free}
        with quiet():
            copy = _copy(trials, self._directions, self._sampler)
            for _ in range(_ASKS):
                asked = copy.ask(fixed_distributions=wanted)
                point = self._space.point({**kept, **from_optuna(asked.params)})
                if self._is_free(point, past):
                    notes = copy._storage.get_trial(asked._trial_id).system_attrs
                    return Proposal(point=point, notes=notes)
                copy.tell(asked, state=TrialState.FAIL)
        others = [self._space.point({**p.choices, **kept}) for p in self.pool]
        others += candidates.neighbours(self._space, point) if free is None else ()
        nearest = self._nearest(point, [p for p in others if self._is_free(p, past)])
        if nearest is None and not self.pool and identity(point) not in past.taken:
            nearest = point
        return None if nearest is None else Proposal(point=nearest, notes={})

    def _guided(self, past: _Past, held: Assignment) -> Point | None:
        best = sorted(
            (t for t in past.telling if self._value(t) is not None), key=lambda t: -(self._value(t) or 0.0)
        )[:_BEST_WITH_NEIGHBOURS]
        near = [p for t in best for p in candidates.neighbours(self._space, self._point(t))]
        free = {
            identity(p): p
            for p in (*self.pool, *near)
            if held.items() <= p.choices.items() and self._is_free(p, past)
        }
        if not free:
            found = self._sampled(past, trials=()) if not self.pool and not held else None
            return None if found is None else found.point
        seen = [
            guided.Seen(point=point, values=self._values(trial), is_running=trial.state is TrialState.RUNNING)
            for point, trial in zip(past.points, past.trials, strict=True)
        ]
        points, ranking = list(free.values()), self.ranking
        return guided.choose(
            points,
            seen,
            geometry=self._geometry,
            scores=None if ranking is None else ranking.scores(points),
            seen_scores=None if ranking is None else ranking.scores([one.point for one in seen]),
            rng=self._rng,
        )

    def _is_free(self, point: Point, past: _Past) -> bool:
        return (
            identity(point) not in past.taken
            and candidates.is_valid(self._space, point)
            and not out_of_memory.is_doomed(point.assignment, past.out_of_memory)
        )

    def _nearest(self, wanted: Point, points: Sequence[Point]) -> Point | None:
        if not points:
            return None
        places = self._geometry.coordinates([wanted, *points])
        distances = self._geometry.distances(places[:1], places[1:]).sum(axis=0)[0]
        return points[int(self._rng.choice(np.flatnonzero(distances <= distances.min() + 1e-12)))]

    def _values(self, trial: FrozenTrial) -> tuple[float, ...] | None:
        """Return a trial's values, larger is better; None where it has none or broke a bound."""
        if trial.state is not TrialState.COMPLETE or any(v > 0 for v in trial.constraints.values()):
            return None
        return tuple(float(v) for v in np.array(trial.values) * self._signs)

    def _value(self, trial: FrozenTrial) -> float | None:
        """Return the value by which stages compare: with several objectives, the first one."""
        values = self._values(trial)
        return None if values is None else values[0]

    def _point(self, trial: FrozenTrial) -> Point:
        return self._space.point(from_optuna(trial.params))


class _Past:
    """The trials of a study, and what follows from them for the next one."""

    def __init__(self, space: Space, trials: Sequence[FrozenTrial]) -> None:
        begun = [trial for trial in trials if trial.state is not TrialState.WAITING]
        self.trials = [trial for trial in begun if not trial.user_attrs.get(CUT_OFF)]
        self.points = [space.point(from_optuna(trial.params)) for trial in self.trials]
        self.telling = [trial for trial in self.trials if trial.state in _TELLING]
        waiting = [
            space.point(from_optuna(trial.system_attrs.get("fixed_params", {})))
            for trial in trials
            if trial.state is TrialState.WAITING
        ]
        self.taken = {identity(point) for point in (*self.points, *waiting)}
        self.out_of_memory = [
            point.assignment
            for point, trial in zip(self.points, self.trials, strict=True)
            if out_of_memory.is_out_of_memory(trial.user_attrs)
        ]


def _copy(
    trials: Sequence[FrozenTrial],
    directions: Sequence[StudyDirection],
    sampler: optuna.samplers.BaseSampler,
) -> optuna.Study:
    copy = optuna.create_study(
        storage=optuna.storages.InMemoryStorage(), sampler=sampler, directions=list(directions)
    )
    for trial in trials:
        copy._storage.create_new_trial(copy._study_id, template_trial=trial)
    return copy


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence Optuna's notices about experimental calls, and about parameters that some trials lack."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=optuna.exceptions.ExperimentalWarning)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(level)
