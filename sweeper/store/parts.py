"""Parts as files: written whole, checked when they are read, and brought under one schema.

A part holds one attempt at a trial and is named after it; a compacted one holds many (``compaction``) and
says its own name, so that a copy is known as such. A part is torn when Parquet cannot read it or a checksum
of it is wrong; it is foreign when it has not our mark, or holds another trial than its name says. Both are
distinguished from a place that does not answer: only the former may be put aside.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from sweeper.errors import StoreError
from sweeper.records.plurals import amount
from sweeper.store.columns import (
    COLUMNS,
    DECLARED,
    FLOAT,
    INT,
    SCHEMA_VERSION,
    STRING,
    dynamic_field,
    dynamic_order,
)
from sweeper.store.files import Folder, Location
from sweeper.text.printable import legible

PASSED_OVER = "_."
"""First letters of names that Arrow, and so pandas.read_parquet on the folder, passes over."""

SET_ASIDE = "_set_aside"
"""Folder for what is torn or foreign."""

# Types of columns that are not declared; any other has to read as text.
_DYNAMIC = (pa.null(), pa.bool_(), INT, FLOAT, STRING)

_COMPACTED = re.compile(r"compacted-(\d{6,})\.parquet")

_OWN_NAME = "own_name"

# Without these it is unknown which trial a row belongs to, and how that ended.
_NEEDED = {"trial_key", "attempt", "state", "failure_class"}


class UnreadablePartError(StoreError):
    """A file that is torn, or not one of ours."""

    def __init__(self, path: Location, reason: str) -> None:
        super().__init__(
            f"{path}: is no readable result ({reason}); expected a part written by sweeper. "
            f"Move it out of the way, for instance to measurements/{SET_ASIDE}/; its trial is then run again."
        )
        self.reason = reason


def file_name(trial_key: str, attempt: int) -> str:
    """Return the file name of the part for an attempt at a trial."""
    return f"{trial_key}-{attempt}.parquet"


def compacted_name(names: Collection[str]) -> str:
    """Return a file name for a compacted part that comes after those that are there."""
    taken = [int(found[1]) for name in names if (found := _COMPACTED.fullmatch(name))]
    return f"compacted-{max(taken, default=0) + 1:06}.parquet"


def is_compacted(name: str) -> bool:
    """Return whether a file name is that of a part of many trials."""
    return _COMPACTED.fullmatch(name) is not None


def is_visible(name: str) -> bool:
    """Return whether a file name is that of a part, which readers of the folder do not pass over."""
    return name.endswith(".parquet") and name[0] not in PASSED_OVER


def write(table: pa.Table, folder: Folder, name: str, *, provenance: str) -> None:
    """Write a part; a reader or a crash never meets half of it.

    Raises:
        StoreError: It cannot be written; what was there before is untouched.
    """
    is_large = is_compacted(name)
    marks = {"sweeper": "measurements", "schema_version": str(SCHEMA_VERSION), "provenance": provenance}
    if is_large:
        marks[_OWN_NAME] = name
    content = pa.BufferOutputStream()
    # Dictionaries and statistics of a row or two say nothing that the row does not.
    pq.write_table(
        table.replace_schema_metadata(marks),
        content,
        write_page_checksum=True,
        use_dictionary=is_large,
        write_statistics=is_large,
        compression="zstd" if is_large else "none",
    )
    folder.write(name, content.getvalue())


def trials_of(table: pa.Table) -> list[str]:
    """Return for each row the file name of the part of its trial alone."""
    keys, attempts = (table.column(name).to_pylist() for name in ("trial_key", "attempt"))
    return [file_name(key, attempt) for key, attempt in zip(keys, attempts, strict=True)]


def trials_in(folder: Folder, names: Iterable[str]) -> dict[str, str]:
    """Return the file of each stored attempt, by the name of the part that it has or would have alone.

    Args:
        folder: The parts.
        names: Those that are looked into.

    Raises:
        StoreError: A compacted part cannot be read.
    """
    found = {}
    for name in filter(is_visible, names):
        rows = trials_of(read(folder, name, ["trial_key", "attempt"])) if is_compacted(name) else [name]
        found.update(dict.fromkeys(rows, name))
    return found


def rows_in(folder: Folder, name: str) -> int:
    """Return how many rows a part has.

    Raises:
        StoreError: It is torn, foreign, or of a later format.
    """
    return int(_opened(folder, name).metadata.num_rows)


def schema_of(folder: Folder, name: str) -> pa.Schema:
    """Return the columns of a part, and the marks in its metadata.

    Raises:
        StoreError: It is torn, foreign, or of a later format.
    """
    return _opened(folder, name).schema_arrow


def read(folder: Folder, name: str, columns: list[str] | None = None) -> pa.Table:
    """Return the rows of a part.

    Args:
        folder: Where it lies.
        name: Its name there.
        columns: Only these; ``trial_key`` and ``attempt`` must be among them.

    Raises:
        StoreError: It is torn, foreign, or of a later format; the message names it.
    """
    part, path = _opened(folder, name), folder.at(name)
    try:
        table = part.read(columns=columns, use_threads=False)  # of two hundred columns and few rows
        table.validate(full=True)  # parts without checksums may hold invalid Unicode
        for field in table.schema:
            wanted = DECLARED[field.name].type if field.name in DECLARED else STRING
            if field.type not in (wanted, *(() if field.name in DECLARED else _DYNAMIC)):
                table.column(field.name).cast(wanted)
            if pa.types.is_timestamp(field.type):
                # Differences of times beyond the years 1677 to 2262 are none that pandas could hold.
                table.column(field.name).cast(pa.timestamp("ns", tz="UTC"))
    except (pa.ArrowException, OSError, ValueError) as exc:
        raise UnreadablePartError(path, str(exc)) from exc
    if table.num_rows == 0:
        columns_there = len(part.schema_arrow)
        raise UnreadablePartError(path, f"no row in {amount(columns_there, 'column')}")
    _check_name(table, name, path, own_name=mark(part.schema_arrow, _OWN_NAME))
    return table


def mark(schema: pa.Schema, name: str) -> str:
    """Read one of the marks that ``write`` leaves in a part's metadata; empty where there is none."""
    value: bytes = (schema.metadata or {}).get(name.encode(), b"")
    return value.decode(errors="replace")


def _check_name(table: pa.Table, name: str, path: Location, *, own_name: str) -> None:
    """Refuse a copy: its rows would count twice."""
    names = [own_name] if own_name else sorted(set(trials_of(table)))
    if names != [name]:
        raise UnreadablePartError(
            path, f"it holds what belongs into {' and '.join(names)}; a copy counts twice"
        )


class Trials:
    """Which attempts at trials were met so far, and in which file."""

    def __init__(self) -> None:
        """Start with none."""
        self._met: dict[str, str] = {}

    def add(self, table: pa.Table, folder: Folder, name: str) -> None:
        """Take in the trials of a part.

        Raises:
            UnreadablePartError: One of them was met in another part.
        """
        trials = set(trials_of(table))
        twice = sorted(trials & self._met.keys())
        if twice:
            raise UnreadablePartError(
                folder.at(name), f"{twice[0]} is in {self._met[twice[0]]}, too; a copy counts twice"
            )
        self._met.update(dict.fromkeys(trials, name))


def _opened(folder: Folder, name: str) -> pq.ParquetFile:
    """Open a part of ours.

    It is fetched first and looked at then, so that a place that does not answer is never taken for a torn
    part, which would be put aside.
    """
    content, path = folder.read(name), folder.at(name)
    try:
        # ParquetFile rather than read_table: the latter reads key=value folder names as columns.
        part = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        schema = part.schema_arrow
    except (pa.ArrowException, OSError, ValueError) as exc:
        raise UnreadablePartError(path, str(exc)) from exc
    twice = sorted(column for column, times in Counter(schema.names).items() if times > 1)
    if twice:
        named = ", ".join(f"'{legible(column)}'" for column in twice)
        raise UnreadablePartError(path, f"it has two columns of one name: {named}")
    version = mark(schema, "schema_version")
    has_marks = mark(schema, "sweeper") == "measurements" and version.isdecimal()
    if not has_marks or not _NEEDED.issubset(schema.names):
        raise UnreadablePartError(path, "it was not written by sweeper")
    if int(version) > SCHEMA_VERSION:
        raise StoreError(
            f"{path}: is of schema version {version}; expected at most {SCHEMA_VERSION}. "
            "It was written by a later sweeper: install that one to read this study."
        )
    return part


# ---- one schema for all parts ----


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """Return the type that holds values of both: text, unless one promotes to the other."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    return FLOAT if {one, other} == {INT, FLOAT} else STRING


def unify(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Return the one schema that holds all: declared columns in order, then the others by kind and name."""
    types: dict[str, pa.DataType] = {}
    for schema in schemas:
        for field in schema:
            types[field.name] = common_type(types.get(field.name, pa.null()), field.type)
    brought = sorted(types.keys() - DECLARED.keys(), key=dynamic_order)
    return pa.schema([c.field for c in COLUMNS] + [dynamic_field(name, types[name]) for name in brought])


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Bring a table under a schema that holds its columns: others are null, types are cast."""
    if table.schema.equals(schema, check_metadata=True):
        return table
    there = set(table.schema.names)
    columns = [
        _as_type(table.column(field.name), field.type)
        if field.name in there
        else pa.nulls(table.num_rows, type=field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _as_type(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    return column if column.type == wanted else column.cast(wanted)
