"""Which point is measured next, worked out from the trials of a study and nothing else.

Optuna's samplers are asked in a copy of the study that lives in memory. There a proposal that is not wanted
costs nothing: one that was run, is running, breaks a rule or is held back by a lesson is asked again, and at
last replaced by the free point nearest to it. So the study itself holds only what was really to be measured.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
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
        self._looked_at = _LookedAt(space, self._signs)

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
        past = _Past(self._looked_at, trials)
        if SEARCH_METHODS[self._method].asks_the_model:
            point = self._guided(past, held or {})
            return None if point is None else Proposal(point=point, notes={})
        if SEARCH_METHODS[self._method].has_stages:
            return self._staged(past)
        return self._sampled(past, trials=past.telling, held=held)

    def _staged(self, past: _Past) -> Proposal | None:
        known = [
            stages.Past(choices=point.choices, value=None if values is None else values[0])
            for point, values in zip(past.points, past.values, strict=True)
        ]
        for stage in stages.current(self._stages, known, starts=past.starts, trials=self._trials):
            own = [
                trial
                for point, trial in zip(past.points, past.trials, strict=True)
                if trial.state in _TELLING and stage.has(point.choices)
            ]
            found = self._sampled(past, trials=own, held=stage.held)
            if found is not None:
                return found
        return self._sampled(past, trials=past.telling)

    def _sampled(
        self,
        past: _Past,
        *,
        trials: Sequence[FrozenTrial],
        held: Assignment | None = None,
    ) -> Proposal | None:
        """Ask the sampler, in a copy of the study, until it names a free point.

        Args:
            trials: What the sampler may learn from.
            held: Choices that it may not make; all others are its own, those of knobs too that are in the
                space only with what it chooses.
        """
        kept = held or {}
        wanted = {name: one for name, one in self._distributions.items() if name not in kept}
        with quiet():
            study = lending(trials, self._directions, self._sampler)
            for _ in range(_ASKS):
                asked = study.ask(fixed_distributions=wanted)
                point = self._space.point({**kept, **from_optuna(asked.params)})
                if self._is_free(point, past):
                    notes = study._storage.get_trial(asked._trial_id).system_attrs
                    return Proposal(point=point, notes=notes)
                study.tell(asked, state=TrialState.FAIL)
        others = [self._space.point({**p.choices, **kept}) for p in self.pool]
        others += candidates.neighbours(self._space, point) if held is None else ()
        nearest = self._nearest(point, [p for p in others if self._is_free(p, past)])
        if nearest is None and not self.pool and identity(point) not in past.taken:
            nearest = point
        return None if nearest is None else Proposal(point=nearest, notes={})

    def _guided(self, past: _Past, held: Assignment) -> Point | None:
        known = [
            (values[0], point)
            for point, values in zip(past.points, past.values, strict=True)
            if values is not None
        ]
        best = sorted(known, key=lambda one: -one[0])[:_BEST_WITH_NEIGHBOURS]
        near = [p for _, point in best for p in candidates.neighbours(self._space, point)]
        free = {
            identity(p): p
            for p in (*self.pool, *near)
            if held.items() <= p.choices.items() and self._is_free(p, past)
        }
        if not free:
            found = self._sampled(past, trials=()) if not self.pool and not held else None
            return None if found is None else found.point
        seen = [
            guided.Seen(point=point, values=values, is_running=trial.state is TrialState.RUNNING)
            for point, values, trial in zip(past.points, past.values, past.trials, strict=True)
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


@dataclass(frozen=True, kw_only=True)
class _Look:
    """What is read from a trial.

    Attributes:
        values: Larger is better; None where it has none or broke a bound.
    """

    trial: FrozenTrial
    point: Point
    identity: str
    values: tuple[float, ...] | None


class _LookedAt:
    """Reads trials, the finished ones once: they never change, and each proposal looks at all of them."""

    def __init__(self, space: Space, signs: Iterable[float]) -> None:
        self._space = space
        self._signs = tuple(signs)
        # By the object: it is kept, so that no other has its number.
        self._finished: dict[int, _Look] = {}

    def look(self, trial: FrozenTrial) -> _Look:
        """Return what is read from a trial that has begun."""
        known = self._finished.get(id(trial))
        if known is not None:
            return known
        point = self._space.point(from_optuna(trial.params))
        found = _Look(trial=trial, point=point, identity=identity(point), values=self._values(trial))
        if trial.state.is_finished():
            self._finished[id(trial)] = found
        return found

    def waiting(self, trial: FrozenTrial) -> str:
        """Return the identity of the point of a trial that waits."""
        return identity(self._space.point(from_optuna(trial.system_attrs.get("fixed_params", {}))))

    def _values(self, trial: FrozenTrial) -> tuple[float, ...] | None:
        if trial.state is not TrialState.COMPLETE or any(v > 0 for v in trial.constraints.values()):
            return None
        return tuple(float(value * sign) for value, sign in zip(trial.values, self._signs, strict=True))


class _Past:
    """The trials of a study, and what follows from them for the next one."""

    def __init__(self, looked_at: _LookedAt, trials: Sequence[FrozenTrial]) -> None:
        begun = [trial for trial in trials if trial.state is not TrialState.WAITING]
        told = [looked_at.look(trial) for trial in begun if not trial.user_attrs.get(CUT_OFF)]
        self.starts = sum(bool(look.trial.user_attrs.get(IS_START)) for look in told)
        # What failed and was tried again says nothing more: its cause may be mended.
        last = {look.identity: look for look in told}
        looks = [
            look for look in told if look.trial.state is not TrialState.FAIL or last[look.identity] is look
        ]
        self.trials = [look.trial for look in looks]
        self.points = [look.point for look in looks]
        self.values = [look.values for look in looks]
        self.telling = [trial for trial in self.trials if trial.state in _TELLING]
        waiting = [looked_at.waiting(trial) for trial in trials if trial.state is TrialState.WAITING]
        self.taken = {*(look.identity for look in looks), *waiting}
        self.out_of_memory = [
            point.assignment
            for point, trial in zip(self.points, self.trials, strict=True)
            if out_of_memory.is_out_of_memory(trial.user_attrs)
        ]


def lending(
    trials: Sequence[FrozenTrial],
    directions: Sequence[StudyDirection],
    sampler: optuna.samplers.BaseSampler,
) -> optuna.Study:
    """Return a study in memory whose sampler sees the trials of another one; what it draws stays there."""
    return optuna.create_study(storage=_Lent(trials), sampler=sampler, directions=list(directions))


class _Lent(optuna.storages.InMemoryStorage):
    """A study in memory that begins with the trials of another one, without copying what they hold.

    They are shown and never changed. Its own trials are numbered after them; the lent ones' ids are below 0,
    where ``InMemoryStorage`` has none (Optuna 5.0).
    """

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._lent = [copy.copy(trial) for trial in trials]
        for number, lent in enumerate(self._lent):
            lent.number, lent._trial_id = number, -1 - number

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the trials of the other study and its own."""
        lent = [trial for trial in self._lent if states is None or trial.state in states]
        own = super().get_all_trials(study_id, deepcopy=deepcopy, states=states)
        return [*(copy.deepcopy(lent) if deepcopy else lent), *map(self._numbered, own)]

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return one of its own trials."""
        return self._numbered(super().get_trial(trial_id))

    def get_trial_number_from_id(self, trial_id: int) -> int:
        """Return the number of one of its own trials."""
        return self.get_trial(trial_id).number

    def _numbered(self, own: FrozenTrial) -> FrozenTrial:
        numbered = copy.copy(own)
        numbered.number += len(self._lent)
        return numbered


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
