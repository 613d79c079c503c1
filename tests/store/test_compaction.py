"""Many parts become one file: the same table for every reader, whenever the process is killed."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from sweeper.errors import StoreError
from sweeper.records import FailureClass, Placement, TrialSpec, TrialState
from sweeper.store import compaction
from sweeper.store.files import Folder, open_folder
from sweeper.store.store import Store
from tests.stand_ins import complete, failed

FORK = multiprocessing.get_context("fork")
"""A process that is a fork of this one needs no second to import what it works with."""

TRIALS = 24
BESIDE = ".measurements.compacting"


def spec_of(spec: TrialSpec, number: int) -> TrialSpec:
    return replace(spec, assignment={**spec.assignment, "max_num_seqs": number + 1})


def fill(store: Store, spec: TrialSpec, placement: Placement, *, first: int = 0, count: int = TRIALS) -> None:
    for number in range(first, first + count):
        made = complete if number % 5 else failed(FailureClass.CRASH)
        store.append(made(spec_of(spec, number), placement), queued_s=0.5, knobs=["max_num_seqs"])


@pytest.fixture
def store(tmp_path: Path, simulated_spec: TrialSpec, placement: Placement) -> Store:
    """A study of many small parts."""
    made = Store(tmp_path / "study")
    fill(made, simulated_spec, placement)
    return made


def again(store: Store) -> Store:
    return Store(store.folder)


def trials_in_one_line(store: Store) -> list[str]:
    """What somebody reads who does not know this package."""
    frame = pd.read_parquet(store.measurements)
    table = pyarrow.dataset.dataset(store.measurements).to_table(columns=["trial_key"])
    assert sorted(frame["trial_key"]) == sorted(table.column("trial_key").to_pylist())
    return sorted(frame["trial_key"])


def test_table_is_the_same_before_and_after(store: Store) -> None:
    before, ended, plainly = store.read(), store.finished(), pd.read_parquet(store.measurements)

    assert store.compact(least=TRIALS) == TRIALS

    [part] = store.parts()
    pd.testing.assert_frame_equal(again(store).read(), before)
    assert again(store).finished() == ended
    after = pd.read_parquet(store.measurements)
    order = {"by": "trial_key", "ignore_index": True}
    pd.testing.assert_frame_equal(after.sort_values(**order), plainly.sort_values(**order))
    assert pq.read_schema(part).field("mean_ttft_ms").metadata[b"unit"] == b"ms"
    assert sorted(path.name for path in store.folder.iterdir()) == ["measurements"]


def test_row_costs_a_fraction_of_what_it_did(store: Store) -> None:
    before = sum(Path(part).stat().st_size for part in store.parts())
    store.compact(least=TRIALS)
    # The description of the columns, which outweighs a row, is there once and not once for each trial.
    assert sum(Path(part).stat().st_size for part in store.parts()) < 3 * before / TRIALS


def test_few_parts_are_left_as_they_are(store: Store) -> None:
    before = store.parts()
    assert store.compact(least=TRIALS + 1) == 0
    assert store.parts() == before


def test_study_goes_on_and_is_compacted_again(
    store: Store, simulated_spec: TrialSpec, placement: Placement
) -> None:
    store.compact(least=2)
    fill(store, simulated_spec, placement, first=TRIALS, count=3)
    before = again(store).read()

    assert len(store.parts()) == 4
    assert again(store).compact(least=2) == 4  # the first file is far from full, so it is merged, too
    pd.testing.assert_frame_equal(again(store).read(), before)
    assert len(before) == TRIALS + 3


def test_file_that_is_full_stays_as_it_is(
    store: Store, simulated_spec: TrialSpec, placement: Placement, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "FULL_TRIALS", TRIALS)
    store.compact(least=2)
    [full] = store.parts()
    written_ns = Path(full).stat().st_mtime_ns
    fill(store, simulated_spec, placement, first=TRIALS, count=3)

    assert store.compact(least=2) == 3

    assert len(store.parts()) == 2
    assert Path(full).stat().st_mtime_ns == written_ns
    assert len(trials_in_one_line(store)) == len(again(store).read()) == TRIALS + 3


def test_attempt_in_compacted_file_is_stored_once(
    store: Store, simulated_spec: TrialSpec, placement: Placement
) -> None:
    store.compact(least=2)
    for one in (store, again(store)):
        with pytest.raises(StoreError, match=r"attempt 1 at trial .* is stored already"):
            one.append(complete(spec_of(simulated_spec, 7), placement), queued_s=0.0, knobs=[])
    later = replace(spec_of(simulated_spec, 0), attempt=2)
    assert store.finished()[later.key].state is TrialState.FAILED
    store.append(complete(later, placement), queued_s=0.0, knobs=[])
    assert again(store).finished()[later.key].state is TrialState.COMPLETE


def test_new_knob_reaches_compacted_file(
    store: Store, simulated_spec: TrialSpec, placement: Placement
) -> None:
    store.compact(least=2)
    wider = replace(simulated_spec, assignment={**simulated_spec.assignment, "block_size": 32})
    store.append(complete(wider, placement), queued_s=0.0, knobs=["block_size"])
    frame = pd.read_parquet(store.measurements)
    assert frame["knob.block_size"].dropna().tolist() == [32]
    assert len(frame) == len(again(store).read()) == TRIALS + 1


def test_what_else_lies_in_the_folder_is_kept(store: Store) -> None:
    torn = Path(store.measurements) / "0123456789abcdef-1.parquet"
    torn.write_bytes(b"torn")
    store.set_aside()
    (Path(store.measurements) / "_notes").write_text("mine")
    (Path(store.measurements) / ".gone-1.parquet.partial").write_bytes(b"PAR1")

    store.compact(least=2)

    left = {path.name for path in Path(store.measurements).iterdir()}
    assert left == {"_notes", "_set_aside", "compacted-000001.parquet"}
    assert (Path(store.measurements) / "_set_aside" / torn.name).read_bytes() == b"torn"


def test_copies_beside_compacted_file_are_set_aside(store: Store, tmp_path: Path) -> None:
    part = Path(store.parts()[0])
    shutil.copy(part, tmp_path / part.name)
    store.compact(least=2)
    before = store.read()
    [whole] = map(Path, store.parts())
    shutil.copy(tmp_path / part.name, part)
    shutil.copy(whole, whole.with_name("backup.parquet"))

    with pytest.raises(StoreError, match="a copy counts twice"):
        again(store).read()

    moved = {Path(found.place).name: found.reason for found in again(store).set_aside()}
    assert moved.keys() == {part.name, "backup.parquet"}
    assert moved["backup.parquet"].endswith(
        "it holds what belongs into compacted-000001.parquet; a copy counts twice"
    )
    assert "too; a copy counts twice" in moved[part.name]
    pd.testing.assert_frame_equal(again(store).read(), before)


def test_torn_compacted_file_is_set_aside(store: Store) -> None:
    store.compact(least=2)
    [whole] = map(Path, store.parts())
    whole.write_bytes(whole.read_bytes()[:5000])
    [found] = again(store).set_aside()
    assert Path(found.place).name == whole.name
    assert again(store).finished() == {}


def test_study_of_today_is_compacted(tmp_path: Path, simulated_spec: TrialSpec, placement: Placement) -> None:
    recorded = Path(__file__).parents[1] / "recorded" / "parts_of_version_1"
    shutil.copytree(recorded, tmp_path / "measurements")
    old = Store(tmp_path)
    assert old.set_aside() == []
    fill(old, simulated_spec, placement, count=3)
    before = Store(tmp_path).read()

    assert Store(tmp_path).compact(least=2) == 4

    pd.testing.assert_frame_equal(Store(tmp_path).read(), before)
    assert sorted(before["schema_version"]) == [1, 2, 2, 2]


def test_parts_stay_where_folders_cannot_be_exchanged(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def unable(*_: object) -> None:
        raise OSError("Invalid argument")

    monkeypatch.setattr(compaction, "_exchange", unable)
    before = store.parts()
    assert store.compact(least=2) == 0
    assert store.parts() == before
    assert [path.name for path in store.folder.iterdir()] == ["measurements"]


def test_folder_that_is_a_link_is_compacted_where_it_lies(store: Store, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    elsewhere = tmp_path / "disk" / "parts"
    shutil.move(store.measurements, elsewhere)
    Path(store.measurements).symlink_to(elsewhere)
    before = again(store).read()

    assert again(store).compact(least=2) == TRIALS

    assert Path(store.measurements).is_symlink()
    assert [path.name for path in elsewhere.iterdir()] == ["compacted-000001.parquet"]
    pd.testing.assert_frame_equal(again(store).read(), before)


class Overtaken(Folder):
    """A reader's folder, the parts of which are compacted after it has read the first."""

    def overtake_by(self, act: Callable[[], object]) -> None:
        self.act: Callable[[], object] | None = act

    def below(self, name: str) -> Folder:
        found = Overtaken(self._filesystem, self._of(name), location=self.at(name))
        found.overtake_by(self.act or (lambda: None))
        return found

    def read(self, name: str) -> object:
        content = super().read(name)
        act, self.act = self.act, None
        if act is not None:
            act()
        return content


@pytest.mark.parametrize("ask", [Store.read, Store.finished], ids=["read", "finished"])
def test_reader_who_is_overtaken_by_compaction_reads_again(
    store: Store, ask: Callable[[Store], object]
) -> None:
    place = open_folder(store.folder, where="here")
    folder = Overtaken(place._filesystem, place._path, location=place.location)
    folder.overtake_by(lambda: again(store).compact(least=2))

    assert len(ask(Store(store.folder, folder))) == TRIALS  # type: ignore[arg-type]
    assert len(store.parts()) == 1


# ---- killed ----


def killed(store: Store, *, before: Callable[[], None] = lambda: None, after_s: float | None = None) -> bool:
    """Compact in a process of its own that is killed; return whether it was before it ended."""

    def work() -> None:
        before()
        again(store).compact(least=2)
        os._exit(0)

    process = FORK.Process(target=work)
    process.start()
    if after_s is not None:
        time.sleep(after_s)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return process.exitcode == -signal.SIGKILL


def check_after_kill(store: Store, table: pd.DataFrame) -> None:
    """Nothing is lost or doubled: for anybody at once, and for the study when it goes on."""
    assert trials_in_one_line(store) == sorted(table["trial_key"])
    pd.testing.assert_frame_equal(again(store).read(), table)
    resumed = again(store)
    assert resumed.set_aside() == []
    assert not (store.folder / BESIDE).exists()
    resumed.compact(least=2)
    assert len(resumed.parts()) == 1
    assert trials_in_one_line(store) == sorted(table["trial_key"])
    pd.testing.assert_frame_equal(again(store).read(), table)


def copy_of(store: Store, folder: Path) -> Store:
    shutil.copytree(store.folder, folder)
    return Store(folder)


def test_kill_at_any_random_moment_loses_and_doubles_nothing(store: Store, tmp_path: Path) -> None:
    table = store.read()
    began = time.monotonic()
    assert not killed(copy_of(store, tmp_path / "whole"))
    lasts_s = time.monotonic() - began
    moments = random.Random(19)
    hits = 0
    for number in range(20):
        one = copy_of(store, tmp_path / f"{number}")
        hits += killed(one, after_s=moments.uniform(0, lasts_s))
        check_after_kill(one, table)
    assert hits


class Deadly:
    """Kills its process at the n-th time that it asks for a file or a folder."""

    def __init__(self, number: int) -> None:
        self._left = number

    def arm(self) -> None:
        sys.addaudithook(self._see)

    def _see(self, event: str, _: object) -> None:
        if event == "open" or event.startswith(("os.", "shutil.")):
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def test_kill_at_each_step_loses_and_doubles_nothing(
    tmp_path: Path, simulated_spec: TrialSpec, placement: Placement
) -> None:
    """Every state of the folders that a kill can leave, one after the other."""
    store, count = Store(tmp_path / "few"), 4
    fill(store, simulated_spec, placement, count=count)
    table = store.read()
    states = set()
    for number in range(1, 1000):
        one = copy_of(store, tmp_path / f"{number}")
        if not killed(one, before=Deadly(number).arm):
            break
        beside = one.folder / BESIDE
        states.add((len(one.parts()), len(list(beside.iterdir())) if beside.exists() else None))
        check_after_kill(one, table)
        shutil.rmtree(one.folder)
    # Before the exchange, without the larger file and with it; after it, with all parts left and with one.
    assert {(count, None), (count, 0), (count, 1), (1, count), (1, 1)} <= states
