"""Load points by users: how axes, tables, charts and sentences name them, and what a search found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis import bests, claims, figures, load_names, report, standings, tables
from analysis.claims import Claim
from analysis.lines import line_axis
from analysis.study import Study
from sweeper import published
from sweeper.errors import StoreError
from sweeper.records import LoadPoint, Ramp, TrialResult, UserSearch

MakeTrial = Callable[..., TrialResult]
MakeFolder = Callable[..., Path]
RPS, TPOT = "request_throughput_per_s", "mean_tpot_ms"
CLOSED = LoadPoint(dataset="random", num_prompts=10, input_len=128, output_len=32)
OPEN = replace(CLOSED, request_rate_per_s=16.0)


def with_users(*users: int, each: int = 10) -> tuple[LoadPoint, ...]:
    return tuple(replace(CLOSED, max_concurrency=n, num_prompts=each * n) for n in users)


def by_users(point: LoadPoint) -> list[list[dict[str, float]]]:
    """Serve as many requests as there are users, each slower by a millisecond for each of them."""
    users = point.users or 0
    return [[{RPS: float(users), "mean_ttft_ms": 50.0, TPOT: 10.0 + users}]]


@pytest.fixture
def frame(trial: MakeTrial, study_folder: MakeFolder) -> Callable[..., pd.DataFrame]:
    """Store a trial of some load points, and read its rows."""
    return lambda *points: Study.load(study_folder(trial(points=points, runs=[[{RPS: 1.0}]]))).frame


def named(frame: pd.DataFrame) -> tuple[list[str], list[str], str]:
    """Return labels, labels with their unit, and the axis."""
    table = tables.summary(frame, metric=RPS)
    (axis,) = set(table["load_axis"])
    records = table.to_dict("records")
    return table["load_point"].tolist(), [load_names.load_point_text(row) for row in records], axis


def test_axis_of_users_goes_from_few_to_many(frame: Callable[..., pd.DataFrame]) -> None:
    assert named(frame(*with_users(64, 1, 1024))) == (
        ["1", "64", "1024"],
        ["1 user", "64 users", "1,024 users"],
        "Concurrency (users)",
    )


def test_one_number_of_users_has_axis_of_users(frame: Callable[..., pd.DataFrame]) -> None:
    assert named(frame(*with_users(16))) == (["16"], ["16 users"], "Concurrency (users)")


def test_prompts_are_named_where_they_do_not_follow_from_users(frame: Callable[..., pd.DataFrame]) -> None:
    longer = replace(CLOSED, max_concurrency=4, num_prompts=400)
    assert named(frame(*with_users(1, 4), longer))[0] == [
        "1 user, 10 prompts",
        "4 users, 40 prompts",
        "4 users, 400 prompts",
    ]


def test_rates_and_users_share_axis_under_their_own_names(frame: Callable[..., pd.DataFrame]) -> None:
    limited = replace(OPEN, max_concurrency=64)
    at_once = replace(CLOSED, num_prompts=80)
    labels, _, axis = named(frame(limited, *with_users(8), at_once))
    assert labels == [
        "16 QPS, 64 at a time, 10 prompts",
        "8 users, 80 prompts",
        "all at once, no limit, 80 prompts",
    ]
    assert axis == "Load point"


def test_users_beside_rates_under_same_limit(frame: Callable[..., pd.DataFrame]) -> None:
    fixed = (replace(OPEN, max_concurrency=8), replace(CLOSED, max_concurrency=8))
    assert named(frame(*fixed)) == (["16", "8 users"], ["16 QPS", "8 users"], "Request rate (QPS)")


def test_ramp_with_limit_is_no_closed_loop(frame: Callable[..., pd.DataFrame]) -> None:
    ramp = replace(CLOSED, max_concurrency=8, ramp=Ramp(strategy="linear", start_per_s=1, end_per_s=9))
    labels, _, axis = named(frame(ramp, replace(ramp, max_concurrency=64)))
    assert (labels, axis) == (["8 at a time", "64 at a time"], "Load point")


@pytest.mark.parametrize(
    ("points", "axis"),
    [
        (with_users(1, 4, 16), "max_concurrency"),
        (with_users(1, 4), None),
        (tuple(replace(OPEN, max_concurrency=n) for n in (1, 4, 16)), None),
    ],
)
def test_lines_run_over_three_numbers_of_users(
    points: tuple[LoadPoint, ...], axis: str | None, frame: Callable[..., pd.DataFrame]
) -> None:
    assert line_axis(frame(*points)) == axis


OBJECTIVES: list[dict[str, Any]] = [{"metric": RPS, "direction": "maximize", "max_concurrency": 16}]
SLO = {"metric": TPOT, "limit": 30.0, "is_upper": True, "max_concurrency": 64}


@pytest.fixture
def study(trial: MakeTrial, study_folder: MakeFolder) -> Study:
    """Two settings over four numbers of users, one of which is too slow with 64 of them."""
    slow = trial(series=("slow",), knobs={"n": 1}, points=with_users(1, 4, 16, 64), runs_at=by_users)
    fast = trial(
        series=("fast",),
        knobs={"n": 2},
        points=with_users(1, 4, 16, 64),
        runs_at=lambda point: [[{**by_users(point)[0][0], TPOT: 12.0}]],
    )
    return Study.load(study_folder(slow, fast, about={"objectives": OBJECTIVES, "constraints": [SLO]}))


def test_best_is_judged_with_named_users(study: Study) -> None:
    (answer,) = standings.best(study).to_dict("records")
    assert (answer["setting"], answer["value"]) == ("fast", 16.0)
    assert answer["objective"] == f"highest {RPS}, at 16 users"
    # 10 + 64 = 74 is above 30; with fewer users nobody asks.
    assert standings.closing_lines(study) == [
        f"bounds ({TPOT} at 64 users <= 30): 1 of 2 settings with numbers break one"
    ]


def test_bound_is_drawn_at_its_users_alone(study: Study) -> None:
    metric = next(one for one in figures.metrics_of(study) if one.column == TPOT)
    table = figures.chart_table(study, metric)
    assert table.loc[table["bound"].notna(), "max_concurrency"].tolist() == [64, 64]
    figure = figures.draw(table, metric=metric, subtitle="", caption="", axis="max_concurrency")
    (axes,) = figure.axes
    strokes = [line for line in axes.lines if line.get_marker() == "_"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in strokes] == [(64, 30.0)]
    assert axes.get_xlabel() == "Concurrency (users)"
    assert axes.get_xscale() == "log"
    said = figures.marks_text(study, table, metric=metric, axis="max_concurrency")
    assert "With a cross in the legend: breaks a bound" in said
    assert "Red stroke: the bound at that load" in said


def test_usual_metrics_run_over_users(study: Study) -> None:
    assert [one.column for one in figures.metrics_of(study)] == [RPS, "mean_ttft_ms", TPOT]


SEARCH = UserSearch(low=1, high=64, resolution=1, bounds=((TPOT, 30.0),), prompts_per_user=10)


def searched(trial: MakeTrial, name: str, n: int, found: int) -> TrialResult:
    probes = tuple(replace(point, user_search=SEARCH) for point in with_users(1, found))
    return trial(
        series=(name,),
        knobs={"n": n},
        points=(*with_users(2), *probes),
        runs_at=lambda point: [
            [{RPS: 7.5, TPOT: 9.0} | ({"max_users": found} if point is probes[1] else {})]
        ],
    )


def test_most_users_are_answer_of_probes_which_stay_out_of_other_tables(
    trial: MakeTrial, study_folder: MakeFolder
) -> None:
    found = [searched(trial, "x", 1, 20), searched(trial, "y", 2, 40)]
    wanted = {"metric": "max_users", "direction": "maximize"}
    study = Study.load(study_folder(*found, about={"objectives": [wanted]}))
    (answer,) = bests.best(study.frame, objectives=study.objectives).to_dict("records")
    assert (answer["setting"], answer["value"], answer["objective"]) == ("y", 40.0, "highest max_users")
    table = tables.summary(study.frame, metric="max_users")
    assert table[["setting", "load_point", "mean"]].to_numpy().tolist() == [
        ["x", load_names.MOST_USERS, 20.0],
        ["y", load_names.MOST_USERS, 40.0],
    ]
    # Two users are the one load point that was chosen; the probes are at others.
    others = tables.summary(study.frame, metric=RPS)
    assert others[["load_point", "load_axis"]].to_numpy().tolist() == [["2", "Concurrency (users)"]] * 2
    (line,) = standings.best_lines(study)
    assert line == "y: highest max_users: 40, 7.50 completed per second (single start)"


def test_chart_and_report_of_most_users_say_bounds_and_whole_numbers(
    trial: MakeTrial, study_folder: MakeFolder
) -> None:
    wanted = {"metric": "max_users", "direction": "maximize"}
    folder = study_folder(searched(trial, "x", 1, 20), about={"objectives": [wanted]})
    study = Study.load(folder)
    written = report.text(study, drawn=report.write(study.folder).figures)  # type: ignore[arg-type]
    assert "| x | 20 (n=1), 7.50 completed per second |" in written
    metric = next(one for one in figures.metrics_of(study) if one.column == "max_users")
    assert metric.title == "Most users within bounds"
    caption = figures.caption_of(study, figures.chart_table(study, metric))
    assert f"Bounds: {TPOT} <= 30." in caption
    # Probes with 1 and with 20 users, of ten prompts each; the load point that was chosen has two users.
    assert "10, 200 random prompts" in caption
    usual = next(one for one in figures.metrics_of(study) if one.column == TPOT)
    assert "20 random prompts" in figures.caption_of(study, figures.chart_table(study, usual))


CLAIM = Claim(
    id="c1",
    experiment="steps",
    statement="Fast is faster.",
    where="here",
    metric=TPOT,
    powers={"slow": 1, "fast": -1},
    low=1.0,
)


def test_claim_at_rate_is_not_judged_on_as_many_users(study: Study) -> None:
    assert claims.check_study(replace(CLAIM, request_rate_per_s=16.0), study).findings == ()
    (found,) = claims.check_study(replace(CLAIM, max_concurrency=16), study).findings
    # 10 + 16 against 12 ms
    assert (found.load_point, found.ratio.value) == ("16 users", pytest.approx(26 / 12))
    every = claims.check_study(CLAIM, study).findings
    assert [finding.load_point for finding in every] == ["1 user", "4 users", "16 users", "64 users"]


PUBLISHED = "series,metric,request_rate_per_s,{0}value,low,high,method,system,model,source\n"


@pytest.mark.parametrize(
    ("head", "line", "beside"),
    [
        ("", "theirs,mean_tpot_ms,,9.0,,,printed label,a system,{model},a page", []),
        ("max_concurrency,", "theirs,mean_tpot_ms,,16,9.0,,,printed label,a system,{model},a page", [16]),
    ],
    ids=["all at once", "of users"],
)
def test_published_numbers_stand_beside_load_that_they_are_of(
    head: str, line: str, beside: list[int], trial: MakeTrial, study_folder: MakeFolder, tmp_path: Path
) -> None:
    result = trial(series=("fast",), points=with_users(4, 16), runs_at=by_users)
    series = {"fast": {"label": "fast", "published": "theirs", "order": 0}}
    study = Study.load(study_folder(result, about={"experiment": "users", "series": series}))
    (tmp_path / "experiments" / "users").mkdir(parents=True)
    path = tmp_path / "experiments" / "users" / "published.csv"
    path.write_text(PUBLISHED.format(head) + line.format(model=result.spec.model.name) + "\n")
    metric = next(one for one in figures.metrics_of(study) if one.column == TPOT)
    table = figures.chart_table(study, metric, experiments=tmp_path / "experiments")
    assert table.loc[table["published_value"].notna(), "max_concurrency"].tolist() == beside


def test_published_number_that_is_given_twice_is_named_with_its_users(tmp_path: Path) -> None:
    (tmp_path / "users").mkdir()
    line = "theirs,mean_tpot_ms,,16,9.0,,,printed label,a system,a model,a page\n"
    (tmp_path / "users" / "published.csv").write_text(PUBLISHED.format("max_concurrency,") + line * 2)
    with pytest.raises(StoreError, match="gives mean_tpot_ms of series 'theirs' at 16 users twice"):
        published.load("users", root=tmp_path)
