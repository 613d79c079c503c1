"""The result store: what is kept of every trial, as typed Parquet columns with unit and meaning.

One part per finished trial lies in ``measurements/`` of the study's folder; many parts become one larger file
(``compaction``). A complete trial has a row
per measurement; any other has a row per load point with empty metrics, so that a failure is data and no
load point is ever missing without a reason. Null is unknown, zero is zero.

All parts of a study share one set of columns and types: older parts are rewritten when a later trial
brings a new column. That keeps ``pandas.read_parquet("outputs/<study>/measurements")`` a single line for
readers who do not know this package. The process that owns the study is the only writer.

``columns`` declares the format, ``rows`` and ``arrays`` turn a trial into it, ``parts`` are the files; here
they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa

from sweeper.errors import StoreError
from sweeper.records import FailureClass, Scalar, TrialResult, TrialState
from sweeper.records.plurals import amount
from sweeper.store import compaction, parts
from sweeper.store.arrays import Layout, UnfitValueError, schema_of
from sweeper.store.columns import (
    BOOL,
    COLUMNS,
    INT,
    SCHEMA_VERSION,
    SECTIONS,
    Column,
    columns_markdown,
    dynamic_field,
)
from sweeper.store.files import Folder, Location, open_folder
from sweeper.store.rows import rows_of

__all__ = [
    "COLUMNS",
    "SCHEMA_VERSION",
    "SECTIONS",
    "Column",
    "FinishedTrial",
    "SetAside",
    "Store",
    "columns_markdown",
]

MEASUREMENTS = "measurements"
"""The folder of the parts, in a study's folder or wherever its results go."""

MANY_PARTS = 100
"""So many small parts are worth bringing together when a study ends, pauses or goes on."""

_MOST_PARTS = 500
"""With so many, it is done while the study runs: a new column has each of them written again."""

_READINGS = 3

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class FinishedTrial:
    """How the latest attempt at a trial ended; its role is that of ``TrialSpec``."""

    state: TrialState
    failure_class: FailureClass | None
    attempt: int
    role: str | None = None


@dataclass(frozen=True, kw_only=True)
class SetAside:
    """A file that was moved out of the way: where it lies now, and why."""

    place: Location
    reason: str


class Store:
    """The results of one study.

    Args:
        folder: The study's folder, ``outputs/<study>``. It is made when the first trial is stored.
        results: Where the results go instead: a folder, or a URL that pyarrow opens.
    """

    def __init__(self, folder: Path, results: Location | Folder | None = None) -> None:
        self.folder = folder
        if not isinstance(results, Folder):
            results = open_folder(folder if results is None else results, where="study.results")
        self._files = results.below(MEASUREMENTS)
        self._layout: Layout | None = None
        self._provenance: str | None = None
        self._compacted: set[str] = set()
        # Parts that were written since the last compaction, so that the next one need not read them again.
        self._fresh: dict[str, pa.Table] = {}

    @property
    def measurements(self) -> Location:
        """Folder or URL of the parts."""
        return self._files.location

    def parts(self) -> list[Location]:
        """Return the stored parts, by name."""
        return [self._files.at(name) for name in self._names()]

    def _names(self) -> list[str]:
        return list(filter(parts.is_visible, self._files.names()))

    def _read_settled(self, act: Callable[[Sequence[str]], _T]) -> _T:
        """Read parts by name, again where the owner of the study compacted them meanwhile."""
        for _ in range(_READINGS):
            names = self._names()
            try:
                return act(names)
            except StoreError:
                if set(names) <= set(self._names()):
                    raise
        return act(self._names())

    def append(self, result: TrialResult, *, queued_s: float, knobs: Iterable[str]) -> Location:
        """Store a finished trial as ``keep`` does; return its part."""
        self.keep(result, queued_s=queued_s, knobs=knobs)
        return self._files.at(parts.file_name(result.spec.key, result.spec.attempt))

    def keep(self, result: TrialResult, *, queued_s: float, knobs: Iterable[str]) -> TrialResult:
        """Store a finished trial, whatever became of it, as one part: whole on disk, or not there at all.

        Args:
            result: The trial.
            queued_s: Seconds it waited for its devices.
            knobs: All knobs of the study, so that every part has their columns.

        Returns:
            The trial as it is stored: itself, or a failure that names the value that no column can hold. Such
            a value came from an engine or a client, and fails that trial and no other.

        Raises:
            StoreError: The attempt is stored already, measured and simulated results would be mixed, a
                complete trial has too few measurements, or a part that is already there cannot be read.
        """
        name = parts.file_name(result.spec.key, result.spec.attempt)
        self._refuse_contradictions(result, name)
        try:
            table = self._table_of(result, queued_s=queued_s, knobs=knobs)
        except UnfitValueError as exc:
            result = _unfit(result, exc)
            table = self._table_of(result, queued_s=queued_s, knobs=knobs)
        parts.write(table, self._files, name, provenance=str(result.provenance))
        self._provenance = str(result.provenance)
        self._fresh[name] = table
        if len(self._fresh) >= _MOST_PARTS:
            with suppress(StoreError):  # It saves room and time; the trial is stored without it.
                self.compact(least=_MOST_PARTS)
            self._fresh.clear()
        return result

    def _table_of(self, result: TrialResult, *, queued_s: float, knobs: Iterable[str]) -> pa.Table:
        """Return a trial's rows under the columns of all, which grow where it brings new ones."""
        rows = rows_of(result, queued_s=queued_s)
        names = [f"knob.{knob}" for knob in (*knobs, *result.spec.assignment)]
        layout = self._load_layout()
        table = layout.table(rows) if layout.has(names) else None
        if table is None:
            table = self._grow(schema_of(rows, columns=names)).table(rows)
        assert table is not None
        return table

    def compact(self, *, least: int = MANY_PARTS) -> int:
        """Bring small parts together into a larger file, where there are many; the table stays the same.

        Args:
            least: With fewer, nothing is done.

        Returns:
            How many files became one; 0 where nothing was done, also for want of a file system that can.

        Raises:
            StoreError: A part cannot be read, or there is no room; the parts are as they were.
        """
        schema = self._load_layout().schema
        merged = compaction.compact(self._files, schema=schema, least=least, known=self._fresh)
        if merged:
            self._compacted = set(parts.trials_in(self._files, self._names()))
            self._fresh.clear()
        return merged

    def align(self, knobs: Iterable[str]) -> None:
        """Add to every part a column for each of these knobs, with the same columns and types in all.

        Raises:
            StoreError: A part cannot be read.
        """
        self._grow(pa.schema([dynamic_field(f"knob.{knob}", pa.null()) for knob in dict.fromkeys(knobs)]))

    def read(self) -> pd.DataFrame:
        """Return everything stored, a row per measurement or per load point of a trial without numbers.

        Returns:
            Declared columns first, then knob, effective, version and extra columns by name. Whole numbers
            and booleans have pandas' nullable types, times are UTC. Empty when nothing is stored yet.

        Raises:
            StoreError: A part is torn, foreign, or of a later format; the message names it.
        """
        tables = self._read_settled(partial(_tables, self._files))
        schema = parts.unify([table.schema for table in tables])
        whole = pa.concat_tables([schema.empty_table(), *(parts.conform(table, schema) for table in tables)])
        # The same order, whichever files they lie in: that of the parts of single trials.
        names = parts.trials_of(whole)
        if names != sorted(names):
            whole = whole.take(sorted(range(len(names)), key=names.__getitem__))
        nullable = {INT: pd.Int64Dtype(), BOOL: pd.BooleanDtype()}
        frame: pd.DataFrame = whole.to_pandas(types_mapper=nullable.get)
        # What reading took is several times the table, and Arrow would keep it for later.
        pa.default_memory_pool().release_unused()
        return frame

    def finished(self) -> dict[str, FinishedTrial]:
        """Return, for each trial key, how its latest attempt ended.

        Raises:
            StoreError: A part cannot be read.
        """
        return self._read_settled(self._endings)

    def _endings(self, names: Sequence[str]) -> dict[str, FinishedTrial]:
        latest: dict[str, FinishedTrial] = {}
        columns = ["trial_key", "state", "failure_class", "attempt", "role"]
        for name in names:
            for row in parts.read(self._files, name, columns=columns).to_pylist():
                known = latest.get(row["trial_key"])
                if known is None or known.attempt < row["attempt"]:
                    latest[row["trial_key"]] = _ending(row, where=self._files.at(name))
        return latest

    @staticmethod
    def latest(frame: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of each trial's latest attempt, from what ``read`` returned."""
        is_last = frame["attempt"] == frame.groupby("trial_key")["attempt"].transform("max")
        # Where nothing is left out, nothing is copied: pandas copies on writing.
        return (frame if is_last.all() else frame[is_last]).reset_index(drop=True)

    def set_aside(self) -> list[SetAside]:
        """Move files that are torn or not ours out of the way, so that the study can go on.

        Files of other kinds are foreign, too, and so is a folder or a link that leads nowhere: pandas and
        Arrow would stumble over them. A part of a later format is good data and stays where it is. Nothing is
        deleted.

        Returns:
            What was moved, where it lies now under ``measurements/_set_aside/``, and why.
        """
        moved, met = list[SetAside](), parts.Trials()
        # Of a trial that is there twice, the file of many stays and its copy goes.
        for name in sorted(self._files.names(), key=lambda name: (not parts.is_compacted(name), name)):
            if name[0] in parts.PASSED_OVER:
                continue
            try:
                met.add(parts.read(self._files, name), self._files, name)
            except parts.UnreadablePartError as exc:
                place = self._files.move_aside(name, parts.SET_ASIDE)
                moved.append(SetAside(place=place, reason=exc.reason))
        for name in self._files.others():
            if name[0] not in parts.PASSED_OVER:
                place = self._files.move_aside(name, parts.SET_ASIDE)
                moved.append(SetAside(place=place, reason="it is no file"))
        compaction.tidy(self._files)
        self._layout = None
        return moved

    def set_aside_unreadable(self) -> list[Location]:
        """Do as ``set_aside``; return the places alone."""
        return [found.place for found in self.set_aside()]

    def _refuse_contradictions(self, result: TrialResult, name: str) -> None:
        self._load_layout()
        path = self._files.at(name)
        if name in self._compacted or self._files.holds(name):
            raise StoreError(
                f"{path}: attempt {result.spec.attempt} at trial {result.spec.key} is stored already; "
                "expected each attempt once. Raise the attempt to measure it again."
            )
        if self._provenance not in (None, str(result.provenance)):
            raise StoreError(
                f"{self.measurements}: holds {self._provenance} results and trial {result.spec.key} is "
                f"{result.provenance}; expected one provenance per study. Give the study another name."
            )
        wanted, got = len(result.spec.load_points), len(result.measurements)
        if result.state is TrialState.COMPLETE and got < max(wanted, 1):
            raise StoreError(
                f"{path}: complete trial with {amount(got, 'measurement')}; expected at least one for "
                f"each of its {amount(wanted, 'load point')}. Store it as failed, with the reason."
            )

    def _load_layout(self) -> Layout:
        """Learn columns and provenance of what is stored, once; afterwards this object is the only writer."""
        if self._layout is None:
            schemas = {name: parts.schema_of(self._files, name) for name in self._names()}
            self._layout = Layout(parts.unify(list(schemas.values())))
            self._provenance = next((parts.mark(one, "provenance") for one in schemas.values()), None)
            self._compacted = set(parts.trials_in(self._files, schemas))
            self._rewrite_parts(schemas, self._layout.schema)
        return self._layout

    def _grow(self, schema: pa.Schema) -> Layout:
        """Take in the columns of a schema; rewrite the stored parts when that changes anything."""
        known = self._load_layout().schema
        grown = parts.unify([known, schema])
        if not grown.equals(known):
            self._layout = Layout(grown)
            self._rewrite_parts({name: parts.schema_of(self._files, name) for name in self._names()}, grown)
        return self._load_layout()

    def _rewrite_parts(self, schemas: Mapping[str, pa.Schema], wanted: pa.Schema) -> None:
        """Bring parts of these columns under the schema of all."""
        for name, schema in schemas.items():
            if not schema.equals(wanted):
                table = parts.conform(parts.read(self._files, name), wanted)
                parts.write(table, self._files, name, provenance=parts.mark(schema, "provenance"))


def knobs_of(row: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return the knobs that a stored row sets, as plain values."""
    named = {name.removeprefix("knob."): value for name, value in row.items() if name.startswith("knob.")}
    return {
        name: value.item() if hasattr(value, "item") else value
        for name, value in named.items()
        if not pd.isna(value)
    }


def _tables(folder: Folder, names: Sequence[str]) -> list[pa.Table]:
    met, tables = parts.Trials(), []
    for name in names:
        tables.append(parts.read(folder, name))
        met.add(tables[-1], folder, name)
    return tables


def _unfit(result: TrialResult, error: UnfitValueError) -> TrialResult:
    return replace(
        result,
        state=TrialState.FAILED,
        measurements=(),
        failure_class=error.failure,
        failure_message=str(error),
    )


def _ending(row: Mapping[str, Any], *, where: Location) -> FinishedTrial:
    failure = row["failure_class"]
    try:
        return FinishedTrial(
            state=TrialState(row["state"]),
            failure_class=None if failure is None else FailureClass(failure),
            attempt=row["attempt"],
            role=row.get("role"),
        )
    except ValueError as exc:
        raise StoreError(
            f"{where}: its trial ended in a way that is not known here ({exc}); expected one of "
            f"{', '.join(TrialState)}. It was written by another sweeper: install that one to read it."
        ) from exc
