"""A study's folder has one owner, and says what was asked."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeper import topology
from sweeper.errors import ConfigError, StoreError
from sweeper.records import LoadPoint, Model, Objective, Platform
from sweeper.space.space import Series, Space
from sweeper.store.study_folder import StudyFolder, refuse_other_question, write_json
from sweeper.topology import Node
from tests.conftest import ROOT
from tests.surroundings import running


def described(folder: StudyFolder, model: Model, **changed: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": "s",
        "experiment": "case2_sched_steps",
        "question": "Why?",
        "source": "here",
        "platform": Platform.SIMULATED,
        "platform_reason": "asked for",
        "node": topology.modelled_mi300x(),
        "engine_release": "0.6.2",
        "model": model,
        "space": Space(series=(Series(name="a", label="A", knobs={}, published="p"),)),
        "objectives": (Objective(metric="mean_ttft_ms", direction="minimize", request_rate_per_s=16.0),),
        "load_points": (LoadPoint(dataset="random", num_prompts=1),),
        "resolved": {"repeats": 1},
    }
    folder.describe(**{**facts, **changed})
    found = json.loads((folder.path / "study.json").read_text())
    assert isinstance(found, dict)
    return found


def test_study_says_what_was_asked_of_what_on_what(tmp_path: Path, llama_70b: Model) -> None:
    with StudyFolder(tmp_path / "s") as folder:
        about = described(folder, llama_70b)
    assert about["platform"] == "simulated"
    assert about["series"] == {
        "a": {"label": "A", "published": "p", "run": None, "engine": "vllm", "order": 0}
    }
    assert about["objectives"][0]["name"] == "mean_ttft_ms at 16 QPS"
    assert about["config"] == {"repeats": 1}
    assert about["model"] == "meta-llama/Llama-3.1-70B-Instruct"


def test_second_driver_is_refused_with_first_ones_pid(tmp_path: Path) -> None:
    with (
        StudyFolder(tmp_path / "s"),
        pytest.raises(StoreError, match=rf"another sweep \(pid {os.getpid()}\) runs this study"),
    ):
        StudyFolder(tmp_path / "s").__enter__()


HOLD = """
import sys, time
from pathlib import Path
from sweeper.store.study_folder import StudyFolder
with StudyFolder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def first_driver(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that owns the study ``s``."""
    with running(
        [sys.executable, "-c", HOLD, str(tmp_path / "s")], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "held\n"
        yield driver


def test_of_two_processes_second_is_refused_until_first_is_dead(
    tmp_path: Path, first_driver: subprocess.Popen[str]
) -> None:
    with pytest.raises(
        StoreError, match=rf"another sweep \(pid {first_driver.pid}\).*kill -INT {first_driver.pid}"
    ):
        StudyFolder(tmp_path / "s").__enter__()
    first_driver.kill()
    first_driver.wait()
    with StudyFolder(tmp_path / "s") as folder:
        assert (folder.path / "driver.lock").read_text().startswith(f"{os.getpid()}:")


def test_file_system_without_locks_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StoreError, match=r"driver.lock: cannot be locked: No locks available; expected"):
        StudyFolder(tmp_path / "s").__enter__()


def test_process_that_got_id_of_ended_driver_is_not_to_be_stopped(
    tmp_path: Path, first_driver: subprocess.Popen[str]
) -> None:
    """The lock is held by what the driver left behind; its id now belongs to us, who started later."""
    lock = tmp_path / "s" / "driver.lock"
    _, _, host = lock.read_text().partition(" ")
    lock.write_text(f"{os.getpid()}:1 {host}")
    with pytest.raises(StoreError, match=rf"the ended sweep \(pid {os.getpid()}\) left behind") as caught:
        StudyFolder(tmp_path / "s").__enter__()
    assert "kill -INT" not in str(caught.value)


def test_driver_on_another_machine_is_named_with_it(
    tmp_path: Path, first_driver: subprocess.Popen[str]
) -> None:
    (tmp_path / "s" / "driver.lock").write_text("7:70 far-away")
    with pytest.raises(StoreError, match=r"another sweep \(pid 7 on far-away\) runs this study"):
        StudyFolder(tmp_path / "s").__enter__()


def test_study_that_was_left_can_be_owned_again(tmp_path: Path) -> None:
    with StudyFolder(tmp_path / "s"):
        pass
    with StudyFolder(tmp_path / "s") as again:
        assert again.path.is_dir()


def test_two_platforms_never_share_study(tmp_path: Path, llama_70b: Model) -> None:
    with StudyFolder(tmp_path / "s") as folder:
        described(folder, llama_70b)
        with pytest.raises(ConfigError, match="made on platform 'simulated', now it is 'mi300x'"):
            described(folder, llama_70b, platform=Platform.MI300X)


def test_two_gpus_never_share_study(tmp_path: Path, llama_70b: Model) -> None:
    def on(product: str) -> Node:
        whole = topology.modelled_mi300x()
        devices = tuple(replace(device, name=product) for device in whole.devices)
        return replace(whole, platform=Platform.MI300X, devices=devices, host="MI250X-rack")

    with StudyFolder(tmp_path / "s") as folder:
        described(folder, llama_70b, platform=Platform.MI300X, node=on("AMD Instinct MI300X OAM"))
        described(folder, llama_70b, platform=Platform.MI300X, node=on("AMD Instinct MI300X"))
        with pytest.raises(ConfigError, match="the study was made on MI300X, now it is MI308X"):
            described(folder, llama_70b, platform=Platform.MI300X, node=on("AMD Instinct MI308X"))


def test_broken_description_is_named(tmp_path: Path, llama_70b: Model) -> None:
    with StudyFolder(tmp_path / "s") as folder:
        (folder.path / "study.json").write_text("{")
        with pytest.raises(StoreError, match=r"study\.json: is not JSON"):
            described(folder, llama_70b)


def test_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be written.*study\.outputs"):
        StudyFolder(tmp_path / "file" / "s").__enter__()


def test_each_invocation_writes_down_what_it_was_told(tmp_path: Path) -> None:
    with StudyFolder(tmp_path / "s") as folder:
        run = folder.begin_run(resolved={"repeats": 3}, overrides=["repeats=3"])
    assert json.loads((run / ".hydra" / "overrides.json").read_text()) == ["repeats=3"]
    assert json.loads((run / ".hydra" / "config.json").read_text()) == {"repeats": 3}


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {(1, 2): "keys of JSON are texts"})
    assert json.loads(path.read_text()) == {"a": 1}


def searched(folder: Path, model: Model, load: LoadPoint) -> Path:
    """Make a study's folder as a search of one trial leaves it."""
    with StudyFolder(folder) as study:
        described(study, model, load_points=(load,))
    (folder / "measurements").mkdir()
    (folder / "measurements" / "a-1.parquet").touch()
    return folder


def test_search_on_another_model_needs_another_name(tmp_path: Path, llama_70b: Model) -> None:
    load = LoadPoint(dataset="random", num_prompts=1)
    folder = searched(tmp_path / "s", llama_70b, load)

    refuse_other_question(folder, model=llama_70b, load_points=(load,))
    with pytest.raises(
        ConfigError, match=r"was made on model 'meta-llama/.*', now it is 'other'.*study\.name="
    ):
        refuse_other_question(folder, model=replace(llama_70b, name="other"), load_points=(load,))


@pytest.mark.parametrize(
    "loads",
    [
        (LoadPoint(dataset="random", num_prompts=2, input_len=64),),
        (LoadPoint(dataset="random", num_prompts=1), LoadPoint(dataset="random", num_prompts=2)),
    ],
)
def test_search_under_another_load_needs_another_name(
    loads: tuple[LoadPoint, ...], tmp_path: Path, llama_70b: Model
) -> None:
    folder = searched(tmp_path / "s", llama_70b, LoadPoint(dataset="random", num_prompts=1))

    with pytest.raises(
        ConfigError, match=r"made with the load .*num_prompts=1, now it is .*num_prompts=2.*study\.name="
    ):
        refuse_other_question(folder, model=llama_70b, load_points=loads)


def test_search_that_was_moved_goes_on_with_its_dataset(tmp_path: Path, llama_70b: Model) -> None:
    load = LoadPoint(dataset="custom", num_prompts=1, dataset_path="/here/prompts.jsonl")
    folder = searched(tmp_path / "s", llama_70b, load)

    refuse_other_question(
        folder, model=llama_70b, load_points=(replace(load, dataset_path="/there/prompts.jsonl"),)
    )
    with pytest.raises(ConfigError, match=r"study\.name="):
        refuse_other_question(
            folder, model=llama_70b, load_points=(replace(load, dataset_path="/here/b.jsonl"),)
        )


def test_search_without_trials_takes_another_question(tmp_path: Path, llama_70b: Model) -> None:
    load = LoadPoint(dataset="random", num_prompts=1)
    with StudyFolder(tmp_path / "s") as study:
        described(study, llama_70b, load_points=(load,))

    refuse_other_question(study.path, model=replace(llama_70b, name="other"), load_points=(load,))
    refuse_other_question(tmp_path / "new", model=llama_70b, load_points=(load,))
