"""What the person waiting sees."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from sweeper.cli.display import Display, device_label, differing
from sweeper.records import FailureClass, Placement, TrialResult, TrialSpec, TrialState
from sweeper.sweep.outlook import Outlook
from sweeper.trial import stages, trial


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def shown(*, terminal: bool) -> tuple[Display, io.StringIO, Clock]:
    clock, out = Clock(), io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120, highlight=False, no_color=True)
    return Display(console, devices=8, clock=clock), out, clock


def finished(spec: TrialSpec, placement: Placement) -> TrialResult:
    return trial.run(spec, placement, cancelled=lambda: False)


def test_plain_lines_tell_start_end_and_place(simulated_spec: TrialSpec, placement: Placement) -> None:
    display, out, clock = shown(terminal=False)
    with display:
        display.planned(total=3, done=1, refused=0)
        display.started(simulated_spec, placement)
        clock.now = 65.0
        display.finished(finished(simulated_spec, placement), will_retry=False)
    lines = out.getvalue().splitlines()
    assert lines[0] == "plan: 3 trials, 1 already in the store"
    assert lines[1] == "start   tuned  on devices 0-3"
    assert lines[2].startswith("done    [2/3] tuned in 1:05: ")
    assert lines[2].endswith("requests/s (simulated)")


def test_slow_trial_has_a_rate_above_zero(simulated_spec: TrialSpec, placement: Placement) -> None:
    display, out, _ = shown(terminal=False)
    result = finished(simulated_spec, placement)
    measured = result.measurements[0]
    slow = replace(measured, metrics={**measured.metrics, "request_throughput_per_s": 0.00417})
    with display:
        display.finished(replace(result, measurements=(slow,)), will_retry=False)
    assert "0.0042 requests/s" in out.getvalue()


def test_short_answers_are_told_once_for_each_load_point(
    simulated_spec: TrialSpec, placement: Placement
) -> None:
    display, out, _ = shown(terminal=False)
    result = finished(simulated_spec, placement)
    measured = result.measurements[0]
    short = replace(measured, short_answers_because="2 of 4 answers have 7 tokens where 8 were asked for: x")
    with display:
        display.finished(replace(result, measurements=(measured, short, short)), will_retry=False)
    told = [line for line in out.getvalue().splitlines() if line.startswith("short")]
    assert told == [
        f"short   {measured.load_point.label}: 2 of 4 answers have 7 tokens where 8 were asked for: x"
    ]


def test_failure_is_told_with_class_and_line(simulated_spec: TrialSpec, placement: Placement) -> None:
    display, out, _ = shown(terminal=False)
    lost = replace(
        trial.lost(simulated_spec, placement, RuntimeError("gone")),
        failure_class=FailureClass.CRASH,
        failure_message="[rank0] its own line",
    )
    with display:
        display.planned(total=1, done=0, refused=1)
        display.started(simulated_spec, placement)
        display.finished(lost, will_retry=True)
        display.finished(lost, will_retry=False)
    lines = out.getvalue().splitlines()
    assert lines[0] == "plan: 1 trial, 1 cannot run here"
    assert lines[2] == "again   tuned: crash: [rank0] its own line"
    assert lines[3] == "failed  [1/1] tuned: crash: [rank0] its own line"


def test_terminal_shows_devices_running_trials_and_time_left(
    simulated_spec: TrialSpec, placement: Placement
) -> None:
    display, out, clock = shown(terminal=True)
    with display:
        display.planned(total=4, done=0, refused=0)
        display.started(simulated_spec, placement)
        clock.now = 10.0
        display.finished(finished(simulated_spec, placement), will_retry=False)
        display.started(replace(simulated_spec, label="other"), placement)
        display.tick()
    text = out.getvalue()
    assert "running 1" in text
    assert "devices 0-3" in text
    assert "other" in text
    assert "4 of 8 devices idle" in text
    # three of four are left, one at a time, ten seconds each
    assert "about 0:30 left" in text


def test_terminal_shows_stage_best_and_predicted_time_left(
    simulated_spec: TrialSpec, placement: Placement
) -> None:
    display, out, clock = shown(terminal=True)
    with display:
        display.planned(total=4, done=0, refused=0)
        display.started(simulated_spec, placement)
        stages.announce(Path(simulated_spec.folder), "load 2 of 6: 8 QPS")
        display.look_ahead(Outlook(left_s=600.0, leader="steps 15", value=7.1234))
        clock.now = 30.0
        display.tick()
    text = out.getvalue()
    assert "load 2 of 6: 8 QPS" in text
    assert "best so far: steps 15: 7.123" in text
    # Ten minutes were left half a minute ago; nothing has finished yet.
    assert "about 9:30 left" in text


def test_log_has_sign_of_life_every_minute(simulated_spec: TrialSpec, placement: Placement) -> None:
    display, out, clock = shown(terminal=False)
    with display:
        display.planned(total=2, done=0, refused=0)
        display.started(simulated_spec, placement)
        display.look_ahead(Outlook(left_s=150.0, leader=None, value=None))
        for clock.now in (59.0, 60.0, 61.0, 119.0, 120.0, 180.0):
            display.tick()
    lines = [line for line in out.getvalue().splitlines() if line.startswith("running ")]
    assert lines == [
        "running tuned 1:00 (begins); about 1:30 left",
        "running tuned 2:00 (begins); about 0:30 left",
        "running tuned 3:00 (begins); longer than predicted",
    ]


def test_settings_that_search_proposes_in_vain_are_not_counted_and_told_thrice(
    simulated_spec: TrialSpec, placement: Placement
) -> None:
    display, out, _ = shown(terminal=False)
    refused = replace(trial.lost(simulated_spec, placement, RuntimeError("x")), state=TrialState.INFEASIBLE)
    with display:
        display.planned(total=2, done=0, refused=0)
        for tokens in range(10):
            display.finished(
                replace(refused, failure_message=f"{tokens} tokens are too few"), will_retry=False
            )
        display.started(simulated_spec, placement)
        display.finished(finished(simulated_spec, placement), will_retry=False)
    lines = out.getvalue().splitlines()
    assert next(line for line in lines if line.startswith("done")).startswith("done    [1/2] ")
    assert sum(line.startswith("infeasible [") for line in lines) == 3
    assert lines[-1] == "infeasible: 0 tokens are too few (and 9 more like it)"


def test_block_of_devices_is_named() -> None:
    assert device_label(Placement(node="n", devices=(4, 5, 6, 7), parents=(4, 5, 6, 7))) == "devices 4-7"
    assert device_label(Placement(node="n", devices=(3,), parents=(0,))) == "device 3"
    assert device_label(Placement(node="n", devices=(0, 2), parents=(0,))) == "devices 0,2"


def test_running_trials_are_told_apart_by_what_differs() -> None:
    labels = ["max_num_seqs=8 kv_cache_dtype=auto tp=1", "max_num_seqs=64 kv_cache_dtype=auto tp=1"]
    assert differing(labels) == ["max_num_seqs=8", "max_num_seqs=64"]
    assert differing(labels[:1]) == labels[:1]
    assert differing(["default", "no_chunks"]) == ["default", "no_chunks"]
    # A restart of the same setting has nothing that differs.
    assert differing([labels[0], labels[0]]) == [labels[0], labels[0]]
