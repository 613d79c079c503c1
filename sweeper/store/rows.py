"""From a finished trial to the rows that are stored of it, each value checked against its column.

A complete trial has a row per measurement; any other has a row per load point without metrics. One that was
stopped early has both, and all of them say ``skipped``.
"""

from __future__ import annotations

import json
import math
import reprlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

import sweeper
from sweeper.errors import MeasurementError
from sweeper.records import (
    LIVE_COLUMNS,
    FailureClass,
    LoadPoint,
    Measurement,
    Scalar,
    TrialResult,
    TrialState,
)
from sweeper.simulation.intervals import interval
from sweeper.store.columns import BOOL, DECLARED, FLOAT, INT, SCHEMA_VERSION, SECTIONS, STRING, dynamic_field
from sweeper.store.parts import common_type
from sweeper.text.printable import whole

_KINDS = {FLOAT: float, STRING: str, INT: int, BOOL: bool}
_PLAIN: Mapping[str, type] = {
    name: _KINDS[column.type] for name, column in DECLARED.items() if column.type in _KINDS
}
"""Columns to the type of Python whose values they hold as they are."""
_WIDEST = 2**63


class UnfitValueError(MeasurementError):
    """A value of a trial that its column cannot hold."""


def table_of(result: TrialResult, *, queued_s: float, knobs: Iterable[str]) -> pa.Table:
    """Return the rows of a finished trial as a table that has every declared column.

    Args:
        result: The trial, whatever became of it.
        queued_s: Seconds it waited for its devices.
        knobs: Knobs that get a column even where this trial leaves them unset.

    Raises:
        UnfitValueError: A value does not fit its column; the message names both.
    """
    return _table(_rows(result, queued_s=queued_s), knobs=[*knobs, *result.spec.assignment])


def storable(result: TrialResult) -> TrialResult:
    """Return a result that can be stored: itself, or a failure that names the value no column can hold.

    Such a value came from an engine or a client. It fails that trial and no other.
    """
    try:
        _check(_rows(result, queued_s=0.0))
    except UnfitValueError as exc:
        return replace(
            result,
            state=TrialState.FAILED,
            measurements=(),
            failure_class=exc.failure,
            failure_message=str(exc),
        )
    return result


def _check(rows: Sequence[Mapping[str, Any]]) -> None:
    """Check that columns can hold the values of rows, without making those whose values plainly fit.

    Raises:
        UnfitValueError: One cannot.
    """
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        kind = _PLAIN.get(name)
        if kind is None or not all(_fits(value, kind) for value in values):
            _array(name, values)


def _fits(value: Any, kind: type) -> bool:
    """Return whether a value is kept as it is; of text, only what plainly is Unicode."""
    if value is None or type(value) is not kind:
        return value is None
    if isinstance(value, str):
        return value.isascii()
    return not isinstance(value, int) or -_WIDEST <= value < _WIDEST


def _rows(result: TrialResult, *, queued_s: float) -> list[dict[str, Any]]:
    shared = _trial_values(result) | {"queued_s": queued_s}
    if result.state is TrialState.COMPLETE:
        distance = result.spec.stack_distance
        return [
            shared | _measurement_values(measurement) | _intervals(measurement, distance)
            for measurement in result.measurements
        ]
    unmeasured = {"started_at": _utc(result.started_at), "ended_at": _utc(result.ended_at)}
    measured = {measurement.load_point for measurement in result.measurements}
    points = [_load_point_values(point) for point in result.spec.load_points if point not in measured]
    return [
        *(shared | _measurement_values(measurement) for measurement in result.measurements),
        *(shared | unmeasured | point for point in points or ([] if measured else [{}])),
    ]


def _trial_values(result: TrialResult) -> dict[str, Any]:
    spec = result.spec
    return {
        "study": spec.study,
        "trial_key": spec.key,
        "role": spec.role,
        "series": list(spec.series),
        "provenance": str(result.provenance),
        "platform": str(spec.platform),
        "state": str(result.state),
        "failure_class": None if result.failure_class is None else str(result.failure_class),
        "failure_message": result.failure_message,
        "log_path": result.log_path,
        "attempt": spec.attempt,
        "engine": spec.engine.kind,
        "engine_release": spec.engine.release,
        "engine_build": spec.engine.build,
        "image": None if spec.engine.container is None else spec.engine.container.image,
        "image_digest": None if spec.engine.container is None else spec.engine.container.digest,
        "client": spec.client.kind,
        "client_version": spec.client.version,
        "client_arguments": spec.client.arguments_text,
        "model": spec.model.name,
        "model_path": spec.model.path,
        "model_revision": spec.model.revision,
        "model_dtype": spec.model.dtype,
        "model_is_dummy": spec.model.is_dummy,
        "calibration": json.dumps(dict(spec.calibration), sort_keys=True) if spec.calibration else None,
        "calibration_name": spec.calibration_name,
        "calibration_nearness": spec.calibration_nearness,
        "expected_error": spec.expected_error,
        "modelled_device": spec.modelled_device,
        "command": shlex.join(result.command) if result.command else None,
        "sanity_fingerprint": result.sanity_fingerprint,
        "sanity_text": result.sanity_text,
        "schema_version": SCHEMA_VERSION,
        "version.sweeper": sweeper.__version__,
        **_placement_values(result),
        **_named("version.", result.versions),
        **_named("knob.", spec.assignment),
        **_effective_values(result.effective),
        **_declared_or_extra(result.kernels),
        **_declared_or_extra(result.surroundings),
        **_declared_or_extra(result.phases),
        **result.accuracy,
    }


def _effective_values(effective: Mapping[str, Scalar]) -> dict[str, Any]:
    """Name what an engine reports of its knobs; what it says of a start that it shares is no knob."""
    shared = {name: value for name, value in effective.items() if name in LIVE_COLUMNS}
    return shared | _named("effective.", {n: v for n, v in effective.items() if n not in shared})


def _placement_values(result: TrialResult) -> dict[str, Any]:
    placement = result.placement
    if placement is None:
        return {}
    return {
        "node": placement.node,
        "devices": list(placement.devices),
        "parents": list(placement.parents),
        "device_name": placement.device_name,
        "partition_mode": placement.partition_mode,
        "partitions_per_gpu": placement.partitions_per_gpu,
        "memory_mode": placement.memory_mode,
        "numa_node": placement.numa_node,
    }


def _load_point_values(point: LoadPoint) -> dict[str, Any]:
    return {column.name: getattr(point, column.name) for column in SECTIONS["Load point"]}


def _measurement_values(measurement: Measurement) -> dict[str, Any]:
    return {
        **_load_point_values(measurement.load_point),
        **_declared_or_extra(measurement.metrics),
        **_declared_or_extra(measurement.telemetry),
        "restart": measurement.restart,
        "repeat": measurement.repeat,
        "measured_s": measurement.measured_s,
        "client_overhead_s": measurement.client_overhead_s,
        "started_at": _utc(measurement.started_at),
        "ended_at": _utc(measurement.ended_at),
        "raw_path": measurement.raw_path,
        "short_answers_because": measurement.short_answers_because,
    }


def _intervals(measurement: Measurement, distance: float | None) -> dict[str, Any]:
    """Return the intervals of a modelled measurement's numbers; of a measured one nothing."""
    if distance is None:
        return {}
    found = {name: interval(name, value, distance) for name, value in measurement.metrics.items()}
    wide = {name: ends for name, ends in found.items() if ends is not None}
    return {"interval_80": json.dumps(wide, sort_keys=True) if wide else None}


def _named(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}{name}": value for name, value in values.items()}


def _declared_or_extra(values: Mapping[str, Any]) -> dict[str, Any]:
    """Name numbers by their declared column; keep those without one as ``extra.<name>``, not lose them."""
    return {name if name in DECLARED else f"extra.{name}": value for name, value in values.items()}


def _utc(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, tz=UTC)


def _table(rows: Sequence[Mapping[str, Any]], *, knobs: Iterable[str]) -> pa.Table:
    names = [*DECLARED, *(f"knob.{knob}" for knob in knobs), *(name for row in rows for name in row)]
    fields, arrays = [], []
    plain = _plain_arrays(rows)
    for name in dict.fromkeys(names):
        if name in plain:
            field, array = DECLARED[name].field, plain[name]
        else:
            field, array = _array(name, [row.get(name) for row in rows])
        fields.append(field)
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _plain_arrays(rows: Sequence[Mapping[str, Any]]) -> dict[str, pa.Array]:
    """Return the columns whose values fit as they are, made at once: each alone takes longer."""
    names = [name for name, kind in _PLAIN.items() if all(_fits(row.get(name), kind) for row in rows)]
    # NaN is equal to nothing, and is unknown.
    values = [
        {name: value if value == value else None for name in names for value in [row.get(name)]}
        for row in rows
    ]
    kept = pa.array(values, type=pa.struct([DECLARED[name].field for name in names]))
    return dict(zip(names, kept.flatten(), strict=True))


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
