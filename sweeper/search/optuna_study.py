"""The Optuna study: what is remembered of a search.

One ask-and-tell loop serves the grid and the model-based searches. Grid points are enumerated by us and
begun one by one: Optuna's GridSampler stops its study from inside ``tell``, which raises outside ``optimize``
(seen with Optuna 5.0). Which point a search tries next is worked out in ``proposer``. Only the driver opens
the study; workers never do. Where it is kept is ``database``.

The result store is the truth about what was measured. A study that lost its last moments to a kill is
brought up to date from the store: its running trials are closed as interrupted, and what the store
knows is reported to it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweeper.errors import ConfigError
from sweeper.kinds import SEARCH_METHODS
from sweeper.records import Assignment, Constraint, Objective, Scalar, content_key
from sweeper.records.plurals import amount
from sweeper.search import dashboard, database
from sweeper.search.distributions import distributions, from_optuna, to_optuna
from sweeper.search.prior import Estimate
from sweeper.search.proposer import CUT_OFF, IS_START, Proposer
from sweeper.search.samplers import LEARNING
from sweeper.search.starts import starting_points
from sweeper.search.trial_rows import TrialRows, is_acceptable
from sweeper.space.space import Point, Space

_STARTS_QUEUED = "sweeper:starts_queued"
_TERMS = "sweeper:terms:"

_HELD_BACK_S = 1.0
"""A study that learns nothing from its past is this far behind its trials at most. What a kill loses of it is
reported to it again from the results, as are those of a study that was moved without its database."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A point that the search wants to be measured; ``number`` is its trial in the study."""

    number: int
    point: Point


@dataclass(frozen=True, kw_only=True)
class Hints:
    """What a method that learns may know before its first trial.

    Attributes:
        defaults: The engine's own values of knobs, tried first; None leaves out all first trials.
        starts: Choices to be tried next, such as the published best; what they leave open is as in the
            defaults.
        estimate: What the simulated platform expects of a point; its best is tried after those. None where
            it has nothing to say.
        revision: Changes whenever the estimate has learned from a trial, so that points are ranked anew.
        stages: Knobs of each stage of a staged search; empty takes the usual ones.
        trials: The budget, which a staged search shares out.
    """

    defaults: Assignment | None = None
    starts: tuple[Mapping[str, Scalar], ...] = ()
    estimate: Estimate | None = None
    revision: Callable[[], int] = int
    stages: tuple[tuple[str, ...], ...] = ()
    trials: int | None = None


class Search:
    """One Optuna study, driven by ask and tell."""

    def __init__(
        self,
        *,
        storage: str,
        name: str,
        space: Space,
        objectives: Sequence[Objective],
        method: str,
        seed: int,
        constraints: Sequence[Constraint] = (),
        hints: Hints | None = None,
        artifacts: Path | None = None,
    ) -> None:
        """Open or create the study.

        Args:
            storage: An SQLAlchemy URL, such as ``sqlite:///outputs/optuna.db``.
            name: The study's name.
            hints: For methods that learn; the others take none.
            artifacts: Folder of the files that the dashboard shows next to trials; None keeps none.

        Raises:
            ConfigError: The stored study has other objectives, constraints, rules, or another space.
            StoreError: The storage cannot be opened, or another driver works on the study there.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        self._storage = storage
        self._space = space
        self._artifacts = artifacts
        # Choices of the finished trials, read when first asked for; and of those begun since, by number.
        self._finished: set[Any] | None = None
        self._begun: dict[int, str] = {}
        self._method = method
        self._distributions = distributions(space)
        backend = database.open_storage(storage)
        terms = _terms_of(space, constraints)
        hints = hints or Hints()
        held_back_s = _HELD_BACK_S if SEARCH_METHODS[method].is_exhaustive else 0.0
        self._ownership = database.Ownership(backend, name)
        try:
            with database.answering(storage):
                with database.readable(storage):
                    self._study = _open(backend, name, objectives, method, terms)
                    self._rows = TrialRows(backend, self._study._study_id, holds_back_s=held_back_s)
                    self._close_interrupted()
                self._proposer = Proposer(
                    space=space,
                    directions=self._study.directions,
                    method=method,
                    seed=seed,
                    skip=len(self._trials()),
                    trials=hints.trials,
                    stage_knobs=hints.stages,
                    estimate=hints.estimate,
                    revision=hints.revision,
                )
                if method in LEARNING:
                    self._queue_starts(hints)
        except BaseException:
            self._ownership.release()
            raise

    def close(self) -> None:
        """Close the study and its database; safe to call twice.

        Raises:
            StoreError: The database does not answer; what it does not hold yet is reported to it by the next
                start.
        """
        try:
            with database.answering(self._storage):
                self._rows.write()
        finally:
            self._ownership.release()

    def tick(self) -> None:
        """Write what has waited for long enough to be written."""
        with database.answering(self._storage):
            self._rows.write_if_due()

    def ask(self, *, held: Assignment | None = None) -> Candidate | None:
        """Propose a point that is neither measured nor running; it is remembered as running.

        Args:
            held: Choices that it has to have, where it is not one that waits already.

        Returns:
            The point; None when the space has none left.
        """
        with database.answering(self._storage):
            trials = self._trials()
            waiting = _waiting(trials)
            if waiting:
                return self._begin_waiting(waiting[0])
            proposal = self._proposer.propose(trials, held=held)
            return None if proposal is None else self._begin(proposal.point, notes=proposal.notes)

    def begin_those(self, is_wanted: Callable[[Point], bool]) -> list[Candidate]:
        """Remember as running those of the points that wait in the study that are wanted now."""
        with database.answering(self._storage):
            return [
                self._begin_waiting(trial)
                for trial in _waiting(self._trials())
                if is_wanted(self._space.point(from_optuna(_params(trial))))
            ]

    def begin(self, point: Point) -> Candidate:
        """Remember a point of our own choosing, one of a grid, as running."""
        with database.answering(self._storage):
            return self._begin(point)

    def has(self, point: Point) -> bool:
        """Return whether the study holds a finished trial of this point, whatever became of it."""
        if self._finished is None:
            states = (TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED)
            with database.answering(self._storage):
                trials = [trial for trial in self._trials() if trial.state in states]
            told = (trial.user_attrs for trial in trials if not trial.user_attrs.get(CUT_OFF))
            self._finished = {attributes.get("choices") for attributes in told}
        return _mark(point)["choices"] in self._finished

    def tell(
        self,
        number: int,
        values: Sequence[float] | None,
        attributes: Mapping[str, Any],
        *,
        violated: Mapping[str, float] | None = None,
    ) -> None:
        """Remember what became of a candidate.

        What was cut off is proposed again, unless it is one of a grid, which enumerates its own.

        Args:
            number: The candidate's number.
            values: One value per objective; None says that the trial failed.
            attributes: What the dashboard shows next to it; plain numbers can be sorted there.
            violated: How far each constraint is broken; 0 or less keeps it. Without values it says that the
                candidate was never a point of the space, which is no failure.
        """
        is_told = values is not None and is_acceptable(values)
        with database.answering(self._storage):
            if attributes.get(CUT_OFF) and not SEARCH_METHODS[self._method].is_exhaustive:
                self._repeat(self._study._storage.get_trial(self._rows.trial_id(number)))
            if is_told:
                state = TrialState.COMPLETE
            else:
                state = TrialState.PRUNED if violated and values is None else TrialState.FAIL
            self._rows.end(
                number,
                state,
                values=values if is_told else None,
                user_attrs=_told(attributes),
                # The attribute by which samplers and dashboard both know them: Trial.set_constraint (Optuna
                # 5.0) writes others, which optuna-dashboard 0.21 does not read.
                system_attrs={"constraints": list(violated.values())} if violated else {},
            )
        self._note_end(number, attributes)

    def attach(self, number: int, file: Path) -> None:
        """Show a file next to a candidate in the dashboard; only before its outcome is reported."""
        if self._artifacts is None:
            return
        with database.answering(self._storage):
            storage = self._study._storage
            trial = storage.get_trial(self._rows.trial_id(number))
            dashboard.attach(trial, [file], storage=storage, folder=self._artifacts)

    def prune(self, number: int, value: float | None, attributes: Mapping[str, Any]) -> None:
        """Remember a candidate whose trial was stopped early.

        Args:
            number: The candidate's number.
            value: The one objective over what was measured, which samplers learn from; None reports nothing.
            attributes: As in ``tell``.
        """
        with database.answering(self._storage):
            # Optuna takes what was reported last for the value of a trial that was stopped.
            last = None if value is None or not is_acceptable([value]) else [value]
            self._rows.end(
                number,
                TrialState.PRUNED,
                values=last,
                so_far=value,
                user_attrs=_told(attributes),
                system_attrs={},
            )
        self._note_end(number, attributes)

    def points(self) -> dict[str, Point]:
        """Return the point of each complete trial by its key, whichever run of the driver asked for it."""
        with database.answering(self._storage):
            trials = [trial for trial in self._trials() if trial.state is TrialState.COMPLETE]
        return {
            str(trial.user_attrs["key"]): self._space.point(from_optuna(trial.params))
            for trial in trials
            if "key" in trial.user_attrs
        }

    def counts(self) -> dict[str, int]:
        """Count the study's trials by their state."""
        trials = self._trials()
        return {state.name.lower(): sum(t.state is state for t in trials) for state in TrialState}

    def note(self, markdown: str) -> None:
        """Write the note that the dashboard shows on the study's page."""
        from optuna_dashboard import save_note

        with database.answering(self._storage):
            save_note(self._study, markdown)

    def _trials(self) -> list[FrozenTrial]:
        self._rows.write()
        return self._study.get_trials(deepcopy=False)

    def _queue_starts(self, hints: Hints) -> None:
        """Queue the first trials in the study, so that a kill does not lose them."""
        storage, study_id = self._study._storage, self._study._study_id
        if hints.defaults is None or _STARTS_QUEUED in storage.get_study_system_attrs(study_id):
            return
        # A kill may have come in the midst of this, so those that are there are not added again.
        known = {trial.user_attrs.get("choices") for trial in self._trials()}
        points = starting_points(
            self._space,
            defaults=hints.defaults,
            given=hints.starts,
            ranking=lambda: self._proposer.ranking,
            pool=lambda: self._proposer.pool,
        )
        for point in points:
            if _mark(point)["choices"] not in known:
                marks = {**_mark(point), IS_START: True}
                self._study.enqueue_trial(to_optuna(point.choices), user_attrs=marks)
        storage.set_study_system_attr(study_id, _STARTS_QUEUED, True)

    def _begin(self, point: Point, *, notes: Mapping[str, Any] | None = None) -> Candidate:
        """Add a running trial of this point; knobs that are not in the space there are not in the trial."""
        params = to_optuna(point.choices)
        number = self._rows.begin(
            params, self._distributions, user_attrs=_mark(point), system_attrs=dict(notes or {})
        )
        self._begun[number] = _mark(point)["choices"]
        return Candidate(number=number, point=point)

    def _begin_waiting(self, waiting: FrozenTrial) -> Candidate:
        # Not by Study.ask, which first lets the trial run and then gives it its knobs one by one: a kill
        # between the two would leave a trial of other knobs.
        storage, params = self._study._storage, _params(waiting)
        for name, value in params.items():
            distribution = self._distributions[name]
            stored = distribution.to_internal_repr(value)
            storage.set_trial_param(waiting._trial_id, name, stored, distribution)
        storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING)
        point = self._space.point(from_optuna(params))
        self._begun[waiting.number] = _mark(point)["choices"]
        return Candidate(number=waiting.number, point=point)

    def _note_end(self, number: int, attributes: Mapping[str, Any]) -> None:
        choices = self._begun.pop(number, None)
        if self._finished is not None and choices is not None and not attributes.get(CUT_OFF):
            self._finished.add(choices)

    def _close_interrupted(self) -> None:
        reason = "interrupted: the driver ended before the trial"
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self.tell(trial.number, None, {"fail_reason": reason, CUT_OFF: True})

    def _repeat(self, trial: FrozenTrial) -> None:
        """Queue the point of a trial that was cut off, to be proposed again.

        This comes before the trial is closed: a kill between the two leaves a trial to be closed again, and
        a point that waits already does not wait twice.
        """
        point = self._space.point(from_optuna(_params(trial)))
        marks = {name: trial.user_attrs[name] for name in (IS_START,) if name in trial.user_attrs}
        if not any(_is_of(waiting, point) for waiting in _waiting(self._trials())):
            self._study.enqueue_trial(to_optuna(point.choices), user_attrs={**_mark(point), **marks})


def refuse_other_terms(
    *,
    storage: str,
    name: str,
    space: Space,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    method: str,
    keys_of: Callable[[Point], Collection[str]],
) -> None:
    """Refuse to go on with a study that has begun as another one; nothing is written.

    Args:
        storage: An SQLAlchemy URL.
        name: The study's name.
        keys_of: Returns the keys that a trial of a point can have now. A grid measures anew what has another
            one; a search takes what its study remembers for measured.

    Raises:
        ConfigError: The stored study has other objectives, constraints, rules, or another space, or is a
            search none of whose trials would be measured like this now.
        StoreError: The storage cannot be opened or read.
    """
    backend = database.open_stored(storage)
    if backend is None:
        return
    try:
        with database.answering(storage), database.readable(storage), _quiet():
            if any(found.study_name == name for found in backend.get_all_studies()):
                study = optuna.load_study(study_name=name, storage=backend, sampler=_unused_sampler())
                _refuse_changed(study, objectives, method, _terms_of(space, constraints))
                if not SEARCH_METHODS[method].is_exhaustive:
                    _refuse_other_keys(study, space, keys_of)
    finally:
        database.engine_of(backend).dispose()


def storage_url(outputs: Path) -> str:
    """The default storage: one SQLite file for all studies, as ``optuna-dashboard`` opens it."""
    return database.file_url(outputs / "optuna.db")


@dataclass(frozen=True, kw_only=True)
class _Terms:
    """The terms under which a study's trials were reported; kept in it, out of the dashboard's sight."""

    space: str
    bounds: list[str]
    rules: list[str]


def _terms_of(space: Space, constraints: Sequence[Constraint]) -> _Terms:
    domains = {name: repr(found) for name, found in sorted(distributions(space).items())}
    conditions = {name: rule.text for name, rule in sorted(space.conditions.items())}
    return _Terms(
        space=content_key({**domains, **({"when": conditions} if conditions else {})}),
        bounds=[constraint.name for constraint in constraints],
        rules=sorted(rule.text for rule in space.rules),
    )


def _open(
    backend: optuna.storages.BaseStorage,
    name: str,
    objectives: Sequence[Objective],
    method: str,
    terms: _Terms,
) -> optuna.Study:
    directions = _directions(objectives)
    with _quiet():
        study = optuna.create_study(
            storage=backend,
            study_name=name,
            sampler=_unused_sampler(),
            directions=directions,
            load_if_exists=True,
        )
        # load_if_exists keeps the old directions without a word, so they are compared here.
        _refuse_changed(study, objectives, method, terms)
        if _stored_terms(study).get("space", terms.space) != terms.space:
            # What learns nothing from its past is made anew, and the store, which holds every measurement
            # under the hash of its content, shows it what is done.
            optuna.delete_study(study_name=name, storage=backend)
            study = optuna.create_study(
                storage=backend, study_name=name, sampler=_unused_sampler(), directions=directions
            )
        study.set_metric_names([objective.name for objective in objectives])
        for term, value in asdict(terms).items():
            backend.set_study_system_attr(study._study_id, f"{_TERMS}{term}", value)
    return study


def _refuse_changed(study: optuna.Study, objectives: Sequence[Objective], method: str, terms: _Terms) -> None:
    """Refuse to go on with a study that was started under terms that its method cannot join with these."""
    name, names = study.study_name, [objective.name for objective in objectives]
    is_known = study.metric_names is not None
    if study.directions != _directions(objectives) or (is_known and study.metric_names != names):
        raise ConfigError(
            f"study '{name}': it was started with the objectives {study.metric_names}, "
            f"now they are {names}. Give the new question a name of its own with study.name=..."
        )
    stored = _stored_terms(study)
    if study.trials:
        # A study from before there were any has none.
        _refuse_other(name, "constraints", stored.get("bounds", []), terms.bounds)
        if method in LEARNING:
            _refuse_other(name, "space.rules", stored.get("rules", []), terms.rules)
    if method in LEARNING and stored.get("space", terms.space) != terms.space:
        raise ConfigError(
            f"study '{name}': it was started with another space of knobs, and a search cannot learn from "
            "both. Give the new space a name of its own with study.name=..."
        )


def _refuse_other_keys(
    study: optuna.Study, space: Space, keys_of: Callable[[Point], Collection[str]]
) -> None:
    """Refuse a study that measured points of this space, and each of them otherwise than it would be now."""
    known = distributions(space)
    told = [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        # Of another space, which a method that learns refuses, nothing is taken over.
        if "key" in trial.user_attrs and trial.params.keys() <= known.keys()
    ]
    if told and not any(
        trial.user_attrs["key"] in keys_of(space.point(from_optuna(trial.params))) for trial in told
    ):
        raise ConfigError(
            f"study '{study.study_name}': it measured {amount(len(told), 'trial')}, none of them as its "
            "settings are measured now: other fixed knobs, another release or image of the engine, "
            "other repeats, warm-up, client or calibration. A search takes them for the answer, so expected "
            "what it was started with. Set that again, or give the new question a name of its own with "
            "study.name=..."
        )


def _directions(objectives: Sequence[Objective]) -> list[StudyDirection]:
    return [StudyDirection[objective.direction.upper()] for objective in objectives]


def _stored_terms(study: optuna.Study) -> dict[str, Any]:
    """Return the terms that a study keeps, by their name."""
    kept = study._storage.get_study_system_attrs(study._study_id)
    return {key.removeprefix(_TERMS): value for key, value in kept.items() if key.startswith(_TERMS)}


def _refuse_other(name: str, what: str, stored: list[str], wanted: list[str]) -> None:
    """Refuse to go on under terms other than those under which the study's trials were reported."""
    if stored != wanted:
        raise ConfigError(
            f"study '{name}': it was started with the {what} {stored or 'none'}, now they are "
            f"{wanted or 'none'}. Give the new question a name of its own with study.name=..."
        )


def _unused_sampler() -> optuna.samplers.BaseSampler:
    """Return a sampler for the stored study that never chooses: all its trials come with their values."""
    return optuna.samplers.RandomSampler(seed=0)


def _mark(point: Point) -> dict[str, Any]:
    """Return the attribute by which a point is found again."""
    return {"choices": content_key(dict(point.choices))}


def _is_of(trial: FrozenTrial, point: Point) -> bool:
    return bool(trial.user_attrs.get("choices") == _mark(point)["choices"])


def _waiting(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state is TrialState.WAITING]


def _params(trial: FrozenTrial) -> dict[str, Any]:
    """Return a trial's knobs; one that waited was given them whole before it had them one by one."""
    return dict(trial.system_attrs.get("fixed_params", trial.params))


def _told(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes that say something."""
    return {name: _plain(value) for name, value in attributes.items() if value is not None}


def _plain(value: Any) -> Any:
    """Make a value that JSON and the dashboard take: numpy's whole numbers raise there."""
    if hasattr(value, "item"):
        return value.item()
    if isinstance(value, Mapping):
        return json.loads(json.dumps(value, default=str))
    return value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Optuna's notices about experimental calls that this module relies on by choice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=optuna.exceptions.ExperimentalWarning)
        yield
