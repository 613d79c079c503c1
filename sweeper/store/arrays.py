"""Rows as a table of typed columns: each value is looked at once and checked against its column.

Almost all values fit their columns as they are, and become arrays together. The others are written so that
their column can hold them, one column at a time: a float that is whole where whole numbers belong, text with
half a character, a type that another trial's values had.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from sweeper.errors import MeasurementError
from sweeper.records import FailureClass
from sweeper.store.columns import BOOL, DECLARED, FLOAT, INT, STRING, TIME, dynamic_field
from sweeper.store.parts import common_type
from sweeper.text.printable import whole

_KINDS: Mapping[pa.DataType, type] = {FLOAT: float, STRING: str, INT: int, BOOL: bool, TIME: datetime}
"""Types of columns to the type of Python whose values they hold as they are, if these plainly fit."""

_WIDEST = 2**63


class UnfitValueError(MeasurementError):
    """A value of a trial that its column cannot hold."""


class Layout:
    """The columns of a study, under which rows become tables.

    Attributes:
        schema: The columns, in order.
    """

    def __init__(self, schema: pa.Schema) -> None:
        """Prepare what all tables under a schema have in common."""
        self.schema = schema
        self._kinds = {field.name: _KINDS.get(field.type) for field in schema}
        self._row = pa.struct([pa.field(field.name, field.type) for field in schema])

    def has(self, names: Iterable[str]) -> bool:
        """Return whether there is a column of each of these names."""
        return self._kinds.keys() >= set(names)

    def table(self, rows: Sequence[Mapping[str, Any]]) -> pa.Table | None:
        """Return rows as a table with all columns; None where one is missing, or has too narrow a type.

        Raises:
            UnfitValueError: A value does not fit its declared column; the message names both.
        """
        if not all(self._kinds.keys() >= row.keys() for row in rows):
            return None
        plain, others = self._split(rows)
        # Together: each alone takes longer.
        arrays = pa.array(plain, type=self._row).flatten()
        for name in others:
            field, array = _array(name, [row.get(name) for row in rows])
            at = self.schema.get_field_index(name)
            wanted = self.schema.field(at).type
            if common_type(wanted, field.type) != wanted:
                return None
            arrays[at] = array if field.type == wanted else array.cast(wanted)
        return pa.Table.from_arrays(arrays, schema=self.schema)

    def _split(self, rows: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, None]]:
        """Return the values that plainly fit, row by row, and the names of the columns of all others."""
        plain, others = [], dict[str, None]()
        for row in rows:
            fit = {}
            for name, value in row.items():
                # NaN, which is equal to nothing, is unknown.
                if value is None or value != value:
                    continue
                if _fits(value, self._kinds[name]):
                    fit[name] = value
                else:
                    others[name] = None
            plain.append(fit)
        return [{name: value for name, value in fit.items() if name not in others} for fit in plain], others


def schema_of(rows: Sequence[Mapping[str, Any]], *, columns: Iterable[str] = ()) -> pa.Schema:
    """Return the columns that rows bring, each of the type that its values have or that is declared.

    Args:
        rows: Values by column.
        columns: Further ones, which have no type yet where the rows do not give them one.
    """
    names = dict.fromkeys([*columns, *(name for row in rows for name in row)])
    return pa.schema([_field(name, [row.get(name) for row in rows]) for name in names])


def _fits(value: Any, kind: type | None) -> bool:
    """Return whether a value is kept as it is; of text, only what plainly is Unicode."""
    if type(value) is not kind:
        return False
    if isinstance(value, str):
        return value.isascii()
    if isinstance(value, datetime):
        return value.tzinfo is UTC
    return not isinstance(value, int) or -_WIDEST <= value < _WIDEST


def _field(name: str, values: Sequence[Any]) -> pa.Field:
    declared = DECLARED.get(name)
    if declared is not None:
        return declared.field
    return dynamic_field(name, _type_of([_narrowed(_held(value)) for value in values]))


def _array(name: str, values: Sequence[Any]) -> tuple[pa.Field, pa.Array]:
    declared = DECLARED.get(name)
    if declared is not None and all(value is None for value in values):
        return declared.field, pa.nulls(len(values), type=declared.type)
    known = [_held(value) for value in values]
    if declared is None:
        known = [_narrowed(value) for value in known]
    field = declared.field if declared else dynamic_field(name, _type_of(known))
    try:
        # Checked: a client may count in floats, so 5.0 is a whole number, but 5.5 must not become 5.
        whole = [value % 1 == 0 for value in known if field.type == INT and isinstance(value, float)]
        if not all(whole):
            raise pa.ArrowInvalid("a fraction where a whole number is expected")
        return field, pa.array(
            [_as_text(v) for v in known] if field.type == STRING else known, type=field.type
        )
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as exc:
        shown = reprlib.repr(known)
        raise UnfitValueError(
            f"measurements/: column '{name}' is given {shown}; expected {field.type}. Look into the client's "
            "own JSON and the engine's log for what made this value.",
            failure=FailureClass.CLIENT,
        ) from exc


def _held(value: Any) -> Any:
    """Write a value so that a column can hold it: NaN is unknown, and text is Unicode.

    Whole numbers of more than 64 bits, which only an engine can report, become floats in columns that are not
    declared.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, list):
        return [_held(item) for item in value]
    return value


def _narrowed(value: Any) -> Any:
    is_wide = isinstance(value, int) and not isinstance(value, bool) and not -_WIDEST <= value < _WIDEST
    if not is_wide:
        return value
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _as_text(value: Any) -> Any:
    """Write a value as Arrow's own cast to text does, so that a mixed column reads alike in all parts."""
    if isinstance(value, str) or value is None:
        return whole(value)
    return str(pa.array([value]).cast(STRING)[0])


def _type_of(values: Sequence[Any]) -> pa.DataType:
    found = pa.null()
    for value in values:
        found = common_type(found, pa.infer_type([value]))
    return found
