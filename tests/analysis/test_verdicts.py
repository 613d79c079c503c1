"""Finalists: what is better, what is not shown to be, and what is recommended for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from analysis import report, verdicts
from analysis.study import Study
from sweeper.records import Constraint, Objective, TrialResult

MakeTrial = Callable[..., TrialResult]
MakeFolder = Callable[..., Path]
RPS = "request_throughput_per_s"
THROUGHPUT = Objective(metric=RPS, direction="maximize")


def test_two_settings_are_compared_by_welchs_interval_of_logarithm() -> None:
    # Logarithms: 1 and 3, variance 2, of the mean 1; and 0 and 0.  Difference 2, error 1, degrees 1 / 1 = 1.
    found = verdicts.compare([math.e, math.e**3], [1.0, 1.0], is_higher_better=True)
    assert found.ratio == pytest.approx(math.e**2)
    assert found.high is not None
    assert math.log(found.high) == pytest.approx(2 + 12.706, abs=1e-3)
    assert found.verdict == "inconclusive"


def test_clear_difference_is_named_by_its_direction() -> None:
    fast, slow = [10.0, 10.1, 9.9], [8.0, 8.1, 7.9]
    assert verdicts.compare(fast, slow, is_higher_better=True).verdict == "better"
    assert verdicts.compare(fast, slow, is_higher_better=False).verdict == "worse"
    assert verdicts.compare(fast, [9.8, 10.2, 10.0], is_higher_better=True).verdict == "inconclusive"


def test_more_comparisons_widen_each_interval() -> None:
    one = verdicts.compare([10.0, 10.2, 9.9], [9.0, 9.2, 9.1], is_higher_better=True)
    many = verdicts.compare([10.0, 10.2, 9.9], [9.0, 9.2, 9.1], is_higher_better=True, comparisons=10)
    assert one.low is not None
    assert many.low is not None
    assert many.low < one.low


def test_single_start_settles_nothing() -> None:
    found = verdicts.compare([20.0], [10.0, 10.1], is_higher_better=True)
    assert (found.ratio, found.low, found.verdict) == (pytest.approx(1.99, abs=0.01), None, "inconclusive")


@pytest.fixture
def study_of(trial: MakeTrial, study_folder: MakeFolder) -> Callable[..., Study]:
    """A study in which settings (knobs) were measured again, with a value per engine start."""

    def make(default: Sequence[float], **finalists: tuple[dict[str, int], Sequence[float]]) -> Study:
        results = [trial(knobs={"max_num_seqs": 64}, runs=[[{RPS: 99.0}]])]
        settings = {"default": ({}, default), **finalists}
        for name, (knobs, values) in settings.items():
            for number, value in enumerate(values):
                one = trial(knobs=knobs, runs=[[{RPS: value}]])
                spec = replace(one.spec, final=number, is_default=name == "default")
                results.append(replace(one, spec=spec))
        return Study.load(study_folder(*results))

    return make


def test_finalists_are_judged_by_starts_made_for_it_and_by_nothing_else(
    study_of: Callable[..., Study],
) -> None:
    study = study_of([10.0, 10.1, 9.9], wide=({"max_num_seqs": 64}, [12.0, 12.1, 11.9]))
    best, default = verdicts.finalists(study, THROUGHPUT)
    # The 99 of the search is no part of it.
    assert (best.name, best.overrides) == ("max_num_seqs=64", 1)
    assert sorted(best.starts) == [11.9, 12.0, 12.1]
    assert best.against_default is not None
    assert best.against_default.verdict == "better"
    assert best.against_default.ratio == pytest.approx(1.2, abs=0.001)
    assert best.against_best is None
    assert (default.name, default.overrides, default.against_default) == ("default", 0, None)
    assert verdicts.recommended([best, default]) is best


def test_of_settings_that_cannot_be_told_apart_one_with_fewest_overrides_is_recommended(
    study_of: Callable[..., Study],
) -> None:
    study = study_of(
        [8.0, 8.1, 7.9],
        two=({"max_num_seqs": 64, "block_size": 32}, [12.1, 12.2, 11.9]),
        one=({"max_num_seqs": 64}, [12.0, 12.1, 11.9]),
    )
    judged = verdicts.finalists(study, THROUGHPUT)
    assert [one.name for one in judged] == [
        "block_size=32, max_num_seqs=64",
        "max_num_seqs=64",
        "default",
    ]
    choice = verdicts.recommended(judged)
    assert choice is judged[1]
    told = verdicts.sentences(study)
    assert told[0].startswith(
        "request_throughput_per_s: recommended is max_num_seqs=64, better against the default: 1.500 ("
    )
    assert "block_size=32, max_num_seqs=64, is not shown to be better than it" in told[0]
    assert told[1].endswith("--max-num-seqs 64")


def test_default_is_recommended_where_nothing_is_shown_to_beat_it(study_of: Callable[..., Study]) -> None:
    study = study_of([10.0, 10.5, 9.5], wide=({"max_num_seqs": 64}, [10.1, 10.6, 9.6]))
    choice = verdicts.recommended(verdicts.finalists(study, THROUGHPUT))
    assert choice is not None
    assert choice.name == "default"


def test_finalist_that_breaks_bound_when_measured_again_is_not_recommended(
    study_of: Callable[..., Study],
) -> None:
    study = study_of([10.0, 10.1, 9.9], wide=({"max_num_seqs": 64}, [12.0, 12.1, 11.9]))
    bound = Constraint(metric=RPS, limit=11.0, is_upper=True)
    judged = verdicts.finalists(replace(study, constraints=(bound,)), THROUGHPUT)
    assert judged[0].broken == ("request_throughput_per_s <= 11",)
    choice = verdicts.recommended(judged)
    assert choice is not None
    assert choice.name == "default"
    none_left = replace(study, constraints=(replace(bound, limit=9.0),))
    assert verdicts.sentences(none_left) == [
        "request_throughput_per_s: no finalist keeps every bound when it is measured again."
    ]


def test_report_shows_finalists_and_how_they_were_judged(study_of: Callable[..., Study]) -> None:
    study = study_of([10.0, 10.1, 9.9], wide=({"max_num_seqs": 64}, [12.0, 12.1, 11.9]))
    written = report.text(study, drawn=[])
    assert "## Finalists\n\n### request_throughput_per_s\n\n| setting | overrides |" in written
    assert "| max_num_seqs=64 | 1 | 12.00 | 3 | 1.200 (1." in written
    assert "1 pair can be looked at" in written
    # What was measured again is no setting of its own in the other tables.
    assert "Study: `steps`, 1 trial (1 complete)" in written


def test_study_without_finalists_has_no_such_section(trial: MakeTrial, study_folder: MakeFolder) -> None:
    study = Study.load(study_folder(trial(runs=[[{RPS: 1.0}]])))
    assert verdicts.section(study) == ""
    assert verdicts.sentences(study) == []


def test_difference_within_margin_of_model_settles_nothing() -> None:
    hardly = verdicts.compare([1.0003] * 3, [1.0] * 3, is_higher_better=True, margin=0.02)
    assert hardly.verdict == "inconclusive"
    assert hardly.interval_text == "1.000 (0.981 to 1.020)"
    assert verdicts.compare([1.05] * 3, [1.0] * 3, is_higher_better=True, margin=0.02).verdict == "better"
