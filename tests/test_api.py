"""Sweeps from Python: the same words, their results as pandas, and mistakes as exceptions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import sweeper
from sweeper.errors import ConfigError, NothingCompleteError
from tests.conftest import ROOT

WORDS = (
    *("platform=simulated", "executor=inline", "model=llama_3_1_8b", "workload=random", "study.name=mine"),
    *("workload.num_prompts=20", "workload.input_len=64", "workload.output_len=16"),
    *("workload.request_rate_per_s=[null]", "space.knobs.max_num_seqs=[8,32]"),
)


def test_sweep_runs_and_its_rows_are_pandas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    study = sweeper.run(*WORDS, is_quiet=True)
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "")
    assert sorted(study.frame["knob.max_num_seqs"]) == [8, 32]
    assert set(study.frame["provenance"]) == {"simulated"} and study.is_simulated
    assert (study.folder / "report.html").is_file()
    # Again: nothing is measured twice, and what is read is the same.
    sweeper.run(*WORDS)
    assert "trials: 2 complete; started now: 0" in capsys.readouterr().out
    again = sweeper.load_study(study.folder, price_per_gpu_hour=2.0)
    assert list(again.frame["trial_key"]) == list(study.frame["trial_key"])
    assert (again.frame["cost_per_million_output_tokens"] > 0).all()


def test_mistakes_are_exceptions_with_the_commands_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="experiment=case2_sched_step"):
        sweeper.run("+experiment=case2_sched_step")
    with pytest.raises(ConfigError, match=r"sweeper\.run: 'plan=true' measures nothing; expected"):
        sweeper.run(*WORDS, "plan=true")
    with pytest.raises(ConfigError, match="no such folder; expected a study's folder"):
        sweeper.load_study(tmp_path / "nothing")
    with pytest.raises(AttributeError, match="has no attribute 'measure'"):
        _ = sweeper.measure
    assert list(tmp_path.iterdir()) == []


def test_sweep_of_which_nothing_is_complete_is_an_exception(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NothingCompleteError, match="mine: no trial is complete; expected one at least"):
        sweeper.run(
            *WORDS[:-1], "space.knobs.max_num_seqs=[8]", "knobs.gpu_memory_utilization=0.01", is_quiet=True
        )


def test_notebook_runs_from_its_first_cell_to_its_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((ROOT / "examples" / "first_look.ipynb").read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert len(names["study"].frame) == 4
    assert (names["priced"].frame["cost_per_million_output_tokens"] > 0).all()
