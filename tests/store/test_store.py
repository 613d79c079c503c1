"""What is stored comes back: all of it, with the right meaning, whatever happened to the folder meanwhile."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from sweeper.errors import StoreError
from sweeper.records import (
    METRIC_NAMES,
    ClientSpec,
    FailureClass,
    LoadPoint,
    Measurement,
    Placement,
    Provenance,
    Scalar,
    TrialResult,
    TrialSpec,
    TrialState,
)
from sweeper.store.store import COLUMNS, SCHEMA_VERSION, Column, Store, columns_markdown

DOCS = Path(__file__).resolve().parents[2] / "docs"


def complete(
    spec: TrialSpec,
    *,
    metrics: Mapping[str, float | None] | None = None,
    runs: int = 1,
    provenance: Provenance = Provenance.SIMULATED,
) -> TrialResult:
    """A trial that ran to its end, with one engine start and the given runs at each load point."""
    measurements = tuple(
        Measurement(
            load_point=point,
            restart=0,
            repeat=run,
            metrics=metrics or {"request_throughput_per_s": 10.5, "completed": 20},
            telemetry={"preemptions": 0.0},
            measured_s=2.0,
            client_overhead_s=0.5,
            started_at=1_700_000_000.0,
            ended_at=1_700_000_002.0,
        )
        for point in spec.load_points
        for run in range(runs)
    )
    return TrialResult(
        spec=spec,
        placement=Placement(node="here", devices=(4, 5, 6, 7), parents=(4, 5, 6, 7), partition_mode="SPX"),
        state=TrialState.COMPLETE,
        provenance=provenance,
        measurements=measurements,
        effective={"max_num_seqs": 64},
        versions={"vllm": "0.6.2"},
        phases={"engine_start_s": 30.0, "warmup_s": 0.0, "stop_s": 1.0},
        command=("vllm", "serve", "my model"),
    )


def failed(spec: TrialSpec) -> TrialResult:
    return TrialResult(
        spec=spec,
        placement=None,
        state=TrialState.FAILED,
        provenance=Provenance.SIMULATED,
        failure_class=FailureClass.OUT_OF_MEMORY,
        failure_message="HIP out of memory",
        log_path="engine.log",
        started_at=1_700_000_000.0,
        ended_at=1_700_000_009.0,
    )


def with_knobs(spec: TrialSpec, **knobs: Scalar) -> TrialSpec:
    return dataclasses.replace(spec, assignment=knobs)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "study")


def test_stored_measurement_is_read_back_as_it_was(store: Store, simulated_spec: TrialSpec) -> None:
    store.append(complete(simulated_spec), queued_s=1.5, knobs=["max_num_seqs"])

    row = store.read().iloc[0]

    assert row["study"] == "test"
    assert row["trial_key"] == simulated_spec.key
    assert list(row["series"]) == ["tuned"]
    assert (row["state"], row["provenance"], row["platform"]) == ("complete", "simulated", "simulated")
    assert (row["dataset"], row["num_prompts"], row["input_len"]) == ("random", 20, 64)
    assert (row["request_throughput_per_s"], row["completed"]) == (10.5, 20)
    assert (row["queued_s"], row["engine_start_s"], row["measured_s"]) == (1.5, 30.0, 2.0)
    assert (row["node"], list(row["devices"]), row["partition_mode"]) == ("here", [4, 5, 6, 7], "SPX")
    assert (row["knob.max_num_seqs"], row["effective.max_num_seqs"]) == (64, 64)
    assert row["version.vllm"] == "0.6.2"
    assert row["command"] == "vllm serve 'my model'"
    assert row["ended_at"] == datetime(2023, 11, 14, 22, 13, 22, tzinfo=UTC)  # 1.7e9 s + 2 s


def test_row_says_which_version_of_a_foreign_client_measured(store: Store, simulated_spec: TrialSpec) -> None:
    client = ClientSpec(kind="aiperf", python="python", version="0.13.0")
    found = dataclasses.replace(simulated_spec, client=client)
    store.append(complete(found), queued_s=0.0, knobs=[])
    store.append(complete(simulated_spec), queued_s=0.0, knobs=[])
    rows = store.read().groupby("client")["client_version"].agg(set)
    assert rows["aiperf"] == {"0.13.0"}
    assert pd.isna(list(rows["vllm_bench"])).all()
    # Where it lies and which it is are no part of what is measured.
    assert found.key == dataclasses.replace(found, client=ClientSpec(kind="aiperf")).key != simulated_spec.key


def test_each_run_of_complete_trial_has_its_row(store: Store, simulated_spec: TrialSpec) -> None:
    store.append(complete(simulated_spec, runs=3), queued_s=0.0, knobs=[])

    assert store.read()["repeat"].tolist() == [0, 1, 2]


def test_failed_trial_has_row_for_each_load_point_with_its_reason(
    store: Store, simulated_spec: TrialSpec
) -> None:
    points = tuple(LoadPoint(dataset="random", num_prompts=5, request_rate_per_s=rate) for rate in (1.0, 2.0))
    store.append(failed(dataclasses.replace(simulated_spec, load_points=points)), queued_s=0.0, knobs=[])

    frame = store.read()

    assert frame["request_rate_per_s"].tolist() == [1.0, 2.0]
    assert frame["failure_class"].tolist() == ["out_of_memory"] * 2
    assert frame["failure_message"].tolist() == ["HIP out of memory"] * 2
    assert frame["log_path"].tolist() == ["engine.log"] * 2
    assert frame[["request_throughput_per_s", "completed", "restart"]].isna().all(axis=None)


def test_unknown_is_null_and_zero_is_zero(store: Store, simulated_spec: TrialSpec) -> None:
    metrics = {"mean_ttft_ms": math.nan, "mean_tpot_ms": None, "request_throughput_per_s": 0.0, "failed": 0.0}
    part = store.append(complete(simulated_spec, metrics=metrics), queued_s=0.0, knobs=[])

    row = pq.read_table(part).to_pylist()[0]

    assert row["mean_ttft_ms"] is None
    assert row["mean_tpot_ms"] is None
    assert (row["request_throughput_per_s"], row["failed"], row["preemptions"]) == (0.0, 0, 0)
    assert row["request_rate_per_s"] is None  # everything at once


def test_unit_and_description_travel_with_file(store: Store, simulated_spec: TrialSpec) -> None:
    part = store.append(complete(simulated_spec), queued_s=0.0, knobs=[])

    schema = pq.read_schema(part)

    assert schema.field("mean_ttft_ms").metadata == {
        b"unit": b"ms",
        b"description": b"Mean time to first token",
    }
    assert schema.metadata[b"sweeper"] == b"measurements"
    assert schema.metadata[b"schema_version"] == str(SCHEMA_VERSION).encode()


def test_every_metric_of_measurement_is_declared_column() -> None:
    assert set(METRIC_NAMES) <= {column.name for column in COLUMNS}


def test_column_becomes_arrow_field() -> None:
    field = Column(name="stop_s", type=pa.float64(), unit="s", description="Ending the engine").field

    assert (field.name, field.type, field.metadata[b"unit"]) == ("stop_s", pa.float64(), b"s")


def test_declared_columns_come_first_and_others_by_kind_and_name(
    store: Store, simulated_spec: TrialSpec
) -> None:
    store.append(complete(with_knobs(simulated_spec, b=1, a=2)), queued_s=0.0, knobs=["b", "a", "c"])

    names = list(store.read().columns)

    assert names[: len(COLUMNS)] == [column.name for column in COLUMNS]
    assert names[len(COLUMNS) :] == ["knob.a", "knob.b", "knob.c", "effective.max_num_seqs"]


def test_metric_that_is_not_declared_is_kept(store: Store, simulated_spec: TrialSpec) -> None:
    store.append(complete(simulated_spec, metrics={"p75_ttft_ms": 7.5}), queued_s=0.0, knobs=[])

    assert store.read()["extra.p75_ttft_ms"].tolist() == [7.5]


def test_folder_of_differing_trials_is_read_by_pandas_and_arrow_in_one_line(
    store: Store, simulated_spec: TrialSpec
) -> None:
    store.append(failed(with_knobs(simulated_spec, block_size=16)), queued_s=0.0, knobs=["block_size"])
    store.append(complete(with_knobs(simulated_spec, swap_gib=0.5, eager=True)), queued_s=0.0, knobs=[])
    store.append(complete(with_knobs(simulated_spec, swap_gib=4, eager="auto")), queued_s=0.0, knobs=[])

    frame = pd.read_parquet(store.measurements)
    table = pyarrow.dataset.dataset(store.measurements).to_table()

    assert len(frame) == table.num_rows == 3
    # Whole numbers join numbers; a truth value and a text have only text in common.
    assert sorted(frame["knob.swap_gib"].dropna()) == [0.5, 4.0]
    assert sorted(frame["knob.eager"].dropna()) == ["auto", "true"]
    assert frame["knob.block_size"].dropna().tolist() == [16]


def test_parts_of_other_columns_are_read_as_one_and_aligned(
    tmp_path: Path, store: Store, simulated_spec: TrialSpec
) -> None:
    """As a crash amid a rewrite, or a part brought from elsewhere, leaves them."""
    store.append(complete(with_knobs(simulated_spec, one=1)), queued_s=0.0, knobs=["one"])
    other = Store(tmp_path / "other")
    part = other.append(complete(with_knobs(simulated_spec, two=2)), queued_s=0.0, knobs=["two"])
    shutil.copy(part, store.measurements)

    frame = Store(store.folder).read()
    Store(store.folder).align(["three"])

    assert sorted(frame["knob.one"].dropna()) + sorted(frame["knob.two"].dropna()) == [1, 2]
    for path in store.parts():
        assert [n for n in pq.read_schema(path).names if n.startswith("knob.")] == [
            "knob.one",
            "knob.three",
            "knob.two",
        ]


def test_opening_aligned_study_rewrites_nothing(store: Store, simulated_spec: TrialSpec) -> None:
    part = store.append(complete(simulated_spec), queued_s=0.0, knobs=[])
    written_ns = part.stat().st_mtime_ns

    Store(store.folder).align([])

    assert part.stat().st_mtime_ns == written_ns


def test_measured_and_simulated_results_do_not_share_study(store: Store, simulated_spec: TrialSpec) -> None:
    store.append(complete(simulated_spec), queued_s=0.0, knobs=[])
    measured = complete(with_knobs(simulated_spec, a=1), provenance=Provenance.MEASURED)

    with pytest.raises(StoreError, match=r"holds simulated results and trial .* is measured; expected one"):
        Store(store.folder).append(measured, queued_s=0.0, knobs=[])


def test_attempt_is_stored_once(store: Store, simulated_spec: TrialSpec) -> None:
    store.append(complete(simulated_spec), queued_s=0.0, knobs=[])

    with pytest.raises(StoreError, match=r"attempt 1 at trial .* is stored already"):
        store.append(failed(simulated_spec), queued_s=0.0, knobs=[])

    assert store.read()["state"].tolist() == ["complete"]


def test_complete_trial_without_all_of_its_measurements_is_refused(
    store: Store, simulated_spec: TrialSpec
) -> None:
    hollow = dataclasses.replace(complete(simulated_spec), measurements=())

    with pytest.raises(StoreError, match="complete trial with 0 measurements; expected at least one"):
        store.append(hollow, queued_s=0.0, knobs=[])


@pytest.mark.parametrize("completed", [19.5, "many"])
def test_count_that_is_no_whole_number_fails_its_trial(
    store: Store, simulated_spec: TrialSpec, completed: float
) -> None:
    store.append(complete(simulated_spec, metrics={"completed": completed}), queued_s=0.0, knobs=[])

    row = store.read().iloc[0]
    assert (row["state"], row["failure_class"]) == ("failed", "client")
    assert "column 'completed' is given" in row["failure_message"]
    assert pd.isna(row["completed"])


@pytest.mark.parametrize("tokens", [1e30, 2**63, 10**400, -(2**64)])
def test_count_of_more_than_64_bits_fails_its_trial(
    store: Store, simulated_spec: TrialSpec, tokens: float
) -> None:
    store.append(complete(simulated_spec, metrics={"total_output_tokens": tokens}), queued_s=0.0, knobs=[])
    # The next trial is kept as ever.
    store.append(complete(with_knobs(simulated_spec, a=1)), queued_s=0.0, knobs=[])

    assert store.read()["state"].tolist().count("failed") == len(simulated_spec.load_points)
    assert "complete" in set(store.read()["state"])


def test_what_engine_tells_of_itself_is_held_whatever_it_is(store: Store, simulated_spec: TrialSpec) -> None:
    odd = dataclasses.replace(
        failed(simulated_spec),
        failure_message="a lone \ud800 surrogate",
        effective={"huge": 2**70, "endless": 10**400, "text": "\udfff", "real": float("inf")},
    )
    store.append(odd, queued_s=0.0, knobs=[])

    row = store.read().iloc[0]
    assert row["failure_message"] == "a lone \\ud800 surrogate"
    assert row["effective.huge"] == 2.0**70
    assert row["effective.endless"] == float("inf")
    assert row["effective.text"] == "\\udfff"


def test_torn_part_is_named_and_set_aside_and_rest_goes_on(store: Store, simulated_spec: TrialSpec) -> None:
    store.append(complete(simulated_spec), queued_s=0.0, knobs=[])
    torn = store.append(complete(with_knobs(simulated_spec, a=1)), queued_s=0.0, knobs=[])
    torn.write_bytes(torn.read_bytes()[:1000])

    with pytest.raises(StoreError, match=torn.name):
        store.read()
    with pytest.raises(StoreError, match=torn.name):
        store.finished()
    moved = store.set_aside_unreadable()

    assert moved == [store.measurements / "_set_aside" / torn.name]
    assert len(store.read()) == 1
    assert len(pd.read_parquet(store.measurements)) == 1
    assert len(moved[0].read_bytes()) == 1000
    # Its trial is run again and may be torn again; both remains are kept.
    shutil.copy(moved[0], torn)
    assert store.set_aside_unreadable() == [store.measurements / "_set_aside" / f"{torn.name}.1"]


def test_nothing_that_is_set_aside_replaces_what_was_set_aside_before(store: Store) -> None:
    aside = store.measurements / "_set_aside"
    for content in ("first", "second", "third"):
        (store.measurements / "a.parquet").mkdir(parents=True)
        (store.measurements / "a.parquet" / "notes").write_text(content)
        store.set_aside()
        if content == "second":
            # A person has looked at the first one and taken it away.
            shutil.rmtree(aside / "a.parquet")
    assert {path.name: (path / "notes").read_text() for path in aside.iterdir()} == {
        "a.parquet": "third",
        "a.parquet.1": "second",
    }


def test_file_that_arrow_passes_over_is_in_nobodys_way(store: Store, simulated_spec: TrialSpec) -> None:
    store.append(complete(simulated_spec), queued_s=0.0, knobs=[])
    (store.measurements / "_old.parquet").write_text("put aside by a person")
    assert store.set_aside() == []
    assert len(store.read()) == len(pd.read_parquet(store.measurements)) == 1


def test_part_damaged_in_its_middle_is_named(store: Store, simulated_spec: TrialSpec) -> None:
    part = store.append(complete(simulated_spec), queued_s=0.0, knobs=[])
    content = bytearray(part.read_bytes())
    content[4:2000] = bytes(1996)
    part.write_bytes(content)

    with pytest.raises(StoreError, match=part.name):
        store.read()


def test_parquet_file_of_somebody_else_is_set_aside(store: Store) -> None:
    store.measurements.mkdir(parents=True)
    pq.write_table(pa.table({"trial_key": ["x"]}), store.measurements / "notes.parquet")

    with pytest.raises(StoreError, match=r"notes\.parquet: is no readable result"):
        store.read()

    assert [path.name for path in store.set_aside_unreadable()] == ["notes.parquet"]


def replaced(part: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Write a part anew with other columns and the marks of ours."""
    table = pq.read_table(part)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), part)


def columns_of(table: pa.Table, name: str, values: list[object], kind: pa.DataType) -> pa.Table:
    place = table.schema.get_field_index(name)
    return table.set_column(place, name, pa.array(values * table.num_rows, type=kind))


STRUCT = pa.struct([("a", pa.int64())])
SPOILT: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "two columns of one name": (
        lambda table: table.append_column("mean_ttft_ms", table.column("mean_ttft_ms")),
        "it has two columns of one name: 'mean_ttft_ms'",
    ),
    "two knobs of one name": (
        lambda table: table.append_column("knob.a", table.column("study")).append_column(
            "knob.a", table.column("study")
        ),
        "it has two columns of one name: 'knob.a'",
    ),
    "no column": (lambda table: table.select([]), "it was not written by sweeper"),
    "no trial": (lambda table: table.drop_columns(["trial_key"]), "it was not written by sweeper"),
    "a knob that is an object": (
        lambda table: table.append_column("knob.b", pa.array([{"a": 1}] * table.num_rows, type=STRUCT)),
        "struct",
    ),
    "a number that is an object": (
        lambda table: columns_of(table, "mean_ttft_ms", [{"a": 1}], STRUCT),
        "struct",
    ),
    "a number that is a text": (
        lambda table: columns_of(table, "mean_ttft_ms", ["fast"], pa.string()),
        "fast",
    ),
    "a year that no calendar has": (
        lambda table: columns_of(table, "started_at", [-(2**62)], pa.timestamp("us", tz="UTC")),
        "out of bounds",
    ),
    "an attempt that is a text": (lambda table: columns_of(table, "attempt", ["x"], pa.string()), "x"),
    "no row": (lambda table: table.slice(0, 0), "no row in"),
}


@pytest.mark.parametrize(("change", "reason"), SPOILT.values(), ids=list(SPOILT))
def test_part_whose_columns_are_not_ours_is_set_aside_with_reason(
    store: Store,
    simulated_spec: TrialSpec,
    change: Callable[[pa.Table], pa.Table],
    reason: str,
) -> None:
    store.append(complete(simulated_spec), queued_s=0.0, knobs=[])
    part = store.append(complete(with_knobs(simulated_spec, a=1)), queued_s=0.0, knobs=[])
    replaced(part, change)

    for act in (store.read, store.finished):
        with contextlib.suppress(StoreError):
            act()
    with pytest.raises(StoreError, match=re.escape(part.name)):
        store.read()
    [found] = store.set_aside()

    assert found.place == store.measurements / "_set_aside" / part.name
    assert reason in found.reason
    assert len(store.read()) == len(store.finished()) == 1
    store.append(complete(with_knobs(simulated_spec, a=1)), queued_s=0.0, knobs=[])


@pytest.mark.parametrize("end", [b"PAR1", b"\xff\xff\xff\x7fPAR1", b"\x00\x00\x00\x00PAR1", b""])
def test_part_with_damaged_footer_is_set_aside(store: Store, simulated_spec: TrialSpec, end: bytes) -> None:
    part = store.append(complete(simulated_spec), queued_s=0.0, knobs=[])
    part.write_bytes(part.read_bytes()[: -8 if end else -20] + end)
    [found] = store.set_aside()
    assert found.place == store.measurements / "_set_aside" / part.name
    assert found.reason


def test_metadata_without_end_is_read_past(store: Store, simulated_spec: TrialSpec) -> None:
    part = store.append(complete(simulated_spec), queued_s=0.0, knobs=[])
    table = pq.read_table(part)
    more = {**table.schema.metadata, b"more": b"x" * 20_000_000}
    pq.write_table(table.replace_schema_metadata(more), part)
    assert store.set_aside() == []
    assert len(store.read()) == 1


def test_folder_and_link_that_leads_nowhere_are_set_aside(store: Store, simulated_spec: TrialSpec) -> None:
    store.append(complete(simulated_spec), queued_s=0.0, knobs=[])
    (store.measurements / "folder-1.parquet").mkdir()
    (store.measurements / "link-1.parquet").symlink_to("nowhere")

    found = store.set_aside()

    aside = store.measurements / "_set_aside"
    assert [(item.place, item.reason) for item in found] == [
        (aside / "folder-1.parquet", "it is no file"),
        (aside / "link-1.parquet", "it is no file"),
    ]
    assert len(store.read()) == len(pd.read_parquet(store.measurements)) == 1


def test_part_of_later_format_is_named_and_stays(store: Store, simulated_spec: TrialSpec) -> None:
    part = store.append(complete(simulated_spec), queued_s=0.0, knobs=[])
    table = pq.read_table(part)
    later = {**table.schema.metadata, b"schema_version": str(SCHEMA_VERSION + 1).encode()}
    pq.write_table(table.replace_schema_metadata(later), part)

    with pytest.raises(
        StoreError, match=f"is of schema version {SCHEMA_VERSION + 1}; expected at most {SCHEMA_VERSION}"
    ):
        store.read()
    with pytest.raises(StoreError, match="install that one"):
        store.set_aside_unreadable()

    assert part.exists()


def test_half_written_part_of_killed_process_is_passed_over(store: Store, simulated_spec: TrialSpec) -> None:
    part = store.append(complete(simulated_spec), queued_s=0.0, knobs=[])
    (store.measurements / f".{part.name}.partial").write_bytes(b"PAR1")

    assert store.parts() == [part]
    assert len(pd.read_parquet(store.measurements)) == 1


def test_part_leaves_no_partial_file_behind(store: Store, simulated_spec: TrialSpec) -> None:
    part = store.append(complete(simulated_spec), queued_s=0.0, knobs=[])

    assert list(store.measurements.iterdir()) == [part]
    assert part.name == f"{simulated_spec.key}-1.parquet"


def test_folder_that_cannot_be_written_is_store_error(tmp_path: Path, simulated_spec: TrialSpec) -> None:
    (tmp_path / "measurements").write_text("a file where the folder should be")

    with pytest.raises(StoreError, match="cannot be written"):
        Store(tmp_path).append(complete(simulated_spec), queued_s=0.0, knobs=[])


def test_finished_tells_how_latest_attempt_ended(store: Store, simulated_spec: TrialSpec) -> None:
    for attempt in range(1, 11):  # ten, for a name with -10 sorts before one with -2
        spec = dataclasses.replace(simulated_spec, attempt=attempt)
        store.append(complete(spec) if attempt == 10 else failed(spec), queued_s=0.0, knobs=[])
    other = with_knobs(simulated_spec, a=1)
    store.append(failed(other), queued_s=0.0, knobs=[])

    finished = store.finished()

    assert finished[simulated_spec.key].state is TrialState.COMPLETE
    assert finished[simulated_spec.key].attempt == 10
    assert finished[simulated_spec.key].failure_class is None
    assert finished[other.key].failure_class is FailureClass.OUT_OF_MEMORY


def test_latest_keeps_only_last_attempt_of_each_trial(store: Store, simulated_spec: TrialSpec) -> None:
    store.append(failed(simulated_spec), queued_s=0.0, knobs=[])
    store.append(complete(dataclasses.replace(simulated_spec, attempt=2)), queued_s=0.0, knobs=[])

    frame = store.read()

    assert frame["attempt"].tolist() == [1, 2]
    assert Store.latest(frame)["attempt"].tolist() == [2]


def test_study_without_results_is_empty_and_has_its_columns(store: Store) -> None:
    assert store.finished() == {}
    assert store.set_aside_unreadable() == []
    frame = store.read()
    assert frame.empty
    assert list(frame.columns) == [column.name for column in COLUMNS]


def test_described_columns_are_those_of_code() -> None:
    stated = (DOCS / "columns.md").read_text(encoding="utf-8")

    assert "| `duration_s` | double, s | First request sent to last one completed |" in stated
    # The statistics of a latency share a row that says what is timed.
    assert "`p95_ttft_ms`, `p99_ttft_ms` | double, ms | Time to first token |" in stated
    named = re.findall(r"`([\w.]+)`", re.sub(r"\| [^|]*\|$", "", stated, flags=re.MULTILINE))
    assert {column.name for column in COLUMNS} <= set(named)
    assert stated == columns_markdown(), "run: python -m analysis columns > docs/columns.md"


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION + 1))
def test_results_of_every_format_so_far_are_read(version: int, tmp_path: Path) -> None:
    recorded = Path(__file__).parents[1] / "recorded" / f"parts_of_version_{version}"
    shutil.copytree(recorded, tmp_path / "measurements")

    store = Store(tmp_path)
    row = store.read().iloc[0]

    assert store.set_aside_unreadable() == []
    assert (row["state"], row["request_throughput_per_s"], row["knob.max_num_seqs"]) == ("complete", 10.5, 64)
    assert (row["engine_start_s"], row["schema_version"]) == (30.0, version)
    assert [trial.state for trial in store.finished().values()] == [TrialState.COMPLETE]


def test_part_that_lies_under_another_name_does_not_count_twice(
    store: Store, simulated_spec: TrialSpec
) -> None:
    part = store.append(complete(simulated_spec), queued_s=0.0, knobs=[])
    shutil.copy(part, store.measurements / "backup.parquet")

    with pytest.raises(StoreError, match=rf"backup\.parquet.*belongs into {part.name}; a copy counts twice"):
        store.read()

    assert store.set_aside_unreadable() == [store.measurements / "_set_aside" / "backup.parquet"]
    assert len(store.read()) == 1
