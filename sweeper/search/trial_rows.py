"""Trials written to Optuna's database whole: one transaction when a trial begins, one when it ends, or fewer.

Through Optuna's own calls each attribute of a trial is a transaction, and a trial has a dozen: they took more
of a driver's time than all else it does for a short trial. What is written here, and how numbers, attributes
and distributions are put into columns, is what those calls write (``optuna.storages.RDBStorage`` 5.0, whose
tables its migrations keep); a test compares the two.

Of a study that learns nothing from its past, what follows within a moment can be held back and written
together: the trials of a model take milliseconds, and a transaction waits for the disk.

Only for the one driver that owns a study (``database.Ownership``): numbers are given out without a lock.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(kw_only=True)
class _Begun:
    """A trial that is not in the database yet."""

    number: int
    params: Iterable[Mapping[str, Any]]
    user_attrs: dict[str, Any]
    system_attrs: dict[str, Any]
    began: datetime


@dataclass(frozen=True, kw_only=True)
class _Ended:
    """How a trial ended, where that is not in the database yet."""

    state: TrialState
    values: Sequence[float]
    so_far: float | None
    user_attrs: Mapping[str, Any]
    system_attrs: Mapping[str, Any]
    ended: datetime


class TrialRows:
    """The rows of one study's trials."""

    def __init__(
        self,
        storage: optuna.storages.BaseStorage,
        study_id: int,
        *,
        holds_back_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Write to a study in a database that ``database.open_storage`` opened.

        Args:
            storage: The database.
            study_id: By which number it knows the study.
            holds_back_s: What follows a transaction within so many seconds is written together by the next
                one; a kill loses it.
            clock: Seconds.
        """
        self._engine = database.engine_of(storage)
        self._study_id = study_id
        self._holds_back_s = holds_back_s
        self._clock = clock
        self._written_s = -math.inf
        self._ids: dict[int, int] = {}
        self._last: int | None = None
        self._begun: dict[int, _Begun] = {}
        self._ended: dict[int, _Ended] = {}

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
        number = self._next_number()
        self._begun[number] = _Begun(
            number=number,
            params=list(_params(params, distributions)),
            user_attrs=dict(user_attrs),
            system_attrs=dict(system_attrs),
            began=_now(),
        )
        self.write_if_due()
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
            ValueError: The trial does not run; nothing of it is written.
        """
        if number in self._ended:
            raise ValueError(f"trial {number} of the study does not run; expected one that does")
        self._ended[number] = _Ended(
            state=state,
            values=values or (),
            so_far=so_far,
            user_attrs=dict(user_attrs),
            system_attrs=dict(system_attrs),
            ended=_now(),
        )
        self.write_if_due()

    def write_if_due(self) -> None:
        """Write what was held back for long enough."""
        if not 0 <= self._clock() - self._written_s < self._holds_back_s:
            self.write()

    def write(self) -> None:
        """Write all that was held back, in one transaction."""
        begun, ended = self._begun, self._ended
        if not begun and not ended:
            return
        # Whatever becomes of the transaction: the same would fail again.
        self._begun, self._ended = {}, {}
        with self._engine.begin() as connection:
            self._add_begun(connection, list(begun.values()), ended)
            for number, end in ended.items():
                if number not in begun:
                    self._close(connection, number, end)
            ids = {number: self.trial_id(number, connection) for number in ended}
            _add(
                connection, _VALUES, (row for n, end in ended.items() for row in _values(ids[n], end.values))
            )
            _add(
                connection, _SO_FAR, (row for n, end in ended.items() for row in _so_far(ids[n], end.so_far))
            )
        self._written_s = self._clock()

    def trial_id(self, number: int, connection: sqlalchemy.Connection | None = None) -> int:
        """Return by which number the database knows a trial of this study.

        Raises:
            KeyError: The study has no such trial.
        """
        if number not in self._ids:
            wanted = sqlalchemy.select(_TRIALS.c.trial_id).where(
                _TRIALS.c.study_id == self._study_id, _TRIALS.c.number == number
            )
            if connection is None:
                self.write()
                with self._engine.connect() as own:
                    found = own.execute(wanted).scalar()
            else:
                found = connection.execute(wanted).scalar()
            if found is None:
                raise KeyError(f"trial {number} is not in the study")
            self._ids[number] = int(found)
        return self._ids[number]

    def _next_number(self) -> int:
        """Return the number of the next trial; others may have come since, unless some are held back."""
        if not self._begun:
            last = sqlalchemy.select(_TRIALS.c.number).where(_TRIALS.c.study_id == self._study_id)
            with self._engine.connect() as connection:
                found = connection.execute(last.order_by(_TRIALS.c.trial_id.desc()).limit(1)).scalar()
            self._last = None if found is None else int(found)
        self._last = 0 if self._last is None else self._last + 1
        return self._last

    def _add_begun(
        self, connection: sqlalchemy.Connection, begun: Sequence[_Begun], ended: Mapping[int, _Ended]
    ) -> None:
        """Add trials, those that have ended meanwhile in their last state."""
        if not begun:
            return
        _add(connection, _TRIALS, (self._trial_row(one, ended.get(one.number)) for one in begun))
        numbers = sqlalchemy.select(_TRIALS.c.number, _TRIALS.c.trial_id).where(
            _TRIALS.c.study_id == self._study_id, _TRIALS.c.number >= begun[0].number
        )
        ids = {int(number): int(trial_id) for number, trial_id in connection.execute(numbers)}
        self._ids |= ids
        _add(
            connection,
            _PARAMS,
            ({"trial_id": ids[one.number], **row} for one in begun for row in one.params),
        )
        for one in begun:
            if one.number in ended:
                one.user_attrs |= ended[one.number].user_attrs
                one.system_attrs |= ended[one.number].system_attrs
        told = [(ids[one.number], one) for one in begun]
        _add(connection, _USER, (row for n, one in told for row in _attributes(n, one.user_attrs)))
        _add(connection, _SYSTEM, (row for n, one in told for row in _attributes(n, one.system_attrs)))

    def _trial_row(self, begun: _Begun, ended: _Ended | None) -> dict[str, Any]:
        return {
            "number": begun.number,
            "study_id": self._study_id,
            "state": TrialState.RUNNING if ended is None else ended.state,
            "datetime_start": begun.began,
            "datetime_complete": None if ended is None else ended.ended,
        }

    def _close(self, connection: sqlalchemy.Connection, number: int, end: _Ended) -> None:
        trial_id = self.trial_id(number, connection)
        closed = (
            sqlalchemy.update(_TRIALS)
            .where(_TRIALS.c.trial_id == trial_id, _TRIALS.c.state == TrialState.RUNNING)
            .values(state=end.state, datetime_complete=end.ended)
        )
        if connection.execute(closed).rowcount != 1:
            raise ValueError(f"trial {number} of the study does not run; expected one that does")
        for table, attributes in ((_USER, end.user_attrs), (_SYSTEM, end.system_attrs)):
            _replace(connection, table, trial_id, attributes)


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
    params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]
) -> Iterable[dict[str, Any]]:
    for name, value in params.items():
        yield {
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


def _so_far(trial_id: int, value: float | None) -> Iterable[dict[str, Any]]:
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
