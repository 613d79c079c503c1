"""The result store: what is kept of every trial, as typed Parquet columns with unit and meaning.

One part per finished trial lies in ``measurements/`` of the study's folder. A complete trial has a row
per measurement; any other has a row per load point with empty metrics, so that a failure is data and no
load point is ever missing without a reason. Null is unknown, zero is zero.

All parts of a study share one set of columns and types: older parts are rewritten when a later trial
brings a new column. That keeps ``pandas.read_parquet("outputs/<study>/measurements")`` a single line for
whoever never heard of this package. The process that owns the study is the only writer.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

import sweeper
from sweeper.errors import StoreError
from sweeper.files import Folder, Location, open_folder
from sweeper.records import FailureClass, LoadPoint, Measurement, TrialResult, TrialState

SCHEMA_VERSION = 1
"""Raised when the meaning of a stored column changes. Later versions read all earlier ones."""

PERCENTILES = ("p50", "p90", "p95", "p99")
LATENCIES = {
    "ttft": "time to first token",
    "tpot": "time per output token after the first, per request",
    "itl": "time between consecutive tokens",
    "e2el": "end-to-end latency of a request",
}
_STATISTICS = {
    "mean": "Mean",
    "median": "Median",
    "std": "Standard deviation of the",
    **{percentile: f"{percentile[1:]}th percentile of the" for percentile in PERCENTILES},
}

DYNAMIC_PREFIXES = ("knob.", "effective.", "version.", "extra.")
"""Columns that a study brings along, in the order in which they stand after the declared ones."""

MEASUREMENTS = "measurements"
"""The folder of the parts, in a study's folder or wherever its results go."""

# Arrow, and so pandas.read_parquet on the folder, passes over names that start with "_" or ".".
_SET_ASIDE = "_set_aside"

_STRING = pa.string()
_FLOAT = pa.float64()
_INT = pa.int64()
_BOOL = pa.bool_()
_TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, kw_only=True)
class Column:
    """A declared column.

    Attributes:
        name: Its name, the same in code, Parquet and tables; the unit ends it.
        type: Arrow type.
        unit: Unit of the values; empty where there is none.
        description: What a value says.
    """

    name: str
    type: pa.DataType
    unit: str
    description: str

    @property
    def field(self) -> pa.Field:
        """The Arrow field, with unit and description as its metadata."""
        return pa.field(self.name, self.type, metadata={"unit": self.unit, "description": self.description})


def _column(name: str, arrow_type: pa.DataType, description: str, unit: str = "") -> Column:
    return Column(name=name, type=arrow_type, unit=unit, description=description)


def _latency_columns() -> tuple[Column, ...]:
    return tuple(
        _column(f"{statistic}_{latency}_ms", _FLOAT, f"{words} {meaning}", "ms")
        for latency, meaning in LATENCIES.items()
        for statistic, words in _STATISTICS.items()
    )


def _batch_latency_columns() -> tuple[Column, ...]:
    meaning = "latency of a whole batch, over its iterations; dataset latency only"
    return tuple(
        _column(f"{statistic}_batch_latency_ms", _FLOAT, f"{words} {meaning}", "ms")
        for statistic, words in _STATISTICS.items()
    )


SECTIONS: Mapping[str, tuple[Column, ...]] = {
    "Trial": (
        _column("study", _STRING, "Name of the study"),
        _column(
            "trial_key", _STRING, "Identity by content: assignment, engine, model, platform, load points"
        ),
        _column("series", pa.list_(_STRING), "Names of the series that this trial serves; may be empty"),
        _column("provenance", _STRING, "measured on a machine, or simulated by a model of one"),
        _column("platform", _STRING, "Machine measured: mi300x, cuda, cpu or simulated"),
        _column("state", _STRING, "complete, failed, infeasible or skipped"),
        _column("failure_class", _STRING, "Why there are no numbers; null for a complete trial"),
        _column("failure_message", _STRING, "The engine's own line where it left one, else the sweeper's"),
        _column("log_path", _STRING, "Log of the engine"),
        _column("attempt", _INT, "Attempt at this trial, from 1"),
        _column("restart", _INT, "Engine start within the trial; null where nothing was measured"),
        _column("repeat", _INT, "Client run within the engine start; null where nothing was measured"),
    ),
    "Load point": (
        _column("dataset", _STRING, "What is sent: sharegpt, random, latency or throughput"),
        _column("num_prompts", _INT, "Requests sent", "requests"),
        _column("request_rate_per_s", _FLOAT, "Mean of the Poisson arrivals; null sends all at once", "1/s"),
        _column("max_concurrency", _INT, "Requests under way at once; null is unlimited", "requests"),
        _column("input_len", _INT, "Prompt length of every dataset but sharegpt", "tokens"),
        _column("output_len", _INT, "Output length asked for; null keeps those of the dataset", "tokens"),
        _column("range_ratio", _FLOAT, "Random lengths lie in len * (1 +/- ratio)", "fraction"),
        _column("dataset_path", _STRING, "File of the dataset"),
        _column("ignore_eos", _BOOL, "Exactly the wanted number of tokens is generated"),
        _column("client_seed", _INT, "Seed of arrivals and sampling"),
        _column(
            "keeps_prefix_cache", _BOOL, "Began with what the engine remembered of earlier runs of the trial"
        ),
    ),
    "Metrics, as vLLM's benchmarks define them": (
        _column("request_throughput_per_s", _FLOAT, "Completed requests per second of the run", "1/s"),
        _column("output_throughput_tok_per_s", _FLOAT, "Output tokens per second of the run", "tokens/s"),
        _column("total_throughput_tok_per_s", _FLOAT, "Input and output tokens per second", "tokens/s"),
        _column("request_goodput_per_s", _FLOAT, "Requests per second that met the latency bounds", "1/s"),
        *_latency_columns(),
        *_batch_latency_columns(),
        _column("completed", _INT, "Requests that completed", "requests"),
        _column("failed", _INT, "Requests that failed", "requests"),
        _column("total_input_tokens", _INT, "Prompt tokens of completed requests", "tokens"),
        _column("total_output_tokens", _INT, "Tokens generated for completed requests", "tokens"),
        _column("duration_s", _FLOAT, "First request sent to last one completed", "s"),
    ),
    "Telemetry, counted by the engine during the run": (
        _column("prefix_cache_hit_rate", _FLOAT, "Prompt tokens found in the prefix cache", "fraction"),
        _column("kv_cache_usage", _FLOAT, "Highest share of the KV cache seen in use", "fraction"),
        _column("preemptions", _INT, "Requests put back because the KV cache was full", "requests"),
        _column("gpu_memory_gib", _FLOAT, "Device memory in use, all devices of the trial", "GiB"),
        _column("gpu_power_w", _FLOAT, "Device power, all devices of the trial", "W"),
    ),
    "Time spent": (
        _column("queued_s", _FLOAT, "The trial waited for its devices", "s"),
        _column("engine_start_s", _FLOAT, "Launch of the engine until ready", "s"),
        _column("warmup_s", _FLOAT, "Requests whose numbers are thrown away", "s"),
        _column("measured_s", _FLOAT, "The client run of this row", "s"),
        _column("client_overhead_s", _FLOAT, "Around the client run: imports, dataset, writing", "s"),
        _column("stop_s", _FLOAT, "Ending the engine", "s"),
        _column(
            "started_at",
            _TIME,
            "Start of the run of this row; of the trial where nothing was measured",
            "UTC",
        ),
        _column(
            "ended_at", _TIME, "End of the run of this row; of the trial where nothing was measured", "UTC"
        ),
    ),
    "Placement": (
        _column("node", _STRING, "Host name"),
        _column("devices", pa.list_(_INT), "Node-absolute indices of the devices held"),
        _column("parents", pa.list_(_INT), "Physical GPUs that these devices are part of"),
        _column("partition_mode", _STRING, "Compute mode: SPX, DPX, QPX, CPX; null where there are none"),
        _column("memory_mode", _STRING, "NPS1, NPS2, NPS4; null where there are none"),
        _column("numa_node", _INT, "NUMA node that all devices share"),
    ),
    "Engine and model": (
        _column("engine", _STRING, "What serves: vllm or simulated"),
        _column("client", _STRING, "What loads it: vllm_bench, offline or locust"),
        _column("model", _STRING, "Name under which the model is served"),
        _column("model_revision", _STRING, "Revision on the hub, or content hash of a local folder"),
        _column("model_dtype", _STRING, "Type of the weights"),
        _column("model_is_dummy", _BOOL, "Weights are random, so only speed means anything"),
        _column("calibration", _STRING, "Parameters of the simulation, JSON; null when measured"),
        _column("command", _STRING, "Command line of the engine, quoted for a shell, without secrets"),
        _column("sanity_fingerprint", _STRING, "Of the answer to a greedy question"),
        _column("raw_path", _STRING, "The client's own JSON as it came"),
    ),
    "Versions": (
        _column("version.sweeper", _STRING, "This package"),
        _column("version.vllm", _STRING, "vLLM, found in its environment or modelled"),
        _column("version.torch", _STRING, "PyTorch of the engine"),
        _column("version.rocm", _STRING, "ROCm (HIP) that PyTorch was built for"),
        _column("version.driver", _STRING, "GPU driver"),
        _column("version.gfx_target", _STRING, "Instruction set of the GPU, such as gfx942"),
        _column("version.kernel", _STRING, "Linux kernel"),
        _column("schema_version", _INT, "Version of this table's format"),
    ),
}
"""The declared columns under their headings, in the order in which they stand in a part."""

COLUMNS: tuple[Column, ...] = tuple(column for columns in SECTIONS.values() for column in columns)
"""All declared columns."""

_DECLARED = {column.name: column for column in COLUMNS}


@dataclass(frozen=True, kw_only=True)
class FinishedTrial:
    """How the latest attempt at a trial ended."""

    state: TrialState
    failure_class: FailureClass | None
    attempt: int


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
        self._schema: pa.Schema | None = None
        self._provenance: str | None = None

    @property
    def measurements(self) -> Location:
        """Folder or URL of the parts."""
        return self._files.location

    def parts(self) -> list[Location]:
        """Give the stored parts, by name."""
        return [self._files.at(name) for name in self._names()]

    def _names(self) -> list[str]:
        return [name for name in self._files.names() if name.endswith(".parquet") and name[0] != "."]

    def append(self, result: TrialResult, *, queued_s: float, knobs: Iterable[str]) -> Location:
        """Store a finished trial, whatever became of it, as one part.

        Args:
            result: The trial.
            queued_s: Seconds it waited for its devices.
            knobs: All knobs of the study, so that every part has their columns.

        Returns:
            The part: it is either whole on disk or not there at all.

        Raises:
            StoreError: The attempt is stored already, measured and simulated results would be mixed, a
                complete trial has too few measurements, a value does not fit its column, or a part that
                is already there cannot be read.
        """
        name = f"{result.spec.key}-{result.spec.attempt}.parquet"
        self._refuse_contradictions(result, name)
        table = _table_of(_rows(result, queued_s=queued_s), knobs=[*knobs, *result.spec.assignment])
        self._grow(table.schema)
        assert self._schema is not None
        _write(_conform(table, self._schema), self._files, name, provenance=str(result.provenance))
        self._provenance = str(result.provenance)
        return self._files.at(name)

    def align(self, knobs: Iterable[str]) -> None:
        """Give every part a column for each of these knobs, and the same columns and types as the others.

        Raises:
            StoreError: A part cannot be read.
        """
        self._grow(pa.schema([_dynamic_field(f"knob.{knob}", pa.null()) for knob in dict.fromkeys(knobs)]))

    def read(self) -> pd.DataFrame:
        """Give everything stored, a row per measurement or per load point of a trial without numbers.

        Returns:
            Declared columns first, then knob, effective, version and extra columns by name. Whole numbers
            and booleans have pandas' nullable types, times are UTC. Empty when nothing is stored yet.

        Raises:
            StoreError: A part is torn, foreign, or of a later format; the message names it.
        """
        tables = [_read_part(self._files, name) for name in self._names()]
        schema = _unify([table.schema for table in tables])
        whole = pa.concat_tables([schema.empty_table(), *(_conform(table, schema) for table in tables)])
        nullable = {_INT: pd.Int64Dtype(), _BOOL: pd.BooleanDtype()}
        frame: pd.DataFrame = whole.to_pandas(types_mapper=nullable.get)
        return frame

    def finished(self) -> dict[str, FinishedTrial]:
        """Give, for each trial key, how its latest attempt ended.

        Raises:
            StoreError: A part cannot be read.
        """
        latest: dict[str, FinishedTrial] = {}
        columns = ["trial_key", "state", "failure_class", "attempt"]
        for name in self._names():
            row = _read_part(self._files, name, columns=columns).to_pylist()[0]
            known = latest.get(row["trial_key"])
            if known is None or known.attempt < row["attempt"]:
                failure = row["failure_class"]
                latest[row["trial_key"]] = FinishedTrial(
                    state=TrialState(row["state"]),
                    failure_class=None if failure is None else FailureClass(failure),
                    attempt=row["attempt"],
                )
        return latest

    @staticmethod
    def latest(frame: pd.DataFrame) -> pd.DataFrame:
        """Keep the rows of each trial's latest attempt, out of what ``read`` gave."""
        last = frame.groupby("trial_key")["attempt"].transform("max")
        return frame[frame["attempt"] == last].reset_index(drop=True)

    def set_aside_unreadable(self) -> list[Location]:
        """Move parts that are torn or not ours out of the way, so that the study can go on.

        A part of a later format is good data and stays where it is. Nothing is deleted.

        Returns:
            Where the files lie now, under ``measurements/_set_aside/``.
        """
        moved = []
        for name in self._names():
            try:
                _read_part(self._files, name)
            except _UnreadablePartError:
                moved.append(self._files.move_aside(name, _SET_ASIDE))
        self._schema = None
        return moved

    def _refuse_contradictions(self, result: TrialResult, name: str) -> None:
        self._load_schema()
        path = self._files.at(name)
        if self._files.holds(name):
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
                f"{path}: complete trial with {got} measurements; expected at least one for each of its "
                f"{wanted} load points. Store it as failed, with the reason."
            )

    def _load_schema(self) -> None:
        """Learn columns and provenance of what is stored, once; afterwards this object is the only writer."""
        if self._schema is None:
            schemas = [_schema_of(self._files, name) for name in self._names()]
            self._schema = _unify(schemas)
            self._provenance = _text(schemas[0], "provenance") if schemas else None
            self._rewrite_parts()

    def _grow(self, schema: pa.Schema) -> None:
        """Take in the columns of a schema; rewrite the stored parts when that changes anything."""
        self._load_schema()
        grown = _unify([self._schema, schema])
        if not grown.equals(self._schema):
            self._schema = grown
            self._rewrite_parts()

    def _rewrite_parts(self) -> None:
        assert self._schema is not None
        for name in self._names():
            schema = _schema_of(self._files, name)
            if not schema.equals(self._schema):
                table = _conform(_read_part(self._files, name), self._schema)
                _write(table, self._files, name, provenance=_text(schema, "provenance"))


class _UnreadablePartError(StoreError):
    """A file that is torn, or not one of ours."""


def columns_markdown() -> str:
    """Describe every column of ``measurements/`` in Markdown, straight from the declarations."""
    lines = [
        "# Columns of measurements/",
        "",
        "A row is one client run at one load point; a trial without numbers has one row per load point.",
        "Null is unknown, zero is zero. Unit and description also stand in the Arrow metadata of each field.",
        f"Schema version {SCHEMA_VERSION}.",
    ]
    for title, columns in SECTIONS.items():
        lines += ["", f"## {title}", "", "| column | type | unit | meaning |", "|---|---|---|---|"]
        lines += [f"| `{c.name}` | {_type_text(c)} | {c.unit} | {c.description} |" for c in columns]
    lines += ["", "## Columns that a study brings along", "", "| column | meaning |", "|---|---|"]
    lines += [f"| `{prefix}<name>` | {_dynamic_meaning(f'{prefix}<name>')} |" for prefix in DYNAMIC_PREFIXES]
    lines += [
        "",
        "Their type is that of their values: boolean, whole number, number or text. Whole numbers become",
        "numbers when both occur in a study; any other mix becomes text.",
    ]
    return "\n".join(lines) + "\n"


def _type_text(column: Column) -> str:
    return str(column.type).replace("item: ", "")


# ---- from a result to rows ----


def _rows(result: TrialResult, *, queued_s: float) -> list[dict[str, Any]]:
    shared = _trial_values(result) | {"queued_s": queued_s}
    if result.state is TrialState.COMPLETE:
        return [shared | _measurement_values(measurement) for measurement in result.measurements]
    unmeasured = {"started_at": _utc(result.started_at), "ended_at": _utc(result.ended_at)}
    points = [_load_point_values(point) for point in result.spec.load_points] or [{}]
    return [shared | unmeasured | point for point in points]


def _trial_values(result: TrialResult) -> dict[str, Any]:
    spec = result.spec
    return {
        "study": spec.study,
        "trial_key": spec.key,
        "series": list(spec.series),
        "provenance": str(result.provenance),
        "platform": str(spec.platform),
        "state": str(result.state),
        "failure_class": None if result.failure_class is None else str(result.failure_class),
        "failure_message": result.failure_message,
        "log_path": result.log_path,
        "attempt": spec.attempt,
        "engine": spec.engine.kind,
        "client": spec.client.kind,
        "model": spec.model.name,
        "model_revision": spec.model.revision,
        "model_dtype": spec.model.dtype,
        "model_is_dummy": spec.model.is_dummy,
        "calibration": json.dumps(dict(spec.calibration), sort_keys=True) if spec.calibration else None,
        "command": shlex.join(result.command) if result.command else None,
        "sanity_fingerprint": result.sanity_fingerprint,
        "schema_version": SCHEMA_VERSION,
        "version.sweeper": sweeper.__version__,
        **_placement_values(result),
        **_named("version.", result.versions),
        **_named("knob.", spec.assignment),
        **_named("effective.", result.effective),
        **_declared_or_extra(result.phases),
    }


def _placement_values(result: TrialResult) -> dict[str, Any]:
    placement = result.placement
    if placement is None:
        return {}
    return {
        "node": placement.node,
        "devices": list(placement.devices),
        "parents": list(placement.parents),
        "partition_mode": placement.partition_mode,
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
    }


def _named(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}{name}": value for name, value in values.items()}


def _declared_or_extra(values: Mapping[str, Any]) -> dict[str, Any]:
    """Name numbers by their declared column; keep those without one as ``extra.<name>``, not lose them."""
    return {name if name in _DECLARED else f"extra.{name}": value for name, value in values.items()}


def _utc(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, tz=UTC)


# ---- from rows to tables of one schema ----


def _table_of(rows: Sequence[Mapping[str, Any]], *, knobs: Iterable[str]) -> pa.Table:
    names = [*_DECLARED, *(f"knob.{knob}" for knob in knobs), *(name for row in rows for name in row)]
    fields, arrays = [], []
    for name in dict.fromkeys(names):
        field, array = _array(name, [row.get(name) for row in rows])
        fields.append(field)
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _array(name: str, values: Sequence[Any]) -> tuple[pa.Field, pa.Array]:
    known = [None if isinstance(value, float) and math.isnan(value) else value for value in values]
    declared = _DECLARED.get(name)
    field = declared.field if declared else _dynamic_field(name, _type_of(known))
    try:
        # Checked: a client may count in floats, so 5.0 is a whole number, but 5.5 must not become 5.
        whole = [value % 1 == 0 for value in known if field.type == _INT and isinstance(value, float)]
        if not all(whole):
            raise pa.ArrowInvalid("a fraction where a whole number is expected")
        return field, pa.array(
            [_as_text(v) for v in known] if field.type == _STRING else known, type=field.type
        )
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as exc:
        raise StoreError(
            f"measurements/: column '{name}' is given {known!r}; expected {field.type}. "
            "Mend what makes this value; nothing was stored."
        ) from exc


def _as_text(value: Any) -> Any:
    """Write a value as Arrow's own cast to text does, so that a mixed column reads alike in all parts."""
    if isinstance(value, str) or value is None:
        return value
    return str(pa.array([value]).cast(_STRING)[0])


def _type_of(values: Sequence[Any]) -> pa.DataType:
    found = pa.null()
    for value in values:
        found = _common_type(found, pa.infer_type([value]))
    return found


def _common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """Give the type that holds values of both: text, unless one promotes to the other."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    return _FLOAT if {one, other} == {_INT, _FLOAT} else _STRING


def _unify(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Give the one schema that holds all: declared columns in order, then the others by kind and name."""
    types: dict[str, pa.DataType] = {}
    for schema in schemas:
        for field in schema:
            types[field.name] = _common_type(types.get(field.name, pa.null()), field.type)
    brought = sorted(types.keys() - _DECLARED.keys(), key=_dynamic_order)
    return pa.schema([c.field for c in COLUMNS] + [_dynamic_field(name, types[name]) for name in brought])


def _dynamic_order(name: str) -> tuple[int, str]:
    kinds = [index for index, prefix in enumerate(DYNAMIC_PREFIXES) if name.startswith(prefix)]
    return (kinds[0] if kinds else len(DYNAMIC_PREFIXES), name)


def _dynamic_field(name: str, arrow_type: pa.DataType) -> pa.Field:
    return pa.field(name, arrow_type, metadata={"unit": "", "description": _dynamic_meaning(name)})


def _dynamic_meaning(name: str) -> str:
    kind, _, rest = name.partition(".")
    return {
        "knob": f"Value of knob {rest} that was asked for; null leaves it to the engine",
        "effective": f"Value of {rest} that the engine reported",
        "version": f"Version of {rest}",
        "extra": f"{rest}, as the client or engine gave it; not declared in this format",
    }.get(kind, "Not declared in this format")


def _conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.schema.names
        else pa.nulls(table.num_rows, type=field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


# ---- parts as files ----


def _write(table: pa.Table, folder: Folder, name: str, *, provenance: str) -> None:
    """Write a part; a reader or a crash never meets half of it."""
    marks = {"sweeper": "measurements", "schema_version": str(SCHEMA_VERSION), "provenance": provenance}
    content = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(marks), content)
    folder.write(name, content.getvalue())


def _schema_of(folder: Folder, name: str) -> pa.Schema:
    return _opened(folder, name).schema_arrow


def _read_part(folder: Folder, name: str, columns: list[str] | None = None) -> pa.Table:
    part = _opened(folder, name)
    try:
        table = part.read(columns=columns)
    except (pa.ArrowException, OSError) as exc:
        raise _UnreadablePartError(_unreadable(folder.at(name), str(exc))) from exc
    if table.num_rows == 0:
        columns_there = len(part.schema_arrow)
        raise _UnreadablePartError(_unreadable(folder.at(name), f"no row in {columns_there} columns"))
    return table


def _opened(folder: Folder, name: str) -> pq.ParquetFile:
    """Open a part of ours.

    It is fetched first and looked at then, so that a place that does not answer is never taken for a torn
    part, which would be put aside.
    """
    content, path = folder.read(name), folder.at(name)
    try:
        # ParquetFile rather than read_table: the latter reads key=value folder names as columns.
        part = pq.ParquetFile(pa.BufferReader(content))
    except (pa.ArrowException, OSError) as exc:
        raise _UnreadablePartError(_unreadable(path, str(exc))) from exc
    schema = part.schema_arrow
    if _text(schema, "sweeper") != "measurements" or "trial_key" not in schema.names:
        raise _UnreadablePartError(_unreadable(path, "it was not written by sweeper"))
    version = int(_text(schema, "schema_version") or SCHEMA_VERSION)
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path}: is of schema version {version}; expected at most {SCHEMA_VERSION}. "
            "It was written by a later sweeper: install that one to read this study."
        )
    return part


def _unreadable(path: Location, reason: str) -> str:
    return (
        f"{path}: is no readable result ({reason}); expected a part written by sweeper. "
        f"Move it out of the way, for instance to measurements/{_SET_ASIDE}/; its trial is then run again."
    )


def _text(schema: pa.Schema, name: str) -> str:
    value: bytes = (schema.metadata or {}).get(name.encode(), b"")
    return value.decode()
