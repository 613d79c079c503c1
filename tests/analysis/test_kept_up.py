"""Throughput that the load gave and not the setting: said where settings keep up, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from analysis import kept_up, report
from analysis.study import Study
from sweeper.records import LoadPoint, TrialResult

MakeTrial = Callable[..., TrialResult]
MakeFolder = Callable[..., Path]

PER_GPU = {"metric": "output_throughput_tok_per_s", "direction": "maximize", "per": "gpu"}
REPLAYED = LoadPoint(dataset="timed_trace", num_prompts=3000)


def measured(
    trial: MakeTrial, point: LoadPoint, *completed: tuple[float, float], tokens: float = 200.0
) -> list[TrialResult]:
    """Make settings that completed so many requests a second of a run of 100 s, and drained so long."""
    return [
        trial(
            knobs={"max_num_seqs": 16 * 2**place},
            points=(point,),
            runs=[
                [
                    {
                        "request_throughput_per_s": per_s,
                        "output_throughput_tok_per_s": tokens * per_s,
                        "duration_s": 100.0,
                        "drain_s": drain_s,
                    }
                ]
            ],
        )
        for place, (per_s, drain_s) in enumerate(completed)
    ]


def said(
    study_folder: MakeFolder, trials: list[TrialResult], objective: dict[str, str] = PER_GPU
) -> list[str]:
    return kept_up.lines(Study.load(study_folder(*trials, about={"objectives": [objective]})))


def test_settings_that_keep_up_with_a_log_are_said_to_tell_nothing(
    trial: MakeTrial, study_folder: MakeFolder
) -> None:
    folder = study_folder(
        *measured(trial, REPLAYED, (2.82, 0.5), (2.81, 1.0), (2.1, 35.0)), about={"objectives": [PER_GPU]}
    )
    (line,) = kept_up.lines(Study.load(folder))
    assert line.startswith(
        "output_throughput_tok_per_s: 2 of 3 settings answer all that the load sends, as fast as it comes"
    )
    assert "workload.dataset=trace_lengths" in line
    files = report.write(folder)
    for text in (files.report.read_text(encoding="utf-8"), files.page.read_text(encoding="utf-8")):
        assert "2 of 3 settings answer all that the load sends" in text


def test_rate_that_is_kept_is_the_loads_own_too(trial: MakeTrial, study_folder: MakeFolder) -> None:
    at_rate = LoadPoint(dataset="random", num_prompts=100, request_rate_per_s=4.0)
    assert len(said(study_folder, measured(trial, at_rate, (3.9, 1.0), (3.9, 2.0)))) == 1


def test_settings_that_the_load_overruns_are_told_apart_by_it(
    trial: MakeTrial, study_folder: MakeFolder
) -> None:
    # Nearly equal, but each had a third of the run left to answer when the last request was sent.
    assert said(study_folder, measured(trial, REPLAYED, (2.1, 33.0), (2.1, 33.5))) == []


def test_load_without_a_clock_is_bounded_by_the_settings(trial: MakeTrial, study_folder: MakeFolder) -> None:
    users = LoadPoint(dataset="random", num_prompts=100, max_concurrency=8)
    assert said(study_folder, measured(trial, users, (2.8, 0.5), (2.8, 0.5))) == []


def test_everything_at_once_is_bounded_by_the_settings(trial: MakeTrial, study_folder: MakeFolder) -> None:
    at_once = LoadPoint(dataset="random", num_prompts=100)
    assert said(study_folder, measured(trial, at_once, (2.8, 0.5), (2.8, 0.5))) == []


def test_latency_is_no_number_of_the_load(trial: MakeTrial, study_folder: MakeFolder) -> None:
    slow = {"metric": "duration_s", "direction": "minimize"}
    assert said(study_folder, measured(trial, REPLAYED, (2.8, 0.5), (2.8, 0.5)), slow) == []


def test_objective_without_any_number_does_not_stand_for_the_next(
    trial: MakeTrial, study_folder: MakeFolder
) -> None:
    unmeasured = {"metric": "p99_itl_ms", "direction": "minimize"}
    trials = measured(trial, REPLAYED, (2.82, 0.5), (2.81, 1.0))
    study = Study.load(study_folder(*trials, about={"objectives": [unmeasured, PER_GPU]}))
    (line,) = kept_up.lines(study)
    assert line.startswith("output_throughput_tok_per_s: 2 of 2 settings")
