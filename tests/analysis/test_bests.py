"""The best setting among those that keep every bound, and the Pareto front, worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from analysis import bests, load_names, report, standings, tables
from analysis.study import Study
from sweeper.errors import StoreError
from sweeper.records import Constraint, LoadPoint, Objective, Placement, RateSearch, TrialResult
from sweeper.store.store import Store

RPS, TPOT, TTFT = "request_throughput_per_s", "p99_tpot_ms", "p99_ttft_ms"
FASTEST = Objective(metric=RPS, direction="maximize")
PROMPTEST = Objective(metric=TPOT, direction="minimize")
PROMPT = Constraint(metric=TTFT, limit=2000.0, is_upper=True, request_rate_per_s=16.0)

# setting: requests per second, p99 TPOT, p99 TTFT
NUMBERS: Mapping[str, tuple[float, float, float]] = {
    "a": (10.0, 50.0, 1000.0),
    "b": (12.0, 80.0, 2000.0),  # keeps the bound exactly
    "c": (14.0, 90.0, 2500.0),  # the fastest, and breaks the bound
    "d": (9.0, 60.0, 900.0),  # a is better in both
    "e": (11.0, 70.0, 1500.0),
}


@pytest.fixture
def frame(trial: Callable[..., TrialResult], study_folder: Callable[..., Path]) -> pd.DataFrame:
    results = [
        trial(series=(name,), knobs={"n": n}, runs=[[{RPS: rps, TPOT: tpot, TTFT: ttft}]])
        for n, (name, (rps, tpot, ttft)) in enumerate(NUMBERS.items())
    ]
    return Store.latest(Store(study_folder(*results)).read())


def test_best_setting_keeps_every_bound(frame: pd.DataFrame) -> None:
    (free,) = bests.best(frame, objectives=[FASTEST]).to_dict("records")
    (bounded,) = bests.best(frame, objectives=[FASTEST], constraints=[PROMPT]).to_dict("records")
    assert (free["setting"], free["runner_up"]) == ("c", "b")
    assert (bounded["setting"], bounded["value"], bounded["runner_up"]) == ("b", 12.0, "e")


def test_what_breaks_bound_says_which_and_by_what_value(frame: pd.DataFrame) -> None:
    broken = bests.broken_bounds(frame, constraints=[PROMPT])
    assert broken.to_dict("records") == [
        {"setting": "c", "breaks": "p99_ttft_ms at 16 QPS <= 2000 (is 2,500, 25 % over)"}
    ]
    nowhere = bests.broken_bounds(frame, constraints=[replace(PROMPT, metric="p99_itl_ms")])
    assert len(nowhere) == 5
    assert nowhere["breaks"][0] == "p99_itl_ms at 16 QPS <= 2000 (not measured)"


def test_front_holds_what_no_other_beats(frame: pd.DataFrame) -> None:
    both = [FASTEST, PROMPTEST]
    # d (9, 60) loses to a (10, 50) in both; every other one is faster than all that answer sooner.
    assert bests.front(frame, objectives=both)["setting"].tolist() == ["c", "b", "e", "a"]
    bounded = bests.front(frame, objectives=both, constraints=[PROMPT])
    assert bounded["setting"].tolist() == ["b", "e", "a"]
    assert bounded[[RPS, TPOT]].iloc[0].tolist() == [12.0, 80.0]


def test_of_equal_settings_all_are_on_front(
    trial: Callable[..., TrialResult], study_folder: Callable[..., Path]
) -> None:
    same = [[{RPS: 5.0, TPOT: 5.0}]]
    folder = study_folder(*(trial(series=(s,), knobs={"n": n}, runs=same) for n, s in enumerate("xy")))
    found = bests.front(Store(folder).read(), objectives=[FASTEST, PROMPTEST])
    assert found["setting"].tolist() == ["x", "y"]


def test_per_gpu_setting_on_fewer_gpus_can_win(
    trial: Callable[..., TrialResult], study_folder: Callable[..., Path]
) -> None:
    four = trial(series=("four",), knobs={"n": 4}, runs=[[{RPS: 20.0}]])
    eighth = trial(series=("eighth",), knobs={"n": 1}, runs=[[{RPS: 1.0}]])
    held = Placement(node="node-7", devices=(3,), parents=(0,), partition_mode="CPX")
    frame = Store(study_folder(four, replace(eighth, placement=held))).read()
    # 20 / 4 GPUs = 5 against 1 / (1/8 GPU) = 8
    (answer,) = bests.best(frame, objectives=[replace(FASTEST, per="gpu")]).to_dict("records")
    assert (answer["setting"], answer["value"], answer["runner_up_value"]) == ("eighth", 8.0, 5.0)
    assert answer["objective"] == f"highest {RPS} per GPU, at 16 QPS"


def test_probes_of_rate_search_tell_highest_rate_and_stay_out_of_other_tables(
    trial: Callable[..., TrialResult], study_folder: Callable[..., Path]
) -> None:
    search = RateSearch(low=1.0, high=9.0, resolution=1.0, bounds=((TTFT, 2000.0),))
    usual = LoadPoint(dataset="sharegpt", num_prompts=1000, request_rate_per_s=16.0)

    def searched(name: str, n: int, found: float) -> TrialResult:
        low, high = (replace(usual, request_rate_per_s=rate, rate_search=search) for rate in (1.0, found))
        return trial(
            series=(name,),
            knobs={"n": n},
            points=(usual, low, high),
            runs_at=lambda point: [[{RPS: 7.0} | ({"max_rate_per_s": found} if point is high else {})]],
        )

    folder = study_folder(
        searched("x", 1, 4.0),
        searched("y", 2, 6.0),
        about={"objectives": [{"metric": "max_rate_per_s", "direction": "maximize"}]},
    )
    study = Study.load(folder)
    (answer,) = bests.best(study.frame, objectives=study.objectives).to_dict("records")
    assert (answer["setting"], answer["value"], answer["objective"]) == ("y", 6.0, "highest max_rate_per_s")
    table = tables.summary(study.frame, metric="max_rate_per_s")
    assert table[["setting", "load_point", "mean"]].to_numpy().tolist() == [
        ["x", load_names.HIGHEST_RATE, 4.0],
        ["y", load_names.HIGHEST_RATE, 6.0],
    ]
    assert tables.summary(study.frame, metric=RPS)["load_point"].tolist() == ["16", "16"]


def test_report_and_last_lines_tell_front_and_bounds(
    frame: pd.DataFrame, tmp_path: Path, study_folder: Callable[..., Path]
) -> None:
    study_folder(
        about={
            "objectives": [
                {"metric": RPS, "direction": "maximize"},
                {"metric": TPOT, "direction": "minimize", "per": None},
            ],
            "constraints": [{"metric": TTFT, "limit": 2000, "is_upper": True, "request_rate_per_s": 16.0}],
        }
    )
    study = Study.load(tmp_path / "steps")
    assert study.constraints == (PROMPT,)
    told = report.text(study, drawn=[])
    assert "**b** has the highest request_throughput_per_s" in told
    assert (
        "| setting | request_throughput_per_s | p99_tpot_ms |\n| --- | ---: | ---: |\n| b | 12.00 | 80.00 |"
        in told
    )
    assert "| c | p99_ttft_ms at 16 QPS <= 2000 (is 2,500, 25 % over) |" in told
    lines = standings.closing_lines(study)
    assert lines[0] == "front: 3 settings that no other one beats in every objective:"
    assert lines[1] == "  b: request_throughput_per_s 12.00, p99_tpot_ms 80.00"
    assert lines[-1] == "bounds (p99_ttft_ms at 16 QPS <= 2000): 1 of 5 settings with numbers break one"


def test_damaged_constraint_in_study_json_is_said(
    frame: pd.DataFrame, tmp_path: Path, study_folder: Callable[..., Path]
) -> None:
    folder = study_folder(about={"constraints": [{"metric": TTFT, "limit": 2000, "is_upper": True}]})
    content = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    del content["constraints"][0]["is_upper"]
    (folder / "study.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(StoreError, match=r"'constraints\[0\]' is .*; expected metric, limit, and is_upper"):
        Study.load(tmp_path / "steps")
