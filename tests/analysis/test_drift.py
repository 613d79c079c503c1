"""Drift is the trend of a setting that nobody changed, with an interval; the control is no further trial."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from analysis import report, tables
from analysis.drift import drift
from analysis.study import Study
from sweeper.records import TrialResult, TrialState
from sweeper.store.store import Store

MakeTrial = Callable[..., TrialResult]
MakeFolder = Callable[..., Path]

METRIC = "request_throughput_per_s"
HOUR = 3600.0
START = 1_700_000_000.0


def runs(*values: float) -> list[list[dict[str, float]]]:
    return [[{METRIC: value} for value in values]]


@pytest.fixture
def repetition(trial: MakeTrial) -> Callable[..., TrialResult]:
    def make(number: int, value: float, *, hour: float) -> TrialResult:
        result = trial(
            series=("a",), knobs={"max_num_seqs": 8}, runs=runs(value), ended_at=START + hour * HOUR
        )
        return replace(result, spec=replace(result.spec, control=number))

    return make


def read(folder: Path) -> Study:
    return Study.load(folder)


def test_setting_that_falls_by_fifth_drifts(
    repetition: Callable[..., TrialResult], study_folder: MakeFolder, trial: MakeTrial
) -> None:
    folder = study_folder(
        repetition(0, 11.0, hour=0),
        repetition(1, 10.0, hour=1),
        repetition(2, 9.0, hour=2),
        trial(series=("b",), knobs={"max_num_seqs": 16}, runs=runs(50.0), ended_at=START + HOUR),
    )
    found = drift(read(folder).every_row, METRIC)
    assert found is not None
    # From 110 % of the mean to 90 %, on a line: no residual, so the interval is a point.
    assert found.change_pct == pytest.approx(-20.0)
    assert (found.low_pct, found.high_pct) == (pytest.approx(-20.0), pytest.approx(-20.0))
    assert (found.starts, found.hours) == (3, pytest.approx(2.0))
    assert found.sentence.startswith(f"{METRIC}: drift of -20.0 % over 2.0 h and 3 engine starts")


def test_setting_that_only_scatters_shows_no_drift_above_its_interval(
    repetition: Callable[..., TrialResult], study_folder: MakeFolder
) -> None:
    values = (9.9, 10.1, 10.1, 9.9)
    folder = study_folder(*(repetition(n, value, hour=n) for n, value in enumerate(values)))
    found = drift(read(folder).every_row, METRIC)
    assert found is not None
    # The slope is 0. Residuals +-1 %: variance 4e-4 / 2, sum of squared times 5 h^2, error sqrt(4e-5) a hour;
    # half interval 4.3027 * 0.0063246 * 3 h = 8.164 %.
    assert found.change_pct == pytest.approx(0.0, abs=1e-9)
    assert found.high_pct == pytest.approx(8.164, abs=0.001)
    assert "no drift seen above 8.2 % over 3.0 h and 4 engine starts" in found.sentence


def test_two_starts_give_change_without_interval(
    repetition: Callable[..., TrialResult], study_folder: MakeFolder
) -> None:
    found = drift(
        read(study_folder(repetition(0, 9.0, hour=0), repetition(1, 11.0, hour=1))).every_row, METRIC
    )
    assert found is not None
    assert (found.low_pct, found.high_pct) == (None, None)
    assert "+20.0 % over 1.0 h and 2 engine starts; without an interval" in found.sentence


def test_trial_of_same_setting_counts_as_start_and_others_do_not(
    repetition: Callable[..., TrialResult], study_folder: MakeFolder, trial: MakeTrial
) -> None:
    folder = study_folder(
        repetition(0, 10.0, hour=0),
        trial(series=("a",), knobs={"max_num_seqs": 8}, runs=runs(10.0), ended_at=START + HOUR),
        trial(series=("b",), knobs={"max_num_seqs": 16}, runs=runs(99.0), ended_at=START + 2 * HOUR),
        repetition(1, 10.0, hour=3),
    )
    found = drift(read(folder).every_row, METRIC)
    assert found is not None
    assert found.starts == 3


def test_without_control_or_without_numbers_nothing_is_said_of_drift(
    study_folder: MakeFolder, trial: MakeTrial, repetition: Callable[..., TrialResult]
) -> None:
    folder = study_folder(trial(series=("a",), knobs={"max_num_seqs": 8}, runs=runs(10.0)))
    assert drift(read(folder).every_row, METRIC) is None
    other = study_folder(repetition(0, 10.0, hour=0), name="other")
    assert drift(Store(other).read(), METRIC) is None, "one start has no trend"
    assert drift(Store(other).read(), "mean_ttft_ms") is None


def test_repetitions_of_control_are_not_averaged_into_their_setting(
    repetition: Callable[..., TrialResult], study_folder: MakeFolder, trial: MakeTrial
) -> None:
    folder = study_folder(
        trial(series=("a",), knobs={"max_num_seqs": 8}, runs=runs(10.0), ended_at=START),
        repetition(0, 20.0, hour=5),
    )
    (row,) = tables.summary(read(folder).frame, metric=METRIC).to_dict("records")
    assert (row["mean"], row["n"]) == (10.0, 1)


def test_spread_is_told_between_starts_and_within_one(study_folder: MakeFolder, trial: MakeTrial) -> None:
    starts = [[{METRIC: value} for value in values] for values in ((9.0, 11.0), (11.0, 13.0))]
    folder = study_folder(trial(series=("a",), runs=starts))
    (row,) = tables.spread(read(folder).frame, metric=METRIC).to_dict("records")
    # Means 10 and 12: deviation sqrt(2) of 11. Within: each start has variance 2, pooled sqrt(2) of 11.
    assert row["between_starts_pct"] == pytest.approx(100 * 2**0.5 / 11)
    assert row["within_start_pct"] == pytest.approx(100 * 2**0.5 / 11)
    assert (row["starts"], row["runs"]) == (2, 4)


def test_of_zero_no_spread_in_percent_is_told_and_nothing_of_a_control_that_was_stopped_early(
    repetition: Callable[..., TrialResult], study_folder: MakeFolder, trial: MakeTrial
) -> None:
    early = [replace(repetition(n, 0.0, hour=n), state=TrialState.SKIPPED) for n in (0, 1)]
    none = trial(series=("b",), knobs={"max_num_seqs": 16}, runs=[*runs(0.0, 0.0), *runs(0.0)])
    study = read(study_folder(*early, none))
    (row,) = tables.spread(study.frame, metric=METRIC).to_dict("records")
    assert (row["starts"], row["runs"]) == (2, 3)
    assert math.isnan(row["between_starts_pct"]) and math.isnan(row["within_start_pct"])
    assert drift(study.every_row, METRIC) is None


def test_report_tells_spread_and_drift(
    repetition: Callable[..., TrialResult], study_folder: MakeFolder, trial: MakeTrial
) -> None:
    starts = [[{METRIC: value} for value in values] for values in ((9.0, 11.0), (11.0, 13.0))]
    folder = study_folder(
        repetition(0, 10.0, hour=0),
        trial(series=("b",), knobs={"max_num_seqs": 16}, runs=starts, ended_at=START + HOUR),
        repetition(1, 10.0, hour=2),
    )
    written = report.write(folder).report.read_text(encoding="utf-8")
    assert "## Repeatability" in written
    assert "| b | 16 QPS | 2 | 4 | 12.86 % | 12.86 % |" in written
    assert "Drift, by a setting that was measured again 2 times while the study ran:" in written
    assert f"- {METRIC}: +0.0 % over 2.0 h and 2 engine starts" in written


def test_metric_that_is_zero_of_the_control_setting_has_no_drift(
    trial: MakeTrial, study_folder: MakeFolder
) -> None:
    """The default loses no answers against itself: of nothing there is no percentage."""

    def again(number: int) -> TrialResult:
        found = trial(knobs={}, runs=runs(10.0), ended_at=START + number * HOUR)
        told = {"accuracy_of": "q", "accuracy_questions": 10, "accuracy_right": "1" * 10}
        return replace(found, spec=replace(found.spec, control=number), accuracy=told)

    study = read(study_folder(*(again(number) for number in range(3))))
    assert study.every_row["accuracy_loss"].tolist() == [0.0] * 3
    assert drift(study.every_row, "accuracy_loss") is None
    assert drift(study.every_row, METRIC) is not None
