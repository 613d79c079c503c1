"""The Optuna study: what is tried next, and what is remembered of it.

One ask-and-tell loop serves the grid and the model-based searches. Grid points are enumerated by us and
enqueued: Optuna's GridSampler stops its study from inside ``tell``, which raises outside ``optimize``
(seen with Optuna 5.0). Only the driver opens the study; workers never do. Where it is kept is ``database``.

The result store is the truth about what was measured. A study that lost its last moments to a kill is
brought up to date from the store: its running trials are closed as interrupted, and what the store
knows is told.
"""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection
from optuna.trial import TrialState

from sweeper import database
from sweeper.errors import ConfigError
from sweeper.records import Assignment, Objective, Scalar, content_key
from sweeper.space import Choice, Domain, Point, Space

_CUT_OFF = "interrupted"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A point that the search wants to be measured; ``number`` is its trial in the study."""

    number: int
    point: Point


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
        warm_start: Iterable[Point] = (),
    ) -> None:
        """Open or create the study.

        Args:
            storage: An SQLAlchemy URL, such as ``sqlite:///outputs/optuna.db``.
            name: The study's name.
            warm_start: Points that a model-based search tries first.

        Raises:
            ConfigError: The stored study has other objectives or another space.
            StoreError: The storage cannot be opened, or another driver works on the study there.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        self._storage = storage
        self._space = space
        self._method = method
        self._distributions = _distributions(space)
        backend = database.open_storage(storage)
        self._ownership = database.Ownership(backend, name)
        try:
            with database.answering(storage):
                self._study = _open(backend, name, objectives, _sampler(method, seed), self._fingerprint())
                self._close_interrupted()
                if method != "grid" and not self._study.get_trials(deepcopy=False):
                    for point in warm_start:
                        self._study.enqueue_trial(dict(point.choices))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the study and its database; safe to call twice."""
        self._ownership.release()

    def ask(self) -> Candidate:
        """Let the sampler propose a point; it is remembered as running."""
        with database.answering(self._storage):
            return self._ask()

    def begin(self, point: Point) -> Candidate:
        """Remember a point of our own choosing, one of a grid, as running."""
        with database.answering(self._storage):
            # Not skip_if_exists: that counts a failed trial as existing, and a retry would be lost.
            self._study.enqueue_trial(
                _to_optuna(point.choices), user_attrs={"choices": content_key(dict(point.choices))}
            )
            return self._ask()

    def has(self, point: Point) -> bool:
        """Tell whether the study holds a finished trial, complete or failed, of this point."""
        wanted = content_key(dict(point.choices))
        finished = (TrialState.COMPLETE, TrialState.FAIL)
        with database.answering(self._storage):
            trials = self._study.get_trials(deepcopy=False, states=finished)
        return any(t.user_attrs.get("choices") == wanted and not t.user_attrs.get(_CUT_OFF) for t in trials)

    def tell(self, number: int, values: Sequence[float] | None, attributes: Mapping[str, Any]) -> None:
        """Remember what became of a candidate.

        Args:
            number: The candidate's number.
            values: One value per objective; None says that the trial failed.
            attributes: What the dashboard shows beside it; plain numbers can be sorted there.
        """
        with database.answering(self._storage):
            storage, trial_id = self._study._storage, self._trial_id(number)
            for key, value in attributes.items():
                if value is not None:
                    storage.set_trial_user_attr(trial_id, key, _plain(value))
            if values is None:
                self._study.tell(number, state=TrialState.FAIL)
            else:
                self._study.tell(number, list(values))

    def counts(self) -> dict[str, int]:
        """Count the study's trials by their state."""
        trials = self._study.get_trials(deepcopy=False)
        return {state.name.lower(): sum(t.state is state for t in trials) for state in TrialState}

    def note(self, markdown: str) -> None:
        """Write the note that the dashboard shows on the study's page."""
        from optuna_dashboard import save_note

        with database.answering(self._storage):
            save_note(self._study, markdown)

    def _fingerprint(self) -> str:
        return content_key({name: repr(d) for name, d in sorted(self._distributions.items())})

    def _ask(self) -> Candidate:
        with _quiet():
            trial = self._study.ask(fixed_distributions=self._distributions)
        choices = _from_optuna(trial.params)
        return Candidate(number=trial.number, point=self._space.point(choices))

    def _close_interrupted(self) -> None:
        reason = "interrupted: the driver ended before the trial"
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self.tell(trial.number, None, {"fail_reason": reason, _CUT_OFF: True})
            if self._method != "grid":
                self._study.enqueue_trial(trial.params)

    def _trial_id(self, number: int) -> int:
        return self._study._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)


def storage_url(outputs: Path) -> str:
    """The default storage: one SQLite file for all studies, as ``optuna-dashboard`` opens it."""
    return f"sqlite:///{outputs / 'optuna.db'}"


def _open(
    backend: optuna.storages.BaseStorage,
    name: str,
    objectives: Sequence[Objective],
    sampler: optuna.samplers.BaseSampler,
    fingerprint: str,
) -> optuna.Study:
    directions = [StudyDirection[objective.direction.upper()] for objective in objectives]
    names = [objective.name for objective in objectives]
    with _quiet():
        study = optuna.create_study(
            storage=backend, study_name=name, sampler=sampler, directions=directions, load_if_exists=True
        )
        # load_if_exists keeps the old directions without a word, so they are compared here.
        if study.directions != directions or (study.metric_names is not None and study.metric_names != names):
            raise ConfigError(
                f"study '{name}': it was started with the objectives {study.metric_names}, "
                f"now they are {names}. Give the new question a name of its own with study.name=..."
            )
        stored = study.user_attrs.get("space")
        if stored is not None and stored != fingerprint:
            study = _replace_space(study, backend, name, sampler, directions)
        study.set_metric_names(names)
        study.set_user_attr("space", fingerprint)
    return study


def _replace_space(
    study: optuna.Study,
    backend: optuna.storages.BaseStorage,
    name: str,
    sampler: optuna.samplers.BaseSampler,
    directions: list[StudyDirection],
) -> optuna.Study:
    if not isinstance(sampler, optuna.samplers.RandomSampler) or study.user_attrs.get("method") == "tpe":
        raise ConfigError(
            f"study '{name}': it was started with another space of knobs, and a search cannot learn from "
            "both. Give the new space a name of its own with study.name=..."
        )
    # A grid learns nothing from its past: the study is made anew, and the store, which holds every
    # measurement under the hash of its content, tells it what is done.
    optuna.delete_study(study_name=name, storage=backend)
    return optuna.create_study(storage=backend, study_name=name, sampler=sampler, directions=directions)


def _sampler(method: str, seed: int) -> optuna.samplers.BaseSampler:
    if method == "tpe":
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    # The grid never samples; what it is given is fixed.
    return optuna.samplers.RandomSampler(seed=seed)


def _distributions(space: Space) -> dict[str, BaseDistribution]:
    found: dict[str, BaseDistribution] = {}
    if space.series:
        found["series"] = CategoricalDistribution([s.name for s in space.series])
    for name, domain in space.domains.items():
        found[name] = _distribution(domain)
    # A space of one point has nothing to suggest, and Optuna needs a parameter to show.
    return found or {"series": CategoricalDistribution(["only"])}


def _distribution(domain: Domain) -> BaseDistribution:
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.values)
    if domain.is_int:
        step = 1 if domain.step is None or domain.log else int(domain.step)
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log, step=step)
    return FloatDistribution(
        domain.low, domain.high, log=domain.log, step=None if domain.log else domain.step
    )


def _to_optuna(choices: Assignment) -> dict[str, Scalar]:
    return dict(choices) or {"series": "only"}


def _from_optuna(params: Mapping[str, Any]) -> dict[str, Scalar]:
    return {} if params == {"series": "only"} else dict(params)


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
