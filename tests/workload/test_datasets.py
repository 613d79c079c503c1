"""A dataset that cannot be sent is found by the plan and by the start; one that is too small is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sweeper import cli
from sweeper.errors import ConfigError
from sweeper.records import LoadPoint, Platform, TrialSpec, TrialState
from sweeper.store.store import Store
from sweeper.trial import trial
from sweeper.workload import files, sharegpt
from tests.stand_ins import StandInClient, StandInEngine
from tests.standin_server import PLACEMENT, make_spec, never, write_interpreter


def arguments(tmp_path: Path, dataset: Path, *more: str) -> list[str]:
    python = write_interpreter(tmp_path / "bin")
    return [
        *("+experiment=cpu_smoke", "workload=sharegpt", "workload.num_prompts=12", f"engine.python={python}"),
        *("space.knobs.max_num_seqs=[8]", "space.knobs.max_num_batched_tokens=[2048]", "executor=inline"),
        *(f"workload.dataset_path={dataset}", f"study.outputs={tmp_path}/outputs", *more),
    ]


@pytest.mark.parametrize("more", [(), ("plan=true",)])
def test_dataset_that_cannot_be_sent_is_refused_before_anything_starts(
    more: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing, cut = tmp_path / "missing.json", tmp_path / "cut.json"
    sharegpt.write(cut, count=20, seed=0, scale=0.05)
    cut.write_text(cut.read_text(encoding="utf-8")[:-100], encoding="utf-8")
    for dataset, what in ((missing, "there is no file"), (cut, "is cut off")):
        # A plan says what is still missing; a file that is there and wrong is refused by it, too.
        is_plan_of_missing = dataset == missing and bool(more)
        assert cli.main(arguments(tmp_path, dataset, *more)) == (0 if is_plan_of_missing else 2)
        told = capsys.readouterr()
        said = told.out if is_plan_of_missing else told.err
        assert "workload.dataset_path: " in said
        assert what in said
        assert "still missing: " in said or not is_plan_of_missing
    # A folder of the study is made when something starts.
    assert not (tmp_path / "outputs" / "cpu_smoke-cpu").exists()


def test_plan_says_that_prompts_repeat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = sharegpt.write(tmp_path / "few.json", count=5, seed=0, scale=0.05)
    assert cli.main(arguments(tmp_path, few, "plan=true")) == 0
    assert f"{few} has conversations for 5 of 12 requests at most" in capsys.readouterr().out


@pytest.mark.parametrize(("count", "repeated"), [(5, 7), (20, None)])
def test_row_tells_how_many_prompts_were_repetitions(
    count: int, repeated: int | None, tmp_path: Path
) -> None:
    path = sharegpt.write(tmp_path / "some.json", count=count, seed=0, scale=0.05)
    point = LoadPoint(dataset="sharegpt", num_prompts=12, dataset_path=str(path))
    spec: TrialSpec = replace(make_spec(tmp_path, "python"), load_points=(point,), platform=Platform.CPU)
    result = trial.run(
        spec,
        PLACEMENT,
        cancelled=never,
        engine=StandInEngine(),
        open_client=lambda spec, placement: StandInClient(),
    )
    assert result.state is TrialState.COMPLETE, result.failure_message
    store = Store(tmp_path / "study")
    store.append(result, queued_s=0.0, knobs=[])
    value = store.read()["repeated_prompts"].iloc[0]
    assert (None if pd.isna(value) else value) == repeated


BURST = "Timestamp,Model,Request tokens,Response tokens,Log Type\n1,GPT-4,100,20,chat\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BURST + '2,GPT-4,100,20,"chat\n3,GPT-4,100,20,chat\n', "line 3: cannot be split into cells .*Mend"),
        (BURST + "\n2,GPT-4,many,20,chat\n", "line 4: has Request tokens 'many' and Response tokens '20'"),
        (BURST + "2,GPT-4,100\n", "line 3: has Request tokens '100' and Response tokens None; expected"),
        ("Timestamp,Model,Request tokens\n1,GPT-4,100\n", "has no column Response tokens; expected BurstGPT"),
        ("", "has no column Model, Request tokens, Response tokens; expected BurstGPT"),
    ],
)
def test_mistake_in_burstgpt_is_told_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "burst.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        files.check_burstgpt(LoadPoint(dataset="burstgpt", num_prompts=8, dataset_path=str(path)))


def test_cells_of_burstgpt_may_be_quoted(tmp_path: Path) -> None:
    path = tmp_path / "burst.csv"
    path.write_text(BURST + '2,GPT-4,100,20,"two\nlines, ""one"" cell"\n3,GPT-4,200,30,chat\n', "utf-8")
    point = LoadPoint(dataset="burstgpt", num_prompts=3, dataset_path=str(path))
    asked, answers, _ = files.draw_burstgpt(point, np.random.default_rng(0))
    assert sorted(zip(asked.tolist(), answers.tolist(), strict=True)) == [(100, 20), (100, 20), (200, 30)]
