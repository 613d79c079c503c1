"""Answers that came short are told in the report, with the reason that the row holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from analysis import report, short_answers
from analysis.study import Study
from sweeper.records import TrialResult

MakeTrial = Callable[..., TrialResult]
MakeFolder = Callable[..., Path]

WHY = "250 of 1000 answers have 200 tokens where 256 were asked for: max_model_len has no room. Raise it"


def test_reason_is_told_once_for_each_setting_and_load(trial: MakeTrial, study_folder: MakeFolder) -> None:
    made = trial(
        rates=(4.0, 8.0), runs=[[{"request_throughput_per_s": 4.0}], [{"request_throughput_per_s": 4.1}]]
    )
    short = tuple(
        replace(
            measured, short_answers_because=WHY if measured.load_point.request_rate_per_s == 8.0 else None
        )
        for measured in made.measurements
    )
    study = Study.load(study_folder(replace(made, measurements=short)))

    written = short_answers.section(study)

    assert written.count(WHY) == 1
    assert "8 QPS" in written
    assert "4 QPS" not in written
    assert written in report.text(study, drawn=[])


def test_nothing_is_said_where_every_answer_is_whole(trial: MakeTrial, study_folder: MakeFolder) -> None:
    study = Study.load(study_folder(trial(runs=[[{"request_throughput_per_s": 4.0}]])))
    assert short_answers.section(study) == ""
