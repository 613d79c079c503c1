"""From a finished trial to the rows that are stored of it; ``arrays`` checks each value against its column.

A complete trial has a row per measurement; any other has a row per load point without metrics. One that was
stopped early has both, and all of them say ``skipped``.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import sweeper
from sweeper.records import (
    LIVE_COLUMNS,
    LoadPoint,
    Measurement,
    Scalar,
    TrialResult,
    TrialState,
)
from sweeper.simulation.intervals import interval
from sweeper.store.columns import DECLARED, SCHEMA_VERSION, SECTIONS


def rows_of(result: TrialResult, *, queued_s: float) -> list[dict[str, Any]]:
    """Return the rows of a finished trial, values by column; what is missing in one is null.

    Args:
        result: The trial, whatever became of it.
        queued_s: Seconds it waited for its devices.
    """
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
