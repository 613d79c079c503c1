"""Trials written to Optuna's database whole: one transaction when a trial begins, one when it ends.

Through Optuna's own calls each attribute of a trial is a transaction, and a trial has a dozen: they took more
of a driver's time than all else it does for a short trial. What is written here, and how numbers, attributes
and distributions are put into columns, is what those calls write (``optuna.storages.RDBStorage`` 5.0, whose
tables its migrations keep); a test compares the two.

Only for the one driver that owns a study (``database.Ownership``): numbers are given out without a lock.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import TrialState

from sweeper.search import database

_TRIALS = models.TrialModel.__table__
_PARAMS = models.TrialParamModel.__table__
_VALUES = models.TrialValueModel.__table__
_SO_FAR = models.TrialIntermediateValueModel.__table__
_USER = models.TrialUserAttributeModel.__table__
_SYSTEM = models.TrialSystemAttributeModel.__table__


class TrialRows:
    """The rows of one study's trials."""

    def __init__(self, storage: optuna.storages.BaseStorage, study_id: int) -> None:
        """Write to a study in a database that ``database.open_storage`` opened."""
        self._engine = database.engine_of(storage)
        self._study_id = study_id
        self._ids: dict[int, int] = {}

    def begin(
        self,
        params: Mapping[str, Any],
        distributions: Mapping[str, BaseDistribution],
        *,
        user_attrs: Mapping[str, Any],
        system_attrs: Mapping[str, Any],
    ) -> int:
        """Add a running trial and return its number.

        Args:
            params: Values of its knobs, as Optuna takes them.
            distributions: Of each of these knobs.
            user_attrs: What the dashboard shows.
            system_attrs: What it does not.
        """
        last = sqlalchemy.select(_TRIALS.c.number).where(_TRIALS.c.study_id == self._study_id)
        last = last.order_by(_TRIALS.c.trial_id.desc()).limit(1)
        with self._engine.begin() as connection:
            before = connection.execute(last).scalar()
            number = 0 if before is None else int(before) + 1
            row = {
                "number": number,
                "study_id": self._study_id,
                "state": TrialState.RUNNING,
                "datetime_start": _now(),
            }
            added = connection.execute(sqlalchemy.insert(_TRIALS).values(row)).inserted_primary_key
            assert added is not None
            trial_id = int(added[0])
            _add(connection, _PARAMS, _params(trial_id, params, distributions))
            _add(connection, _USER, _attributes(trial_id, user_attrs))
            _add(connection, _SYSTEM, _attributes(trial_id, system_attrs))
        self._ids[number] = trial_id
        return number

    def end(
        self,
        number: int,
        state: TrialState,
        *,
        values: Sequence[float] | None,
        so_far: float | None = None,
        user_attrs: Mapping[str, Any],
        system_attrs: Mapping[str, Any],
    ) -> None:
        """Close a running trial; nothing of it can be changed afterwards.

        Args:
            number: Of the trial in the study.
            state: How it ended.
            values: One for each objective; None where it has none.
            so_far: The objective over what was measured of a trial that was stopped early.
            user_attrs: What the dashboard shows; of a name that is there already, the new value.
            system_attrs: What it does not.

        Raises:
            ValueError: The trial does not run; nothing is written.
        """
        trial_id = self.trial_id(number)
        closed = (
            sqlalchemy.update(_TRIALS)
            .where(_TRIALS.c.trial_id == trial_id, _TRIALS.c.state == TrialState.RUNNING)
            .values(state=state, datetime_complete=_now())
        )
        with self._engine.begin() as connection:
            if connection.execute(closed).rowcount != 1:
                raise ValueError(f"trial {number} of the study does not run; expected one that does")
            _add(connection, _VALUES, _values(trial_id, values or ()))
            _add(connection, _SO_FAR, _values_so_far(trial_id, so_far))
            for table, attributes in ((_USER, user_attrs), (_SYSTEM, system_attrs)):
                _replace(connection, table, trial_id, attributes)

    def trial_id(self, number: int) -> int:
        """Return by which number the database knows a trial of this study.

        Raises:
            KeyError: The study has no such trial.
        """
        if number not in self._ids:
            wanted = sqlalchemy.select(_TRIALS.c.trial_id).where(
                _TRIALS.c.study_id == self._study_id, _TRIALS.c.number == number
            )
            with self._engine.connect() as connection:
                found = connection.execute(wanted).scalar()
            if found is None:
                raise KeyError(f"trial {number} is not in the study")
            self._ids[number] = int(found)
        return self._ids[number]


def _now() -> datetime:
    """Return the time as the tables have it: UTC, without saying so."""
    return datetime.now(UTC).replace(tzinfo=None)


def _add(
    connection: sqlalchemy.Connection, table: sqlalchemy.FromClause, rows: Iterable[Mapping[str, Any]]
) -> None:
    listed = [dict(row) for row in rows]
    if listed:
        connection.execute(sqlalchemy.insert(table), listed)  # type: ignore[arg-type]


def _replace(
    connection: sqlalchemy.Connection,
    table: sqlalchemy.FromClause,
    trial_id: int,
    attributes: Mapping[str, Any],
) -> None:
    if not attributes:
        return
    there = (table.c.trial_id == trial_id) & table.c.key.in_(list(attributes))
    connection.execute(sqlalchemy.delete(table).where(there))  # type: ignore[arg-type]
    _add(connection, table, _attributes(trial_id, attributes))


def _params(
    trial_id: int, params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]
) -> Iterable[dict[str, Any]]:
    for name, value in params.items():
        yield {
            "trial_id": trial_id,
            "param_name": name,
            "param_value": distributions[name].to_internal_repr(value),
            "distribution_json": distribution_to_json(distributions[name]),
        }


def _attributes(trial_id: int, attributes: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for key, value in attributes.items():
        yield {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}


def _values(trial_id: int, values: Sequence[float]) -> Iterable[dict[str, Any]]:
    for objective, value in enumerate(values):
        stored, kind = models.TrialValueModel.value_to_stored_repr(float(value))
        yield {"trial_id": trial_id, "objective": objective, "value": stored, "value_type": kind}


def _values_so_far(trial_id: int, value: float | None) -> Iterable[dict[str, Any]]:
    if value is not None:
        stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(float(value))
        yield {
            "trial_id": trial_id,
            "step": 1,
            "intermediate_value": stored,
            "intermediate_value_type": kind,
        }


def is_acceptable(values: Sequence[float]) -> bool:
    """Return whether Optuna takes these for the values of a complete trial."""
    return not any(math.isnan(float(value)) for value in values)
