"""Charts of a search: a mark per setting, none of which takes a setting that breaks a bound for the best."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from analysis import report, search_charts
from analysis.importance import importance
from analysis.study import Study
from sweeper.records import Objective, TrialResult
from sweeper.search.importance import shares

MakeTrial = Callable[..., TrialResult]
MakeFolder = Callable[..., Path]


def test_search_has_its_charts_in_the_report(searched: Path) -> None:
    study = Study.load(searched)

    drawn = search_charts.write(study)

    assert {path.stem.removeprefix("search_") for path in drawn} == {
        *("tradeoff_1", "history", "importance", "heat", "slices", "parallel"),
    }
    assert {path.suffix for path in drawn} == {".png", ".svg", ".csv"}
    drawings = [path.read_text(encoding="utf-8") for path in drawn if path.suffix == ".svg"]
    assert all("SIMULATED - no GPU was measured" in drawing for drawing in drawings)
    written = report.text(study, drawn=drawn)
    assert "## Charts of the search" in written
    assert "![history](figures/search_history.png)" in written


def test_table_has_a_row_per_setting_with_a_number(searched: Path) -> None:
    found = search_charts.found_by(Study.load(searched))

    assert found is not None
    assert found.knobs == ("max_num_seqs", "num_scheduler_steps")
    # Twelve were measured, two have failed.
    assert len(found.table) == 12
    best = found.table[found.table["standing"] == "best"]
    assert best[["row", "max_num_seqs", "num_scheduler_steps"]].to_numpy().tolist() == [[1, 64, 4]]
    broken = found.table[found.table["standing"] == "breaks a bound"]
    assert set(broken["num_scheduler_steps"]) == {8}


def test_named_series_and_few_settings_have_none(trial: MakeTrial, study_folder: MakeFolder) -> None:
    runs = [[{"request_throughput_per_s": 1.0}]]
    named = study_folder(
        *(trial(series=(f"s{n}",), knobs={"max_num_seqs": n}, runs=runs) for n in range(1, 8)),
        about={"series": {f"s{n}": {"label": f"S {n}"} for n in range(1, 8)}},
        name="named",
    )
    few = study_folder(*(trial(knobs={"max_num_seqs": n}, runs=runs) for n in range(1, 5)), name="few")

    assert search_charts.write(Study.load(named)) == []
    assert search_charts.write(Study.load(few)) == []


def test_grid_has_no_history(trial: MakeTrial, study_folder: MakeFolder) -> None:
    trials = [
        trial(knobs={"max_num_seqs": n}, runs=[[{"request_throughput_per_s": float(n)}]]) for n in range(1, 7)
    ]
    about = {"config": {"search": {"method": "grid"}}}

    drawn = search_charts.write(Study.load(study_folder(*trials, about=about)))

    assert {path.stem for path in drawn} == {"search_slices"}


def test_search_of_a_hundred_settings_labels_at_most_fifteen_bars(
    trial: MakeTrial, study_folder: MakeFolder
) -> None:
    runs = [{"request_throughput_per_s": float(n)} for n in range(100)]
    trials = [trial(knobs={"max_num_seqs": n + 1}, runs=[[run]]) for n, run in enumerate(runs)]

    report.write(study_folder(*trials, about={"config": {"search": {"method": "tpe"}}}))

    drawing = (study_folder() / "figures" / "request_throughput_per_s.svg").read_text(encoding="utf-8")
    assert drawing.count("max_num_seqs=") == 15
    assert "Shown: the best 15 of 100 settings" in drawing


def test_knob_that_decides_has_the_largest_share() -> None:
    settings = [{"decides": a, "idle": b} for a in range(6) for b in (None, "x", "y")]

    found = shares(settings, [float(one["decides"] or 0) for one in settings], is_higher_better=True)

    assert next(iter(found)) == "decides"
    assert found["decides"] > 0.8
    assert sum(found.values()) == pytest.approx(1)


def test_importance_needs_ten_settings(trial: MakeTrial, study_folder: MakeFolder) -> None:
    trials = [
        trial(knobs={"a": n, "b": -n}, runs=[[{"request_throughput_per_s": float(n)}]]) for n in range(9)
    ]
    study = Study.load(study_folder(*trials))

    assert importance(study, study.objectives[0]) == {}


def test_importance_of_bounded_search_counts_every_setting_with_a_number(searched: Path) -> None:
    study = Study.load(searched)

    found = pd.Series(importance(study, study.objectives[0]))

    assert set(found.index) == {"knob.max_num_seqs", "knob.num_scheduler_steps"}


def test_two_knobs_of_many_values_have_no_heat_map(trial: MakeTrial, study_folder: MakeFolder) -> None:
    trials = [
        trial(
            knobs={"max_num_seqs": n, "max_num_batched_tokens": 7 * n},
            runs=[[{"request_throughput_per_s": float(n)}]],
        )
        for n in range(1, 31)
    ]
    about = {"config": {"search": {"method": "grid"}}}

    drawn = search_charts.write(Study.load(study_folder(*trials, about=about)))

    assert {path.stem for path in drawn} == {"search_slices", "search_parallel"}


@pytest.mark.parametrize(
    ("load", "title"),
    [
        ({"max_concurrency": 64}, "Mean TTFT (ms) at 64 users"),
        ({"request_rate_per_s": 16.0}, "Mean TTFT (ms) at 16 QPS"),
        ({}, "Mean TTFT (ms)"),
    ],
)
def test_axis_names_its_load_as_everything_else_does(load: dict[str, float], title: str) -> None:
    goal = Objective(metric="mean_ttft_ms", direction="minimize", **load)  # type: ignore[arg-type]
    assert search_charts.axis_title(goal) == title
