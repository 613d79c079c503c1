"""Trials as the store has them: the rows of a table, joined to the latest attempt at each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sweeper.records import PHASES, TrialResult, TrialState
from sweeper.store.store import Store


@dataclass(frozen=True, kw_only=True)
class StoredTrial:
    """The latest attempt at a trial, as the store has it."""

    key: str
    state: TrialState
    role: str | None
    rows: Sequence[Mapping[str, Any]]

    @property
    def devices(self) -> int:
        """How many devices it held; 0 where it never began."""
        devices = self.rows[0]["devices"]
        return 0 if devices is None else len(devices)

    @property
    def seconds(self) -> float:
        """How long it held them, without waiting."""
        phases = [self.rows[0][name] for name in PHASES]
        runs = [row[name] for row in self.rows for name in ("measured_s", "client_overhead_s")]
        taken = self.rows[0]["ended_at"] - self.rows[0]["started_at"]
        return _held_s(self.state, parts_s=(*phases, *runs), taken_s=taken.total_seconds())


def seconds_of(result: TrialResult) -> float:
    """Return how long a trial held its devices; where it was modelled, how long it is modelled to have."""
    phases = [result.phases.get(name, 0.0) for name in PHASES]
    runs = [seconds for run in result.measurements for seconds in (run.measured_s, run.client_overhead_s)]
    started, ended = result.started_at, result.ended_at
    taken_s = math.nan if started is None or ended is None else ended - started
    return _held_s(result.state, parts_s=(*phases, *runs), taken_s=taken_s)


def _held_s(state: TrialState, *, parts_s: Sequence[float], taken_s: float) -> float:
    """Add up the parts of a trial that ended well; of another, the time from start to end. NaN is unknown."""
    seconds = parts_s if state in (TrialState.COMPLETE, TrialState.SKIPPED) else (taken_s,)
    return sum(float(one) for one in seconds if one == one)


class Row(Mapping[str, Any]):
    """One row of a table that is kept by column: thousands of rows as objects would not fit in memory."""

    __slots__ = ("_columns", "_number")

    def __init__(self, columns: Mapping[str, Sequence[Any]], number: int) -> None:
        """Name a row of the columns by its number, from 0."""
        self._columns = columns
        self._number = number

    def __getitem__(self, name: str) -> Any:
        """Return the value in a column."""
        return self._columns[name][self._number]

    def __iter__(self) -> Iterator[str]:
        """Return the names of the columns."""
        return iter(self._columns)

    def __len__(self) -> int:
        """Return how many columns there are."""
        return len(self._columns)


class StoredTrials:
    """What the store knows of each trial, read once and only when asked for."""

    def __init__(self, store: Store) -> None:
        """Read nothing yet."""
        self._store = store
        self._trials: dict[str, StoredTrial] | None = None

    def __iter__(self) -> Iterator[StoredTrial]:
        """Return the trials in the order in which they ended."""
        return iter(self._read().values())

    def rows_of(self, key: str) -> Sequence[Mapping[str, Any]]:
        """Return the rows of a complete trial; none of any other."""
        trial = self._read().get(key)
        return trial.rows if trial is not None and trial.state is TrialState.COMPLETE else ()

    def _read(self) -> dict[str, StoredTrial]:
        if self._trials is None:
            frame = self._store.read()
            self._trials = {}
            if not frame.empty:
                last = self._store.latest(frame)
                order = last.groupby("trial_key")["ended_at"].max().sort_values(na_position="first")
                records: dict[str, list[Mapping[str, Any]]] = {str(key): [] for key in order.index}
                columns = {str(name): _plain(last[name]) for name in last.columns}
                for number, key in enumerate(columns["trial_key"]):
                    records[key].append(Row(columns, number))
                self._trials = {key: _stored(key, rows) for key, rows in records.items()}
        return self._trials


def _plain(column: pd.Series[Any]) -> list[Any]:
    """Return the values of a column, None where a whole number or a truth value is missing."""
    return [None if value is pd.NA else value for value in column.to_list()]


def _stored(key: str, rows: list[Mapping[str, Any]]) -> StoredTrial:
    role = rows[0]["role"]
    return StoredTrial(
        key=key,
        state=TrialState(rows[0]["state"]),
        role=role if isinstance(role, str) else None,
        rows=rows,
    )
