"""A folder behind a URL keeps results as a local one does: whole or not at all, and read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyarrow import fs

from analysis import cli as analysis_cli
from analysis.study import Study
from sweeper import cli
from sweeper.errors import ConfigError, StoreError
from sweeper.records import TrialSpec, TrialState
from sweeper.store.files import Folder, open_folder
from sweeper.store.store import Store
from tests.stand_ins import complete


class Bucket(fs.FileSystemHandler):
    """An object store in this process: keys without folders, an object shows when its stream is closed.

    Arrow's own mock file system holds the objects; this one counts what is asked, fails as told and, as S3
    does, has a folder wherever a key begins with its name.
    """

    def __init__(self) -> None:
        self.held = fs._MockFileSystem()
        self.fails = False
        self.moved = 0

    def get_type_name(self) -> str:
        return "bucket"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> Any:
        self._answer()
        return self.held.get_file_info(paths)

    def get_file_info_selector(self, selector: Any) -> Any:
        self._answer()
        return self.held.get_file_info(selector)

    def create_dir(self, path: str, recursive: bool) -> None:
        self.held.create_dir(path, recursive=recursive)

    def move(self, src: str, dest: str) -> None:
        self.moved += 1
        self.held.move(src, dest)

    def open_input_file(self, path: str) -> Any:
        self._answer()
        return self.held.open_input_file(path)

    def open_output_stream(self, path: str, metadata: Mapping[str, str] | None) -> Any:
        self._answer()
        return self.held.open_output_stream(path)

    def _answer(self) -> None:
        if self.fails:
            raise OSError("connection reset")

    def _unused(self, *arguments: Any) -> Any:
        raise NotImplementedError

    open_input_stream = open_append_stream = copy_file = delete_file = _unused
    delete_dir = delete_dir_contents = delete_root_dir_contents = _unused


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


def folder_of(bucket: Bucket) -> Folder:
    return Folder(fs.PyFileSystem(bucket), "bucket/study", location="s3://bucket/study?region=eu-1")


def test_results_behind_url_are_stored_and_read_back(
    bucket: Bucket, tmp_path: Path, simulated_spec: TrialSpec, placement: Any
) -> None:
    store = Store(tmp_path, folder_of(bucket))
    part = store.append(complete(simulated_spec, placement), queued_s=1.5, knobs=["max_num_seqs"])
    other = replace(simulated_spec, assignment={"block_size": 16})
    store.append(complete(other, placement), queued_s=0.0, knobs=[])

    again = Store(tmp_path, folder_of(bucket))
    assert again.finished()[simulated_spec.key].state is TrialState.COMPLETE
    assert sorted(again.read()["queued_s"]) == [0.0, 1.5]
    assert sorted(again.read()["knob.block_size"].dropna()) == [16]
    assert part == f"s3://bucket/study/measurements/{simulated_spec.key}-1.parquet?region=eu-1"
    assert part in again.parts()
    assert list(tmp_path.iterdir()) == [tmp_path / "trial"] or list(tmp_path.iterdir()) == []
    with pytest.raises(StoreError, match="is stored already"):
        again.append(complete(simulated_spec, placement), queued_s=0.0, knobs=[])


def test_torn_object_is_set_aside_and_rest_goes_on(
    bucket: Bucket, tmp_path: Path, simulated_spec: TrialSpec, placement: Any
) -> None:
    store = Store(tmp_path, folder_of(bucket))
    store.append(complete(simulated_spec, placement), queued_s=0.0, knobs=[])
    with bucket.held.open_output_stream("bucket/study/measurements/torn-1.parquet") as stream:
        stream.write(b"PAR1 half of it")

    with pytest.raises(StoreError, match=r"torn-1\.parquet.*is no readable result"):
        store.read()
    moved = store.set_aside_unreadable()

    assert moved == ["s3://bucket/study/measurements/_set_aside/torn-1.parquet?region=eu-1"]
    assert len(store.read()) == 1


def test_place_that_does_not_answer_is_no_torn_part(
    bucket: Bucket, tmp_path: Path, simulated_spec: TrialSpec, placement: Any
) -> None:
    store = Store(tmp_path, folder_of(bucket))
    store.append(complete(simulated_spec, placement), queued_s=0.0, knobs=[])
    bucket.fails = True
    for act in (store.read, store.finished, store.set_aside_unreadable):
        with pytest.raises(StoreError, match=r"s3://bucket/study.*cannot be read \(.*connection reset"):
            act()
    bucket.fails = False
    assert bucket.moved == 1  # the one part that was written; none was put aside
    assert len(store.read()) == 1


def test_what_was_there_survives_failed_write(bucket: Bucket) -> None:
    folder = folder_of(bucket)
    folder.write("a", b"first")
    folder.write("a", b"second")
    assert bytes(folder.read("a")) == b"second"
    bucket.fails = True
    with pytest.raises(StoreError, match=r"s3://bucket/study/a\?region=eu-1: cannot be written"):
        folder.write("a", b"third")
    bucket.fails = False
    assert bytes(folder.read("a")) == b"second"
    assert folder.names() == ["a"]


def test_folder_that_is_not_there_is_empty(bucket: Bucket, tmp_path: Path) -> None:
    assert folder_of(bucket).names() == []
    assert not folder_of(bucket).holds("a")
    assert open_folder(tmp_path / "none", where="here").names() == []


def test_file_url_is_local_folder(tmp_path: Path) -> None:
    folder = open_folder(f"file://{tmp_path}", where="here")
    assert folder.is_local
    assert folder.at("a") == tmp_path / "a"


@pytest.mark.parametrize("url", ["nowhere://bucket/x", "file://a b"])
def test_url_that_nobody_opens_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"study\.results: '.*' cannot be opened .*; expected a folder, or"):
        open_folder(url, where="study.results")


QUICK = (
    "+experiment=case2_sched_steps",
    "platform=simulated",
    "executor=inline",
    "workload.num_prompts=40",
    "workload.request_rate_per_s=[16]",
)
STUDY = Path("outputs/case2_sched_steps-simulated")


def test_study_keeps_its_results_at_url_goes_on_and_is_read_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    url = f"file://{tmp_path}/kept"
    assert cli.main([*QUICK, f"study.results={url}"]) == cli.OK
    assert f"data:   {tmp_path}/kept/case2_sched_steps-simulated/measurements" in capsys.readouterr().out
    assert not (STUDY / "measurements").exists()
    assert json.loads((STUDY / "study.json").read_text())["results"] == f"{url}/case2_sched_steps-simulated"

    parts = sorted((tmp_path / "kept").rglob("*.parquet"))
    assert len(parts) == 5
    parts[0].unlink()
    assert cli.main([*QUICK, f"study.results={url}"]) == cli.OK
    assert "started now: 1" in capsys.readouterr().out
    assert len(pd.read_parquet(tmp_path / "kept/case2_sched_steps-simulated/measurements")) == 5

    assert Study.load(STUDY).frame["trial_key"].nunique() == 5
    assert analysis_cli.main(["report", f"{url}/case2_sched_steps-simulated"]) == 0
    assert Path("case2_sched_steps-simulated/report.md").read_text() == (STUDY / "report.md").read_text()
    assert cli.main([*QUICK]) == cli.MISTAKE
    assert "Results of one study lie in one place" in capsys.readouterr().err


def test_secrets_do_not_belong_into_place_of_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main([*QUICK, "study.results=s3://key:hidden@bucket/x"]) == cli.MISTAKE
    told = capsys.readouterr().err
    assert "AWS_SECRET_ACCESS_KEY" in told
    assert "hidden" not in told
