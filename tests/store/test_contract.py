"""What holds for every place that a store can lie in: a folder, a URL, an object store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pyarrow import fs

from sweeper.errors import StoreError
from sweeper.records import FailureClass, Placement, TrialSpec, TrialState
from sweeper.store.files import Folder, Location, open_folder
from sweeper.store.store import Store
from sweeper.store.trials import StoredTrials
from tests.stand_ins import complete, failed
from tests.store.test_files import Bucket

MEMBERS = ("folder", "file URL", "mounted file system", "object store")


@pytest.fixture(params=MEMBERS)
def results(request: pytest.FixtureRequest, tmp_path: Path) -> Location | Folder:
    """Where the results of a study go; what was written is there for a second store of the same place."""
    if request.param == "folder":
        return tmp_path / "results"
    if request.param == "file URL":
        return f"file://{tmp_path}/results"
    if request.param == "mounted file system":
        held = fs._MockFileSystem()
        return Folder(held, "shared/results", location="mock:///shared/results")
    return Folder(fs.PyFileSystem(Bucket()), "bucket/results", location="s3://bucket/results")


def test_what_is_stored_is_read_back_by_another_reader(
    results: Location | Folder, tmp_path: Path, simulated_spec: TrialSpec, placement: Placement
) -> None:
    other = replace(simulated_spec, assignment={"tensor_parallel_size": 4, "max_num_seqs": 8})
    store = Store(tmp_path / "study", results)
    store.append(complete(simulated_spec, placement), queued_s=1.5, knobs=["max_num_seqs"])
    store.append(failed(FailureClass.CRASH)(other, placement), queued_s=0.0, knobs=["max_num_seqs"])
    frame = Store(tmp_path / "study", results).read()
    assert set(frame["trial_key"]) == {simulated_spec.key, other.key}
    assert dict(zip(frame["trial_key"], frame["knob.max_num_seqs"], strict=True)) == {
        simulated_spec.key: 64,
        other.key: 8,
    }
    states = {key: ended.state for key, ended in Store(tmp_path / "study", results).finished().items()}
    assert states == {simulated_spec.key: TrialState.COMPLETE, other.key: TrialState.FAILED}


def test_rows_of_a_trial_are_those_that_were_stored(
    results: Location | Folder, tmp_path: Path, simulated_spec: TrialSpec, placement: Placement
) -> None:
    store = Store(tmp_path / "study", results)
    store.append(complete(simulated_spec, placement), queued_s=1.5, knobs=["max_num_seqs"])
    (row,) = StoredTrials(store).rows_of(simulated_spec.key)
    assert (row["knob.max_num_seqs"], row["queued_s"]) == (64, 1.5)
    assert row["live_trial"] is None  # a whole number that is not there
    assert set(row) == set(store.read().columns)


def test_nothing_stored_is_nothing_read(results: Location | Folder, tmp_path: Path) -> None:
    store = Store(tmp_path / "study", results)
    assert store.read().empty
    assert store.finished() == {}
    assert store.parts() == []


def test_attempt_is_stored_once(
    results: Location | Folder, tmp_path: Path, simulated_spec: TrialSpec, placement: Placement
) -> None:
    Store(tmp_path / "study", results).append(complete(simulated_spec, placement), queued_s=0.0, knobs=[])
    with pytest.raises(StoreError, match="is stored already"):
        Store(tmp_path / "study", results).append(complete(simulated_spec, placement), queued_s=0.0, knobs=[])


def test_new_knob_reaches_parts_that_are_there(
    results: Location | Folder, tmp_path: Path, simulated_spec: TrialSpec, placement: Placement
) -> None:
    store = Store(tmp_path / "study", results)
    store.append(complete(simulated_spec, placement), queued_s=0.0, knobs=[])
    wider = replace(simulated_spec, assignment={**simulated_spec.assignment, "block_size": 32})
    store.append(complete(wider, placement), queued_s=0.0, knobs=["block_size"])
    frame = Store(tmp_path / "study", results).read().set_index("trial_key")
    assert frame["knob.block_size"].isna()[simulated_spec.key]
    assert frame["knob.block_size"][wider.key] == 32
    assert len(store.parts()) == 2


def test_torn_part_is_moved_aside_and_others_stay(
    results: Location | Folder, tmp_path: Path, simulated_spec: TrialSpec, placement: Placement
) -> None:
    store = Store(tmp_path / "study", results)
    store.append(complete(simulated_spec, placement), queued_s=0.0, knobs=[])
    folder = results if isinstance(results, Folder) else open_folder(results, where="here")
    folder.below("measurements").write("0123456789abcdef-1.parquet", b"torn")
    again = Store(tmp_path / "study", results)
    (moved,) = again.set_aside()
    assert "_set_aside" in str(moved.place)
    assert set(again.read()["trial_key"]) == {simulated_spec.key}
