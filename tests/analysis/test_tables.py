"""One number per setting and load point, with its interval; expected numbers are worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from analysis import bests, load_names, serving, tables
from analysis.study import DEFAULT_OBJECTIVES, Series
from sweeper.records import LoadPoint, Objective, TrialResult
from sweeper.store.store import Store
from sweeper.text.numbers import number_text

RPS = "request_throughput_per_s"

MakeTrial = Callable[..., TrialResult]
MakeFolder = Callable[..., Path]


def once(value: float) -> list[list[dict[str, float]]]:
    return [[{RPS: value}]]


def starts(*values: float) -> list[list[dict[str, float]]]:
    return [[{RPS: value}] for value in values]


@pytest.fixture
def rows(study_folder: MakeFolder) -> Callable[..., pd.DataFrame]:
    return lambda *results: Store.latest(Store(study_folder(*results)).read())


def test_runs_of_one_engine_start_count_once(trial: MakeTrial, rows: Callable[..., pd.DataFrame]) -> None:
    # Starts average to (1 + 3) / 2 = 2 and (5 + 7) / 2 = 6; their mean is 4 and there are two of them.
    runs = [[{RPS: 1.0}, {RPS: 3.0}], [{RPS: 5.0}, {RPS: 7.0}]]

    row = tables.summary(rows(trial(runs=runs)), metric=RPS).iloc[0]

    assert (row["mean"], row["n"]) == (4.0, 2)
    # deviation sqrt(4 + 4) = 2.8284, half = 12.7062 * 2.8284 / sqrt(2) = 25.4124
    assert row["high"] == pytest.approx(4 + 25.4124, abs=1e-3)


def test_series_have_their_labels_and_order(trial: MakeTrial, rows: Callable[..., pd.DataFrame]) -> None:
    frame = rows(
        trial(series=("slow",), knobs={"steps": 1}, runs=once(8.0)),
        trial(series=("fast", "also"), knobs={"steps": 10}, runs=once(11.0)),
    )
    known = {
        "slow": Series(name="slow", label="1 step", order=0),
        "fast": Series(name="fast", label="10 steps", order=1),
    }

    table = tables.summary(frame, metric=RPS, series=known)

    # One trial may serve two series; one that nobody described comes last under its own name.
    assert table["setting"].tolist() == ["1 step", "10 steps", "also"]
    assert table["mean"].tolist() == [8.0, 11.0, 11.0]


def test_settings_without_series_are_named_by_knobs_that_vary(
    trial: MakeTrial, rows: Callable[..., pd.DataFrame]
) -> None:
    frame = rows(
        trial(knobs={"max_num_seqs": 256, "eager": True, "tp": 4}, runs=once(2.0)),
        trial(knobs={"max_num_seqs": 64, "eager": True, "tp": 4}, runs=once(1.0)),
        trial(knobs={"max_num_seqs": 64, "eager": False, "tp": 4}, runs=once(3.0)),
        trial(knobs={"max_num_seqs": 64, "tp": 4}, runs=once(4.0)),
    )

    table = tables.summary(frame, metric=RPS)

    assert table["setting"].tolist() == [
        "eager=false, max_num_seqs=64",
        "eager=true, max_num_seqs=64",
        "eager=true, max_num_seqs=256",
        "eager=default, max_num_seqs=64",
    ]
    assert table["mean"].tolist() == [3.0, 1.0, 2.0, 4.0]


def test_knobs_that_vary_within_series_split_it(trial: MakeTrial, rows: Callable[..., pd.DataFrame]) -> None:
    frame = rows(
        trial(series=("a",), knobs={"steps": 1, "seqs": 8}, runs=once(1.0)),
        trial(series=("a",), knobs={"steps": 1, "seqs": 16}, runs=once(2.0)),
        trial(series=("b",), knobs={"steps": 5, "seqs": 8}, runs=once(3.0)),
    )

    assert tables.summary(frame, metric=RPS)["setting"].tolist() == ["a (seqs=8)", "a (seqs=16)", "b"]


def test_load_points_go_from_slow_to_all_at_once(trial: MakeTrial, rows: Callable[..., pd.DataFrame]) -> None:
    table = tables.summary(rows(trial(rates=(None, 1000.0, 16.0), runs=once(1.0))), metric=RPS)

    assert table["load_point"].tolist() == ["16", "1000", "all at once"]
    assert set(table["load_axis"]) == {"Request rate (QPS)"}


def test_load_points_that_differ_in_more_than_rate_are_named_in_full(
    trial: MakeTrial, rows: Callable[..., pd.DataFrame]
) -> None:
    points = tuple(
        LoadPoint(
            dataset="random", num_prompts=8, request_rate_per_s=2.0, input_len=length, max_concurrency=m
        )
        for length, m in ((128, 4), (2048, None))
    )

    table = tables.settings(rows(trial(points=points, runs=once(1.0))))

    assert table["load_point"].tolist() == ["4 at a time, 128 in", "no limit, 2048 in"]
    assert set(table["load_axis"]) == {"Load point"}


def test_another_seed_is_repeat_and_no_other_load_point(
    trial: MakeTrial, rows: Callable[..., pd.DataFrame]
) -> None:
    points = tuple(LoadPoint(dataset="random", num_prompts=8, client_seed=seed) for seed in (1, 2))

    assert len(tables.summary(rows(trial(points=points, runs=once(1.0))), metric=RPS)) == 1


def test_newest_trial_of_setting_is_shown(trial: MakeTrial, rows: Callable[..., pd.DataFrame]) -> None:
    frame = rows(
        trial(series=("a",), release="0.6.3", runs=once(12.0), ended_at=2_000.0),
        trial(series=("a",), release="0.6.2", runs=once(10.0), ended_at=1_000.0),
    )

    assert tables.summary(frame, metric=RPS)["mean"].tolist() == [12.0]


def test_failed_trial_keeps_its_place_and_reason(trial: MakeTrial, rows: Callable[..., pd.DataFrame]) -> None:
    frame = rows(
        trial(series=("bad",), knobs={"steps": 5}),
        trial(series=("good",), knobs={"steps": 1}, runs=starts(9.0, 9.0)),
    )

    table = tables.summary(frame, metric=RPS)

    assert math.isnan(table["mean"].iloc[0])
    assert (table["state"].iloc[0], table["reason"].iloc[0]) == ("failed", "out_of_memory")
    assert tables.by_load_point(table).to_dict("list") == {
        "setting": ["bad", "good"],
        "16 QPS": ["failed: out_of_memory", "9.00 ± 0.00 (n=2)"],
    }
    assert tables.failures(frame).to_dict("records") == [
        {
            "setting": "bad",
            "state": "failed",
            "failure_class": "out_of_memory",
            "failure_message": "HIP out of memory",
            "log_path": "trials/ab/engine.log",
            "trial_key": frame.loc[frame["state"] == "failed", "trial_key"].iloc[0],
        }
    ]


def test_metric_that_nobody_measured_has_no_value(
    trial: MakeTrial, rows: Callable[..., pd.DataFrame]
) -> None:
    table = tables.summary(rows(trial(runs=once(1.0))), metric="mean_ttft_ms")

    assert table["n"].tolist() == [0]
    row = table.to_dict("records")[0]
    assert tables.no_number_text(row) == tables.short_state(row) == "no value"
    refused = {**row, "state": "infeasible", "reason": "out_of_memory"}
    assert (tables.no_number_text(refused), tables.short_state(refused)) == (
        "infeasible: out_of_memory",
        "infeasible",
    )
    unknown = {**refused, "reason": "not_modelled"}
    assert tables.no_number_text(unknown) == tables.short_state(unknown) == "not modelled"


def test_cells_can_be_written_otherwise_and_gaps_are_said(
    trial: MakeTrial, rows: Callable[..., pd.DataFrame]
) -> None:
    frame = rows(
        trial(series=("a",), knobs={"steps": 1}, rates=(16.0, 32.0), runs=once(1.0)),
        trial(series=("b",), knobs={"steps": 2}, rates=(16.0,), runs=once(2.0)),
    )

    layout = tables.by_load_point(tables.summary(frame, metric=RPS), cell=lambda row: f"<{row['mean']:g}>")

    assert layout.to_dict("list") == {
        "setting": ["a", "b"],
        "16 QPS": ["<1>", "<2>"],
        "32 QPS": ["<1>", "not run"],
    }


def test_load_point_has_its_unit_where_no_axis_gives_it() -> None:
    axis = "Request rate (QPS)"
    some: tables.Row = {"load_point": "16", "load_axis": axis, "request_rate_per_s": 16.0}
    burst: tables.Row = {"load_point": "all at once", "load_axis": axis, "request_rate_per_s": math.nan}

    assert load_names.load_point_text(some) == "16 QPS"
    assert load_names.load_point_text(burst) == "all at once"


@pytest.mark.parametrize(
    ("good", "fair", "verdict"),
    [
        # Intervals of two starts: 20 +- 12.7062 * 0.0141 / 1.4142 = 20 +- 0.13, and 10 +- 0.13: apart.
        ((19.99, 20.01), (9.99, 10.01), "clear"),
        # 11 +- 12.7062 * 1.4142 / 1.4142 = 11 +- 12.7: touches 10.
        ((10.0, 12.0), (9.99, 10.01), "inconclusive"),
        ((20.0,), (9.99, 10.01), "single start"),
    ],
)
def test_best_setting_is_clear_only_when_intervals_lie_apart(
    trial: MakeTrial,
    rows: Callable[..., pd.DataFrame],
    good: tuple[float, ...],
    fair: tuple[float, ...],
    verdict: str,
) -> None:
    frame = rows(
        trial(series=("fair",), knobs={"steps": 1}, runs=starts(*fair)),
        trial(series=("good",), knobs={"steps": 5}, runs=starts(*good)),
    )

    answer = bests.best(frame, objectives=[Objective(metric=RPS, direction="maximize")]).iloc[0]

    assert (answer["setting"], answer["runner_up"], answer["verdict"]) == ("good", "fair", verdict)
    assert answer["runner_up_value"] == pytest.approx(10.0)
    assert answer["objective"] == f"highest {RPS}, at 16 QPS"


def test_best_setting_depends_on_load_point_and_direction(trial: MakeTrial, study_folder: MakeFolder) -> None:
    store = Store(study_folder(trial(series=("x",), knobs={"s": 1}, rates=(16.0,), runs=once(5.0))))
    store.append(
        trial(series=("y",), knobs={"s": 2}, rates=(16.0, 32.0), runs=once(9.0)), queued_s=0.0, knobs=[]
    )
    frame = store.read()

    at_16 = Objective(metric=RPS, direction="minimize", request_rate_per_s=16.0)
    overall = Objective(metric=RPS, direction="minimize")
    answers = bests.best(frame, objectives=[at_16, overall])

    # Over all load points only y has numbers everywhere, so x, though lower, cannot win there.
    assert answers["setting"].tolist() == ["x", "y"]
    assert answers["verdict"].tolist() == ["single start", "alone"]


def test_nothing_is_best_where_everything_failed(trial: MakeTrial, rows: Callable[..., pd.DataFrame]) -> None:
    assert bests.best(rows(trial()), objectives=[Objective(metric=RPS, direction="maximize")]).empty


def test_line_to_serve_with_has_flags_and_environment_of_its_release(
    trial: MakeTrial, rows: Callable[..., pd.DataFrame]
) -> None:
    knobs = {"max_num_seqs": 512, "enable_chunked_prefill": False, "VLLM_USE_TRITON_FLASH_ATTN": 0}
    tuned = trial(knobs=knobs, runs=once(1.0), release="0.6.2 (modelled)")
    # Beside a trial without these knobs: whole numbers stay whole, and nothing is handed over.
    bare = trial(runs=once(1.0))
    frame = rows(tuned, bare)

    line = serving.serve_line(frame, tuned.spec.key)

    assert line.startswith(
        "VLLM_USE_TRITON_FLASH_ATTN=0 vllm serve meta-llama/Llama-3.1-70B-Instruct --port 8000"
    )
    assert "--max-num-seqs 512" in line
    assert "--enable-chunked-prefill=False" in line
    assert serving.serve_line(frame, bare.spec.key) == (
        "vllm serve meta-llama/Llama-3.1-70B-Instruct --port 8000"
    )


def test_line_of_build_that_tells_no_release_is_written_for_one_that_was_stated(
    trial: MakeTrial, rows: Callable[..., pd.DataFrame]
) -> None:
    tuned = trial(knobs={"enable_chunked_prefill": False}, runs=once(1.0), release="0.1.dev9453+g1babc91fe")
    engine = replace(tuned.spec.engine, release="0.11.1", build="0.1.dev9453+g1babc91fe")
    tuned = replace(tuned, spec=replace(tuned.spec, engine=engine))

    line = serving.serve_line(rows(tuned), tuned.spec.key)

    # 0.4.2, which such a number would be taken for, had no way to say off.
    assert line.endswith("--no-enable-chunked-prefill")


@pytest.mark.parametrize(("value", "release"), [("auto", "0.6.2"), (True, "unknown")])
def test_where_no_line_can_be_written_command_that_was_run_stands(
    trial: MakeTrial, rows: Callable[..., pd.DataFrame], value: bool | str, release: str
) -> None:
    odd = trial(knobs={"enable_chunked_prefill": value}, release=release, runs=once(1.0))

    assert serving.serve_line(rows(odd), odd.spec.key) == f"vllm serve 70B --enable_chunked_prefill={value}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (28450.4, "28,450"),
        (145.3, "145"),
        (99.99, "100"),
        (10.566, "10.57"),
        (0.0, "0.00"),
        (0.00421, "0.0042"),
    ],
)
def test_numbers_are_written_as_short_as_they_can_be(value: float, text: str) -> None:
    assert number_text(value) == text


def test_markdown_keeps_its_columns_whatever_message_holds() -> None:
    table = pd.DataFrame([{"setting": "a", "reason": "one | two\nthree", "value": None}])

    assert tables.to_markdown(table) == (
        "| setting | reason | value |\n| --- | ---: | ---: |\n| a | one \\| two three |  |"
    )
    assert "| --- | --- | --- |" in tables.to_markdown(table, is_text=True)


def two_runs(trial: MakeTrial, **more: object) -> TrialResult:
    """Each rate on an empty prefix cache and again on what that left: 10 and 20 requests per second."""
    points = tuple(
        LoadPoint(dataset="sharegpt", num_prompts=9, request_rate_per_s=rate, keeps_prefix_cache=keeps)
        for rate in (16.0, 32.0)
        for keeps in (False, True)
    )
    return trial(
        points=points,
        runs_at=lambda point: once(20.0 if point.keeps_prefix_cache else 10.0),
        telemetry_at=lambda point: {"prefix_cache_hit_rate": 0.5 if point.keeps_prefix_cache else 0.0},
        **more,
    )


def test_series_of_one_trial_show_one_run_each_at_same_load_points(
    trial: MakeTrial, rows: Callable[..., pd.DataFrame]
) -> None:
    frame = rows(two_runs(trial, series=("first", "again", "plain")))
    known = {
        "first": Series(name="first", label="Fresh", run="fresh", order=0),
        "again": Series(name="again", label="2nd", run="second", order=1),
        "plain": Series(name="plain", label="Plain", order=2),
    }

    table = tables.summary(frame, metric=RPS, series=known)

    assert table["setting"].tolist() == ["Fresh", "Fresh", "2nd", "2nd", "Plain", "Plain"]
    assert table["load_point"].tolist() == ["16", "32"] * 3
    # Nothing is averaged over the two runs: that would be 15.
    assert table["mean"].tolist() == [10.0, 10.0, 20.0, 20.0, 10.0, 10.0]


def test_second_run_is_no_setting_and_so_never_best(
    trial: MakeTrial, rows: Callable[..., pd.DataFrame]
) -> None:
    frame = rows(two_runs(trial, series=("first", "again")))
    known = {
        "first": Series(name="first", label="Fresh", run="fresh", order=0),
        "again": Series(name="again", label="2nd", run="second", order=1),
    }

    (answer,) = bests.best(frame, objectives=DEFAULT_OBJECTIVES, series=known).to_dict("records")

    assert (answer["setting"], answer["value"], answer["verdict"]) == ("Fresh", 10.0, "alone")


def test_without_series_two_runs_are_load_points_of_their_own(
    trial: MakeTrial, rows: Callable[..., pd.DataFrame]
) -> None:
    table = tables.summary(rows(two_runs(trial)), metric=RPS)

    assert table["load_point"].tolist() == [
        "16 QPS, fresh run",
        "16 QPS, second run",
        "32 QPS, fresh run",
        "32 QPS, second run",
    ]
    assert table["mean"].tolist() == [10.0, 20.0, 10.0, 20.0]


def test_series_whose_every_run_keeps_cache_keeps_its_rows(
    trial: MakeTrial, rows: Callable[..., pd.DataFrame]
) -> None:
    point = LoadPoint(dataset="sharegpt", num_prompts=9, request_rate_per_s=16.0, keeps_prefix_cache=True)

    table = tables.summary(rows(trial(series=("s",), points=(point,), runs=once(3.0))), metric=RPS)

    assert table["mean"].tolist() == [3.0]


def test_parts_from_before_two_runs_were_told_apart_are_fresh(
    trial: MakeTrial, rows: Callable[..., pd.DataFrame]
) -> None:
    frame = rows(trial(series=("s",), runs=once(3.0)))
    older = frame.assign(keeps_prefix_cache=pd.array([None] * len(frame), dtype="boolean"))
    known = {"s": Series(name="s", label="S", run="fresh")}

    assert tables.summary(older, metric=RPS, series=known)["mean"].tolist() == [3.0]


def test_time_of_trial_counts_once_and_time_of_run_each_time(
    trial: MakeTrial, rows: Callable[..., pd.DataFrame]
) -> None:
    phases = {"engine_start_s": 5.0, "warmup_s": 1.0, "stop_s": 1.0}
    frame = rows(
        trial(knobs={"k": 1}, rates=(16.0, 32.0), runs=once(1.0), phases=phases),
        trial(knobs={"k": 2}, rates=(16.0, 32.0), runs=once(1.0), phases=phases),
    )

    spent = tables.spent_time(frame).set_index("part")

    # Two trials of two rows each; a row measures 1 s and has 0.5 s around it. Whole: 20 s.
    assert spent["seconds"].to_dict() == {
        "waiting for devices": 0.0,
        "waiting until devices were free": 0.0,
        "engine start": 10.0,
        "warm-up": 2.0,
        "measuring": 4.0,
        "around the client's runs": 2.0,
        "engine stop": 2.0,
    }
    assert spent.loc["measuring", "share"] == pytest.approx(4 / 20)
