"""The middle of a run beside the whole of it: what is said, and when nothing is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from analysis import report, steadiness
from analysis.study import Study
from sweeper.records import LoadPoint, TrialResult

MakeTrial = Callable[..., TrialResult]
MakeFolder = Callable[..., Path]

WHOLE = {
    "request_throughput_per_s": 10.0,
    "output_throughput_tok_per_s": 1000.0,
    "mean_ttft_ms": 200.0,
    "std_ttft_ms": 100.0,
    "mean_tpot_ms": 20.0,
    "std_tpot_ms": 1.0,
    "completed": 1000.0,
}
"""1000 requests in 100 s."""

MIDDLE = {
    "ramp_s": 6.0,
    "steady_s": 80.0,
    "drain_s": 14.0,
    "steady_drifts": 0.0,
    **{f"steady_{name}": value for name, value in WHOLE.items() if name[:3] != "std" and name != "completed"},
}
"""A middle of 80 s in which everything is as in the whole: 800 requests."""

AT_ONCE = LoadPoint(dataset="random", num_prompts=1000, input_len=64, output_len=32)
USERS = LoadPoint(dataset="random", num_prompts=1000, input_len=64, output_len=32, max_concurrency=16)


@pytest.fixture
def study_of(trial: MakeTrial, study_folder: MakeFolder) -> Callable[..., Study]:
    """Store one run of 16 users, or of another load, with a middle."""

    def make(
        middle: Mapping[str, float | None], *, point: LoadPoint = USERS, starts: tuple[float, ...] = (1.0,)
    ) -> Study:
        # Another start is so many times as fast; its middle is, too.
        runs = [[{**WHOLE, "output_throughput_tok_per_s": factor * 1000.0}] for factor in starts]
        return Study.load(
            study_folder(trial(points=(point,), runs=runs, telemetry_at=lambda _: {**MIDDLE, **middle}))
        )

    return make


def test_nothing_is_said_where_middle_is_as_the_whole(study_of: Callable[..., Study]) -> None:
    assert steadiness.section(study_of({})) == ""


def test_nothing_is_said_where_times_of_requests_are_not_known(
    trial: MakeTrial, study_folder: MakeFolder
) -> None:
    assert steadiness.section(Study.load(study_folder(trial(runs=[[WHOLE]])))) == ""


def test_difference_beyond_noise_is_told_with_both_numbers(study_of: Callable[..., Study]) -> None:
    written = steadiness.section(study_of({"steady_output_throughput_tok_per_s": 1200.0}))

    expected = "In 1 of 1 pair of setting and load point the steady part of the run differs from the whole"
    assert expected in written
    assert "20 % of the runs was ramp and drain" in written
    assert "| output tokens per second | 1,000 | 1,200 | +20.0 % |" in written


@pytest.mark.parametrize(
    ("column", "value"),
    [
        # 800 of 1000 requests: a count scatters by 1.96 * sqrt(1/800 - 1/1000) = 3.1 %.
        ("steady_request_throughput_per_s", 10.25),
        # TTFT spreads by half of its mean, so by half as much, 1.5 %, and TPOT by a twentieth: below 2 %
        # nothing is called a change.
        ("steady_mean_ttft_ms", 203.5),
        ("steady_mean_tpot_ms", 20.35),
    ],
)
def test_noise_is_that_of_so_many_requests(study_of: Callable[..., Study], column: str, value: float) -> None:
    assert steadiness.steadiness(study_of({column: value})).differing.empty


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("steady_request_throughput_per_s", 10.35),
        ("steady_mean_ttft_ms", 205.0),
        ("steady_mean_tpot_ms", 20.45),
    ],
)
def test_more_than_noise_is_a_difference(study_of: Callable[..., Study], column: str, value: float) -> None:
    (share,) = steadiness.steadiness(study_of({column: value})).differing["difference"]
    assert share == pytest.approx(value / WHOLE[column.removeprefix("steady_")] - 1)


def test_several_starts_show_their_own_noise(study_of: Callable[..., Study]) -> None:
    # Middle over whole of 1000 / 800 and 1000 / 1250: 1.25 and 0.8, an interval far beyond 1.
    assert steadiness.steadiness(study_of({}, starts=(0.8, 1.25))).differing.empty


def test_run_that_is_too_short_says_what_to_do(study_of: Callable[..., Study]) -> None:
    none = {name: None for name in MIDDLE if name.startswith("steady_")}

    written = steadiness.section(study_of(none))

    assert "At " in written and "(once) the run was too short to tell its steady part" in written
    assert "`workload.prompts_per_user`" in written


def test_middle_that_drifts_is_not_compared(study_of: Callable[..., Study]) -> None:
    drifting = study_of({"steady_drifts": 1.0, "steady_output_throughput_tok_per_s": 2000.0})

    found, written = steadiness.steadiness(drifting), steadiness.section(drifting)

    assert found.differing.empty and len(found.drifting) == 1
    assert "latencies still moved" in written and "2,000" not in written


def test_load_that_is_sent_at_once_has_no_middle_to_miss(study_of: Callable[..., Study]) -> None:
    none = {name: None for name in MIDDLE if name.startswith("steady_")}

    assert steadiness.section(study_of(none, point=AT_ONCE)) == ""
    wide = LoadPoint(dataset="random", num_prompts=16, input_len=64, output_len=32, max_concurrency=16)
    assert steadiness.section(study_of(none, point=wide)) == ""


def test_report_has_section(study_of: Callable[..., Study]) -> None:
    study = study_of({"steady_mean_ttft_ms": 100.0})

    written = report.write(study.folder).report.read_text(encoding="utf-8")

    assert "## Steady state\n\nIn 1 of 1 pair of setting" in written
    assert "| mean TTFT (ms) | 200 | 100 | -50.0 % |" in written
