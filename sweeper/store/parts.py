"""Parts as files: written whole, checked when they are read, and brought under one schema.

A part is torn when Parquet cannot read it or a checksum of it is wrong; it is foreign when it has not our
mark, or holds another trial than its name says. Both are distinguished from a place that does not
answer: only the former may be put aside.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from sweeper.errors import StoreError
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


def write(table: pa.Table, folder: Folder, name: str, *, provenance: str) -> None:
    """Write a part; a reader or a crash never meets half of it.

    Raises:
        StoreError: It cannot be written; what was there before is untouched.
    """
    marks = {"sweeper": "measurements", "schema_version": str(SCHEMA_VERSION), "provenance": provenance}
    content = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(marks), content, write_page_checksum=True)
    folder.write(name, content.getvalue())


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
        table = part.read(columns=columns)
        table.validate(full=True)  # parts without checksums may hold invalid Unicode
        for field in table.schema:
            wanted = DECLARED[field.name].type if field.name in DECLARED else STRING
            if field.type not in (wanted, *(() if field.name in DECLARED else _DYNAMIC)):
                table.column(field.name).cast(wanted)
    except (pa.ArrowException, OSError, ValueError) as exc:
        raise UnreadablePartError(path, str(exc)) from exc
    if table.num_rows == 0:
        columns_there = len(part.schema_arrow)
        raise UnreadablePartError(path, f"no row in {columns_there} columns")
    _check_name(table, name, path)
    return table


def mark(schema: pa.Schema, name: str) -> str:
    """Read one of the marks that ``write`` leaves in a part's metadata; empty where there is none."""
    value: bytes = (schema.metadata or {}).get(name.encode(), b"")
    return value.decode(errors="replace")


def _check_name(table: pa.Table, name: str, path: Location) -> None:
    """Refuse a copy: its rows would count twice."""
    trials = set(zip(*(table.column(key).to_pylist() for key in ("trial_key", "attempt")), strict=True))
    names = sorted(file_name(*trial) for trial in trials)
    if names != [name]:
        raise UnreadablePartError(
            path, f"it holds what belongs into {' and '.join(names)}; a copy counts twice"
        )


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
    twice = sorted({column for column in schema.names if schema.names.count(column) > 1})
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
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.schema.names
        else pa.nulls(table.num_rows, type=field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)
